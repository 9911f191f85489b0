"""A run of the reference pair leaves ordinary checkpoints, trained as its condition says."""

import msgspec
import pytest
import small_training as small
import torch

from mirror_analysis.alignment.linear import LinearAlignment
from mirror_analysis.models import load_model
from mirror_analysis.study.training_effects import reference_pair
from mirror_analysis.study.training_effects.reference_pair import (
    joint_config,
    train_reference_pair,
)
from mirror_analysis.study.training_effects.runs import FILES, MAPS, Run, RunJob, TrainedAs

DEFINITION = small.definition(training={"epochs": 1})
GIVEN = small.given().demonstrations


def job(condition, folder, seed=0):
    settings = TrainedAs(DEFINITION.trained_as(condition), seed, "A", "B", GIVEN.fingerprint)
    folder.mkdir()
    return RunJob(Run(condition, seed), settings, GIVEN, folder, "cpu")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("trained")
    names = ("independent", "instruction", "noise")
    return out, {name: train_reference_pair(job(name, out / name)) for name in names}


def weights(out, name, file):
    return load_model(out / name / file).module.state_dict()


def test_checkpoints_and_maps_are_ordinary_files(trained):
    out, curves = trained
    for name, curve in curves.items():
        roles = [load_model(out / name / file).role for file in FILES]
        assert roles == ["observation", "execution"]
        assert (out / name / MAPS).is_file() == (name != "noise")
        assert {p.suffix for p in (out / name).iterdir()} == {".safetensors"}
        assert not (out / name / "state.safetensors").exists()
        assert curve["update"] == [2.0] and len(curve["alignment"]) == 1
    maps = LinearAlignment.load(out / "instruction" / MAPS)
    assert maps.x_weight.shape == (128, 16) and maps.curve.chosen == 2
    assert load_model(out / "noise" / FILES[0]).instructions == tuple(
        sorted({e.instruction for e in GIVEN})
    )


def test_conditions_differ_and_seeds_start_alike(trained, tmp_path):
    out, _ = trained
    apart, aligned = (weights(out, name, FILES[0]) for name in ("independent", "instruction"))
    assert any(not torch.equal(apart[key], aligned[key]) for key in apart)
    again = job("independent", tmp_path / "again")
    train_reference_pair(again)
    same = weights(tmp_path, "again", FILES[0])
    assert all(torch.equal(apart[key], same[key]) for key in apart)
    train_reference_pair(job("independent", tmp_path / "other", seed=1))
    other = weights(tmp_path, "other", FILES[0])
    assert any(not torch.equal(apart[key], other[key]) for key in apart)


def test_first_weights_are_those_of_the_seed(tmp_path, monkeypatch):
    seen = {}

    class Stop(Exception):
        pass

    def look(observation, execution, labels, *, config, folder):
        learners = observation, execution
        seen[folder.name] = [p.clone() for one in learners for p in one.network.parameters()]
        assert set(labels["instruction"]) == {e.instruction for e in GIVEN}
        raise Stop

    monkeypatch.setattr(reference_pair, "train_jointly", look)
    for name, condition, seed in (("a", "independent", 0), ("b", "noise", 0), ("c", "noise", 1)):
        with pytest.raises(Stop):
            train_reference_pair(job(condition, tmp_path / name, seed))
    assert all(torch.equal(a, b) for a, b in zip(seen["a"], seen["b"], strict=True))
    half = len(list(small.world.observation().module.parameters()))
    for part in (slice(half), slice(half, None)):  # of either model
        pairs = zip(seen["b"][part], seen["c"][part], strict=True)
        assert not all(torch.equal(b, c) for b, c in pairs)


@pytest.mark.parametrize("name", ["independent", "task", "shuffled", "noise"])
def test_settings_are_those_of_the_condition(tmp_path, name):
    settings = job(name, tmp_path / "run", seed=3).settings
    config = joint_config(settings, "cpu")
    table = msgspec.to_builtins(settings.training)
    assert (config.seed, config.device) == (3, "cpu")
    for key, value in msgspec.to_builtins(config).items():
        if key not in ("seed", "device"):
            assert (list(value) if isinstance(value, tuple) else value) == table[key], key

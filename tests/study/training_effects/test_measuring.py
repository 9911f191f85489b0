"""What is read off a trained pair is what the package's own functions say of it."""

import shutil

import msgspec
import numpy as np
import pytest
import small_training as small
import torch

from mirror_analysis.alignment.linear import AlignmentConfig, Curve, LinearAlignment
from mirror_analysis.alignment.scoring import RetrievalConfig, score_alignments
from mirror_analysis.episodes import apply_nuisance
from mirror_analysis.errors import FormatError, UnknownNameError
from mirror_analysis.extraction import extract
from mirror_analysis.features import pair
from mirror_analysis.models import load_model
from mirror_analysis.recognition import recognise
from mirror_analysis.results import select
from mirror_analysis.similarity.cka import linear_cka
from mirror_analysis.study.training_effects import measuring
from mirror_analysis.study.training_effects.measuring import measure_all, nuisance_of
from mirror_analysis.study.training_effects.runs import FILES, MAPS, Run, train_all

DEFINITION = small.two(models={"seeds": [0]}, evaluation={"measures": ["linear_cka"]})
GIVEN = small.given()
RUN = Run("instruction", 0)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Runs of random weights, one of them with maps."""
    out = tmp_path_factory.mktemp("trained")
    train_all(DEFINITION, GIVEN.demonstrations, out, train=small.train_randomly, workers=1,
              device="cpu", progress=lambda *steps: None)  # fmt: skip
    torch.manual_seed(0)
    maps = [torch.randn(128, 16), torch.randn(16), torch.randn(128, 16), torch.randn(16)]
    LinearAlignment(*maps, config=AlignmentConfig(width=16), curve=Curve([1], [1.0], [], 1)).save(
        RUN.folder(out) / MAPS
    )
    return out


def measured(definition, out, runs=(RUN,), told=None):
    told = [] if told is None else told
    return measure_all(list(runs), GIVEN.episodes, definition, out, workers=1, device="cpu",
                       progress=lambda *steps: told.append(steps))  # fmt: skip


@pytest.fixture(scope="module")
def part(trained):
    return measured(DEFINITION, trained)[RUN]


def models(out):
    return [load_model(RUN.folder(out) / name) for name in FILES]


def views(name):
    if name == "plain":
        return GIVEN.episodes
    return apply_nuisance(GIVEN.episodes, nuisance_of(DEFINITION))


def one(part, **fields):
    (found,) = [r for r in part.readings if select([r.score], **fields)]
    return found


@pytest.mark.parametrize("name", ["plain", "nuisance"])
def test_recognition_is_that_of_recognise(part, trained, name):
    test = views(name).where(split="test")
    for expected in recognise(models(trained)[0], test, condition=name):
        task = None if expected.y == "all tasks" else expected.y
        found = one(part, measure="instruction_accuracy", condition=name, task=task)
        assert (found.score.value, found.score.n) == (expected.value, expected.n)
        assert len(found.replicates) == 4
    whole = one(part, measure="instruction_accuracy", condition=name, task=None).score
    assert whole.null.mean == 0.25 and whole.parameters == {"classes": 4}


@pytest.fixture(scope="module")
def test_rows(trained):
    watcher, actor = models(trained)
    seen = extract(watcher, GIVEN.episodes, layers=["penultimate"])
    acted = extract(actor, GIVEN.episodes, layers=["vision"])
    data = pair(seen, acted)
    return data.take(data.index.label("split") == "test")


def test_similarity_is_that_of_the_declared_layers(part, test_rows):
    x, y = (torch.from_numpy(side).double() for side in
            (test_rows.x["penultimate"], test_rows.y["vision"]))  # fmt: skip
    over_all = one(part, measure="linear_cka", condition="plain", within="")
    assert over_all.score.value == pytest.approx(linear_cka(x, y), abs=1e-5)
    task = test_rows.index.label("task")
    for values in (x, y):
        for name in np.unique(task):
            values[task == name] -= values[task == name].mean(dim=0)
    within = one(part, measure="linear_cka", condition="plain", within="task")
    assert within.score.value == pytest.approx(linear_cka(x, y), abs=1e-5)
    assert (over_all.score.x_layer, over_all.score.y_layer) == ("penultimate", "vision")
    assert over_all.score.null.scheme == "episodes"
    assert within.score.null.scheme == "episodes within task"
    assert over_all.score.null.draws == 19 and len(over_all.replicates) == 4


@pytest.mark.parametrize("within", [None, "task"])
def test_the_maps_of_training_are_judged_as_they_are(part, trained, test_rows, within):
    aligned = LinearAlignment.load(RUN.folder(trained) / MAPS)
    expected = score_alignments(
        [aligned], test_rows, layers=("penultimate", "vision"),
        config=RetrievalConfig(recall=(1, 5), gallery=8, draws=19, folds=4), within=within,
    )  # fmt: skip
    for score in expected.scores:
        found = one(part, measure=score.measure, condition="plain", within=within or "",
                    maps="trained with the models")  # fmt: skip
        assert found.score.value == score.value and found.score.interval == score.interval
        assert found.score.parameters == {**score.parameters, "maps": "trained with the models"}


def test_alignments_are_fitted_anew_in_every_view(part):
    found = [r.score for r in part.readings
             if r.score.parameters.get("maps") == "fitted on frozen features"]  # fmt: skip
    assert {(s.measure, s.condition, s.within) for s in found} == {
        (measure, view, within)
        for view in ("plain", "nuisance")
        for measure, within in (("recall_at_1", ""), ("recall_at_5", ""), ("infonce", ""),
                                ("recall_at_1", "task"), ("recall_at_5", "task"))
    }  # fmt: skip
    assert all(s.n == 12 for s in found)


def test_other_looks_are_recognised_and_probed(trained):
    section = {"target": "instruction", "shots": [1], "transfer": True, "held_out": "",
               "looks": ["table-dark"]}  # fmt: skip
    definition = small.two(models={"seeds": [0]}, evaluation={"measures": ["linear_cka"]},
                           generalisation=section)  # fmt: skip
    dark = apply_nuisance(GIVEN.episodes.where(split="test"), nuisance_of(DEFINITION))
    (found,) = measure_all(
        [RUN], GIVEN.episodes, definition, trained, looks={"table-dark": dark}, workers=1,
        device="cpu", progress=lambda *steps: None,
    ).values()  # fmt: skip
    (expected,) = (s for s in recognise(models(trained)[0], dark) if s.y == "all tasks")
    own = one(found, measure="instruction_accuracy", condition="table-dark", task=None)
    assert own.score.value == expected.value
    assert {r.score.parameters["model"] for r in found.readings
            if r.score.condition == "table-dark" and r is not own and "model" in r.score.parameters
            } == {"observation", "execution"}  # fmt: skip
    views = {r.score.condition for r in found.readings if "shots" in r.score.parameters}
    assert views == {"plain", "nuisance"}
    # Another drawing of the same episodes is measured anew.
    assert measured(definition, trained)[RUN] != found


def test_without_maps_of_training_there_are_none(trained):
    other = Run("shuffled", 0)
    found = measured(DEFINITION, trained, [other])[other].readings
    assert {r.score.parameters.get("maps") for r in found} == {None, "fitted on frozen features"}


def test_what_is_kept_is_not_measured_again(part, trained, monkeypatch):
    monkeypatch.setattr(measuring, "measure", lambda job: pytest.fail("measured again"))
    told = []
    assert measured(DEFINITION, trained, told=told)[RUN] == part
    assert told == [(1, 1)]
    # Who is rolled out and whom findings are about is no part of what is measured.
    acting = small.two(models={"seeds": [0]},
                       evaluation={"measures": ["linear_cka"], "rollouts": 7})  # fmt: skip
    assert measured(acting, trained)[RUN] == part


def test_other_weights_settings_or_a_damaged_part_are_measured_again(part, trained, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(trained, out)
    (file,) = [f for f in (out / "parts").iterdir()
               if msgspec.msgpack.decode(f.read_bytes(), type=measuring.Part) == part]  # fmt: skip
    file.write_bytes(file.read_bytes()[:40])
    assert measured(DEFINITION, out)[RUN] == part
    (RUN.folder(out) / MAPS).unlink()
    fewer = measured(DEFINITION, out)[RUN]
    assert 0 < len(fewer.readings) < len(part.readings)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ("swap", FormatError, r"observation\.safetensors is no observation model of the reference"),
        ("layer", UnknownNameError, "unknown layer of observation 'penultimat'; did you mean 'pen"),
        ("episodes", UnknownNameError, "unknown instruction of observation 'lift the square on"),
    ],
)
def test_what_does_not_fit_is_told(trained, tmp_path, change, error, message):
    out, definition, episodes = tmp_path / "out", DEFINITION, GIVEN.episodes
    shutil.copytree(trained / "runs", out / "runs")
    if change == "swap":
        shutil.copy(RUN.folder(out) / FILES[1], RUN.folder(out) / FILES[0])
    elif change == "layer":
        definition = small.two(models={"seeds": [0], "x_layer": "penultimat"})
    else:
        episodes = small.world.episodes(tasks=("lift",), fit=8, fit_failures=0, test_failures=0)
    with pytest.raises(error, match=message):
        measure_all([RUN], episodes, definition, out, workers=1, device="cpu",
                    progress=lambda *steps: None)  # fmt: skip

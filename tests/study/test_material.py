"""What a study measures: extracted once, and never one model's features for another's."""

from dataclasses import replace

import numpy as np
import pytest
import small_study as here
import tiny_world as world
import torch

from mirror_analysis import controls
from mirror_analysis.episodes import Episodes
from mirror_analysis.errors import UnknownNameError
from mirror_analysis.extraction import extract
from mirror_analysis.models.model import ExecutionModel, Input, LayerInfo
from mirror_analysis.study.contrasts import contrasts
from mirror_analysis.study.material import Material, require_layer

FEW = 2  # of each kind of episode


@pytest.fixture(scope="module")
def few() -> Episodes:
    return world.episodes(fit=FEW, test=FEW, fit_failures=0, test_failures=1)


@pytest.fixture
def stuff(few, tmp_path) -> Material:
    return here.material(few, tmp_path / "features")


def values(layers, layer):
    return layers[layer].values


def test_trained_features_are_those_of_the_model(stuff, few):
    direct = extract(world.execution(), few)
    found = stuff.layers("y", "trained", "plain", 0, 0)
    assert list(found) == list(direct)
    np.testing.assert_array_equal(values(found, "vision"), values(direct, "vision"))
    other = stuff.layers("y", "trained", "plain", 1, 0)
    assert not np.array_equal(values(found, "vision"), values(other, "vision"))


def test_two_models_of_one_name_keep_their_own_features(few, tmp_path):
    files = {"x": world.observation(0, "model"), "y": world.observation(1, "model")}
    stuff = here.material(few, tmp_path)
    stuff.model = lambda side, seed: files[side]
    x, y = (stuff.layers(side, "trained", "plain", 0, 0) for side in "xy")
    assert not np.array_equal(values(x, "penultimate"), values(y, "penultimate"))
    np.testing.assert_array_equal(
        values(y, "penultimate"), values(extract(files["y"], few), "penultimate")
    )


def test_a_model_named_like_a_control_is_not_taken_for_it(few, tmp_path):
    stuff = here.material(few, tmp_path)
    stuff.model = lambda side, seed: world.observation(0, "time")
    assert list(stuff.layers("y", "time", "plain", 0, 0)) == ["time"]
    assert "penultimate" in stuff.layers("x", "trained", "plain", 0, 0)


def test_twins_differ_between_sides_seeds_and_draws_and_come_back(stuff):
    both = lambda side, seed: world.observation(0)  # noqa: E731
    stuff.model = both
    asked = [(side, seed, draw) for side in "xy" for seed in (0, 1) for draw in (0, 1)]
    twins = {
        key: stuff.layers(key[0], "untrained", "plain", key[1], key[2])["penultimate"].values
        for key in asked
    }
    for i, one in enumerate(asked):
        for other in asked[:i]:
            assert not np.allclose(twins[one], twins[other]), (one, other)
    again = stuff.layers("y", "untrained", "plain", 1, 1)["penultimate"].values
    assert again is twins["y", 1, 1]


def test_each_side_has_the_pixels_of_its_own_camera(stuff, few):
    x, y = (stuff.layers(side, "pixels", "plain", 0, 0) for side in "xy")
    np.testing.assert_array_equal(
        values(x, "pixels A"), values(controls.pixels(few, "A"), "pixels A")
    )
    assert list(y) == ["pixels B"]


def test_nuisance_disturbs_what_is_seen_and_nothing_else(stuff):
    for source in ("trained", "untrained", "pixels"):
        plain, disturbed = (
            next(iter(stuff.layers("x", source, condition, 0, 0).values())).values
            for condition in ("plain", "nuisance")
        )
        assert not np.allclose(plain, disturbed), source
    for source in ("state", "proprioception", "time", "task identity"):
        plain, disturbed = (
            next(iter(stuff.layers("y", source, condition, 0, 0).values())).values
            for condition in ("plain", "nuisance")
        )
        np.testing.assert_array_equal(plain, disturbed, source)


def test_rows_of_both_sides_are_matched_in_every_contrast(stuff, few):
    ids = [episode.id for episode in few]
    for contrast in contrasts():
        assert stuff.pair(contrast, "plain", 0, 0).index.episode.tolist() == ids


def test_what_is_stored_is_not_computed_again(few, tmp_path):
    told = []

    def made():
        return Material(
            few,
            world.model,
            nuisance=here.nuisance_of(world.definition()),
            store=tmp_path,
            device="cpu",
            progress=lambda *words: told.append(words),
        )

    made().layers("x", "trained", "plain", 0, 0)
    count = len(few)
    assert told[0] == ("extracting watcher-s0 (plain views)", 0, count)
    assert told[-1] == ("extracting watcher-s0 (plain views)", count, count)
    told.clear()
    second = made()
    second.layers("x", "trained", "plain", 0, 0)
    second.layers("x", "trained", "plain", 0, 0)
    assert told == [("extracting watcher-s0 (plain views)", count, count)]


def test_sources_that_episodes_cannot_give(few, tmp_path):
    def has(width, model=world.observation):
        chosen = [replace(e, states=e.states[:, : width(i)].copy()) for i, e in enumerate(few)]
        stuff = here.material(Episodes(chosen), tmp_path)
        stuff.model = lambda side, seed: model() if side == "y" else world.observation()
        found = {c.y for c in contrasts() if stuff.has(c.y, "y", 0)}
        assert {"trained", "untrained", "pixels", "time", "task identity"} <= found
        return found & {"state", "proprioception"}

    assert has(lambda i: 39, world.execution) == {"state", "proprioception"}
    # What Meta-World's hand feels is nothing to other models, however wide their states.
    assert has(lambda i: 39) == has(lambda i: 7) == {"state"}
    assert has(lambda i: 0) == set()
    assert has(lambda i: 5 + i % 2) == set()


class Blind(ExecutionModel):
    """Acts from states alone."""

    def __init__(self, name: str = "blind", seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.name, self.needs = name, (Input("states", 39),)
        self.module = torch.nn.Sequential(torch.nn.Linear(39, 5), torch.nn.Tanh())

    def layers(self):
        return [LayerInfo("hidden", 5, "episode time channel")]

    def taps(self):
        return {"hidden": self.module}

    def forward_batch(self, episodes):
        return self.module(torch.from_numpy(np.stack([e.stream("states") for e in episodes])))

    def act(self, now):
        raise NotImplementedError

    def untrained(self, seed):
        return Blind(f"{self.name}-untrained{seed}", seed + 1)


def test_a_model_without_a_camera_is_held_against_what_it_is_given(few, tmp_path):
    stuff = here.material(few, tmp_path)
    stuff.model = lambda side, seed: Blind() if side == "y" else world.observation()
    keys = [c.key for c in stuff.contrasts(0)]
    assert {"trained-input", "pixels-trained", "pixels-input"} <= set(keys)
    assert not {"trained-pixels", "pixels-pixels", "trained-state"} & set(keys)
    assert stuff.cameras("x", 0) == ("A",) and stuff.cameras("y", 0) == ()
    (given,) = stuff.layers("y", "input", "plain", 0, 0).values()
    expected = np.stack([episode.states.mean(axis=0) for episode in few])
    np.testing.assert_allclose(given.values, expected, rtol=1e-6)


def test_two_models_that_are_given_the_same_have_no_control_of_it(few, tmp_path):
    stuff = here.material(few, tmp_path)
    stuff.model = lambda side, seed: Blind()
    keys = {c.key for c in stuff.contrasts(0)}
    assert "input-input" not in keys and {"trained-input", "input-trained"} <= keys


def test_streams_are_mapped_for_each_side(few, tmp_path):
    stuff = here.material(few, tmp_path)
    stuff._given = {"x": {"camera:A": "camera:B"}}
    assert stuff.streams("x", 0) == {"camera:A": "camera:B"}
    assert stuff.cameras("x", 0) == ("B",) == stuff.cameras("y", 0)
    (pixels,) = stuff.layers("x", "pixels", "plain", 0, 0).values()
    assert pixels.key.checkpoint == "pixels B"
    found = stuff.layers("x", "trained", "plain", 0, 0)
    direct = extract(world.observation(), few, streams={"camera:A": "camera:B"})
    np.testing.assert_array_equal(values(found, "penultimate"), values(direct, "penultimate"))


def test_says_what_is_wrong():
    model = world.observation()
    require_layer(model, "conv4")
    with pytest.raises(UnknownNameError, match="unknown layer of watcher-s0 'conv5'; did you mean"):
        require_layer(model, "conv5")

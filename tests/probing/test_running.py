"""Definitions of the catalogue as settings, and what they ask of rows."""

import msgspec
import numpy as np
import pytest
import tiny_world as world

from mirror_analysis import catalog
from mirror_analysis.definitions import ProbeDefinition
from mirror_analysis.errors import DegenerateError, StreamError, UnknownNameError
from mirror_analysis.extraction import extract
from mirror_analysis.features import Paired, Split
from mirror_analysis.probing import Probe, row_index, run_definition, settings_of

SIDE = ProbeDefinition(
    "side", "Which side.", "instruction", "classification", "all", "episode", "logistic", 3
)
HEIGHT = msgspec.structs.replace(
    SIDE, name="height", target=["object_x", "object_y"], kind="regression", estimator="ridge",
    level="step",
)  # fmt: skip


@pytest.fixture(scope="module")
def episodes():
    return world.episodes(fit=8, test=0, fit_failures=0, test_failures=0)


@pytest.fixture(scope="module")
def features(episodes):
    return extract(world.observation(), episodes)


def test_every_shipped_definition_gives_settings():
    shipped = catalog.definitions("probes")
    assert {"contact", "goal-side", "instruction", "next-action", "object-position", "phase",
            "success", "task"} <= set(shipped)  # fmt: skip
    for definition in shipped.values():
        settings = settings_of(definition)
        assert (settings.estimator, settings.held_out) == (
            definition.estimator, definition.held_out,
        )  # fmt: skip
    assert settings_of(shipped["goal-side"]).within == "task"
    grids = msgspec.structs.replace(SIDE, strengths=[0.5])
    assert settings_of(grids).penalties("logistic") == (0.5,)
    near = msgspec.structs.replace(SIDE, estimator="knn", neighbours=[3])
    assert settings_of(near).neighbours == (3,)


def test_layers_of_the_definition_are_decoded(features):
    chosen = msgspec.structs.replace(SIDE, layers=["penultimate", "conv2"])
    settings = Probe(folds=3, draws=19, strengths=(0.1,))
    found = run_definition(chosen, features, settings=settings)
    assert [s.x_layer for s in found.scores] == ["penultimate", "conv2"]
    every = run_definition(SIDE, features, settings=settings)
    assert [s.x_layer for s in every.scores] == list(features)
    with pytest.raises(UnknownNameError, match=r"^unknown layer 'conv9'; did you mean"):
        run_definition(msgspec.structs.replace(SIDE, layers=["conv9"]), features)


def test_a_split_may_be_run(features):
    values = {n: f.values for n, f in features.items()}
    rows = Paired(values, {}, features["conv1"].index)
    parts = Split(*(rows.take(p) for p in (np.arange(8), np.arange(8, 12), np.arange(12, 16))))
    found = run_definition(SIDE, parts, settings=Probe(draws=19, strengths=(0.1,)))
    assert found.scores[0].n == 4


def test_rows_of_another_level_are_refused(features):
    with pytest.raises(
        DegenerateError,
        match=r"^probe 'height' needs several rows per episode, but 16 rows are of 16 episodes;"
        r" extract with pooling 'steps'$",
    ):
        run_definition(HEIGHT, features)


def test_rows_of_steps_carry_labels_of_steps(episodes):
    index = row_index(HEIGHT, episodes)
    assert len(index) == 16 * world.TIME
    assert {"object_x", "action_0", "instruction"} <= set(index.labels)
    assert len(row_index(SIDE, episodes)) == 16
    contact = msgspec.structs.replace(
        HEIGHT, target="contact", kind="classification", estimator="logistic"
    )
    with pytest.raises(StreamError):
        row_index(contact, episodes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"estimator": "ridge"}, "estimator 'ridge' does not do classification"),
        ({"target": ["a", "b"]}, "a class is one label"),
        ({"estimator": "knn", "strengths": [1.0]}, "estimator 'knn' has no strengths"),
        ({"neighbours": [3]}, "estimator 'logistic' has no neighbours"),
        ({"level": "frame"}, "Invalid enum value 'frame'"),
        ({"within": 3}, "Expected `str`"),
    ],
    ids=["estimator", "target", "strengths", "neighbours", "level", "within"],
)
def test_definitions_that_contradict_themselves(changes, words):
    with pytest.raises(msgspec.ValidationError, match=words):
        msgspec.convert({**msgspec.to_builtins(SIDE), **changes}, ProbeDefinition)

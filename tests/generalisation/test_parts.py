import numpy as np
import pytest

from mirror_analysis.errors import DegenerateError, ShapeError, UnknownNameError
from mirror_analysis.generalisation.parts import Parts, Rows, parts_of


def test_one_layer_of_one_side(world):
    w = world(tasks=2)
    data = w.split(lambda p: w.noise(p, 3), lambda p: w.noise(p, 5))
    parts = parts_of(data, "y", "l")
    assert parts.test.values is data.test.y["l"] and parts.fit.index is data.fit.index
    assert parts_of(data, "x", "l").validation.values is data.validation.x["l"]
    with pytest.raises(UnknownNameError, match=r"unknown layer of x 'k'.*known: l"):
        parts_of(data, "x", "k")


def test_labelled_are_fit_and_validation_in_that_order(world):
    w = world(tasks=2, sizes=(3, 2, 1))
    parts = w.parts(lambda p: w.noise(p, 3))
    both = parts.labelled
    assert np.array_equal(both.values, np.concatenate([parts.fit.values, parts.validation.values]))
    assert both.index.episode.tolist() == [
        *parts.fit.index.episode.tolist(), *parts.validation.index.episode.tolist(),
    ]  # fmt: skip
    assert both.index.label("task").tolist() == [
        *parts.fit.index.label("task").tolist(), *parts.validation.index.label("task").tolist(),
    ]  # fmt: skip


def test_parts_that_share_an_episode_are_refused(world):
    w = world(tasks=2)
    parts = w.parts(lambda p: w.noise(p, 3))
    with pytest.raises(DegenerateError, match=r"40 episodes are in fit and in test, first f0000;"):
        Parts(parts.fit, parts.validation, parts.fit)


def test_rows_that_do_not_fit_are_refused(world, index):
    w = world(tasks=2)
    parts = w.parts(lambda p: w.noise(p, 3))
    narrow = Rows(parts.test.values[:, :2], parts.test.index)
    with pytest.raises(ShapeError, match=r"3 features in fit, 3 features in validation, 2 feat"):
        Parts(parts.fit, parts.validation, narrow)
    with pytest.raises(ShapeError, match=r"values have shape \(4, 2\) and 3 labels"):
        Rows(np.zeros((4, 2)), index(3))
    with pytest.raises(DegenerateError, match="3 rows of features are empty or hold NaN"):
        Rows(np.full((3, 2), np.nan), index(3))
    with pytest.raises(DegenerateError, match="0 rows of features are empty"):
        Rows(np.zeros((0, 2)), index(0))

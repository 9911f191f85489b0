"""A measure that calls unrelated pairs related too often is caught."""

from dataclasses import dataclass

import numpy as np
import pytest

from mirror_analysis.audit.rejection import largest, rejected, steps_exchanged
from mirror_analysis.audit.unrelated import UNRELATED
from mirror_analysis.similarity.cka import LinearCKA


@dataclass(frozen=True)
class Boastful(LinearCKA):
    """Its null is too narrow, so its values stand out."""

    def null(self, x, y, permutations):
        return super().null(x, y, permutations) * 0.4


@dataclass(frozen=True)
class Timid(LinearCKA):
    """Its null is too wide."""

    def null(self, x, y, permutations):
        return super().null(x, y, permutations) * 1.5


@pytest.mark.parametrize("situation", ["gaussian", "wide", "grouped", "episodes", "shifted"])
def test_an_honest_null_is_inside_the_band(situation):
    (check,) = rejected(situation, "linear_cka", 200, 1)
    assert check.passed, check
    assert check.low == pytest.approx(0.015) and check.high == pytest.approx(0.095)


def test_a_null_that_is_too_narrow_or_too_wide_is_a_miss():
    (check,) = rejected("gaussian", Boastful(), 200, 0)
    assert check.passed is False and check.measured > check.high
    assert "a first 200 gave" in check.note
    (check,) = rejected("gaussian", Timid(), 400, 0)
    assert check.passed is False and check.measured < check.low


def test_a_discrete_measure_may_reject_too_seldom_but_never_too_often():
    (check,) = rejected("gaussian", "mutual_knn", 100, 0)
    assert check.low is None and check.high == pytest.approx(0.11)


def test_exact_moments_are_held_to_the_same():
    (check,) = rejected("gaussian", "linear_cka", 40, 0, 120)
    assert check.passed and check.name == "linear_cka, gaussian, exact moments, n = 120"


def test_the_largest_cell_is_corrected_for():
    (check,) = largest("linear_cka", 40, 0)
    assert check.passed
    assert float(check.note.split()[-1]) > check.high
    (check,) = largest(Boastful(), 20, 0)
    assert check.passed is False


def test_steps_taken_for_independent_reject_far_too_often():
    (check,) = steps_exchanged("linear_cka", 40, 0)
    assert check.passed is None and check.measured > 0.5


@pytest.mark.parametrize("situation", UNRELATED)
def test_sides_are_unrelated_once_what_is_shared_is_allowed_for(situation):
    drawn = UNRELATED[situation](np.random.default_rng(0), 3)
    assert len(drawn.y) == 3 and len({id(y) for y in drawn.y}) == 3
    rows = len(drawn.x)
    assert all(len(y) == rows for y in drawn.y)
    for labels in ("units", "within"):
        assert labels not in drawn.options or len(drawn.options[labels]) == rows
    again = UNRELATED[situation](np.random.default_rng(0), 3)
    assert np.array_equal(drawn.x, again.x)


def test_situations_are_what_they_are_called():
    rng = np.random.default_rng(0)
    wide = UNRELATED["wide"](rng, 1)
    assert wide.x.shape[1] > len(wide.x)
    flat = np.linalg.svd(UNRELATED["flat"](rng, 1).x, compute_uv=False)
    assert np.square(flat[:2]).sum() > 0.99 * np.square(flat).sum() and flat[2] > 0
    grouped = UNRELATED["grouped"](rng, 1)
    means = np.stack([grouped.x[grouped.options["within"] == g].mean(axis=0) for g in range(4)])
    assert means.std() > 2
    steps = UNRELATED["steps"](rng, 1).x.reshape(24, 4, -1)
    assert np.corrcoef(steps[:, 0].ravel(), steps[:, 1].ravel())[0, 1] > 0.8

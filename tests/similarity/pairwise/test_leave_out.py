from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import oracles_pairs
import pytest
import torch

from mirror_analysis.errors import DegenerateError
from mirror_analysis.similarity import linear_cka
from mirror_analysis.similarity.cka import RV, LinearCKA, rv
from mirror_analysis.similarity.distances import (
    DistanceCorrelation,
    distance_correlation,
)
from mirror_analysis.similarity.measures import Layer
from mirror_analysis.similarity.pairwise.measure import PairwiseMeasure
from mirror_analysis.similarity.pairwise.pairs import Kind, Pairs, strip_pairs

KINDS = ("unbiased", "biased", "correlation", "cosine")
UNEVEN = np.r_[[0] * 5, [1], [2] * 2, [3] * 9, [1] * 3]


@dataclass(frozen=True)
class Explicit(PairwiseMeasure):
    """The cosine of matrices that are given as the layers themselves."""

    name: ClassVar[str] = "explicit"
    kind: Kind

    def prepare(self, layer: Layer) -> Pairs:
        return strip_pairs(lambda index: layer.values[index].clone(), layer, kind=self.kind)


def matrix(seed, n=20):
    a = np.random.default_rng(seed).standard_normal((n, n))
    return (a + a.T) / 2 + 1.5


def left_out(measure, x, y, folds, **layer):
    a, b = ([measure.prepare(Layer("l", torch.tensor(z), **layer)) for z in s] for s in (x, y))
    return measure.leave_out(a, b, torch.tensor(folds)).numpy()


@pytest.mark.parametrize("budget", [1 << 28, 0])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("folds", [UNEVEN, np.arange(20), np.arange(20) % 2])
def test_is_the_cosine_of_the_matrices_of_the_samples_left(kind, folds, budget):
    x, y = [matrix(0), matrix(1)], [matrix(2)]
    found = left_out(Explicit(kind), x, y, folds, budget=budget)
    assert found.shape == (folds.max() + 1, 2, 1)
    for fold in range(folds.max() + 1):
        kept = folds != fold
        for i, a in enumerate(x):
            expected = oracles_pairs.cosine_of(a[kept][:, kept], y[0][kept][:, kept], kind)
            assert found[fold, i, 0] == pytest.approx(expected, abs=1e-9)


def functions() -> list[tuple[PairwiseMeasure, Callable[..., float]]]:
    return [
        (LinearCKA(), linear_cka),
        (LinearCKA(False), lambda x, y: linear_cka(x, y, debiased=False)),
        (RV(), rv),
        (DistanceCorrelation(), distance_correlation),
        (DistanceCorrelation(False), lambda x, y: distance_correlation(x, y, debiased=False)),
    ]


@pytest.mark.parametrize(("measure", "function"), functions())
@pytest.mark.parametrize("how", [{}, {"budget": 0}, {"by_rows": True}])
def test_is_the_measure_of_the_rows_kept(measure, function, how):
    g = np.random.default_rng(3)
    x, wide = g.standard_normal((20, 4)) + 3, g.standard_normal((20, 50))
    y = x[:, :3] + g.standard_normal((20, 3))
    found = left_out(measure, [x, wide], [y], UNEVEN, **how)
    for fold in range(4):
        kept = UNEVEN != fold
        for i, a in enumerate((x, wide)):
            assert found[fold, i, 0] == pytest.approx(function(a[kept], y[kept]), abs=1e-9)


@pytest.mark.parametrize(("measure", "function"), functions())
@pytest.mark.parametrize("how", [{}, {"budget": 0}, {"by_rows": True}])
@pytest.mark.parametrize("step", [1.0, 3.3])
def test_a_rest_that_is_constant_has_no_value(measure, function, how, step):
    x = np.full((20, 2), 0.1)
    x[5] = 1 + 0.1, step  # alone in fold 1
    x[16:] = x[5]
    y = np.random.default_rng(4).standard_normal((20, 3))
    folds = np.where(np.isin(np.arange(20), (5, 16, 17, 18, 19)), 1, np.arange(20) % 2 * 2)
    with pytest.raises(DegenerateError):
        function(x[folds != 1], y[folds != 1])
    found = left_out(measure, [x], [y], folds, **how)[:, 0, 0]
    assert np.isnan(found).tolist() == [False, True, False]


@pytest.mark.parametrize(("measure", "function"), functions())
@pytest.mark.parametrize("how", [{}, {"budget": 0}])
@pytest.mark.parametrize("kind", [torch.float64, torch.float32])
def test_a_rest_that_is_much_smaller_has_its_value_or_none(measure, function, how, kind):
    g = np.random.default_rng(5)
    x = g.standard_normal((20, 3))
    x[7] *= 1e4
    y = x + g.standard_normal((20, 3))
    a, b = (torch.tensor(z, dtype=kind).numpy() for z in (x, y))
    found = left_out(measure, [a], [b], UNEVEN, **how)[:, 0, 0]
    for fold in range(4):
        expected = function(a[UNEVEN != fold], b[UNEVEN != fold])
        known = not np.isnan(found[fold])
        assert known or fold == UNEVEN[7]
        if known:
            assert found[fold] == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("how", [{}, {"budget": 0}])
@pytest.mark.parametrize("left", [3, 2, 1])
def test_too_few_samples_left_have_no_value(left, how):
    g = np.random.default_rng(6)
    x, y = g.standard_normal((8, 3)), g.standard_normal((8, 2))
    folds = np.r_[[0] * left, [1] * (8 - left)]
    for measure, function in functions():
        found = left_out(measure, [x], [y], folds, **how)[:, 0, 0]
        needed = 4 if getattr(measure, "debiased", False) else 3
        assert np.isnan(found[1]) == (left < needed)
        if left >= needed:
            assert found[1] == pytest.approx(function(x[:left], y[:left]), abs=1e-9)
        assert np.isnan(found[0]) == (8 - left < needed)

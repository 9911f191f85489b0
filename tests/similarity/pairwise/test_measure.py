import numpy as np
import oracles_pairs
import pytest
import torch

from mirror_analysis.inference.moments import exact_null
from mirror_analysis.similarity import linear_cka
from mirror_analysis.similarity.cka import (
    RBFCKA,
    RV,
    LinearCKA,
    PolynomialCKA,
    polynomial_cka,
    rbf_cka,
    rv,
)
from mirror_analysis.similarity.distances import DistanceCorrelation, distance_correlation
from mirror_analysis.similarity.grid import grid
from mirror_analysis.similarity.measures import Layer

MEASURES = {
    "linear": (LinearCKA(), linear_cka),
    "biased": (LinearCKA(False), lambda x, y: linear_cka(x, y, debiased=False)),
    "rv": (RV(), rv),
    "rbf": (RBFCKA(), rbf_cka),
    "biased rbf": (RBFCKA(0.5, False), lambda x, y: rbf_cka(x, y, debiased=False)),
    "polynomial": (PolynomialCKA(), polynomial_cka),
    "distance": (DistanceCorrelation(), distance_correlation),
}  # fmt: skip


def states(measure, layers, **layer):
    return [measure.prepare(Layer("l", torch.tensor(z), **layer)) for z in layers]


def sides(seed, n=6):
    g = np.random.default_rng(seed)
    x = [g.standard_normal((n, 2)), g.exponential(size=(n, 4)) ** 2]
    return x, [x[0] + g.standard_normal((n, 2)), g.standard_normal((n, 9))]


@pytest.mark.parametrize("name", MEASURES)
def test_moments_are_those_of_all_orders(name):
    measure, _ = MEASURES[name]
    a, b = (states(measure, side) for side in sides(0))
    law = exact_null(*measure.invariants(a, b))
    null = measure.null(a, b, torch.from_numpy(oracles_pairs.all_orders(6)))
    mean, sd, skewness = oracles_pairs.moments_of(null.numpy())
    np.testing.assert_allclose(law.mean, mean, atol=1e-12)
    np.testing.assert_allclose(law.sd, sd, atol=1e-12)
    np.testing.assert_allclose(law.skewness, skewness, atol=1e-10)


@pytest.mark.parametrize("name", MEASURES)
@pytest.mark.parametrize("budget", [1 << 28, 0])
def test_null_is_the_measure_of_permuted_rows(name, budget):
    measure, function = MEASURES[name]
    x, y = sides(1, n=12)
    g = np.random.default_rng(2)
    orders = np.stack([g.permutation(12) for _ in range(3)])
    a, b = states(measure, x, budget=budget), states(measure, y, budget=budget)
    null = measure.null(a, b, torch.from_numpy(orders)).numpy()
    for d, order in enumerate(orders):
        for i, j in np.ndindex(2, 2):
            assert null[d, i, j] == pytest.approx(function(x[i], y[j][order]), abs=1e-11)
    same = measure.null(a, b, torch.arange(12)[None])[0]
    torch.testing.assert_close(same, measure.values(a, b), atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", ["linear", "biased", "distance"])
def test_many_samples_are_permuted_in_blocks(name):
    measure, function = MEASURES[name]
    g = np.random.default_rng(3)
    x, y = g.standard_normal((2, 400, 3))
    order = g.permutation(400)
    found = measure.null(states(measure, [x]), states(measure, [y]), torch.tensor(order)[None])
    assert float(found[0, 0, 0]) == pytest.approx(function(x, y[order]), abs=1e-10)


def test_a_root_has_no_moments():
    x, _ = sides(4)
    measure = DistanceCorrelation(False)
    assert measure.invariants(states(measure, x), states(measure, x)) is None


def test_leading_parts_are_eigenvectors_of_what_is_permuted():
    g = np.random.default_rng(5)
    x = g.standard_normal((40, 3))
    for measure in (LinearCKA(), LinearCKA(False)):
        (state,) = states(measure, [x])
        found = measure.leading([state])
        full = np.linalg.eigvalsh(state.whole.numpy()) / np.sqrt(state.own)
        largest = full[np.argsort(-np.abs(full))][:3]
        np.testing.assert_allclose(found.weights[0, :3], largest, atol=1e-8)
        np.testing.assert_allclose(found.linear[0], state.u / np.sqrt(state.own), atol=1e-12)
        by_rows = measure.leading(states(measure, [x], budget=0))
        np.testing.assert_allclose(by_rows.weights[0, :3], largest, atol=1e-8)


def test_estimates_of_triangles_and_cubes_of_many_samples():
    g = np.random.default_rng(6)
    x = g.exponential(size=(4500, 2))
    measure = RBFCKA()
    (state,) = states(measure, [x.astype(np.float32)], budget=1 << 28)
    (side, _) = measure.invariants([state], [state])
    q = state.whole.double()
    norm = state.own**1.5
    triangles = float(((q[:600] @ q) * q[:600]).sum())  # the samples are in no order
    assert side.triangles[0] * norm == pytest.approx(triangles * 4500 / 600, rel=0.15)
    assert side.cubes[0] * norm == pytest.approx(float((q**3).sum()), rel=0.2)


def data(kind, n=80):
    g = np.random.default_rng(7)
    if kind == "gaussian":
        x, y = g.standard_normal((n, 12)), g.standard_normal((n, 20))
    elif kind == "wide":
        x, y = g.standard_normal((n, 300)), g.standard_normal((n, 200))
    elif kind == "skewed":
        x, y = g.exponential(size=(n, 1)) ** 2, g.exponential(size=(n, 2)) ** 2
    else:
        x, y = g.standard_t(2, (n, 5)), g.standard_t(2, (n, 4))
    x = {"a": x, "b": x[:, :1] + 0.3 * g.standard_normal((n, 1))}
    return x, {"a": y + 0.1 * x["b"], "b": y}


@pytest.mark.parametrize("kind", ["gaussian", "wide", "skewed", "heavy"])
@pytest.mark.parametrize("name", ["linear", "biased", "distance", "rbf"])
def test_p_of_moments_is_p_of_permutations(kind, name):
    x, y = data(kind)
    settings = {"measures": [MEASURES[name][0]], "folds": 0}
    drawn = grid(x, y, null="permutation", draws=4999, **settings).scores
    exact = grid(x, y, null="moments", draws=9, **settings).scores
    for a, b in zip(drawn, exact, strict=True):
        assert b.null.draws == 0 and b.null.scheme == "rows, exact moments"
        assert b.null.mean == pytest.approx(a.null.mean, abs=5 * a.null.sd / np.sqrt(4999))
        assert b.null.sd == pytest.approx(a.null.sd, rel=0.12)
        assert b.p_value == pytest.approx(a.p_value, abs=0.02)
        assert b.p_max == pytest.approx(a.p_max, abs=0.03)


def test_p_of_many_samples_of_a_skewed_feature():
    g = np.random.default_rng(8)
    x, y = ({str(i): g.exponential(size=(560, 1)) ** 2 for i in range(2)} for _ in range(2))
    drawn = grid(x, y, measures=["linear_cka"], null="permutation", draws=999, folds=0).scores
    exact = grid(x, y, measures=["linear_cka"], draws=9, folds=0).scores
    for a, b in zip(drawn, exact, strict=True):
        assert b.null.draws == 0
        assert b.p_value == pytest.approx(a.p_value, abs=0.06)
        assert b.p_max == pytest.approx(a.p_max, abs=0.08)

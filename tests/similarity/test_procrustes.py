import math

import numpy as np
import oracles
import oracles_cca as slow
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mirror_analysis.errors import DegenerateError, ShapeError
from mirror_analysis.similarity.cca.mean import canonical_correlations
from mirror_analysis.similarity.measures import Layer
from mirror_analysis.similarity.procrustes import (
    ProcrustesSimilarity,
    procrustes_angle_distance,
    procrustes_distance,
    procrustes_similarity,
    shape_distance,
)
from mirror_analysis.testing import check_measure


def random_pair(seed, n=40, d=7, e=5):
    g = np.random.default_rng(seed)
    x = g.standard_normal((n, d)) * np.linspace(3, 0.1, d)
    return x, x[:, :e] @ g.standard_normal((e, e)) + 2 * g.standard_normal((n, e))


def rotation(seed, d):
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((d, d)))[0]


def state(values):
    return ProcrustesSimilarity().prepare(Layer("layer", torch.as_tensor(values)))


def test_keeps_the_contract():
    check_measure(ProcrustesSimilarity())


@pytest.mark.parametrize("shape", [(40, 7, 5), (40, 5, 7), (9, 20, 4), (9, 12, 15)])
def test_equal_their_definitions(shape):
    g = np.random.default_rng(0)
    x = g.standard_normal(shape[:2])
    y = x @ g.standard_normal(shape[1:]) + g.standard_normal((shape[0], shape[2]))
    left = slow.procrustes_squared_distance(x, y)
    assert procrustes_similarity(x, y) == pytest.approx(1 - left / 2, abs=1e-9)
    assert procrustes_distance(x, y) == pytest.approx(left**0.5, abs=1e-9)
    assert procrustes_angle_distance(x, y) == pytest.approx(math.acos(1 - left / 2), abs=1e-9)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.9, 1.0])
def test_shape_distance_equals_its_definition(alpha):
    for seed in range(3):
        x, y = random_pair(seed)
        x = x + 3 * y[:, :1]
        for a, b in ((x, y), (y, x), (x, 0.2 * x + y[:, [0] * 7])):
            found = shape_distance(a, b, alpha=alpha)
            assert found == pytest.approx(slow.shape_angle(a, b, alpha), abs=1e-9)


def test_reproduce_published_implementations():
    x, y = oracles.pair(1000)
    assert procrustes_similarity(x, y) == pytest.approx(0.77103129, abs=1e-8)
    assert procrustes_angle_distance(x, y) == pytest.approx(0.69033726, abs=1e-8)
    assert procrustes_distance(x, y) == pytest.approx(0.67671073, abs=1e-8)


def test_fully_whitened_shapes_are_compared_by_their_canonical_correlations():
    x, y = random_pair(1)
    total = float(canonical_correlations(x, y).sum())
    assert shape_distance(x, y, alpha=0) == pytest.approx(math.acos(total / 35**0.5), abs=1e-9)


@given(seed=st.integers(0, 10**6), scale=st.floats(1e-6, 1e6), offset=st.floats(-1e3, 1e3))
@settings(deadline=None, max_examples=15)
def test_invariances(seed, scale, offset):
    x, y = random_pair(seed)
    moved = x @ rotation(seed, 7) * scale + offset * scale
    for measure in (procrustes_similarity, procrustes_distance, procrustes_angle_distance):
        assert measure(moved, y) == pytest.approx(measure(x, y), abs=1e-8)
        assert measure(y, x) == pytest.approx(measure(x, y), abs=1e-9)
        assert measure(np.hstack([x, 0 * x]), y) == pytest.approx(measure(x, y), abs=1e-9)
    mixed = x @ (np.random.default_rng(seed).standard_normal((7, 7)) + 4 * np.eye(7)) + offset
    assert shape_distance(mixed, y, alpha=0.0) == pytest.approx(
        shape_distance(x, y, alpha=0.0), abs=1e-7
    )
    assert shape_distance(x @ rotation(seed, 7) + offset, y, alpha=0.4) == pytest.approx(
        shape_distance(x, y, alpha=0.4), abs=1e-8
    )


def test_general_linear_maps_are_seen():
    x, y = random_pair(2)
    mixed = x @ np.diag([1, 1, 1, 1, 1, 1, 40.0])
    assert procrustes_similarity(mixed, y) < procrustes_similarity(x, y) - 0.1
    assert shape_distance(mixed, y, alpha=0.5) > shape_distance(x, y, alpha=0.5) + 1e-3
    assert shape_distance(x, mixed) > 0.3
    assert shape_distance(x, mixed, alpha=0.0) < 1e-7
    assert procrustes_similarity(x, np.where(x > 0, x, 0)) < 0.97


@given(
    seed=st.integers(0, 10**6), alpha=st.floats(0, 1), widths=st.tuples(*[st.integers(1, 6)] * 3)
)
@settings(deadline=None, max_examples=15)
def test_distances_obey_the_triangle_inequality(seed, alpha, widths):
    g = np.random.default_rng(seed)
    z = g.standard_normal((12, 6))
    a, b, c = (z[:, :w] @ g.standard_normal((w, w)) + g.standard_normal((12, w)) for w in widths)
    for distance in (
        procrustes_distance,
        procrustes_angle_distance,
        lambda p, q: shape_distance(p, q, alpha=alpha),
    ):
        assert distance(a, c) <= distance(a, b) + distance(b, c) + 1e-9
        assert distance(a, a) < 2e-7


def test_small_angles_keep_their_digits():
    x, _ = random_pair(3)
    noise = np.random.default_rng(0).standard_normal(x.shape)
    angles = [procrustes_angle_distance(x, x + size * noise) for size in (1e-5, 1e-6)]
    assert angles[0] / angles[1] == pytest.approx(10, rel=1e-3)


def test_range_and_what_unrelated_layers_score():
    g = np.random.default_rng(4)
    few = [
        procrustes_similarity(g.standard_normal((20, 8)), g.standard_normal((20, 8)))
        for _ in range(50)
    ]
    many = [
        procrustes_similarity(g.standard_normal((800, 8)), g.standard_normal((800, 8)))
        for _ in range(50)
    ]
    assert 0.4 < np.mean(few) < 0.7  # chance is far from 0 ...
    assert np.mean(many) < 0.12  # ... and falls as samples are added
    angle = procrustes_angle_distance(np.eye(4)[:, [0]], np.array([[-1], [-1], [1], [1]]))
    assert 0 < angle < math.pi / 2


def test_grid_form_measures_and_permutes_every_pair():
    x, y = random_pair(5)
    measure = ProcrustesSimilarity()
    layers = [x, y, y[:, :2]]
    states = [state(z) for z in layers]
    order = np.random.default_rng(0).permutation(40)
    null = measure.null(states, states, torch.tensor(np.stack([np.arange(40), order])))
    values = measure.values(states, states)
    for i, a in enumerate(layers):
        for j, b in enumerate(layers):
            assert float(values[i, j]) == pytest.approx(procrustes_similarity(a, b), abs=1e-9)
            assert float(null[0, i, j]) == pytest.approx(float(values[i, j]), abs=1e-9)
            turned = procrustes_similarity(a, b[order])
            assert float(null[1, i, j]) == pytest.approx(turned, abs=1e-9)


@pytest.mark.parametrize(("d", "e"), [(7, 6), (6, 7), (30, 25)])
def test_replicates_follow_the_true_jackknife(d, e):
    g = np.random.default_rng(8)
    z = g.standard_normal((300, 4))
    x, y = (z @ g.standard_normal((4, k)) + g.standard_normal((300, k)) for k in (d, e))
    folds = g.permutation(300) % 20
    found = ProcrustesSimilarity().leave_out([state(x)], [state(y)], torch.tensor(folds))[:, 0, 0]
    true = slow.jackknife(procrustes_similarity, x, y, folds)
    assert np.corrcoef(found, true)[0, 1] > 0.98
    assert 0.9 < float(found.var()) / true.var(ddof=1) < 1.1
    assert float(found.mean()) == pytest.approx(true.mean(), abs=2e-3)


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_take_every_float_and_large_offsets(kind):
    x, y = (np.float16(z) for z in random_pair(6))
    expected = procrustes_similarity(np.float64(x), np.float64(y))
    assert procrustes_similarity(x.astype(kind), y.astype(kind)) == pytest.approx(
        expected, abs=1e-6
    )
    tensors = [torch.tensor(z.astype(kind)) for z in (x, y)]
    assert procrustes_similarity(*tensors) == pytest.approx(expected, abs=1e-6)
    assert procrustes_similarity(np.float64(x) + 1000, y) == pytest.approx(expected, abs=1e-9)


def test_say_what_is_wrong():
    x, y = random_pair(7)
    for function in (procrustes_similarity, procrustes_distance):
        with pytest.raises(DegenerateError, match="procrustes_similarity got 2 samples; needed"):
            function(x[:2], y[:2])
    for function in (procrustes_angle_distance, shape_distance):
        with pytest.raises(DegenerateError, match="shape_distance got 2 samples; needed at least"):
            function(x[:2], y[:2])
    with pytest.raises(DegenerateError, match="y is constant over its 40 samples"):
        procrustes_similarity(x, np.ones((40, 3)))
    with pytest.raises(ShapeError, match="x has 40 samples but y has 39"):
        procrustes_distance(x, y[:39])
    with pytest.raises(DegenerateError, match=r"alpha 1.2; needed a number in \[0, 1\]"):
        shape_distance(x, y, alpha=1.2)

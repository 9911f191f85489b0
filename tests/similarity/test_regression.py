import numpy as np
import oracles_cca as slow
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mirror_analysis.errors import DegenerateError, ShapeError, UnknownNameError
from mirror_analysis.similarity.measures import Layer
from mirror_analysis.similarity.regression import (
    LinearPredictivity,
    OrthogonalPredictivity,
    linear_predictivity,
    orthogonal_predictivity,
)
from mirror_analysis.testing import check_measure

FORMS = [
    (linear_predictivity, LinearPredictivity, slow.ridge),
    (orthogonal_predictivity, OrthogonalPredictivity, slow.rotation),
]
BOTH = pytest.mark.parametrize(("function", "kind", "fit"), FORMS, ids=lambda f: f.__name__)


def random_pair(seed, n=60, d=7, e=5):
    g = np.random.default_rng(seed)
    x = g.standard_normal((n, d)) * np.linspace(3, 0.5, d)
    return x, x[:, :e] @ g.standard_normal((e, e)) + 2 * g.standard_normal((n, e))


def rotation(seed, d):
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((d, d)))[0]


@pytest.mark.parametrize("direction", ["x_to_y", "y_to_x", "mean"])
@BOTH
def test_keep_the_contract(function, kind, fit, direction):
    check_measure(kind(direction, draws=20))


@pytest.mark.parametrize("shape", [(60, 7, 5), (60, 5, 7), (25, 30, 4), (25, 4, 30), (20, 33, 40)])
@BOTH
def test_equal_their_definitions(function, kind, fit, shape):
    g = np.random.default_rng(1)
    x = g.standard_normal(shape[:2])
    y = x @ g.standard_normal(shape[1:]) + 3 * g.standard_normal((shape[0], shape[2])) + 7
    there, back = slow.held_out_r2(x, y, fit), slow.held_out_r2(y, x, fit)
    assert function(x, y) == pytest.approx(there, abs=1e-8)
    assert function(x, y, direction="y_to_x") == pytest.approx(back, abs=1e-8)
    assert function(x, y, direction="mean") == pytest.approx((there + back) / 2, abs=1e-8)
    assert function(x, y, folds=3) == pytest.approx(slow.held_out_r2(x, y, fit, folds=3), abs=1e-8)


@BOTH
def test_units_are_held_out_whole(function, kind, fit):
    x, y = random_pair(2)
    episode = np.repeat([f"e{i}" for i in range(12)], 5)
    expected = slow.held_out_r2(x, y, fit, units=episode)
    assert function(x, y, units=episode) == pytest.approx(expected, abs=1e-9)
    assert abs(expected - function(x, y)) > 1e-4
    mixed = np.random.default_rng(0).permutation(60)
    found = function(x[mixed], y[mixed], units=episode[mixed])
    assert found == pytest.approx(expected, abs=1e-9)


@BOTH
def test_rows_that_repeat_are_no_evidence_once_units_are_named(function, kind, fit):
    g = np.random.default_rng(3)
    x, y = (np.repeat(g.standard_normal((20, 15)), 6, axis=0) for _ in range(2))
    x = x + 1e-3 * g.standard_normal(x.shape)
    unit = np.repeat(np.arange(20), 6)
    assert function(x, y, units=unit) < 0.05 < function(x, y)


@given(seed=st.integers(0, 10**6), scale=st.floats(1e-5, 1e5), offset=st.floats(-1e3, 1e3))
@settings(deadline=None, max_examples=15)
def test_invariances(seed, scale, offset):
    x, y = random_pair(seed)
    for function in (linear_predictivity, orthogonal_predictivity):
        value = function(x, y)
        moved = x @ rotation(seed, 7) * scale + offset * scale
        assert function(moved, y) == pytest.approx(value, abs=1e-7)
        moved = y @ rotation(seed, 5) * scale + offset * scale
        assert function(x, moved) == pytest.approx(value, abs=1e-7)


def test_what_they_must_see():
    g = np.random.default_rng(4)
    x = g.standard_normal((200, 4))
    y = x @ np.diag([1, 1, 10, 0.01])
    assert linear_predictivity(x, y) > 0.9999
    assert orthogonal_predictivity(x, y) < 0.9
    assert linear_predictivity(x, x[:, :1]) > linear_predictivity(x[:, :1], x) + 0.5
    assert linear_predictivity(x, x**2) < 0.1
    assert orthogonal_predictivity(x, 3 * x @ rotation(0, 4) - 2) == pytest.approx(1, abs=1e-12)


def test_unrelated_layers_score_0_or_less():
    g = np.random.default_rng(5)
    pairs = [(g.standard_normal((50, 6)), g.standard_normal((50, 4))) for _ in range(60)]
    ridge = np.array([linear_predictivity(x, y) for x, y in pairs])
    turned = np.array([orthogonal_predictivity(x, y) for x, y in pairs])
    assert -0.1 < ridge.mean() < 0
    assert turned.mean() < ridge.mean()
    assert LinearPredictivity().chance(50) is None


def test_population_value_is_reached():
    g = np.random.default_rng(6)
    x = g.standard_normal((4000, 5))
    y = x @ rotation(0, 5) + g.standard_normal((4000, 5))
    assert linear_predictivity(x, y) == pytest.approx(0.5, abs=0.02)
    assert orthogonal_predictivity(x, y) == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("direction", ["x_to_y", "y_to_x", "mean"])
@BOTH
def test_grid_forms_measure_and_permute_every_pair(function, kind, fit, direction):
    x, y = random_pair(7)
    measure = kind(direction)
    a, b, c = (measure.prepare(Layer("l", torch.tensor(z))) for z in (x, y, y[:, :2]))
    order = np.random.default_rng(0).permutation(60)
    null = measure.null([b, a], [b, c, a], torch.tensor(np.stack([np.arange(60), order])))
    assert null[0].numpy() == pytest.approx(measure.values([b, a], [b, c, a]).numpy(), abs=1e-12)

    def alone(p, q):
        return function(p, q, direction=direction)

    assert float(null[0, 1, 1]) == pytest.approx(alone(x, y[:, :2]), abs=1e-12)
    assert float(null[1, 1, 0]) == pytest.approx(alone(x, y[order]), abs=1e-9)
    assert float(null[1, 0, 2]) == pytest.approx(alone(y, x[order]), abs=1e-9)
    assert measure.parameters == {"direction": direction, "folds": 5}
    assert measure.most_draws == 99


def test_layers_that_know_their_units_hold_them_out_whole():
    x, y = random_pair(8)
    unit = np.repeat(np.arange(12), 5)
    measure = LinearPredictivity()
    states = []
    for z in (x, y):
        layer = Layer("l", torch.tensor(z))
        states.append([measure.prepare_units(layer, torch.tensor(unit))])
    found = float(measure.values(*states)[0, 0])
    assert found == pytest.approx(linear_predictivity(x, y, units=unit), abs=1e-12)


@pytest.mark.parametrize("direction", ["x_to_y", "mean"])
@BOTH
def test_replicates_leave_out_the_errors_of_a_fold(function, kind, fit, direction):
    x, y = random_pair(9, n=500)
    folds = np.random.default_rng(0).permutation(500) % 20
    measure = kind(direction)
    a, b = (measure.prepare(Layer("l", torch.tensor(z))) for z in (x, y))
    found = measure.leave_out([a], [b], torch.tensor(folds))
    assert found.shape == (20, 1, 1)
    true = slow.jackknife(lambda p, q: function(p, q, direction=direction), x, y, folds)
    assert np.corrcoef(found[:, 0, 0], true)[0, 1] > 0.85
    assert 0.7 < float(found.var()) / true.var() < 1.3


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_take_every_float_and_large_offsets(kind):
    x, y = (np.float16(z) for z in random_pair(10))
    for function in (linear_predictivity, orthogonal_predictivity):
        expected = function(np.float64(x), np.float64(y))
        assert function(x.astype(kind), torch.tensor(y.astype(kind))) == pytest.approx(
            expected, abs=1e-6
        )
        assert function(np.float64(x) + 1000, np.float64(y) - 1000) == pytest.approx(
            expected, abs=1e-8
        )


@BOTH
def test_say_what_is_wrong(function, kind, fit):
    x, y = random_pair(11)
    name = function.__name__
    with pytest.raises(DegenerateError, match=f"{name} got 9 samples; needed at least 10"):
        function(x[:9], y[:9])
    with pytest.raises(DegenerateError, match=f"{name} got 1 folds; needed at least 2"):
        function(x, y, folds=1)
    with pytest.raises(
        DegenerateError, match=f"{name} got 6 units for 5 folds; needed at least 10"
    ):
        function(x, y, units=np.repeat(np.arange(6), 10))
    with pytest.raises(ShapeError, match="units has 30 labels for 60 rows"):
        function(x, y, units=np.arange(30))
    with pytest.raises(DegenerateError, match="x is constant over its 60 samples"):
        function(np.full((60, 2), 0.3), y)
    with pytest.raises(ShapeError, match="x has 60 samples but y has 59"):
        function(x, y[:59])
    with pytest.raises(UnknownNameError, match="unknown direction 'both'"):
        function(x, y, direction="both")

import numpy as np
import oracles_pairs
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mirror_analysis.errors import DegenerateError, ShapeError
from mirror_analysis.similarity.distances import (
    DistanceCorrelation,
    distance_correlation,
)
from mirror_analysis.similarity.grid import grid
from mirror_analysis.similarity.measures import Layer
from mirror_analysis.testing import check_measure


def random_pair(seed, n=15, d=4, e=3):
    g = np.random.default_rng(seed)
    x = g.standard_normal((n, d))
    return x, x[:, :1] ** 2 + g.standard_normal((n, e))


@pytest.mark.parametrize("debiased", [True, False])
@pytest.mark.parametrize("shape", [(15, 4, 3), (8, 30, 12), (12, 1, 40)])
def test_equals_the_textbook_formula(debiased, shape):
    x, y = random_pair(0, *shape)
    expected = oracles_pairs.distance_correlation(x, y, debiased=debiased)
    assert distance_correlation(x, y, debiased=debiased) == pytest.approx(expected, abs=1e-11)


def test_of_two_points_sets_by_hand():
    # Distances |i - j| of 0, 1, 2 in a line against a triangle of equal sides has no spread.
    x = np.array([[0.0], [1.0], [3.0], [7.0]])
    assert distance_correlation(x, -2 * x) == pytest.approx(1, abs=1e-12)
    assert distance_correlation(x, x**2, debiased=False) < 1


@given(seed=st.integers(0, 10**6), scale=st.floats(1e-6, 1e6), offset=st.floats(-1e3, 1e3))
@settings(deadline=None, max_examples=15)
def test_invariant_to_rotation_scale_shift_and_exchange(seed, scale, offset):
    x, y = random_pair(seed)
    rotation = np.linalg.qr(np.random.default_rng(seed + 1).standard_normal((4, 4)))[0]
    before = distance_correlation(x, y)
    moved = x @ rotation * scale + offset * scale
    assert distance_correlation(moved, y) == pytest.approx(before, abs=1e-8)
    assert distance_correlation(y, x) == pytest.approx(before, abs=1e-12)


def test_tells_apart_what_a_linear_map_distorts():
    x, y = random_pair(1, n=100)
    assert abs(distance_correlation(x * [30, 1, 1, 1], y) - distance_correlation(x, y)) > 0.02


@pytest.mark.parametrize("measure", [DistanceCorrelation(), DistanceCorrelation(False)])
def test_holds_what_it_declares(measure):
    check_measure(measure)


def test_sees_dependence_without_correlation_and_is_0_without_any():
    g = np.random.default_rng(2)
    x = g.standard_normal((300, 1))
    assert distance_correlation(x, x**2) > 0.1
    none = [distance_correlation(*g.standard_normal((2, 40, 30))) for _ in range(40)]
    assert np.mean(none) == pytest.approx(0, abs=4 * np.std(none) / np.sqrt(40))
    high = [distance_correlation(*g.standard_normal((2, 40, 300)), debiased=False) for _ in "ab"]
    assert min(high) > 0.9  # why it is not the default


@pytest.mark.parametrize("scale", [1e-160, 1e150])
def test_size_and_offset_of_the_features_are_no_matter(scale):
    x, y = random_pair(3)
    assert distance_correlation(x * scale, y) == pytest.approx(
        distance_correlation(x, y), abs=1e-11
    )
    assert distance_correlation(x + 1000, y) == pytest.approx(distance_correlation(x, y), abs=1e-10)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_takes_any_precision(kind):
    x, y = random_pair(4)
    a = torch.tensor(x).to(kind)
    value = distance_correlation(a, y)
    assert type(value) is float
    assert value == pytest.approx(distance_correlation(a.double().numpy(), y), abs=1e-12)


@pytest.mark.parametrize("debiased", [True, False])
@pytest.mark.parametrize("budget", [1 << 28, 0])
def test_null_permutes_rows_of_y(debiased, budget):
    x, y = random_pair(5)
    measure = DistanceCorrelation(debiased)
    a, b = (measure.prepare(Layer("l", torch.tensor(z), budget=budget)) for z in (x, y))
    g = np.random.default_rng(0)
    orders = np.stack([g.permutation(15) for _ in range(4)])
    null = measure.null([a], [b], torch.from_numpy(orders))[:, 0, 0]
    expected = [distance_correlation(x, y[order], debiased=debiased) for order in orders]
    assert null.tolist() == pytest.approx(expected, abs=1e-12)


def test_intervals_cover_the_value_of_many_samples():
    g = np.random.default_rng(6)

    def draw(n):
        x = g.standard_normal((n, 3))
        return x, x[:, :2] ** 2 + 0.5 * g.standard_normal((n, 2))

    truth = np.mean([distance_correlation(*draw(2000)) for _ in range(4)])
    covered, values = 0, []
    for _ in range(40):
        x, y = draw(150)
        found = grid({"": x}, {"": y}, measures=[DistanceCorrelation()], draws=0, folds=15)
        s = found.scores[0]
        covered += s.interval.low <= truth <= s.interval.high
        values.append(s.value)
    assert covered / 40 > 0.95 - 4 * np.sqrt(0.05 * 0.95 / 40)
    assert np.mean(values) == pytest.approx(truth, abs=0.02)


def test_says_what_is_wrong():
    x, y = random_pair(7)
    with pytest.raises(DegenerateError, match="distance_correlation got 3 samples; needed at lea"):
        distance_correlation(x[:3], y[:3])
    with pytest.raises(DegenerateError, match="distance_correlation got 2 samples; needed at lea"):
        distance_correlation(x[:2], y[:2], debiased=False)
    assert 0 <= distance_correlation(x[:3], y[:3], debiased=False) <= 1
    with pytest.raises(DegenerateError, match="y is constant over its 15 samples"):
        distance_correlation(x, np.full((15, 2), 0.7))
    with pytest.raises(DegenerateError, match="x has no debiased spread"):
        distance_correlation(np.eye(15), y)
    with pytest.raises(ShapeError, match="x has 15 samples but y has 14"):
        distance_correlation(x, y[:14])

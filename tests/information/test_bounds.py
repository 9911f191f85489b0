import math

import numpy as np
import oracles
import oracles_information as slow
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mirror_analysis.errors import DegenerateError, ShapeError
from mirror_analysis.information import (
    donsker_varadhan,
    infonce,
    infonce_ceiling,
    jensen_shannon,
    js_divergence,
    nwj,
    smile,
)

ALL = {
    "donsker_varadhan": donsker_varadhan,
    "infonce": infonce,
    "jensen_shannon": jensen_shannon,
    "js_divergence": js_divergence,
    "nwj": nwj,
    "smile": smile,
}


def scores(n, seed, size=2.0):
    return np.random.default_rng(seed).standard_normal((n, n)) * size


def gaussian_ratio(n, seed, rho=0.75):
    """Scores of the best critic there is for a bivariate normal: its log density ratio."""
    g = np.random.default_rng(seed)
    x = g.standard_normal((n, 1))
    y = rho * x.T + math.sqrt(1 - rho**2) * g.standard_normal(n)
    ratio = (2 * rho * x * y - rho**2 * (x**2 + y**2)) / (2 * (1 - rho**2))
    return ratio - 0.5 * math.log(1 - rho**2)


@pytest.mark.parametrize("n", [2, 7])
def test_equals_the_textbook_formula_in_both_directions(n):
    logits = np.random.default_rng(n).standard_normal((n, n)) * 2
    assert infonce(logits) == pytest.approx(oracles.infonce(logits.tolist()), abs=1e-12)
    assert infonce(logits.T) == pytest.approx(infonce(logits), abs=1e-12)


def test_one_direction_alone_would_not_do():
    # Every row finds its partner, the first column misses it by 100 nats.
    logits = np.array([[0.0, -50.0], [100.0, 150.0]])
    assert infonce(logits) == pytest.approx(math.log(2) - 100 / 4, abs=1e-9)


def test_known_values():
    assert infonce(np.zeros((8, 8))) == pytest.approx(0, abs=1e-12)
    assert infonce(100 * np.eye(8)) == pytest.approx(math.log(8), abs=1e-12)
    assert infonce_ceiling(8) == pytest.approx(2.0794415)
    assert infonce(-100 * np.eye(8)) < -50


def test_a_bound_on_the_information_of_a_correlated_pair():
    # The optimal critic of a bivariate normal: the bound nears 0.413339 nats from below.
    rho, g = 0.75, np.random.default_rng(0)
    found = []
    for _ in range(20):
        x = g.standard_normal(200)
        y = rho * x + math.sqrt(1 - rho**2) * g.standard_normal(200)
        a, b = x[:, None], y[None, :]
        ratio = (2 * rho * a * b - rho**2 * (a**2 + b**2)) / (2 * (1 - rho**2))
        found.append(infonce(ratio))
    error = 3 * np.std(found) / np.sqrt(20)
    assert 0.413339 - 0.03 - error < np.mean(found) < 0.413339 + error


def test_invariant_to_a_common_offset_and_takes_half_precision():
    logits = np.random.default_rng(1).standard_normal((6, 6))
    assert infonce(logits + 1000) == pytest.approx(infonce(logits), abs=1e-9)
    half = torch.tensor(logits, requires_grad=True).half()
    assert infonce(half) == pytest.approx(infonce(logits), abs=1e-2)
    assert type(infonce(half)) is float


@pytest.mark.parametrize("name", sorted(set(ALL) - {"smile"}))
@pytest.mark.parametrize("n", [2, 6])
def test_equals_the_slow_formula(name, n):
    for seed in range(3):
        matrix = scores(n, seed)
        expected = getattr(slow, name)(matrix.tolist())
        assert ALL[name](matrix) == pytest.approx(expected, abs=1e-12)
        assert ALL[name](torch.tensor(matrix)) == ALL[name](matrix)


@pytest.mark.parametrize("tau", [0.5, 2.0, 50.0])
def test_smile_equals_the_slow_formula(tau):
    matrix = scores(6, 1, size=3.0)
    assert smile(matrix, tau=tau) == pytest.approx(slow.smile(matrix.tolist(), tau), abs=1e-12)


@given(seed=st.integers(0, 10**6), n=st.integers(2, 12), size=st.floats(0.01, 8))
@settings(deadline=None, max_examples=15)
def test_order_and_limits(seed, n, size):
    matrix = scores(n, seed, size)
    assert infonce(matrix) <= infonce_ceiling(n)
    assert nwj(matrix) <= donsker_varadhan(matrix) + 1e-12
    assert jensen_shannon(matrix) <= donsker_varadhan(matrix) + 1e-12
    assert js_divergence(matrix) <= math.log(2)
    assert smile(matrix, tau=math.inf) == pytest.approx(donsker_varadhan(matrix), abs=1e-12)
    assert nwj(matrix + 1) == pytest.approx(jensen_shannon(matrix), rel=1e-9, abs=1e-9)


@given(seed=st.integers(0, 10**6), shift=st.floats(-5, 5))
@settings(deadline=None, max_examples=15)
def test_which_see_an_offset_common_to_all_scores(seed, shift):
    matrix = scores(8, seed)
    for blind in (infonce, donsker_varadhan):
        assert blind(matrix + shift) == pytest.approx(blind(matrix), abs=1e-9)
    for sees in (nwj, jensen_shannon, js_divergence):
        assert abs(sees(matrix + 3 + abs(shift)) - sees(matrix)) > 1e-3


@pytest.mark.parametrize("name", sorted(ALL))
def test_exchanging_x_and_y_or_reordering_pairs_changes_nothing(name):
    matrix = scores(9, 4) + 3 * np.eye(9)
    order = np.random.default_rng(0).permutation(9)
    assert ALL[name](matrix.T) == pytest.approx(ALL[name](matrix), abs=1e-12)
    assert ALL[name](matrix[order][:, order]) == pytest.approx(ALL[name](matrix), abs=1e-12)
    assert ALL[name](matrix[order]) != pytest.approx(ALL[name](matrix), abs=1e-3)


@pytest.mark.parametrize("name", ["donsker_varadhan", "jensen_shannon", "smile"])
def test_the_best_critic_reaches_the_information_of_a_bivariate_normal(name):
    values = [ALL[name](gaussian_ratio(400, seed)) for seed in range(20)]
    assert np.mean(values) == pytest.approx(0.413339, abs=3 * np.std(values) / 20**0.5 + 0.005)
    nwj_values = [nwj(gaussian_ratio(400, seed) + 1) for seed in range(20)]
    assert np.mean(nwj_values) == pytest.approx(0.413339, abs=0.06)


def test_the_divergence_of_the_best_critic_is_that_of_the_densities():
    # JS divergence of a bivariate normal (rho 0.75) from its independent margins, by quadrature.
    grid = np.linspace(-8, 8, 801)
    x, y = np.meshgrid(grid, grid)
    rho = 0.75
    ratio = (2 * rho * x * y - rho**2 * (x**2 + y**2)) / (2 * (1 - rho**2))
    ratio -= 0.5 * math.log(1 - rho**2)
    base = np.exp(-(x**2 + y**2) / 2) / (2 * math.pi) * (grid[1] - grid[0]) ** 2
    joint = base * np.exp(ratio)
    middle = (base + joint) / 2
    exact = 0.5 * (joint * np.log(joint / middle) + base * np.log(base / middle)).sum()
    values = [js_divergence(gaussian_ratio(400, seed)) for seed in range(20)]
    assert np.mean(values) == pytest.approx(exact, abs=3 * np.std(values) / 20**0.5 + 0.002)
    assert exact < 0.2 < 0.413339  # it is not the information


def test_large_scores_do_not_overflow():
    matrix = scores(6, 0) + 3000 * np.eye(6) + 2000
    assert math.isfinite(donsker_varadhan(matrix))
    assert math.isfinite(smile(matrix))
    assert math.isfinite(js_divergence(matrix))


@pytest.mark.parametrize("name", sorted(ALL))
def test_every_bound_says_what_is_wrong(name):
    bound = ALL[name]
    with pytest.raises(ShapeError, match=rf"{name} have shape \(3, 4\); needed \[batch, batch\]"):
        bound(np.zeros((3, 4)))
    with pytest.raises(DegenerateError, match=f"{name} got 1 pair; needed at least 2"):
        bound(np.zeros((1, 1)))
    with pytest.raises(DegenerateError, match=f"{name} hold NaN or infinity"):
        bound(np.array([[0, np.nan], [0, 0]]))


def test_smile_says_what_is_wrong():
    for tau in (0.0, math.nan):
        with pytest.raises(DegenerateError, match=r"got tau .*; needed a number above 0"):
            smile(np.eye(3), tau=tau)


def test_says_what_is_wrong():
    with pytest.raises(ShapeError, match=r"shape \(3, 4\); needed \[batch, batch\]"):
        infonce(np.zeros((3, 4)))
    with pytest.raises(DegenerateError, match="got 1 pair; needed at least 2"):
        infonce(np.zeros((1, 1)))
    with pytest.raises(DegenerateError, match="got 0 pair; needed at least 2"):
        infonce_ceiling(0)
    with pytest.raises(DegenerateError, match="NaN or infinity; needed finite logits"):
        infonce(np.array([[0, -np.inf], [0, 0]]))

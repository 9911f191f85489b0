"""A correlation over a handful of models, and what it can carry."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mirror_analysis.errors import DegenerateError, ShapeError, UnknownNameError
from mirror_analysis.inference.association import correlation

# Alignment and success of twelve published models.
ALIGNMENT = [0.036336, 0.035318, 0.024196, 0.029174, 0.025381, 0.032419,
             0.032802, 0.031852, 0.024013, 0.025535, 0.017397, 0.02173]  # fmt: skip
SUCCESS = [71.4, 63.6, 44.2, 65.3, 42.7, 51.3, 58.3, 51.0, 36.5, 57.1, 47.9, 42.7]


def slow_kendall(x, y):
    """Concordant less discordant pairs, over the pairs that differ on each side."""
    score = x_pairs = y_pairs = 0
    for i, j in itertools.combinations(range(len(x)), 2):
        a, b = np.sign(x[i] - x[j]), np.sign(y[i] - y[j])
        score, x_pairs, y_pairs = score + a * b, x_pairs + a * a, y_pairs + b * b
    return score / math.sqrt(x_pairs * y_pairs)


def test_published_numbers_are_found_again():
    found = correlation(ALIGNMENT, SUCCESS)
    assert (found.n, found.method, found.draws) == (12, "pearson", 19_999)
    assert found.value == pytest.approx(0.7173, abs=5e-5)
    assert found.p_parametric == pytest.approx(0.0086, abs=5e-5)
    assert found.p_value == pytest.approx(0.0046, abs=0.0015)
    assert (found.interval.low, found.interval.high) == pytest.approx((0.244, 0.915), abs=5e-4)
    assert (found.bootstrap.low, found.bootstrap.high) == pytest.approx((0.442, 0.911), abs=0.015)
    assert found.leave_one_out == pytest.approx((0.630, 0.783), abs=5e-4)
    assert correlation(ALIGNMENT, SUCCESS, method="spearman").value == pytest.approx(
        0.802, abs=5e-4
    )


@pytest.mark.parametrize(
    ("method", "slow"),
    [
        ("pearson", lambda x, y: np.corrcoef(x, y)[0, 1]),
        ("spearman", lambda x, y: np.corrcoef(stats.rankdata(x), stats.rankdata(y))[0, 1]),
        ("kendall", slow_kendall),
    ],
)
def test_all_orders_of_few_points_give_the_exact_p(method, slow):
    x, y = [3.0, 1.0, 2.0, 2.0, 5.0, 4.5], [1.0, 0.5, 2.0, 1.5, 2.5, 2.5]
    found = correlation(x, y, method=method)
    value = slow(x, y)
    null = np.array([slow(x, [y[i] for i in order]) for order in itertools.permutations(range(6))])
    assert found.value == pytest.approx(value)
    assert found.p_value == pytest.approx(np.mean(null >= value - 1e-12))
    assert found.p_two_sided == pytest.approx(np.mean(np.abs(null) >= abs(value) - 1e-12))
    assert found.draws == 0
    without = [slow(np.delete(x, i), np.delete(y, i)) for i in range(6)]
    assert found.leave_one_out == pytest.approx((min(without), max(without)))


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 1000), st.sampled_from(["pearson", "spearman", "kendall"]))
def test_units_do_not_matter_and_the_sign_does(seed, method):
    g = np.random.default_rng(seed)
    x, y = g.standard_normal((2, 7))
    found = correlation(x, y, method=method, draws=50)
    again = correlation(100 - 3 * x, 2 * y + 7, method=method, draws=50)
    assert again.value == pytest.approx(-found.value)
    assert again.p_two_sided == pytest.approx(found.p_two_sided)
    if method != "pearson":
        assert correlation(np.exp(x), y, method=method, draws=50) == found
    swapped = correlation(y, x, method=method, draws=50)
    assert swapped.p_value == pytest.approx(found.p_value)


def test_curves_matter_to_pearson_only():
    x = np.arange(1.0, 9.0)
    assert correlation(x, np.exp(x)).value < 0.8
    assert correlation(x, np.exp(x), method="spearman").value == pytest.approx(1)


def test_random_orders_reject_unrelated_points_at_their_level():
    g = np.random.default_rng(3)
    p = [correlation(*g.standard_normal((2, 12)), draws=99).p_value for _ in range(400)]
    assert 0.02 < np.mean(np.array(p) <= 0.05) < 0.09


@pytest.mark.parametrize("method", ["pearson", "spearman", "kendall"])
def test_fisher_intervals_cover(method):
    truth = {"pearson": 0.6, "spearman": 6 / math.pi * math.asin(0.3),
             "kendall": 2 / math.pi * math.asin(0.6)}[method]  # fmt: skip
    g = np.random.default_rng(1)
    held = 0
    for _ in range(300):
        x, noise = g.standard_normal((2, 40))
        found = correlation(x, 0.6 * x + 0.8 * noise, method=method, draws=1)
        held += found.interval.low <= truth <= found.interval.high
    assert held / 300 > 0.91


def test_three_points_give_a_value_and_no_more():
    found = correlation([1, 2, 3], [1, 2, 4])
    assert found.value > 0.9
    assert (found.p_value, found.p_two_sided, found.p_parametric) == (None, None, None)
    assert (found.interval, found.bootstrap, found.leave_one_out) == (None, None, None)


def test_a_perfect_line_has_no_interval_and_a_lone_point_no_range():
    found = correlation([1, 2, 3, 4, 5], [2, 4, 6, 8, 10])
    assert found.value == pytest.approx(1) and found.interval is None
    assert found.p_value == pytest.approx(1 / 120)
    assert correlation([0, 0, 0, 1], [1, 2, 3, 4]).leave_one_out is None
    assert correlation([1, 2, 4, 3], [1, 2, 3, 4], method="kendall").interval is None


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"x": [[1, 2]], "y": [[1, 2]]}, ShapeError, r"x has shape \(1, 2\)"),
        ({"x": [1, 2, 3], "y": [1, 2]}, ShapeError, "one number per model on both sides"),
        ({"x": [1, 2], "y": [1, 2]}, DegenerateError, "got 2 points; needed at least 3"),
        ({"x": [1, 2, 3], "y": [1, 2, np.nan]}, DegenerateError, "y holds NaN"),
        ({"x": [4, 4, 4], "y": [1, 2, 3]}, DegenerateError, "all 3 values of x are equal"),
        ({"level": 1.0}, DegenerateError, r"level 1.0; needed one in \(0, 1\)"),
        ({"draws": 0}, DegenerateError, "0 draws; needed at least 1"),
    ],
)
def test_bad_input_is_told_in_words(arguments, error, words):
    with pytest.raises(error, match=words):
        correlation(**{"x": [1, 2, 3, 5], "y": [2, 1, 3, 4], **arguments})


def test_an_unknown_method_is_told_with_the_nearest():
    from mirror_analysis.inference import association as module

    # Past the type checker of the test run, as a caller without one would come.
    with pytest.raises(UnknownNameError, match="did you mean 'spearman'"):
        module._coefficient("speerman")

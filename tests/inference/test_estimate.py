"""Intervals over seeds and episodes cover what they claim to, where the truth is known."""

import math

import numpy as np
import pytest
from scipy import stats

from mirror_analysis.errors import DegenerateError, ShapeError
from mirror_analysis.inference.estimate import Estimate, excess, independent_difference

RUNS = 300
FOLDS = 12
UNITS = 48
SLACK = 4 * math.sqrt(0.05 * 0.95 / RUNS)
TAIL = 4 * math.sqrt(0.025 * 0.975 / RUNS)


def of_means(samples: np.ndarray) -> Estimate:
    """The mean over units [seed, unit] and its jackknife replicates."""
    fold = np.arange(samples.shape[1]) % FOLDS
    kept = [samples[:, fold != f].mean(axis=1) for f in range(FOLDS)]
    return Estimate(samples.mean(axis=1), np.stack(kept, axis=1))


def world(g, truth, *, seeds=1, seed_sd=0.0, units=UNITS):
    """Units that contrasts share, noise of each contrast, and what a training seed adds."""
    shared = g.standard_normal(units)
    return {
        name: of_means(
            level
            + shared
            + 0.5 * g.standard_normal((seeds, units))
            + seed_sd * g.standard_normal((seeds, 1))
        )
        for name, level in truth.items()
    }


def test_draws_are_averaged_and_seeds_are_kept():
    draws = Estimate.over_draws([1.0, 3.0], [[1.0, 2.0], [3.0, 6.0]])
    assert draws.values.tolist() == [2.0] and draws.replicates.tolist() == [[2.0, 4.0]]
    both = Estimate.over_seeds([draws, Estimate(np.array([4.0]), np.array([[5.0, 6.0]]))])
    assert both.values.tolist() == [2.0, 4.0] and both.mean == 3.0
    assert both.replicates.tolist() == [[2.0, 4.0], [5.0, 6.0]]
    assert (both - both).mean == 0 and not (both - both).replicates.any()


def test_one_seed_has_the_jackknife_interval_and_several_a_wider_one():
    g = np.random.default_rng(0)
    one = of_means(g.standard_normal((1, UNITS)))
    assert one.interval().method == f"jackknife over {FOLDS} groups of units"
    apart = of_means(g.standard_normal(UNITS) + np.array([[-1.0], [1.0]]))
    assert apart.interval().method.endswith("and 2 seeds")
    width = apart.interval().high - apart.interval().low
    assert width > 3 * (one.interval().high - one.interval().low)


@pytest.mark.parametrize(("seeds", "seed_sd"), [(1, 0.0), (3, 0.3)])
def test_the_excess_over_a_known_best_control_is_covered(seeds, seed_sd):
    g = np.random.default_rng(seeds)
    truth = {"pair": 2.0, "best": 1.0, "poor": -1.0, "worse": -2.0}
    covered = 0
    for _ in range(RUNS):
        made = world(g, truth, seeds=seeds, seed_sd=seed_sd)
        best, value, interval = excess(made.pop("pair"), made)
        assert best == "best"
        assert interval.low < value < interval.high
        covered += interval.low <= 1.0 <= interval.high
    # Over several seeds the interval errs to the wide side.
    assert 0.95 - SLACK < covered / RUNS <= (0.95 + SLACK if seeds == 1 else 1.0)


@pytest.mark.parametrize("seeds", [1, 3])
def test_controls_as_good_as_the_pair_seldom_leave_an_excess(seeds):
    g = np.random.default_rng(10 + seeds)
    names = ("pair", "a", "b", "c")
    above = one_above = 0
    for _ in range(RUNS):
        made = world(g, dict.fromkeys(names, 0.0), seeds=seeds, seed_sd=0.2 * (seeds > 1))
        pair = made.pop("pair")
        above += excess(pair, made)[2].low > 0
        one_above += (pair - made["a"]).interval().low > 0
    assert above / RUNS < 0.025 + TAIL
    assert above <= one_above  # against each one, so never easier than against one


def test_the_excess_is_the_least_of_the_differences():
    g = np.random.default_rng(3)
    made = world(g, {"pair": 1.0, "a": 0.2, "b": 0.0})
    pair = made.pop("pair")
    best, value, interval = excess(pair, made)
    intervals = [(pair - control).interval() for control in made.values()]
    assert best == max(made, key=lambda name: made[name].mean)
    assert value == pytest.approx(pair.mean - made[best].mean)
    assert interval.low == min(i.low for i in intervals)
    assert interval.high == min(i.high for i in intervals)
    assert interval.method == f"jackknife over {FOLDS} groups of units, least over 2 controls"


@pytest.mark.parametrize(("seeds", "seed_sd"), [(1, 0.0), (3, 0.5)])
def test_differences_of_other_episodes_are_covered(seeds, seed_sd):
    g = np.random.default_rng(20 + seeds)
    covered = 0
    for _ in range(RUNS):
        a = of_means(0.7 + g.standard_normal(UNITS) + seed_sd * g.standard_normal((seeds, 1)))
        b = of_means(2 * g.standard_normal(24) + seed_sd * g.standard_normal((seeds, 1)))
        value, interval = independent_difference(a, b)
        assert value == pytest.approx(a.mean - b.mean)
        covered += interval.low <= 0.7 <= interval.high
    assert 0.95 - SLACK < covered / RUNS <= (0.95 + SLACK if seeds == 1 else 1.0)


def test_variances_of_other_episodes_add():
    g = np.random.default_rng(6)
    a, b = of_means(g.standard_normal((1, FOLDS))), of_means(3 * g.standard_normal((1, FOLDS)))
    half = [(e.interval().high - e.interval().low) / 2 for e in (a, b)]
    _, interval = independent_difference(a, b)
    # One unit a fold: the textbook variance of a mean.
    assert (interval.high - interval.low) / 2 == pytest.approx(math.hypot(*half))
    assert interval.method == "jackknife over groups of episodes of each outcome"


def test_seeds_add_their_own_variance_to_a_difference():
    a = Estimate(np.array([1.0, 3.0]), np.array([[0.0, 1.0, 2.0], [0.0, 1.0, 2.0]]))
    b = Estimate(np.zeros(2), np.zeros((2, 5)))
    value, interval = independent_difference(a, b)
    units, seeds = 2 / 3 * 2.0, 2.0 / 2
    freedom = (units + seeds) ** 2 / (units**2 / 2 + seeds**2 / 1)
    half = stats.t.ppf(0.975, freedom) * math.sqrt(units + seeds)
    assert value == 2.0
    assert (interval.high - interval.low) / 2 == pytest.approx(half)
    assert interval.method.endswith("and 2 seeds")
    still = Estimate(np.ones(2), np.ones((2, 3)))
    assert independent_difference(still, still)[1].high == 0


def test_says_what_is_wrong():
    a, b = Estimate(np.ones(1), np.ones((1, 3))), Estimate(np.ones(1), np.ones((1, 4)))
    with pytest.raises(ShapeError, match=r"1 seeds of 3 replicates and 1 of 4; compare both"):
        a - b
    with pytest.raises(DegenerateError, match="excess got no controls; needed at least one"):
        excess(a, {})

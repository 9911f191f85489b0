import itertools

import numpy as np
import pytest
from scipy import stats

from mirror_analysis.errors import DegenerateError, ShapeError
from mirror_analysis.inference.bootstrap import bootstrap_interval, bootstrap_ratio_interval


def test_percentile_ends_are_those_of_all_samples_there_are():
    x = np.array([0.0, 1.0, 4.0, 9.0])
    means = [np.mean(s) for s in itertools.product(x, repeat=4)]
    got = bootstrap_interval(
        np.arange(4), lambda r: float(x[r].mean()), method="percentile", draws=20000, level=0.8
    )
    assert np.allclose([got.low, got.high], np.quantile(means, [0.1, 0.9]), atol=0.26)
    assert got.level == 0.8 and got.method == "percentile bootstrap over 4 units"


def test_bca_equals_scipy_on_a_skewed_sample():
    x = np.random.default_rng(0).exponential(size=40)
    ours = bootstrap_interval(np.arange(40), lambda r: float(x[r].var()), draws=9999)
    theirs = stats.bootstrap((x,), np.var, n_resamples=9999, rng=1, method="BCa")
    low, high = theirs.confidence_interval
    assert np.allclose([ours.low, ours.high], [low, high], rtol=0.04)
    plain = bootstrap_interval(
        np.arange(40), lambda r: float(x[r].var()), draws=9999, method="percentile"
    )
    assert ours.high > 1.05 * plain.high  # skewness moves both ends up
    assert ours.method == "BCa bootstrap over 40 units"


@pytest.mark.parametrize("method", ["bca", "percentile"])
def test_the_fast_ratio_is_the_ratio(method):
    g = np.random.default_rng(2)
    units = g.permutation(np.repeat(np.arange(12), 3))
    within = units % 3
    above, below = g.exponential(size=36), g.exponential(size=36) + 1
    options = {"within": within, "method": method, "draws": 500, "seed": 3}
    fast = bootstrap_ratio_interval(units, above, below, **options)
    slow = bootstrap_interval(units, lambda r: float(above[r].sum() / below[r].sum()), **options)
    assert np.allclose([fast.low, fast.high], [slow.low, slow.high], rtol=1e-12)


def test_draws_whole_units_and_keeps_each_groups_number():
    units, within = np.array(list("aabbccdd")), np.array(list("xxxxyyyy"))
    seen = []

    def note(rows):
        seen.append(rows)
        return float(rows.mean())

    bootstrap_interval(units, note, within=within, draws=400, method="percentile")
    for rows in seen:
        assert (within[rows] == within).all()
        assert all(a == b for a, b in units[rows].reshape(-1, 2))
    assert len({tuple(rows) for rows in seen}) == 16


def test_rows_of_a_unit_are_no_evidence_of_their_own():
    g = np.random.default_rng(4)
    level = g.standard_normal(20)
    once = bootstrap_ratio_interval(np.arange(20), level)
    ten = bootstrap_ratio_interval(np.repeat(np.arange(20), 10), np.repeat(level, 10))
    assert np.allclose([once.low, once.high], [ten.low, ten.high])


def test_groups_that_differ_in_level_widen_nothing():
    g = np.random.default_rng(5)
    group = np.repeat([0, 1], 30)
    x = 100.0 * group + g.standard_normal(60)
    inside = bootstrap_ratio_interval(np.arange(60), x, within=group)
    over_all = bootstrap_ratio_interval(np.arange(60), x)
    assert inside.high - inside.low < 1 < 20 < over_all.high - over_all.low


def covers(truth, make, *, tries=400):
    hits = sum(i.low <= truth <= i.high for i in map(make, range(tries)))
    return hits / tries


def test_coverage_of_a_mean_and_of_a_ratio_of_episodes():
    def mean(seed):
        g = np.random.default_rng(seed)
        rows = np.repeat(g.standard_normal(40), 3) + 0.1 * g.standard_normal(120)
        return bootstrap_ratio_interval(np.repeat(np.arange(40), 3), rows, draws=599)

    def ratio(seed):
        g = np.random.default_rng(seed)
        steps = g.exponential(size=40)
        return bootstrap_ratio_interval(np.arange(40), steps * g.uniform(size=40), steps, draws=599)

    # 0.95 less what 40 units cost (0.01 to 0.02), within 3 standard errors of 0.011.
    assert 0.90 < covers(0.0, mean) < 0.985
    assert 0.90 < covers(0.5, ratio) < 0.985


def test_coverage_of_a_correlation():
    def correlation(seed):
        g = np.random.default_rng(seed)
        x = g.standard_normal(50)
        y = 0.8 * x + 0.6 * g.standard_normal(50)

        def r(rows):
            a, b = x[rows] - x[rows].mean(), y[rows] - y[rows].mean()
            return float(a @ b / np.sqrt((a @ a) * (b @ b)))

        return bootstrap_interval(np.arange(50), r, draws=299)

    assert 0.88 < covers(0.8, correlation, tries=150) < 0.99


def test_a_statistic_that_never_moves_has_no_width():
    got = bootstrap_interval(np.arange(5), lambda r: 2.0, draws=100)
    assert (got.low, got.high) == (2.0, 2.0)


def test_says_what_is_wrong():
    x = np.arange(4.0)
    with pytest.raises(DegenerateError, match="group y has one unit; needed at least 2 in each"):
        bootstrap_ratio_interval(list("aabc"), x, within=list("xxxy"))
    with pytest.raises(DegenerateError, match=r"got level 1; needed one in \(0, 1\)"):
        bootstrap_ratio_interval(np.arange(4), x, level=1.0)
    with pytest.raises(DegenerateError, match="got 10 draws; needed at least 40 for the tails"):
        bootstrap_ratio_interval(np.arange(4), x, draws=10)
    with pytest.raises(ShapeError, match=r"numerator has shape \(3,\); needed one number per row"):
        bootstrap_ratio_interval(np.arange(4), x[:3])
    with pytest.raises(ShapeError, match=r"denominator has shape \(3,\)"):
        bootstrap_ratio_interval(np.arange(4), x, x[:3])
    with pytest.raises(
        DegenerateError, match=r"not finite on \d+ of \d+ samples of units; it needs more"
    ):
        bootstrap_ratio_interval(np.arange(4), x, np.array([0.0, 0.0, 0.0, 1.0]))

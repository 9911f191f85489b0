"""A check passes inside its band, ends included, and never on NaN."""

import math

import msgspec
import pytest
from scipy import stats

from mirror_analysis.audit.checks import Check, binomial_band, judged, near, shown


@pytest.mark.parametrize(
    ("measured", "low", "high", "passed"),
    [
        (0.5, 0.5, 0.5, True),
        (0.5, 0.6, None, False),
        (0.5, None, 0.4, False),
        (-3.0, None, 0.4, True),
        (math.nan, None, None, False),
        (math.inf, 0.0, None, False),
    ],
)
def test_bands_hold_their_ends_and_no_nan(measured, low, high, passed):
    check = judged("group", "name", measured, low=low, high=high, note="why")
    assert check.passed is passed
    assert (check.low, check.high, check.note) == (low, high, "why")


def test_near_is_a_band_around_the_truth():
    assert near("g", "n", 1.05, 1.0, 0.1).passed and not near("g", "n", 1.2, 1.0, 0.1).passed
    assert near("g", "n", 2, 2, 0).passed and not near("g", "n", 2.01, 2, 0).passed


def test_what_is_shown_is_not_judged():
    assert shown("g", "n", 0.3, "why") == Check("g", "n", 0.3, note="why")
    assert shown("g", "n", math.nan).measured is None


def test_the_band_holds_99_in_100():
    assert binomial_band(1000, 0.05) == (0.033, 0.069)
    for trials, rate in ((100, 0.05), (300, 0.95)):
        low, high = (round(end * trials) for end in binomial_band(trials, rate))
        inside = stats.binom.cdf(high, trials, rate) - stats.binom.cdf(low - 1, trials, rate)
        assert 0.99 <= inside < 0.999
        assert stats.binom.sf(high, trials, rate) <= 0.005


def test_checks_are_written_and_read():
    check = judged("g", "n", 0.5, low=0.1)
    assert msgspec.json.decode(msgspec.json.encode(check), type=Check) == check

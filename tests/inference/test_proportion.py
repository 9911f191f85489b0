import numpy as np
import pytest

from mirror_analysis.errors import DegenerateError
from mirror_analysis.inference import wilson


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    # Newcombe 1998, Table I, method 3.
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_published_values(successes, trials, low, high):
    interval = wilson(successes, trials)
    assert interval.low == pytest.approx(low, abs=5e-5)
    assert interval.high == pytest.approx(high, abs=5e-5)


def test_successes_and_failures_mirror_one_another():
    won, lost = wilson(3, 17), wilson(14, 17)
    assert won.low == pytest.approx(1 - lost.high)
    assert won.high == pytest.approx(1 - lost.low)


def test_coverage_is_near_its_level():
    rng = np.random.default_rng(0)
    rate, trials = 0.8, 90
    draws = rng.binomial(trials, rate, size=2000)
    covered = [wilson(int(k), trials).low <= rate <= wilson(int(k), trials).high for k in draws]
    assert 0.93 < np.mean(covered) < 0.97


def test_no_trials_is_an_error():
    with pytest.raises(DegenerateError, match=r"^0 trials give no share; needed at least 1$"):
        wilson(0, 0)

"""Intervals of shares."""

from __future__ import annotations

from scipy.stats import norm

from mirror_analysis.errors import DegenerateError
from mirror_analysis.results import Interval


def wilson(successes: int, trials: int, *, level: float = 0.95) -> Interval:
    """Interval of a share of independent trials, sensible at 0 and 1 too (Wilson, 1927).

    Args:
        successes: in 0 to trials.
        trials: at least 1.
        level: coverage, in (0, 1).

    Raises:
        DegenerateError: if there are no trials.

    Example:
        >>> interval = wilson(8, 10)
        >>> round(interval.low, 3), round(interval.high, 3)
        (0.49, 0.943)
    """
    if trials < 1:
        raise DegenerateError(f"{trials} trials give no share; needed at least 1")
    z = float(norm.ppf(0.5 + level / 2))
    rate, weight = successes / trials, z * z / trials
    middle = (rate + weight / 2) / (1 + weight)
    spread = rate * (1 - rate) / trials + weight / (4 * trials)
    half = z / (1 + weight) * spread**0.5
    return Interval(max(0.0, middle - half), min(1.0, middle + half), level, "Wilson")

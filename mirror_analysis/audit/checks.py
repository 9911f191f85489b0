"""What an audit finds, and the pieces of work it is made of."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
from scipy import stats


class Check(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One number that was measured, and where it had to lie.

    Attributes:
        group: the audit it is of, such as "oracles".
        name: what was measured.
        measured: the number; None where there is none, and then `note` says why.
        low: least value wanted; None for no bound on that side.
        high: largest value wanted.
        passed: whether it lies there; None where it is shown and not judged.
        note: what a reader should know.
        seconds: wall time of the piece of work it came from.
    """

    group: str
    name: str
    measured: float | None
    low: float | None = None
    high: float | None = None
    passed: bool | None = None
    note: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Job:
    """A piece of work that one process does by itself.

    Attributes:
        group: the audit it is of.
        name: what it does, as shown where it fails.
        function: gives the checks; at the top of a module, so that it can be sent to a process.
        arguments: of the function; they can be sent too.
        cost: seconds on one core, about; the longest are begun first.
    """

    group: str
    name: str
    function: Callable[..., list[Check]]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    cost: float = 1.0


def judged(
    group: str,
    name: str,
    measured: float,
    *,
    low: float | None = None,
    high: float | None = None,
    note: str = "",
) -> Check:
    """A check that passes where low <= measured <= high; NaN never does."""
    value = float(measured)
    passed = (
        math.isfinite(value) and (low is None or low <= value) and (high is None or value <= high)
    )
    return Check(group, name, value, low, high, passed, note)


def near(
    group: str, name: str, measured: float, truth: float, tolerance: float, *, note: str = ""
) -> Check:
    """A check that passes within a tolerance of a known value."""
    low, high = truth - tolerance, truth + tolerance
    return judged(group, name, measured, low=low, high=high, note=note)


def shown(group: str, name: str, measured: float, note: str = "") -> Check:
    """A number for the reader that is not judged."""
    value = float(measured)
    return Check(group, name, value if math.isfinite(value) else None, note=note)


def binomial_band(trials: int, rate: float, *, level: float = 0.99) -> tuple[float, float]:
    """Shares of `trials` that a true rate gives with this probability, equal in both tails.

    Example:
        >>> binomial_band(1000, 0.05)
        (0.033, 0.069)
    """
    low, high = stats.binom.interval(level, trials, rate)
    return float(low) / trials, float(high) / trials

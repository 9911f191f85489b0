"""Intervals by drawing whole units again, with replacement."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import special

from mirror_analysis.errors import DegenerateError, ShapeError
from mirror_analysis.inference.units import Labels, Numbers, Units, gather_units
from mirror_analysis.results import Interval

Method: TypeAlias = Literal["bca", "percentile"]
Statistic: TypeAlias = Callable[[NDArray[np.int64]], float]


def bootstrap_interval(
    units: Labels,
    statistic: Statistic,
    *,
    within: Labels | None = None,
    method: Method = "bca",
    draws: int = 1999,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Bootstrap interval of any statistic of rows, over whole units inside their groups.

    Right for what is smooth in the weights of the units: means, ratios, correlations, slopes,
    differences of them. Wrong where a row drawn twice is not the same as a row that weighs twice:
    neighbours (a copy is its own nearest neighbour: mutual kNN, CKNNA, KSG), the CCA family and
    cross-validated predictions (copies are fewer directions, or stand in train and test both),
    maxima and ranks of ties, and U-statistics (a row meets its copy where a row never meets
    itself: debiased CKA); use `jackknife_interval` there. With fewer than about 20 units it
    covers less than it says.

    Args:
        units: [row] unit labels, such as episode ids.
        statistic: of int64 [drawn row] row numbers, in which rows of a unit drawn twice stand
            twice.
        within: [row] group labels, such as tasks, each of which keeps its number of units; None
            for one group.
        method: "percentile", or "bca": corrected for bias and skewness.
        draws: samples of units.
        level: coverage, in (0, 1).
        seed: of the draw.

    Raises:
        ShapeError: if labels are not one per row.
        DegenerateError: if a group has fewer than 2 units, a setting is out of range, or the
            statistic is not finite on a sample.

    Source:
        Efron 1987 (BCa); Davison and Hinkley 1997, section 2.4 and equation 5.34 (groups).

    Example:
        >>> x = np.arange(10.0)
        >>> interval = bootstrap_interval(np.arange(10), lambda rows: float(x[rows].mean()))
        >>> 2.5 < interval.low < 3.0 and 6.0 < interval.high < 6.5
        True
    """
    units_ = _checked(units, within, method, draws, level)
    rng = np.random.default_rng(seed)
    replicates = np.empty(draws)
    for draw, chosen in enumerate(_choices(units_, draws, rng)):
        replicates[draw] = statistic(np.concatenate([units_.rows[u] for u in chosen]))
    every = np.arange(sum(len(rows) for rows in units_.rows), dtype=np.int64)
    value = float(statistic(every))
    left_out = np.empty(0)
    if method == "bca":
        left_out = np.array([statistic(np.setdiff1d(every, rows)) for rows in units_.rows])
    return _interval(value, replicates, left_out, units_, method, level)


def bootstrap_ratio_interval(
    units: Labels,
    numerator: Numbers,
    denominator: Numbers | None = None,
    *,
    within: Labels | None = None,
    method: Method = "bca",
    draws: int = 9999,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """`bootstrap_interval` of sum(numerator) / sum(denominator), by one matrix product.

    Without a denominator, the mean over rows, in which a unit weighs as much as it has rows.

    Args:
        units: [row] unit labels, such as episode ids.
        numerator: [row] what is summed above, in any unit.
        denominator: [row] what is summed below; None for 1 per row.
        within: [row] group labels; None for one group.
        method: "percentile" or "bca".
        draws: samples of units.
        level: coverage, in (0, 1).
        seed: of the draw.

    Raises:
        ShapeError: if labels or numbers are not one per row.
        DegenerateError: as `bootstrap_interval`, and where a sample's denominator is 0.

    Example:
        >>> interval = bootstrap_ratio_interval(np.arange(10), np.arange(10.0))
        >>> 2.5 < interval.low < 3.0 and 6.0 < interval.high < 6.5
        True
    """
    units_ = _checked(units, within, method, draws, level)
    above = _per_unit(units_, numerator, "numerator")
    ones = np.ones(len(np.asarray(units)))
    below = _per_unit(units_, ones if denominator is None else denominator, "denominator")
    chosen = _choices(units_, draws, np.random.default_rng(seed))
    chosen += np.arange(draws)[:, None] * len(units_)
    counts = np.bincount(chosen.reshape(-1), minlength=chosen.size).reshape(draws, -1)
    replicates = _ratio(counts @ above, counts @ below)
    value = _ratio(above.sum(keepdims=True), below.sum(keepdims=True))[0]
    left_out = _ratio(above.sum() - above, below.sum() - below)
    return _interval(float(value), replicates, left_out, units_, method, level)


def _checked(
    units: Labels, within: Labels | None, method: Method, draws: int, level: float
) -> Units:
    units_ = gather_units(units, within=within)
    sizes = np.bincount(units_.group)
    if sizes.min() < 2:
        raise DegenerateError(
            f"group {units_.groups[sizes.argmin()]} has one unit; needed at least 2 in each to"
            " know how units differ, so add episodes or use a coarser label"
        )
    if method not in ("bca", "percentile"):
        raise DegenerateError(f"bootstrap got method {method!r}; needed 'bca' or 'percentile'")
    if not 0 < level < 1:
        raise DegenerateError(f"bootstrap got level {level:g}; needed one in (0, 1)")
    if draws < 2 / (1 - level):
        raise DegenerateError(
            f"bootstrap got {draws} draws; needed at least {round(2 / (1 - level))} for the tails"
            f" of level {level:g}, and 1999 for steady ends"
        )
    return units_


def _choices(units: Units, draws: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """[draw, drawn unit] unit numbers, each group with as many as it has."""
    parts = []
    for group in range(len(units.groups)):
        members = np.flatnonzero(units.group == group)
        parts.append(members[rng.integers(len(members), size=(draws, len(members)))])
    return np.concatenate(parts, axis=1)


def _per_unit(units: Units, numbers: Numbers, name: str) -> NDArray[np.float64]:
    values, count = np.asarray(numbers, dtype=np.float64), sum(len(rows) for rows in units.rows)
    if values.shape != (count,):
        raise ShapeError(f"{name} has shape {values.shape}; needed one number per row ({count},)")
    return np.array([values[rows].sum() for rows in units.rows])


def _ratio(above: NDArray[np.float64], below: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.divide(above, below, out=np.full(above.shape, np.nan), where=below != 0)


def _interval(
    value: float,
    replicates: NDArray[np.float64],
    left_out: NDArray[np.float64],
    units: Units,
    method: Method,
    level: float,
) -> Interval:
    said = np.concatenate([[value], replicates, left_out])
    if not np.isfinite(said).all():
        raise DegenerateError(
            f"the statistic is not finite on {int((~np.isfinite(said)).sum())} of {len(said)}"
            " samples of units; it needs more units, or a statistic defined on fewer rows"
        )
    tails = np.array([(1 - level) / 2, (1 + level) / 2])
    if method == "bca":
        tails = _corrected(tails, value, replicates, left_out, units)
    low, high = np.quantile(replicates, tails)
    name = "BCa bootstrap" if method == "bca" else "percentile bootstrap"
    return Interval(float(low), float(high), level, f"{name} over {len(units)} units")


def _corrected(
    tails: NDArray[np.float64],
    value: float,
    replicates: NDArray[np.float64],
    left_out: NDArray[np.float64],
    units: Units,
) -> NDArray[np.float64]:
    """The quantiles to read so that bias and skewness are allowed for (Efron 1987)."""
    count = len(replicates)
    under = ((replicates < value).sum() + (replicates == value).sum() / 2) / count
    # A value outside all replicates is as biased as their number can show.
    bias = special.ndtri(np.clip(under, 1 / (count + 1), count / (count + 1)))
    sizes = np.bincount(units.group)
    means = np.bincount(units.group, left_out) / sizes
    influence = (means[units.group] - left_out) * ((sizes - 1) / sizes)[units.group]
    spread = float((influence**2).sum())
    skewness = float((influence**3).sum()) / (6 * spread**1.5) if spread > 0 else 0.0
    moved = bias + special.ndtri(tails)
    return special.ndtr(bias + moved / (1 - skewness * moved))

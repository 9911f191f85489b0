"""Intervals by leaving out groups of units; differences and seed means with intervals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from mirror_analysis.errors import DegenerateError, ShapeError
from mirror_analysis.inference.units import Labels, Numbers, gather_units
from mirror_analysis.results import Interval


def folds(
    units: Labels, *, within: Labels | None = None, count: int = 32, seed: int = 0
) -> NDArray[np.int64]:
    """Divides rows into folds of whole units, each group spread evenly over them.

    Args:
        units: [row] unit labels, such as episode ids.
        within: [row] group labels, such as tasks; None for one group.
        count: folds wanted; with fewer units than that, each unit is a fold.
        seed: of the draw.

    Returns:
        [row] fold numbers from 0; the same for the same labels and seed.

    Raises:
        ShapeError: if labels are not one per row.
        DegenerateError: if there are fewer than 2 units or fewer than 2 folds are wanted.
    """
    if count < 2:
        raise DegenerateError(f"folds got count {count}; needed at least 2")
    units_ = gather_units(units, within=within)
    number = min(count, len(units_))
    rng = np.random.default_rng(seed)
    dealt = np.concatenate(
        [rng.permutation(np.flatnonzero(units_.group == g)) for g in range(len(units_.groups))]
    )
    out = np.empty(sum(len(r) for r in units_.rows), dtype=np.int64)
    for position, unit in enumerate(dealt):
        out[units_.rows[unit]] = position % number
    return out


def jackknife_interval(
    value: float, replicates: Numbers, *, level: float = 0.95, method: str = "jackknife"
) -> Interval:
    """Delete-a-group jackknife interval, with Student t of (folds - 1) degrees of freedom.

    `value ± t * sqrt((g - 1) / g * sum((replicate - mean of replicates)²))`.

    Args:
        value: the estimate from all rows.
        replicates: [fold] the same estimate without each fold in turn.
        level: coverage, in (0, 1).
        method: how the replicates were made, for the record.

    Raises:
        DegenerateError: if there are fewer than 2 replicates or one is not finite.

    Source:
        Kott 2001, section 2.

    Example:
        >>> interval = jackknife_interval(2.0, [1.5, 2.0, 2.5])
        >>> round(interval.low, 3), round(interval.high, 3)
        (-0.484, 4.484)
    """
    r = _replicates(replicates)
    return _interval(
        value, _variance(r), len(r) - 1, level, f"{method} over {len(r)} groups of units"
    )


def combine_seeds(
    values: Sequence[float], replicates: Numbers
) -> tuple[float, Interval, NDArray[np.float64]]:
    """The mean over training seeds, with an interval for new seeds and new episodes.

    variance = jackknife variance of the seed mean over units + variance between seeds / seeds.
    The second part also holds a little of the first, so the interval errs to the wide side.
    Student t with the degrees of freedom of Satterthwaite 1946 for the two parts.

    Args:
        values: [seed] the estimate of each seed.
        replicates: [seed, fold] replicates on the same folds for all seeds.

    Returns:
        The mean, its 95 % interval, and the [fold] replicates of the mean (which know of
        episodes only: an interval made from them alone leaves the seeds out).

    Raises:
        ShapeError: if replicates are not [seed, fold].
        DegenerateError: if there are fewer than 2 seeds or folds, or a value is not finite.
    """
    v, r = np.asarray(values, dtype=np.float64), np.asarray(replicates, dtype=np.float64)
    if v.ndim != 1 or r.ndim != 2 or len(r) != len(v):
        raise ShapeError(
            f"values have shape {v.shape} and replicates {r.shape}; needed [seed] and [seed, fold]"
        )
    if len(v) < 2:
        raise DegenerateError(
            f"combine_seeds got {len(v)} seed; needed at least 2 to know how seeds differ"
            " (for one seed use jackknife_interval)"
        )
    if not np.isfinite(v).all():
        raise DegenerateError("combine_seeds got a value that is not finite; leave that seed out")
    mean, mean_replicates = float(v.mean()), _replicates(r.mean(axis=0))
    of_units, of_seeds = _variance(mean_replicates), float(v.var(ddof=1)) / len(v)
    fold_freedom, seed_freedom = len(mean_replicates) - 1, len(v) - 1
    scale = of_units**2 / fold_freedom + of_seeds**2 / seed_freedom
    freedom = (of_units + of_seeds) ** 2 / scale if scale > 0 else float(fold_freedom)
    method = f"jackknife over {len(mean_replicates)} groups of units and {len(v)} seeds"
    return mean, _interval(mean, of_units + of_seeds, freedom, 0.95, method), mean_replicates


def _replicates(replicates: Numbers) -> NDArray[np.float64]:
    r = np.asarray(replicates, dtype=np.float64)
    if r.ndim != 1 or len(r) < 2:
        raise DegenerateError(
            f"replicates have shape {r.shape}; needed [fold] with at least 2 folds"
        )
    if not np.isfinite(r).all():
        raise DegenerateError(
            f"{int((~np.isfinite(r)).sum())} of {len(r)} replicates are not finite;"
            " the measure is not defined without those units, so add units or use fewer folds"
        )
    return r


def _variance(replicates: NDArray[np.float64]) -> float:
    count = len(replicates)
    return float((count - 1) / count * np.square(replicates - replicates.mean()).sum())


def _interval(
    value: float, variance: float, freedom: float | int, level: float, method: str
) -> Interval:
    half = float(stats.t.ppf((1 + level) / 2, freedom)) * variance**0.5
    return Interval(low=value - half, high=value + half, level=level, method=method)

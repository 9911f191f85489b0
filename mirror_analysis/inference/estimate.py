"""A number over several training seeds, with what is needed to subtract it from another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy import stats

from mirror_analysis.errors import DegenerateError, ShapeError
from mirror_analysis.inference.jackknife import combine_seeds, jackknife_interval
from mirror_analysis.results import Interval


@dataclass(frozen=True, eq=False)
class Estimate:
    """One measure of one contrast.

    Attributes:
        values: [seed] one per training seed.
        replicates: [seed, fold] jackknife replicates over the same groups of episodes.
    """

    values: NDArray[np.float64]
    replicates: NDArray[np.float64]

    @staticmethod
    def over_draws(values: Sequence[float], replicates: Sequence[Sequence[float]]) -> Estimate:
        """One seed: the mean over random initialisations."""
        return Estimate(
            np.array([np.mean(values)]), np.mean(np.asarray(replicates), axis=0, keepdims=True)
        )

    @staticmethod
    def over_seeds(parts: Sequence[Estimate]) -> Estimate:
        """Several seeds together."""
        return Estimate(
            np.concatenate([part.values for part in parts]),
            np.concatenate([part.replicates for part in parts]),
        )

    def __sub__(self, other: Estimate) -> Estimate:
        if self.replicates.shape != other.replicates.shape:
            (seeds, folds), (other_seeds, other_folds) = (
                self.replicates.shape,
                other.replicates.shape,
            )
            raise ShapeError(
                f"estimates have {seeds} seeds of {folds} replicates and {other_seeds} of"
                f" {other_folds}; compare both on the same rows with the same folds and seeds"
            )
        return Estimate(self.values - other.values, self.replicates - other.replicates)

    @property
    def mean(self) -> float:
        """Mean over training seeds."""
        return float(self.values.mean())

    def interval(self) -> Interval:
        """For new episodes, and for new training seeds where there are several."""
        if len(self.values) == 1:
            return jackknife_interval(self.mean, self.replicates[0])
        return combine_seeds(self.values.tolist(), self.replicates)[1]


def excess(estimate: Estimate, controls: Mapping[str, Estimate]) -> tuple[str, float, Interval]:
    """How far an estimate stands above the largest of its controls.

    "Above every control" holds only where it holds against each one, so the low end is the
    least of the low ends of the paired differences (intersection-union test, Berger 1982): it is
    valid whichever control is the best, without a correction for their number. The high end is
    the least of the high ends.

    Returns:
        The best control's name, the excess over it, and the interval.

    Raises:
        DegenerateError: if there is no control.
        ShapeError: if replicates are not of the same folds and seeds.
    """
    if not controls:
        raise DegenerateError("excess got no controls; needed at least one to stand above")
    differences = {name: estimate - control for name, control in controls.items()}
    best = min(differences, key=lambda name: differences[name].mean)
    intervals = [difference.interval() for difference in differences.values()]
    interval = msgspec.structs.replace(
        intervals[0],
        low=min(i.low for i in intervals),
        high=min(i.high for i in intervals),
        method=f"{intervals[0].method}, least over {len(controls)} controls",
    )
    return best, differences[best].mean, interval


def independent_difference(a: Estimate, b: Estimate) -> tuple[float, Interval]:
    """The difference a - b where the two come from different episodes (successes and failures).

    Jackknife variances add. With several training seeds the variance between the seeds'
    differences, over their number, is added; Student t with the fewest degrees of freedom.
    """
    seeds, value = len(a.values), a.mean - b.mean
    variance, freedom = 0.0, np.inf
    for part in (a, b):
        replicates = part.replicates.mean(axis=0)
        count = len(replicates)
        variance += (count - 1) / count * float(np.square(replicates - replicates.mean()).sum())
        freedom = min(freedom, count - 1)
    method = "jackknife over groups of episodes of each outcome"
    if seeds > 1:
        between = float((a.values - b.values).var(ddof=1)) / seeds
        total = variance + between
        # Satterthwaite, 1946.
        scale = variance**2 / freedom + between**2 / (seeds - 1)
        freedom = total**2 / scale if scale > 0 else freedom
        variance, method = total, f"{method} and {seeds} seeds"
    half = float(stats.t.ppf(0.975, freedom)) * variance**0.5
    return value, Interval(value - half, value + half, 0.95, method)

"""How good predictions are, with an interval over units and what no relation gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from mirror_analysis.inference import folds as deal
from mirror_analysis.inference import jackknife_interval, permutations
from mirror_analysis.probing.folds import Fold, constant_in
from mirror_analysis.probing.targets import Target
from mirror_analysis.results import Interval

# Groups of units that the jackknife leaves out in turn.
_GROUPS = 32


@dataclass(frozen=True, eq=False)
class Parts:
    """A measure as sums over rows, which are all it takes to leave rows out.

    Its value is the mean over parts of `over / under`, or 1 less that: accuracy has one part
    (right rows over rows), balanced accuracy one for each class, R² one for each quantity
    (squares that are left over squares about the mean of the fit rows).

    Attributes:
        over: [..., row, part].
        under: [..., row, part].
        inverted: whether the value is 1 less the ratio.
    """

    over: NDArray[np.float64]
    under: NDArray[np.float64]
    inverted: bool

    def value(self) -> NDArray[np.float64]:
        """[...] the measure over all rows."""
        return self._mean(self.over.sum(axis=-2), self.under.sum(axis=-2))

    def of_groups(self, group: NDArray[np.int64]) -> tuple[NDArray[np.float64], ...]:
        """Sums over the rows of each group, [group, part], of `over` and of `under`."""
        count = int(group.max()) + 1
        sums = []
        for rows in (self.over, self.under):
            out = np.zeros((count, rows.shape[-1]))
            np.add.at(out, group, rows)
            sums.append(out)
        return tuple(sums)

    def replicates(self, group: NDArray[np.int64]) -> NDArray[np.float64]:
        """[group] the measure without the rows of each group; the fits stay as they are."""
        over, under = self.of_groups(group)
        return self._mean(over.sum(axis=0) - over, under.sum(axis=0) - under)

    def of_units(self, unit: NDArray[np.int64]) -> NDArray[np.float64]:
        """[unit] the share of rows that are right, or what comes nearest for quantities.

        That is 1 less the squares left over those about the mean in an average unit, so that the
        mean over units is the measure.
        """
        over, under = self.of_groups(unit)
        if self.inverted:
            return 1 - (over / under.mean(axis=0)).mean(axis=1)
        return over.sum(axis=1) / under.sum(axis=1)

    def _mean(self, over: NDArray[Any], under: NDArray[Any]) -> NDArray[np.float64]:
        # Without a group a class can be missing altogether.
        there = under > 1e-12 * under.max()
        ratio = np.where(there, over / np.where(there, under, 1.0), 0.0)
        mean = ratio.sum(axis=-1) / there.sum(axis=-1)
        return np.asarray(1 - mean if self.inverted else mean)


def parts_of(
    target: Target,
    predicted: NDArray[Any],
    truth: NDArray[Any],
    center: NDArray[np.float64],
    *,
    balanced: bool,
) -> Parts:
    """The measure of predictions, for any number of draws.

    Args:
        target: what is decoded.
        predicted: [..., row] class numbers or [..., row, quantity].
        truth: the same of the labels.
        center: [..., row, quantity] mean of the labels over the fit rows of each row's fold; not
            looked at for classes.
        balanced: whether every class counts alike.
    """
    if target.kind == "regression":
        return Parts(np.square(truth - predicted), np.square(truth - center), True)
    right = (predicted == truth).astype(np.float64)[..., None]
    if not balanced:
        return Parts(right, np.ones_like(right), False)
    member = (truth[..., None] == np.arange(len(target.classes))).astype(np.float64)
    return Parts(right * member, member, False)


def centers(values: NDArray[np.float64], folds: Sequence[Fold]) -> NDArray[np.float64]:
    """[..., row, quantity] for each test row the mean of the labels that its fit has seen."""
    out = np.full(values.shape, np.nan)
    for fold in folds:
        out[..., fold.test, :] = values[..., fold.known, :].mean(axis=-2, keepdims=True)
    return out


def commonest(labels: NDArray[np.int64], folds: Sequence[Fold]) -> NDArray[np.int64]:
    """[row] for each test row the commonest class of the rows that its fit has seen."""
    out = np.full(len(labels), -1, dtype=np.int64)
    for fold in folds:
        out[fold.test] = np.bincount(labels[fold.known]).argmax()
    return out


def jackknife_groups(units: NDArray[Any], seed: int) -> NDArray[np.int64]:
    """[row] the group of units that is left out together with each row."""
    return deal(units, count=_GROUPS, seed=seed)


def interval_of(
    value: float, replicates: NDArray[np.float64], units: int, *, share: bool, unit: str
) -> Interval:
    """For new units of the kind that was held out.

    For shares a Wilson interval of effective size p (1 - p) / variance, with the jackknife's
    variance and Student t: unlike value ± t sd it has a width where all units agree, and stays
    inside [0, 1].

    Source:
        Franco, Little, Louis and Slud 2019, section 2 (Wilson intervals with an effective size).
    """
    plain = jackknife_interval(value, replicates)
    groups = len(replicates)
    method = f"jackknife over {groups} groups of {units} {unit}s"
    if not share:
        return Interval(plain.low, plain.high, plain.level, method)
    t = float(stats.t.ppf(0.975, groups - 1))
    variance = ((plain.high - plain.low) / (2 * t)) ** 2
    spread = value * (1 - value)
    # Where all agree the variance tells nothing but that there are so many units.
    size = spread / variance if variance > 1e-12 and spread > 1e-12 else float(units)
    center = (value + t**2 / (2 * size)) / (1 + t**2 / size)
    half = t / (1 + t**2 / size) * (spread / size + t**2 / (4 * size**2)) ** 0.5
    return Interval(
        max(0.0, center - half),
        min(1.0, center + half),
        0.95,
        f"Wilson of effective size, {method}",
    )


def orders(
    labels: NDArray[Any],
    episodes: NDArray[Any],
    groups: Sequence[NDArray[Any]],
    *,
    draws: int,
    seed: int,
) -> NDArray[np.int64] | None:
    """Orders of the rows in which whole episodes trade labels with others of their group.

    Episodes whose rows all have one label trade it whatever their lengths; else an episode trades
    with those of as many rows.

    Args:
        labels: [row] or [row, quantity].
        episodes: [row] ids.
        groups: [row] labels, each; episodes trade where all of them agree.
        draws: how many orders.
        seed: of the draw.

    Returns:
        [draw, row]: row i is given the label of row `[d, i]`; None where nothing can be traded.
    """
    _, first, unit, size = np.unique(
        episodes, return_index=True, return_inverse=True, return_counts=True
    )
    columns = [np.unique(group, return_inverse=True)[1] for group in groups]
    whole = constant_in(_joined(labels), episodes)
    if not whole:
        columns.append(size[unit])
    group = _joined(np.stack([np.zeros(len(episodes), dtype=np.int64), *columns], axis=1))
    if np.bincount(group[first]).max() < 2:
        return None
    if whole:
        order = permutations(np.arange(len(first)), within=group[first], draws=draws, seed=seed)
        return first[order][:, unit].astype(np.int64)
    return permutations(episodes, within=group, draws=draws, seed=seed)


def _joined(labels: NDArray[Any]) -> NDArray[np.int64]:
    """One number for every distinct row of labels."""
    return np.unique(labels, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64)

"""Whole units divided into training, validation and test, and the test units judged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mirror_analysis.errors import DegenerateError, ShapeError
from mirror_analysis.inference import folds, permutations
from mirror_analysis.inference.units import Labels, gather_units
from mirror_analysis.information.config import EstimatorConfig
from mirror_analysis.information.evaluation import Bound, bound_value, shuffled, without_folds

Rows = list[NDArray[np.int64]]

_MOST_ROWS = 16  # of one unit, each in a score matrix of its own
_FEWEST = 4  # units of each part; the jackknife leaves out one and needs two more to tell apart


@dataclass(frozen=True, eq=False)
class Parts:
    """The rows of each unit, by what the unit is for."""

    fit: Rows
    validation: Rows
    test: Rows


def divide(samples: int, units: Labels | None, config: EstimatorConfig) -> Parts:
    """Draws whole units for validation and test.

    Args:
        samples: number of rows.
        units: [sample] labels; None for every row by itself.
        config: shares and the seed of the draw.

    Raises:
        ShapeError: if there is not one label per row.
        DegenerateError: if a part gets fewer than 4 units.
    """
    if units is None:
        rows = list(np.arange(samples, dtype=np.int64)[:, None])
    else:
        if np.asarray(units).shape != (samples,):
            raise ShapeError(
                f"units have shape {np.asarray(units).shape} but there are {samples} samples;"
                " needed one label per row"
            )
        rows = list(gather_units(units).rows)
    order = np.random.default_rng(config.split_seed).permutation(len(rows))
    test, validation = (round(share * len(rows)) for share in (config.test, config.validation))
    parts = np.split(order, [test, test + validation])
    if min(len(part) for part in parts) < _FEWEST:
        raise DegenerateError(
            f"{len(rows)} units leave {len(parts[2])} to train on, {len(parts[1])} for validation"
            f" and {len(parts[0])} for test; needed at least {_FEWEST} of each, so add episodes"
            " or change the shares"
        )
    return Parts(*([rows[i] for i in np.sort(part)] for part in (parts[2], parts[1], parts[0])))


@dataclass(frozen=True, eq=False)
class Judged:
    """One trained critic on the test units.

    Attributes:
        value: the bound.
        without: [fold] the bound without each fold of units.
        shuffled: [draw] the bound of shuffled pairings.
    """

    value: float
    without: NDArray[np.float64]
    shuffled: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Score matrices to be made of held-out units: one row of a unit in each.

    Attributes:
        units: rows of each unit.
        members: for each matrix the numbers of its units, ascending.
        rows: for each matrix one row of each of them.
        folds: [unit] fold of the jackknife.
        orders: [draw, unit] unit whose y each unit meets under the null.
    """

    units: Rows
    members: Rows
    rows: Rows
    folds: NDArray[np.int64]
    orders: NDArray[np.int64]

    @staticmethod
    def of(units: Rows, config: EstimatorConfig, *, draws: int) -> HeldOut:
        """Lays out the matrices; more units than fit in one are drawn into equal groups."""
        rng = np.random.default_rng(config.split_seed)
        groups = -(-len(units) // config.evaluation_batch)
        group = rng.permutation(np.arange(len(units)) % groups)
        repeats = min(_MOST_ROWS, max(len(rows) for rows in units))
        # A unit with fewer rows gives some of them again.
        drawn = [np.resize(rng.permutation(rows), repeats) for rows in units]
        members = [np.flatnonzero(group == g) for g in range(groups) for _ in range(repeats)]
        rows = [
            np.array([drawn[unit][i % repeats] for unit in m], dtype=np.int64)
            for i, m in enumerate(members)
        ]
        number = np.arange(len(units))
        orders = np.empty((0, len(units)), dtype=np.int64)
        if draws:
            orders = permutations(number, within=group, draws=draws, seed=config.split_seed)
        fold = folds(number, within=group, seed=config.split_seed)
        return HeldOut(units, members, rows, fold, orders)

    @property
    def pairs(self) -> int:
        """Pairs in the smallest score matrix."""
        return min(len(m) for m in self.members)

    def judge(
        self, bound: Bound, scores: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor
    ) -> Judged:
        """Means over the matrices of what one critic gives.

        Args:
            bound: which.
            scores: makes a score matrix of rows of x and of y.
            x: all rows.
            y: all rows of the other side.
        """
        count = int(self.folds.max()) + 1
        values, without, shuffles = [], [], []
        for members, rows in zip(self.members, self.rows, strict=True):
            here = torch.from_numpy(rows).to(x.device)
            matrix = scores(x[here], y[here])
            fold = torch.from_numpy(self.folds[members]).to(x.device)
            # Orders stay inside the matrix; there they count its own pairs.
            own = np.searchsorted(members, self.orders[:, members])
            values.append(float(bound_value(bound, matrix)))
            without.append(without_folds(bound, matrix, fold, count).cpu().numpy())
            shuffles.append(
                shuffled(bound, matrix, torch.from_numpy(own).to(x.device)).cpu().numpy()
            )
        return Judged(float(np.mean(values)), np.mean(without, axis=0), np.mean(shuffles, axis=0))

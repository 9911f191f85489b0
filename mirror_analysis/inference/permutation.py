"""The null of no relation: whole units exchanged, or each rotated in time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mirror_analysis.errors import DegenerateError, ShapeError
from mirror_analysis.inference.units import Labels, Numbers, gather_units

# Values that differ by less than rounding count as ties, against the finding.
_ROUNDING = 1e-10


def permutations(
    units: Labels, *, within: Labels | None = None, draws: int, seed: int = 0
) -> NDArray[np.int64]:
    """Random orders of the rows that move whole units, each inside its group.

    The rows of a unit stay together and in their order, so that what makes neighbouring rows
    alike is in the null as it is in the data. The same labels and seed give the same orders.

    Args:
        units: [row] unit labels, such as episode ids.
        within: [row] group labels, such as tasks; None to permute over all.
        draws: how many orders.
        seed: of the draw.

    Returns:
        [draw, row] row numbers: row i of one side meets row `[d, i]` of the other.

    Raises:
        ShapeError: if labels are not one per row, or units that may trade places have
            different numbers of rows.
        DegenerateError: if there are fewer than 2 units, or every group has one unit only.

    Source:
        Good 2005, chapter 3 (restricted permutation).

    Example:
        >>> permutations(["a", "a", "b", "b"], draws=1, seed=1).tolist()
        [[2, 3, 0, 1]]
    """
    units_ = gather_units(units, within=within)
    sizes = np.bincount(units_.group)
    if sizes.max() < 2:
        raise DegenerateError(
            f"each of the {len(sizes)} groups has one unit only, so nothing can trade places;"
            " permute within a coarser label or over all"
        )
    rng = np.random.default_rng(seed)
    out = np.tile(np.arange(len(np.asarray(units)), dtype=np.int64), (draws, 1))
    for number, label in enumerate(units_.groups):
        members = np.flatnonzero(units_.group == number)
        counts = [len(units_.rows[m]) for m in members]
        if min(counts) != max(counts):
            inside = f" of group {label}" if within is not None else ""
            raise ShapeError(
                f"units{inside} have between {min(counts)} and {max(counts)} rows; needed equally"
                " many to trade places, so take the same number of rows of every unit"
            )
        rows = np.stack([units_.rows[m] for m in members])
        order = rng.permuted(np.tile(np.arange(len(members)), (draws, 1)), axis=1)
        out[:, rows.reshape(-1)] = rows[order].reshape(draws, -1)
    return out


def circular_shifts(
    units: Labels, *, draws: int, seed: int = 0, least: int = 0
) -> NDArray[np.int64]:
    """Orders of the rows in which each unit meets itself rotated by a random number of rows.

    Tests whether two series of the same episodes move together in time, and keeps what makes
    neighbouring steps alike. Each unit draws its own offset, all that `least` allows being
    equally likely. It is valid where, without a relation, one series inside an episode is
    stationary: its law does not change from the first step to the last, and the seam between
    them is one jump in a long series. It is not valid for episodes that all begin and end alike
    (reaching, then grasping): their common course is broken by the rotation and so counts as
    relation; permute whole episodes there. It cannot test whether episodes differ
    from one another in the same way on both sides, since each keeps its own rows; and there are
    few orders of few short units, as many as the product of the units' offsets, which bounds p
    from below.

    Args:
        units: [row] unit labels, such as episode ids, with the rows of a unit in order of time.
        draws: how many orders.
        seed: of the draw.
        least: rows the offset is at least, either way round the unit. With 0 the orders form a
            group and p is exact for series that close to a circle; with more they do not, and
            related layers stand out more at the price of a p that is a little too small.

    Returns:
        [draw, row] row numbers: row i of one side meets row `[d, i]` of the other, of its unit.

    Raises:
        ShapeError: if labels are not one per row.
        DegenerateError: if `least` is negative, there are fewer than 2 units, or no unit is
            long enough to be rotated, or one is too short for an offset of `least`.

    Source:
        Harris 2020 (nonsense correlations: when shifted series are a fair null).

    Example:
        >>> circular_shifts(["a", "a", "b", "b"], draws=1, least=1).tolist()
        [[1, 0, 3, 2]]
    """
    units_ = gather_units(units)
    if least < 0:
        raise DegenerateError(f"circular_shifts got least {least}; needed 0 or more rows")
    lengths = [len(rows) for rows in units_.rows]
    if max(lengths) < 2:
        raise DegenerateError(
            "each unit has one row only, so nothing can be rotated; give all steps of each"
            " episode, or permute whole units"
        )
    rng = np.random.default_rng(seed)
    out = np.empty((draws, sum(lengths)), dtype=np.int64)
    for name, rows, length in zip(units_.names, units_.rows, lengths, strict=True):
        # A unit of one row has no other offset than 0.
        nearest = least if length > 1 else 0
        if 2 * nearest > length:
            raise DegenerateError(
                f"unit {name} has {length} rows; needed at least {2 * least} to be rotated by"
                f" {least} or more, so leave it out or ask for less"
            )
        farthest = length - max(nearest, 1)
        offset = rng.integers(nearest, farthest, size=draws, endpoint=True)
        out[:, rows] = rows[(np.arange(length) + offset[:, None]) % length]
    return out


def p_value(observed: Numbers, null: Numbers) -> NDArray[np.float64]:
    """One-sided permutation p: `(1 + #{null >= observed}) / (draws + 1)`, in (0, 1].

    Args:
        observed: [...] values.
        null: [draw, ...] the same values under permutation.

    Returns:
        [...] p of each value by itself.

    Raises:
        DegenerateError: if there are no draws.

    Source:
        Phipson and Smyth 2010.

    Example:
        >>> float(p_value(3.0, [1.0, 2.0, 4.0]))
        0.5
    """
    value, draws = np.asarray(observed, dtype=np.float64), np.asarray(null, dtype=np.float64)
    if draws.ndim == 0 or not len(draws):
        raise DegenerateError("p_value got 0 null draws; needed at least 1")
    reached = draws >= value - _ROUNDING * np.maximum(1.0, np.abs(value))
    return np.asarray((1 + reached.sum(axis=0)) / (len(draws) + 1), dtype=np.float64)

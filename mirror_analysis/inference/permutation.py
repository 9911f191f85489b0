"""The null of no relation: whole units exchanged, inside groups where asked."""

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

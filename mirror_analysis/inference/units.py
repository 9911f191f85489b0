"""Which rows belong to one independent unit, and which units to one group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mirror_analysis.errors import DegenerateError, ShapeError

Labels: TypeAlias = NDArray[Any] | Sequence[Any]
Numbers: TypeAlias = NDArray[Any] | Sequence[Any] | float


@dataclass(frozen=True, eq=False)
class Units:
    """Rows gathered into units and groups, both in sorted order of their labels.

    Attributes:
        names: [unit] label of each unit.
        rows: for each unit its row numbers, in order.
        group: [unit] number of the group each unit is in.
        groups: [group] label of each group.
    """

    names: NDArray[Any]
    rows: tuple[NDArray[np.int64], ...]
    group: NDArray[np.int64]
    groups: NDArray[Any]

    def __len__(self) -> int:
        return len(self.names)


def gather_units(units: Labels, *, within: Labels | None = None) -> Units:
    """Reads the unit and group labels of every row.

    Args:
        units: [row] unit labels, such as episode ids.
        within: [row] group labels, such as tasks; None for one group.

    Raises:
        ShapeError: if the labels are not one per row.
        DegenerateError: if there are fewer than 2 units, or a unit is in two groups.
    """
    labels = np.asarray(units)
    if labels.ndim != 1:
        raise ShapeError(f"units have shape {labels.shape}; needed one label per row")
    names, unit_of_row = np.unique(labels, return_inverse=True)
    if len(names) < 2:
        raise DegenerateError(
            f"{len(labels)} rows are of {len(names)} unit; needed at least 2 independent units,"
            " so add episodes"
        )
    order = np.argsort(unit_of_row, kind="stable").astype(np.int64)
    rows = tuple(np.split(order, np.cumsum(np.bincount(unit_of_row))[:-1]))
    if within is None:
        return Units(names, rows, np.zeros(len(names), dtype=np.int64), np.array([""]))
    grouping = np.asarray(within)
    if grouping.shape != labels.shape:
        raise ShapeError(
            f"within has shape {grouping.shape} but units {labels.shape};"
            " needed one group label per row"
        )
    groups, group_of_row = np.unique(grouping, return_inverse=True)
    for name, members in zip(names, rows, strict=True):
        if np.ptp(group_of_row[members]):
            pair = np.unique(grouping[members])[:2]
            raise DegenerateError(
                f"unit {name} has rows in groups {pair[0]} and {pair[1]};"
                " group by a label that is the same for all rows of a unit"
            )
    group = np.array([group_of_row[members[0]] for members in rows], dtype=np.int64)
    return Units(names, rows, group, groups)

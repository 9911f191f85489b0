"""Which rows a probe is fitted on, chosen by and tested on; whole groups on one side each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mirror_analysis.errors import DegenerateError, UnknownNameError
from mirror_analysis.features import Index
from mirror_analysis.inference import folds as deal

_PARTS = ("fit", "validation", "test")


@dataclass(frozen=True, eq=False)
class Fold:
    """Row numbers of the three parts; no group has rows in two of them.

    Attributes:
        fit: [row] what candidates are fitted on; the chosen one again on these and validation.
        validation: [row] what is chosen by.
        test: [row] what numbers come from.
    """

    fit: NDArray[np.int64]
    validation: NDArray[np.int64]
    test: NDArray[np.int64]

    @property
    def known(self) -> NDArray[np.int64]:
        """Fit and validation together, in order."""
        return np.sort(np.concatenate([self.fit, self.validation]))


def grouped_folds(
    groups: NDArray[Any], *, count: int = 5, spread: NDArray[Any] | None = None, seed: int = 0
) -> list[Fold]:
    """Cross-validation that holds out whole groups, and inside each fit part a validation part.

    Args:
        groups: [row] what is held out together, such as episode ids or tasks.
        count: folds wanted, 2 or more; with fewer groups, or with 3, each group is a fold.
        spread: [row] labels that every part gets its share of, such as the class; None for none.
            A label has to be the same in all rows of a group.
        seed: of the draw.

    Returns:
        Folds whose test parts are disjoint and together all rows.

    Raises:
        DegenerateError: if there are fewer than 3 groups.

    Example:
        >>> [fold.test.tolist() for fold in grouped_folds(np.array(["a", "b", "c"]), count=3)]
        [[0], [2], [1]]
    """
    number = len(np.unique(groups))
    if number < 3:
        raise DegenerateError(
            f"{number} groups are to be held out in turn; needed at least 3, one each to fit on,"
            " to choose by and to test on, so add episodes or hold out something finer"
        )
    # With 2 parts of 3 groups there would be none left to choose by.
    part = deal(groups, within=spread, count=max(count, 3) if number < 4 else count, seed=seed)
    found = []
    for test in range(int(part.max()) + 1):
        rest = np.flatnonzero(part != test)
        inner = deal(
            groups[rest],
            within=None if spread is None else spread[rest],
            count=max(count - 1, 2),
            seed=seed + 1 + test,
        )
        found.append(Fold(rest[inner != 0], rest[inner == 0], np.flatnonzero(part == test)))
    return found


def split_fold(index: Index, *, by: str = "split", seed: int = 0) -> Fold:
    """The one fold that a label of the rows gives: "fit", "validation" and "test".

    Where no row is labelled "validation", a fifth of the fit episodes is drawn for it, evenly
    over tasks where they are known.

    Raises:
        UnknownNameError: if rows do not carry the label, or it has another value.
        DegenerateError: if a part is empty, or an episode stands in two.
    """
    label = index.label(by).astype(str)
    for value in np.unique(label).tolist():
        if value not in _PARTS:
            raise UnknownNameError(f"value of the label '{by}'", value, _PARTS)
    parts = {name: np.flatnonzero(label == name) for name in _PARTS}
    for name in ("fit", "test"):
        if not len(parts[name]):
            raise DegenerateError(
                f"no row is labelled '{name}' by '{by}'; give episodes of both parts, or hold out"
                " episodes, instructions or tasks"
            )
    for first, second in (("fit", "test"), ("fit", "validation"), ("validation", "test")):
        both = np.intersect1d(index.episode[parts[first]], index.episode[parts[second]])
        if len(both):
            raise DegenerateError(
                f"episode {both[0]} has rows in {first} and in {second}; label whole episodes"
            )
    if not len(parts["validation"]):
        fit = parts["fit"]
        tasks = index.labels.get("task")
        if len(np.unique(index.episode[fit])) < 2:
            raise DegenerateError(
                "1 episode is labelled 'fit'; needed at least 2, to fit on and to choose by"
            )
        drawn = deal(
            index.episode[fit], within=None if tasks is None else tasks[fit], count=5, seed=seed
        )
        parts["fit"], parts["validation"] = fit[drawn != 0], fit[drawn == 0]
    return Fold(**parts)


def constant_in(labels: NDArray[Any], groups: NDArray[Any]) -> bool:
    """Whether every group has one value of the label only."""
    pairs = np.unique(
        np.stack(
            [np.unique(groups, return_inverse=True)[1], np.unique(labels, return_inverse=True)[1]]
        ),
        axis=1,
    )
    return pairs.shape[1] == len(np.unique(groups))

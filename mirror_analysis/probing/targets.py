"""What is decoded: a class of every row, or quantities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from mirror_analysis.errors import DegenerateError, ShapeError, UnknownNameError
from mirror_analysis.features import Index
from mirror_analysis.probing.folds import Fold

# "classification" or "regression".
Kind: TypeAlias = str


@dataclass(frozen=True, eq=False)
class Target:
    """A target as numbers.

    Attributes:
        name: of the label, several joined by "+".
        kind: whether it is a class or quantities.
        values: [row] int64 class numbers; or [row, quantity] float64, in the labels' own units.
        classes: names of the classes, sorted; () for quantities.
    """

    name: str
    kind: Kind
    values: NDArray[np.int64] | NDArray[np.float64]
    classes: tuple[str, ...] = ()


def read_target(index: Index, target: str | Sequence[str], *, kind: Kind | None = None) -> Target:
    """A label of the rows as classes, or one or several as quantities.

    Args:
        index: the rows.
        target: a label; several for quantities that are decoded together.
        kind: None for quantities where the label is a float, and classes otherwise.

    Raises:
        UnknownNameError: if rows do not carry a label, or there is no such kind.
        ShapeError: if labels are not one value per row, or words are to be quantities.
        DegenerateError: if several labels are to be one class, there is one class only, or a
            quantity is constant or not finite.
    """
    names = [target] if isinstance(target, str) else list(target)
    if not names:
        raise DegenerateError("probe got no target; needed the name of a label")
    labels = [np.asarray(index.label(name)) for name in names]
    for name, label in zip(names, labels, strict=True):
        if label.shape != (len(index),):
            raise ShapeError(
                f"label '{name}' has shape {label.shape}; needed one value for each of"
                f" {len(index)} rows"
            )
    if kind is None:
        floats = all(label.dtype.kind == "f" for label in labels)
        kind = "regression" if floats or len(names) > 1 else "classification"
    if kind not in ("classification", "regression"):
        raise UnknownNameError("kind of target", kind, ("classification", "regression"))
    if kind == "classification":
        if len(names) > 1:
            raise DegenerateError(
                f"probe got {len(names)} labels to classify at once; give one, or decode each"
            )
        classes, values = np.unique(labels[0], return_inverse=True)
        if len(classes) < 2:
            raise DegenerateError(
                f"all {len(index)} rows have the same '{names[0]}' ({classes[0]}); needed at least"
                " 2 classes, so add episodes of another or decode another label"
            )
        return Target(names[0], kind, values.astype(np.int64), tuple(str(c) for c in classes))
    for name, label in zip(names, labels, strict=True):
        if label.dtype.kind not in "biuf":
            raise ShapeError(
                f"label '{name}' is of type {label.dtype}; needed numbers to regress on, or"
                " decode it as a class"
            )
    quantities = np.stack([label.astype(np.float64) for label in labels], axis=1)
    for name, column in zip(names, quantities.T, strict=True):
        if not np.isfinite(column).all():
            raise DegenerateError(
                f"label '{name}' is not finite in {int((~np.isfinite(column)).sum())} rows;"
                " leave those episodes out"
            )
        if np.ptp(column) <= 1e-9 * np.abs(column).max():
            raise DegenerateError(
                f"label '{name}' is constant ({column[0]:g}); nothing about it can be decoded"
            )
    return Target("+".join(names), kind, quantities)


def check_classes(target: Target, folds: Sequence[Fold], held_out: str, *, least: int = 2) -> None:
    """That every fold can be fitted and can be right about its test rows.

    Args:
        target: classes of all rows.
        folds: what is fitted and tested on.
        held_out: what the folds hold out, for the message.
        least: classes that fit rows have to have; neighbours do with one.

    Raises:
        DegenerateError: if test rows are of a class that the fit rows lack, or fit rows are all
            of one class.
    """
    lost: set[int] = set()
    for number, fold in enumerate(folds):
        known = np.unique(target.values[fold.known])
        for rows in (fold.fit, fold.known):
            found = np.unique(target.values[rows])
            if len(found) < least:
                raise DegenerateError(
                    f"the fit rows of fold {number} all have '{target.name}'"
                    f" {target.classes[int(found[0])]}; use other folds or add episodes"
                )
        lost |= set(np.setdiff1d(target.values[fold.test], known).tolist())
    if lost:
        first = target.classes[min(lost)]
        raise DegenerateError(
            f"{len(lost)} of {len(target.classes)} classes of '{target.name}' (first '{first}')"
            f" have all their rows in the test part of a fold that holds out by {held_out}, so no"
            " fit can know them; hold out something finer, or leave out classes of few episodes"
        )

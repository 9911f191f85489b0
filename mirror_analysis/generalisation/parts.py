"""One layer's rows, divided into what is fitted on, chosen on and tested on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mirror_analysis.errors import DegenerateError, ShapeError, UnknownNameError
from mirror_analysis.features import Index, Split


@dataclass(frozen=True, eq=False)
class Rows:
    """One layer over some episodes.

    Attributes:
        values: [sample, feature] float, finite.
        index: which row is what.

    Raises:
        ShapeError: if values are not [sample, feature] or do not fit the index.
        DegenerateError: if there is no row, or a value is NaN or infinite.
    """

    values: NDArray[np.floating]
    index: Index

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or len(self.values) != len(self.index):
            raise ShapeError(
                f"values have shape {self.values.shape} and {len(self.index)} labels;"
                " needed [sample, feature] and a label per row"
            )
        if not len(self.values) or not np.isfinite(self.values).all():
            raise DegenerateError(
                f"{len(self.values)} rows of features are empty or hold NaN or infinity;"
                " needed at least one row of numbers"
            )

    def __len__(self) -> int:
        return len(self.index)

    def take(self, rows: NDArray[np.generic]) -> Rows:
        """The chosen rows (positions or a mask)."""
        return Rows(self.values[rows], self.index.take(rows))


@dataclass(frozen=True, eq=False)
class Parts:
    """One layer over disjoint sets of whole episodes.

    Attributes:
        fit: what probes are fitted on.
        validation: what their strength is chosen on.
        test: what numbers come from.

    Raises:
        DegenerateError: if two parts share an episode.
        ShapeError: if parts differ in features.
    """

    fit: Rows
    validation: Rows
    test: Rows

    def __post_init__(self) -> None:
        parts = {"fit": self.fit, "validation": self.validation, "test": self.test}
        widths = {name: part.values.shape[1] for name, part in parts.items()}
        if len(set(widths.values())) > 1:
            raise ShapeError(
                f"parts have {', '.join(f'{w} features in {n}' for n, w in widths.items())};"
                " take all parts from the same layer"
            )
        names = list(parts)
        for number, name in enumerate(names):
            for other in names[number + 1 :]:
                shared = np.intersect1d(parts[name].index.episode, parts[other].index.episode)
                if len(shared):
                    raise DegenerateError(
                        f"{len(shared)} episodes are in {name} and in {other}, first {shared[0]};"
                        " divide whole episodes"
                    )

    @property
    def labelled(self) -> Rows:
        """Fit and validation rows together: every episode whose label may be seen."""
        a, b = self.fit, self.validation
        labels = {
            name: np.concatenate([values, b.index.labels[name]])
            for name, values in a.index.labels.items()
            if name in b.index.labels
        }
        index = Index(
            np.concatenate([a.index.episode, b.index.episode]),
            np.concatenate([a.index.step, b.index.step]),
            labels,
        )
        return Rows(np.concatenate([a.values, b.values]), index)


def parts_of(data: Split, side: Literal["x", "y"], layer: str) -> Parts:
    """One layer of one side of a split.

    Raises:
        UnknownNameError: if that side has no such layer.

    Example:
        >>> parts_of(split(pair(x_layers, y_layers)), "x", "conv3")
    """
    layers = data.fit.x if side == "x" else data.fit.y
    if layer not in layers:
        raise UnknownNameError(f"layer of {side}", layer, layers)
    return Parts(
        *(
            Rows((part.x if side == "x" else part.y)[layer], part.index)
            for part in (data.fit, data.validation, data.test)
        )
    )

"""The layers of one model as the grid takes them: checked, of one length, on one device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mirror_analysis.errors import DegenerateError, DeviceError, ShapeError
from mirror_analysis.matrices import Array, as_matrix
from mirror_analysis.similarity.measures import EXACT_ROWS, Layer
from mirror_analysis.similarity.preparation import residual


@dataclass(frozen=True, eq=False)
class Side:
    """Layers of one model, or the reason why one cannot be measured.

    Attributes:
        name: "x" or "y".
        layers: layer name -> [sample, feature], or a reason in words.
    """

    name: str
    layers: Mapping[str, Tensor | str]

    @staticmethod
    def read(layers: Mapping[str, Array], name: str) -> Side:
        """Checks every layer.

        Raises:
            ShapeError: if there are none, or one has not two axes.
        """
        if not layers:
            raise ShapeError(f"{name} has no layers; needed at least one [sample, feature]")
        out: dict[str, Tensor | str] = {}
        for layer, values in layers.items():
            try:
                matrix = as_matrix(values, name=title(name, layer))
            except DegenerateError as error:
                out[layer] = str(error)
                continue
            out[layer] = matrix.double() if len(matrix) <= EXACT_ROWS else matrix
        return Side(name, out)

    def take(self, rows: Tensor) -> Side:
        """The same with some rows only."""
        return Side(
            self.name, {k: v if isinstance(v, str) else v[rows] for k, v in self.layers.items()}
        )

    @property
    def widths(self) -> list[int]:
        """Features of the layers that can be measured."""
        return [v.shape[1] for v in self.layers.values() if not isinstance(v, str)]

    def prepared(
        self, groups: Tensor | None, units: Tensor | None, *, budget: int, by_rows: bool
    ) -> dict[str, Layer]:
        """Those that can be measured, group means removed where there are groups.

        Args:
            groups: [sample] group numbers, or None.
            units: [sample] numbers of independent units, or None.
            budget: bytes that one layer's matrix over pairs may take.
            by_rows: whether moments of rows are cheaper than Gram matrices.
        """
        return {
            name: Layer(
                title(self.name, name),
                values if groups is None else residual(values, groups),
                groups,
                units,
                budget,
                by_rows,
            )
            for name, values in self.layers.items()
            if not isinstance(values, str)
        }


def alike(sides: tuple[Side, Side]) -> tuple[Side, Side]:
    """The same with all layers in one type, the longest of them, so that they can be multiplied."""
    layers = [v for s in sides for v in s.layers.values() if not isinstance(v, str)]
    if len({v.dtype for v in layers}) < 2:
        return sides
    first, second = (
        Side(s.name, {k: v if isinstance(v, str) else v.double() for k, v in s.layers.items()})
        for s in sides
    )
    return first, second


def title(side: str, layer: str) -> str:
    """What to call a layer in an error."""
    return f"layer '{layer}' of {side}" if layer else side


def agree(sides: Sequence[Side]) -> tuple[int, torch.device]:
    """Number of rows and device of all layers.

    Raises:
        ShapeError: if layers have different numbers of rows.
        DeviceError: if they are on different devices.
        DegenerateError: if no layer can be measured.
    """
    seen: tuple[str, int, torch.device] | None = None
    for side in sides:
        for layer, values in side.layers.items():
            if isinstance(values, str):
                continue
            name = title(side.name, layer)
            if seen is None:
                seen = name, len(values), values.device
            if len(values) != seen[1]:
                raise ShapeError(
                    f"{seen[0]} has {seen[1]} samples but {name} has {len(values)};"
                    " pair() them first"
                )
            if values.device != seen[2]:
                raise DeviceError(
                    f"{seen[0]} is on {seen[2]} but {name} on {values.device};"
                    " move all layers to one device"
                )
    if seen is None:
        reasons = [v for side in sides for v in side.layers.values() if isinstance(v, str)]
        raise DegenerateError(f"no layer can be measured: {reasons[0]}")
    return seen[1], seen[2]

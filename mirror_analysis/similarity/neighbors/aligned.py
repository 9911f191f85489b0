"""CKNNA: alignment of two kernels on the neighbours that both sides agree on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import torch
from jaxtyping import Float64
from torch import Tensor

from mirror_analysis.errors import DegenerateError, UnknownNameError
from mirror_analysis.matrices import Array
from mirror_analysis.results import Parameter
from mirror_analysis.similarity.measures import Layer
from mirror_analysis.similarity.neighbors.nearest import Neighbors
from mirror_analysis.similarity.neighbors.overlap import NeighborMeasure, neighbors_of, of_arrays
from mirror_analysis.similarity.neighbors.shared_edges import SharedEdges
from mirror_analysis.similarity.preparation import need_rows

# "reciprocal" or "elementwise"; anything else is refused in words.
Form: TypeAlias = str


def cknna(
    x: Array, y: Array, *, k: int = 10, form: Form = "reciprocal", centred: bool = False
) -> float:
    """CKNNA: alignment of the cosine kernels on the neighbours that both sides agree on.

    `A(x, y) / sqrt(A(x, x) A(y, y))` with A the HSIC_1 of the two cosine kernels, each masked
    by "j is among the k nearest of i on both sides". At most about 1, near 0 for unrelated
    representations. No constant is added to the denominator, so values do not drift with n.

    Args:
        x: [sample, x_feature].
        y: [sample, y_feature], row i of the same sample as row i of x.
        k: neighbours per sample.
        form: "reciprocal" as published, where one kernel is transposed and an edge counts only
            if it runs both ways (exchanging x and y then changes the value a little), or
            "elementwise", where every shared edge counts.
        centred: whether to remove column means first; published numbers are without.

    Returns:
        The alignment, no unit.

    Raises:
        ShapeError: if the sample counts differ.
        DegenerateError: if a representation is constant or not finite, there are fewer than
            k + 2 or 4 samples, or no neighbours are reciprocal.
        UnknownNameError: if the form is not known.

    Source:
        Huh et al. 2024, appendix A, equations 8-11.

    Example:
        >>> x = np.random.default_rng(0).standard_normal((40, 3))
        >>> round(cknna(x, 2 * x, k=5), 6)
        1.0
    """
    return of_arrays(CKNNA(k, form, centred), x, y)


@dataclass(frozen=True)
class CKNNA(NeighborMeasure):
    """`cknna` for whole grids, from the edges that both sides share.

    Attributes:
        k: neighbours per sample.
        form: "reciprocal" or "elementwise".
        centred: whether to remove column means first.
    """

    name: ClassVar[str] = "cknna"
    lowest: ClassVar[float] = -1.0
    symmetric: ClassVar[bool] = False
    k: int = 10
    form: Form = "reciprocal"
    centred: bool = False

    @property
    def parameters(self) -> dict[str, Parameter]:
        """The settings."""
        return {"k": self.k, "form": self.form, "centred": self.centred}

    def prepare(self, layer: Layer) -> tuple[Neighbors, Tensor]:
        """The neighbours of every sample, and the alignment of the layer with itself."""
        if self.form not in ("reciprocal", "elementwise"):
            raise UnknownNameError("form of cknna", self.form, ("reciprocal", "elementwise"))
        need_rows(len(layer), 4, measure=self.name)
        edges = neighbors_of(
            layer, self.k, metric="cosine", centred=self.centred, measure=self.name
        )
        state = self._state(edges)
        if state is None:
            raise DegenerateError(
                f"{layer.name} has no positive alignment with itself over {self.k} neighbours"
                f" of {edges.samples} samples; raise k or add samples"
            )
        return state

    def null(
        self,
        x: Sequence[tuple[Neighbors, Tensor]],
        y: Sequence[tuple[Neighbors, Tensor]],
        permutations: Tensor,
    ) -> Tensor:
        """The same with the rows of every y permuted, [draw, x layer, y layer]."""
        own_x, own_y = torch.stack([s[1] for s in x]), torch.stack([s[1] for s in y])
        cross = self._measure([s[0] for s in x], [s[0] for s in y], permutations)
        return cross / (own_x[:, None] * own_y[None, :]).sqrt()

    def _neighbors(self, state: Any) -> Neighbors:
        found: Neighbors = state[0]
        return found

    def _state(self, neighbors: Neighbors) -> tuple[Neighbors, Tensor] | None:
        if neighbors.samples < 4:
            return None
        identity = torch.arange(neighbors.samples, device=neighbors.key.device)[None]
        own = self._measure([neighbors], [neighbors], identity)[0, 0, 0]
        return (neighbors, own) if float(own) > 0 else None

    def _measure(
        self, x: Sequence[Neighbors], y: Sequence[Neighbors], orders: Tensor
    ) -> Float64[Tensor, "draw x_layer y_layer"]:
        """N (n - 3) HSIC_1 of the masked kernels."""
        edges = SharedEdges(x, y)
        n, reciprocal = edges.samples, self.form == "reciprocal"
        x_kernel, y_kernel = edges.x.weight * edges.x.cosine, edges.y.weight * edges.y.cosine
        if reciprocal:
            # The edge that runs the other way is shared if both sides have it at all.
            x_back = _through(edges.x.reverse(), edges.x.weight)
            y_back = _through(edges.y.reverse(), y_kernel)
        parts = []
        for count, hits in edges.at(orders, which=True, per_row=True):
            assert hits.y is not None
            cells = count * edges.cells
            left = x_kernel[hits.x] * edges.y.weight[hits.y]
            right = edges.x.weight[hits.x] * y_kernel[hits.y]
            back = x_back[hits.x] * y_back[hits.y] if reciprocal else right
            product = torch.bincount(hits.cell, left * back, cells)
            sums = torch.bincount(hits.cell, left, cells) * torch.bincount(hits.cell, right, cells)
            row = edges.x.row[hits.x]
            of_rows = torch.bincount(hits.cell * n + row, right, cells * n)
            side = edges.x.column[hits.x] if reciprocal else row
            chained = torch.bincount(hits.cell, left * of_rows[hits.cell * n + side], cells)
            aligned = product + sums / ((n - 1) * (n - 2)) - 2 * chained / (n - 2)
            parts.append(aligned.double().reshape(count, *edges.layers))
        return torch.cat(parts)


def _through(position: Tensor, values: Tensor) -> Tensor:
    """Values at a position, 0 where there is none."""
    return torch.where(position >= 0, values[position.clamp(min=0)], 0.0)

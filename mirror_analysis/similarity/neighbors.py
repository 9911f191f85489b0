"""Whether the same samples are near one another in both representations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from mirror_analysis.errors import DegenerateError
from mirror_analysis.results import Parameter
from mirror_analysis.similarity.measures import Invariance, Layer, Measure
from mirror_analysis.similarity.preparation import Array, as_pair, need_rows, need_variation

Form = Literal["reciprocal", "elementwise"]

# Cosines closer than this are equal: the same row twice differs by rounding only.
_TIE = 1e-12
# Entries looked at together, so that a step stays within some hundred megabytes.
_TILE = 1 << 22


def mutual_knn(x: Array, y: Array, *, k: int = 10, centred: bool = False) -> float:
    """Mean share of the k nearest neighbours that a sample has in both representations.

    Neighbours by cosine, the sample itself excluded; in [0, 1], with k / (n - 1) expected of
    unrelated representations. Samples equally near as the k-th share the places left among
    them evenly, so that ties agree by chance only and never by the order of the rows; a row of
    zeros is equally near to all.

    Args:
        x: [sample, x_feature].
        y: [sample, y_feature], row i of the same sample as row i of x.
        k: neighbours per sample.
        centred: whether to remove column means first. Published numbers are without; with it
            the value does not depend on an offset common to all samples.

    Returns:
        The share, no unit.

    Raises:
        ShapeError: if the sample counts differ.
        DegenerateError: if a representation is constant or not finite, or there are fewer than
            k + 2 samples.

    Source:
        Huh et al. 2024, appendix A.

    Example:
        >>> x = np.random.default_rng(0).standard_normal((40, 3))
        >>> mutual_knn(x, 2 * x, k=5)
        1.0
    """
    return _of_two(MutualKNN(k, centred), x, y)


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

    Source:
        Huh et al. 2024, appendix A, equations 8-11.
    """
    return _of_two(CKNNA(k, form, centred), x, y)


def _of_two(measure: Measure, x: Array, y: Array) -> float:
    a, b = as_pair(x, y)
    states = [measure.prepare(Layer(name, m)) for name, m in (("x", a), ("y", b))]
    return float(measure.values(states[:1], states[1:])[0, 0])


@dataclass(frozen=True, eq=False)
class Neighbors:
    """Directed edges from every sample to its nearest, sorted by (sample, neighbour).

    Attributes:
        samples: number of samples.
        key: [edge] sample * samples + neighbour.
        weight: [edge] 1, or the share of a place where several samples tie for it.
        cosine: [edge] of the two samples.
    """

    samples: int
    key: Int64[Tensor, " edge"]
    weight: Float64[Tensor, " edge"]
    cosine: Float64[Tensor, " edge"]


def nearest(values: Float64[Tensor, "sample feature"], k: int) -> Neighbors:
    """The k nearest neighbours of every sample by cosine.

    Args:
        values: [sample, feature].
        k: neighbours per sample, less than the number of samples.
    """
    n = len(values)
    scaled = values / values.abs().amax(dim=1, keepdim=True).clamp(min=1e-300)
    unit = scaled / scaled.norm(dim=1, keepdim=True).clamp(min=1e-300)
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    step = max(1, _TILE // n)
    for start in range(0, n, step):
        rows = torch.arange(start, min(start + step, n), device=values.device)
        cosine = unit[rows] @ unit.T
        cosine[rows - start, rows] = -torch.inf
        last = cosine.topk(k, dim=1).values[:, -1:]
        within = (cosine >= last - _TIE).nonzero()
        found = cosine[within[:, 0], within[:, 1]]
        above = found > last[within[:, 0], 0] + _TIE
        sure = torch.bincount(within[above, 0], minlength=len(rows))
        tied = torch.bincount(within[~above, 0], minlength=len(rows))
        share = ((k - sure) / tied)[within[:, 0]].to(found.dtype)
        weight = torch.where(above, torch.ones_like(found), share)
        parts.append(((within[:, 0] + start) * n + within[:, 1], weight, found))
    key, weight, cosine = (torch.cat(part) for part in zip(*parts, strict=True))
    return Neighbors(n, key, weight, cosine)


@dataclass(frozen=True, eq=False)
class _Shared:
    """Edges found on both sides, over a run of draws.

    Attributes:
        cell: [hit] (draw * x layers + x layer) * y layers + y layer.
        row: [hit] sample in x's numbering; column: [hit] its neighbour.
        weight: [hit] product of both weights.
        x: [hit] cosine in x; y: [hit] cosine in y.
    """

    cell: Tensor
    row: Tensor
    column: Tensor
    weight: Tensor
    x: Tensor
    y: Tensor


class _Edges:
    """All layers' edges side by side, to be looked up under any order of the rows."""

    def __init__(self, x: Sequence[Neighbors], y: Sequence[Neighbors]) -> None:
        n = x[0].samples
        device = x[0].key.device
        self.samples, self.layers = n, (len(x), len(y))
        self.row = torch.cat([s.key // n for s in x])
        self.column = torch.cat([s.key % n for s in x])
        self.weight = torch.cat([s.weight for s in x])
        self.cosine = torch.cat([s.cosine for s in x])
        self.layer = torch.cat(
            [torch.full((len(s.key),), i, device=device) for i, s in enumerate(x)]
        )
        # One byte per entry and layer, the layers of an entry side by side.
        self.present: Bool[Tensor, "entry y_layer"] = torch.zeros(
            n * n, len(y), dtype=torch.bool, device=device
        )
        for j, s in enumerate(y):
            self.present[s.key, j] = True
        # Where an entry's weight and cosine are; read for edges that are present only.
        self.position = torch.empty(n * n, len(y), dtype=torch.int32, device=device)
        start = 0
        for j, s in enumerate(y):
            stop = start + len(s.key)
            self.position[s.key, j] = torch.arange(start, stop, dtype=torch.int32, device=device)
            start = stop
        self.y_weight = torch.cat([s.weight for s in y])
        self.y_cosine = torch.cat([s.cosine for s in y])

    def shared(self, orders: Int64[Tensor, "draw sample"]) -> Iterator[tuple[int, int, _Shared]]:
        """Runs of draws (first, count) with the edges both sides share in them."""
        n, (x_layers, y_layers) = self.samples, self.layers
        step = max(1, _TILE // (len(self.row) * y_layers))
        for start in range(0, len(orders), step):
            part = orders[start : start + step]
            entry = part[:, self.row] * n + part[:, self.column]
            found = self.present.index_select(0, entry.reshape(-1)).nonzero()
            flat, j = found[:, 0], found[:, 1]
            draw, edge = flat // len(self.row), flat % len(self.row)
            other = self.position[entry.reshape(-1)[flat], j]
            yield (
                start,
                len(part),
                _Shared(
                    (draw * x_layers + self.layer[edge]) * y_layers + j,
                    self.row[edge],
                    self.column[edge],
                    self.weight[edge] * self.y_weight[other],
                    self.cosine[edge],
                    self.y_cosine[other],
                ),
            )


def _prepare(layer: Layer, k: int, centred: bool, measure: str, least: int = 0) -> Neighbors:
    if k < 1:
        raise DegenerateError(f"{measure} got k {k}; needed at least 1 neighbour")
    need_rows(len(layer), max(k + 2, least), measure=measure)
    need_variation(layer.centred, name=layer.name)
    values = layer.centred if centred else layer.values
    return layer.derive(("nearest", k, centred), lambda: nearest(values, k))


@dataclass(frozen=True)
class MutualKNN(Measure):
    """`mutual_knn` for whole grids: neighbours once per layer, then only looked up.

    Attributes:
        k: neighbours per sample.
        centred: whether to remove column means first.
    """

    name: ClassVar[str] = "mutual_knn"
    lowest: ClassVar[float] = 0.0
    invariances: ClassVar[frozenset[Invariance]] = frozenset({"rotation", "scale"})
    k: int = 10
    centred: bool = False

    @property
    def parameters(self) -> dict[str, Parameter]:
        """The settings."""
        return {"k": self.k, "centred": self.centred}

    def chance(self, samples: int) -> float | None:
        """K / (samples - 1)."""
        return self.k / (samples - 1)

    def prepare(self, layer: Layer) -> Neighbors:
        """The neighbours of every sample."""
        return _prepare(layer, self.k, self.centred, self.name)

    def values(self, x: Sequence[Neighbors], y: Sequence[Neighbors]) -> Tensor:
        """Share of common neighbours, [x layer, y layer]."""
        return self.null(x, y, torch.arange(x[0].samples, device=x[0].key.device)[None])[0]

    def null(self, x: Sequence[Neighbors], y: Sequence[Neighbors], permutations: Tensor) -> Tensor:
        """The same with the rows of every y permuted, [draw, x layer, y layer]."""
        edges = _Edges(x, y)
        parts = []
        for _, count, hits in edges.shared(permutations):
            sums = torch.bincount(hits.cell, hits.weight, count * len(x) * len(y))
            parts.append(sums.double().reshape(count, len(x), len(y)))
        return torch.cat(parts) / (edges.samples * self.k)


@dataclass(frozen=True)
class CKNNA(Measure):
    """`cknna` for whole grids, from the edges that both sides share.

    Attributes:
        k: neighbours per sample.
        form: "reciprocal" or "elementwise".
        centred: whether to remove column means first.
    """

    name: ClassVar[str] = "cknna"
    lowest: ClassVar[float] = -1.0
    symmetric: ClassVar[bool] = False
    invariances: ClassVar[frozenset[Invariance]] = frozenset({"rotation", "scale"})
    k: int = 10
    form: Form = "reciprocal"
    centred: bool = False

    @property
    def parameters(self) -> dict[str, Parameter]:
        """The settings."""
        return {"k": self.k, "form": self.form, "centred": self.centred}

    def prepare(self, layer: Layer) -> tuple[Neighbors, Tensor]:
        """The neighbours of every sample, and the alignment of the layer with itself."""
        edges = _prepare(layer, self.k, self.centred, self.name, least=4)
        identity = torch.arange(edges.samples, device=edges.key.device)[None]
        own = self._alignment([edges], [edges], identity)[0, 0, 0]
        if float(own) <= 0:
            raise DegenerateError(
                f"{layer.name} has no positive alignment with itself over {self.k} neighbours"
                f" of {edges.samples} samples; raise k or add samples"
            )
        return edges, own

    def values(
        self, x: Sequence[tuple[Neighbors, Tensor]], y: Sequence[tuple[Neighbors, Tensor]]
    ) -> Tensor:
        """Alignment over shared neighbours, [x layer, y layer]."""
        samples, device = x[0][0].samples, x[0][0].key.device
        return self.null(x, y, torch.arange(samples, device=device)[None])[0]

    def null(
        self,
        x: Sequence[tuple[Neighbors, Tensor]],
        y: Sequence[tuple[Neighbors, Tensor]],
        permutations: Tensor,
    ) -> Tensor:
        """The same with the rows of every y permuted, [draw, x layer, y layer]."""
        own_x, own_y = torch.stack([s[1] for s in x]), torch.stack([s[1] for s in y])
        cross = self._alignment([s[0] for s in x], [s[0] for s in y], permutations)
        return cross / (own_x[:, None] * own_y[None, :]).sqrt()

    def _alignment(self, x: Sequence[Neighbors], y: Sequence[Neighbors], orders: Tensor) -> Tensor:
        """N (n - 3) HSIC_1 of the masked kernels, [draw, x layer, y layer]."""
        edges = _Edges(x, y)
        n = edges.samples
        parts = []
        for _, count, hits in edges.shared(orders):
            cells = count * len(x) * len(y)
            left, right = hits.weight * hits.x, hits.weight * hits.y
            side = hits.row
            if self.form == "reciprocal":
                side = hits.column
                partner = _reverse(hits, n)
                both = torch.where(partner >= 0, left * right[partner.clamp(min=0)], 0.0)
            else:
                both = left * right
            product = torch.bincount(hits.cell, both, cells)
            sums = torch.bincount(hits.cell, left, cells) * torch.bincount(hits.cell, right, cells)
            left_sums = torch.bincount(hits.cell * n + side, left, cells * n)
            right_sums = torch.bincount(hits.cell * n + hits.row, right, cells * n)
            chained = (left_sums * right_sums).reshape(cells, n).sum(dim=1)
            aligned = product + sums / ((n - 1) * (n - 2)) - 2 * chained / (n - 2)
            parts.append(aligned.double().reshape(count, len(x), len(y)))
        return torch.cat(parts)


def _reverse(hits: _Shared, n: int) -> Tensor:
    """[hit] position of the edge that runs the other way in the same cell, or -1."""
    forward = (hits.cell * n + hits.row) * n + hits.column
    backward = (hits.cell * n + hits.column) * n + hits.row
    ordered, position = forward.sort()
    place = torch.searchsorted(ordered, backward).clamp(max=max(len(ordered) - 1, 0))
    if not len(ordered):
        return place
    return torch.where(ordered[place] == backward, position[place], -1)

"""Which neighbours two layers have in common, under any order of the rows of one of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from mirror_analysis.similarity.neighbors.nearest import Neighbors

# Entries looked at together, so that a step stays within some hundred megabytes.
_TILE = 1 << 21
# Bytes a table of all pairs of samples may take; with more pairs, sorted edges are searched.
_BUDGET = 1 << 29
# Layers of y that share an entry of the table, one bit each.
_BITS = 31


@dataclass(frozen=True, eq=False)
class Shared:
    """Edges found on both sides, over a run of draws.

    Attributes:
        cell: [hit] (draw * x layers + x layer) * y layers + y layer.
        x: [hit] which edge of x it is, counted over all layers of x.
        y: [hit] which edge of y; None where it was not asked for.
    """

    cell: Int64[Tensor, " hit"]
    x: Int64[Tensor, " hit"]
    y: Int64[Tensor, " hit"] | None


@dataclass(frozen=True, eq=False)
class Edges:
    """Edges of several layers one after another.

    Attributes:
        samples: number of samples.
        layer, row, column: [edge] where each edge belongs.
        weight, cosine: [edge] as of `Neighbors`.
        key: [edge] (layer * samples + row) * samples + column, ascending.
    """

    samples: int
    layer: Int64[Tensor, " edge"]
    row: Int64[Tensor, " edge"]
    column: Int64[Tensor, " edge"]
    weight: Float64[Tensor, " edge"]
    cosine: Float64[Tensor, " edge"]
    key: Int64[Tensor, " edge"]

    @staticmethod
    def of(layers: Sequence[Neighbors]) -> Edges:
        """Puts layers one after another."""
        n, device = layers[0].samples, layers[0].key.device
        sizes = torch.tensor([len(s.key) for s in layers], device=device)
        layer = torch.arange(len(layers), device=device).repeat_interleave(sizes)
        key = torch.cat([s.key for s in layers])
        return Edges(
            n,
            layer,
            key // n,
            key % n,
            torch.cat([s.weight for s in layers]),
            torch.cat([s.cosine for s in layers]),
            layer * n * n + key,
        )

    @property
    def whole(self) -> bool:
        """Whether every edge has a place of its own."""
        return bool((self.weight == 1).all())

    def reverse(self) -> Int64[Tensor, " edge"]:
        """[edge] the edge of the same layer that runs the other way, or -1."""
        n = self.samples
        return self.find((self.layer * n + self.column) * n + self.row)

    def find(self, key: Tensor) -> Tensor:
        """Position of every key, or -1."""
        place = torch.searchsorted(self.key, key).clamp(max=len(self.key) - 1)
        return torch.where(self.key[place] == key, place, -1)


class SharedEdges:
    """All layers' edges side by side, to be looked up under any order of the rows of y."""

    def __init__(self, x: Sequence[Neighbors], y: Sequence[Neighbors]) -> None:
        self.samples = x[0].samples
        self.layers = len(x), len(y)
        self.x, self.y = Edges.of(x), Edges.of(y)

    @property
    def cells(self) -> int:
        """Pairs of layers."""
        return self.layers[0] * self.layers[1]

    def at(
        self, orders: Int64[Tensor, "draw sample"], *, which: bool, per_row: bool = False
    ) -> Iterator[tuple[int, Shared]]:
        """Runs of draws (how many) with the edges that both sides share in them.

        Args:
            orders: row i of x meets row orders[d, i] of y.
            which: whether to say which edge of y it is.
            per_row: whether the caller keeps a number per cell and sample, so that the run is
                kept short.
        """
        n, x = self.samples, self.x
        most = max(len(x.row), self.cells * n if per_row else 0)
        step = max(1, _TILE // most)
        table = self._table(len(orders))
        for start in range(0, len(orders), step):
            part = orders[start : start + step]
            entry = part.index_select(1, x.row).mul_(n).add_(part.index_select(1, x.column))
            flat = entry.reshape(-1)
            found, j = self._search(flat) if table is None else _bits(table, flat)
            draw, edge = found // len(x.row), found % len(x.row)
            cell = (draw * self.layers[0] + x.layer[edge]) * self.layers[1] + j
            y = self.y.find(j * n * n + flat[found]) if which else None
            yield len(part), Shared(cell, edge, y)

    def _table(self, draws: int) -> list[Tensor] | None:
        """A bit per pair of samples and layer of y, where that is small and often used."""
        n, device = self.samples, self.x.row.device
        runs = -(-self.layers[1] // _BITS)
        lookups = draws * len(self.x.row) * self.layers[1]
        bits = min(self.layers[1], _BITS)
        dtype = torch.uint8 if bits <= 8 else torch.int16 if bits <= 15 else torch.int32
        if n * n * runs * dtype.itemsize > _BUDGET or 8 * lookups < n * n:
            return None
        tables = [torch.zeros(n * n, dtype=dtype, device=device) for _ in range(runs)]
        pair = self.y.row * n + self.y.column
        for j in range(self.layers[1]):
            here = pair[self.y.layer == j]
            tables[j // _BITS][here] |= 1 << (j % _BITS)
        return tables

    def _search(self, flat: Tensor) -> tuple[Tensor, Tensor]:
        found, layer = [], []
        for j in range(self.layers[1]):
            hit = (self.y.find(j * self.samples**2 + flat) >= 0).nonzero()[:, 0]
            found.append(hit)
            layer.append(torch.full_like(hit, j))
        return torch.cat(found), torch.cat(layer)


def _bits(tables: list[Tensor], flat: Tensor) -> tuple[Tensor, Tensor]:
    """Positions of `flat` that are set for a layer of y, and which layer."""
    found, layer = [], []
    for run, table in enumerate(tables):
        word = table.index_select(0, flat)
        hit = word.nonzero()[:, 0]
        bit = torch.arange(min(8 * word.itemsize, _BITS), dtype=torch.int32, device=flat.device)
        set_ = ((word[hit, None].int() >> bit) & 1).nonzero()
        found.append(hit[set_[:, 0]])
        layer.append(set_[:, 1] + run * _BITS)
    return torch.cat(found), torch.cat(layer)

"""Dissimilarities between samples: distances of rows, each kind a squared Euclidean one at heart.

Between rows of norm 1, `1 - cosine` is half the squared Euclidean distance, which column means
do not change. So every kind is taken from rows that are centred by column last, and layers whose
rows point nearly the same way lose no digits.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from mirror_analysis.errors import DegenerateError, UnknownNameError
from mirror_analysis.similarity.measures import Layer
from mirror_analysis.similarity.pairwise.pairs import spans
from mirror_analysis.similarity.preparation import need_variation, residual

Distance = Literal["correlation", "cosine", "euclidean", "squared_euclidean"]

# In units of rounding: a squared distance this small beside its rows' norms is none.
_NOISE = 8
# Rows looked at to tell whether distances repeat, and the bits that rounding may touch.
_PROBES = 8
_BITS = 12


@dataclass(frozen=True, eq=False)
class Points:
    """Rows whose distances are a layer's dissimilarities.

    Attributes:
        rows: [sample, feature], column means removed, of root mean square norm 1.
        squares: [sample] their squared norms.
        root: whether distances are rooted.
        repeats: whether equal distances are known to be many, as between whole numbers; the rows
            are float64 then, since float32 products do not keep equal what is equal.
        scale: what the distances are to be multiplied by to be the layer's own.
    """

    rows: Float[Tensor, "sample feature"]
    squares: Float[Tensor, " sample"]
    root: bool
    repeats: bool
    scale: float

    def __len__(self) -> int:
        return len(self.rows)

    def block(self, index: Int64[Tensor, " row"], start: int = 0) -> Float[Tensor, "row column"]:
        """Distances of these rows, all from `start` on, to all rows from there, as a new tensor."""
        reach = self.squares[index, None] + self.squares[start:]
        found = torch.addmm(reach, self.rows[index], self.rows[start:].T, alpha=-2)
        least = reach.mul_(_NOISE * torch.finfo(found.dtype).eps)
        found = torch.where(found > least, found, 0)
        found[torch.arange(len(index), device=index.device), index - start] = 0
        return found.sqrt_() if self.root else found


def points(layer: Layer, distance: str, *, ordered: bool = False) -> Points:
    """The rows whose distances are the layer's dissimilarities.

    Args:
        layer: any.
        distance: what is between two samples.
        ordered: whether distances are to be ordered, so that it matters which are equal.

    Raises:
        UnknownNameError: if there is no such distance.
        DegenerateError: if a row has no direction for it, or all rows are the same.
    """
    if distance not in get_args(Distance):
        raise UnknownNameError("distance", distance, get_args(Distance))
    if distance in ("correlation", "cosine"):
        values = _directed(layer, distance)
        half = 0.5
    else:
        largest = float(layer.values.abs().max())
        # Brought near 1, so that squares of tiny or huge features stay in range.
        values, half = layer.values.double() / (largest or 1.0), 1.0 * (largest or 1.0) ** 2
    rows = residual(values)
    need_variation(rows, name=layer.name)
    size = float(torch.linalg.vector_norm(rows, dim=1).square().mean().sqrt())
    root, scale = distance == "euclidean", half * size**2
    scale = math.sqrt(scale) if root else scale
    rows = rows.div_(size)
    found = Points(rows, rows.square().sum(dim=1), root, False, scale)
    if ordered and _repeats(found):
        return replace(found, repeats=True)
    rows = rows.to(layer.values.dtype)
    return replace(found, rows=rows, squares=rows.square().sum(dim=1))


def triangle(found: Points) -> Float[Tensor, " pair"]:
    """Distances of pairs (0, 1), (0, 2), ..., (1, 2), ..., each taken once."""
    n, device = len(found), found.rows.device
    out = torch.empty(n * (n - 1) // 2, dtype=found.rows.dtype, device=device)
    for start, stop in spans(n, 1):
        block = found.block(torch.arange(start, stop, device=device), start)
        for i, part in _runs(n, start, stop):
            out[part] = block[i - start, i - start + 1 :]
    return out


def above(square: Tensor) -> Tensor:
    """What stands above the diagonal of a matrix, in the order of `triangle`."""
    n = len(square)
    out = square.new_empty(n * (n - 1) // 2)
    for i, part in _runs(n, 0, n):
        out[part] = square[i, i + 1 :]
    return out


def mirrored(pairs: Tensor, n: int) -> Tensor:
    """The symmetric matrix of zero diagonal that has these values above it, as a new tensor."""
    out = pairs.new_zeros(n, n)
    for i, part in _runs(n, 0, n):
        out[i, i + 1 :] = pairs[part]
    step = 256
    for start in range(0, n, step):
        stop = min(start + step, n)
        out[stop:, start:stop] = out[start:stop, stop:].T
        block = out[start:stop, start:stop]
        block += block.T.clone()
    return out


def _repeats(found: Points) -> bool:
    """Whether distances come in few sizes, seen on a few rows in float64."""
    n, device = len(found), found.rows.device
    index = torch.linspace(0, n - 1, min(n, _PROBES), device=device).long()
    probes = found.block(index)
    seen = [row[row > 0].view(torch.int64) >> _BITS for row in probes]
    return sum(len(s.unique()) for s in seen) < 0.5 * sum(map(len, seen))


def _runs(n: int, start: int, stop: int) -> Iterator[tuple[int, slice]]:
    """Where the pairs of every row i with later ones stand."""
    for i in range(start, stop):
        begin = i * (2 * n - i - 1) // 2
        yield i, slice(begin, begin + n - 1 - i)


def _directed(layer: Layer, distance: str) -> Tensor:
    """Rows of norm 1, in float64, for correlation less their own means."""
    values = layer.values.double()
    if distance == "correlation":
        values = residual(values.T).T
    largest = values.abs().amax(dim=1, keepdim=True)
    flat = (largest == 0).reshape(-1)
    if bool(flat.any()):
        what = "the same value in every feature" if distance == "correlation" else "zeros only"
        raise DegenerateError(
            f"{layer.name} has {int(flat.sum())} of {len(flat)} rows with {what} (first: row"
            f" {int(flat.nonzero()[0])}), which have no {distance} distance; leave those samples"
            " out or use distance='euclidean'"
        )
    values = values / largest
    return values / torch.linalg.vector_norm(values, dim=1, keepdim=True)

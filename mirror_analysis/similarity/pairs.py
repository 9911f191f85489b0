"""A layer's matrix over pairs of samples, split into parts that permutations do not mix.

Off the diagonal every symmetric matrix is A_ij = c + a_i + a_j + Q_ij, with sum(a) = 0 and Q of
zero diagonal and zero row sums; on it stands d_i. Inner products are then

    <A, B> = level_A level_B + u_A . u_B + <Q_A, Q_B>

with scaled levels and vectors u, and what the permutation distribution of an inner product needs
of each side is a few numbers (Kazi-Aoual et al. 1995). Debiased measures (HSIC_1 of Song et al.
2012, the U-centring of Szekely and Rizzo 2014) keep Q alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from mirror_analysis.errors import DegenerateError
from mirror_analysis.similarity import gram_moments
from mirror_analysis.similarity.gram_moments import Gram
from mirror_analysis.similarity.measures import Layer

Kind = Literal["unbiased", "biased", "correlation", "cosine"]
"""What counts: Q alone; all, centred with its diagonal; all off the diagonal but c; all off it."""

# Entries of all layers held together while rows are multiplied: inside the processor's cache.
_CHUNK = 1 << 21
# Rows of a Gram made at once: enough for the matrix product to run at its full rate.
_BLOCK = 256
# Mean squares of the diagonal, in squares of its mean, above which moments are taken in float64.
_HEAVY = 16.0


@dataclass(frozen=True, eq=False)
class Pairs:
    """The parts of one layer's matrix.

    Attributes:
        name: what to call the layer in an error.
        kind: which parts count.
        raw: gives the rows of A with these numbers, as a new [row, sample].
        whole: Q, where it is kept; else it is made again from `raw` when needed.
        mean: c.
        slope: a_i.
        diagonal: d_i.
        level: scaled level, 0 where it does not count.
        u: scaled vector, 0 where it does not count.
        squares: sums of squares over the rows of Q.
        own: inner product of what counts with itself.
        gram: the same by rows of features, where A is their Gram matrix.
    """

    name: str
    kind: Kind
    raw: Callable[[Tensor], Tensor]
    whole: Float[Tensor, "sample sample"] | None
    mean: float
    slope: Float64[Tensor, " sample"]
    diagonal: Float64[Tensor, " sample"]
    level: float
    u: Float64[Tensor, " sample"]
    squares: Float64[Tensor, " sample"]
    own: float
    gram: Gram | None

    def __len__(self) -> int:
        return len(self.u)

    @property
    def offset(self) -> Float64[Tensor, " sample"]:
        """What is taken from rows and columns of A to leave Q off the diagonal."""
        return self.slope + self.mean / 2

    def rows(self, start: int, stop: int) -> Float[Tensor, "row sample"]:
        """Rows [start, stop) of Q, not to be changed."""
        if self.whole is not None:
            return self.whole[start:stop]
        return self.take(torch.arange(start, stop, device=self.u.device))

    def take(self, index: Int64[Tensor, " row"]) -> Float[Tensor, "row sample"]:
        """The rows of Q with these numbers."""
        if self.whole is not None:
            return self.whole[index]
        return _centre(self.raw(index), self.offset, index)


def gram_pairs(
    rows: Float[Tensor, "sample feature"], layer: Layer, *, kind: Kind, sign: float = 1.0
) -> Pairs:
    """The parts of the Gram matrix of rows, times a sign.

    Args:
        rows: [sample, feature], column means removed, of root mean square norm 1.
        layer: gives the name and the memory a matrix may take.
        kind: which parts count.
        sign: 1, or -1 where the matrix is a distance.

    Raises:
        DegenerateError: if nothing that counts is left.
    """

    def raw(index: Tensor) -> Tensor:
        return sign * (rows[index] @ rows.T)

    diagonal = sign * torch.linalg.vector_norm(rows, dim=1, dtype=torch.float64).square()
    whole = None
    if _affordable(layer) and not layer.by_rows:
        whole = gram(rows)
        if sign != 1:
            whole.mul_(sign)
    # Rows of a centred Gram sum to 0, so off the diagonal they sum to minus it.
    # A few large rows fill the diagonal, which moments count and then take away again.
    heavy = whole is None and float(diagonal.square().mean()) > _HEAVY
    features = rows.double() if heavy else rows
    return _split(layer, kind, raw, whole, -diagonal, diagonal, (features, sign))


def strip_pairs(raw: Callable[[Tensor], Tensor], layer: Layer, *, kind: Kind) -> Pairs:
    """The parts of any symmetric matrix over pairs that is given by rows.

    Args:
        raw: gives the rows with these numbers as a new tensor, entries of size near 1.
        layer: gives the name, the number of samples and the memory a matrix may take.
        kind: which parts count.

    Raises:
        DegenerateError: if nothing that counts is left.
    """
    n, like = len(layer), layer.values
    whole = torch.empty(n, n, dtype=like.dtype, device=like.device) if _affordable(layer) else None
    sums = torch.empty(n, dtype=torch.float64, device=like.device)
    diagonal = torch.empty_like(sums)
    for start, stop in spans(n, 1):
        rows = raw(torch.arange(start, stop, device=like.device))
        if whole is not None:
            whole[start:stop] = rows
        sums[start:stop] = rows.sum(dim=1, dtype=torch.float64)
        diagonal[start:stop] = rows.diagonal(start).double()
    return _split(layer, kind, raw, whole, sums - diagonal, diagonal, None)


def gram(rows: Float[Tensor, "sample feature"]) -> Float[Tensor, "sample sample"]:
    """All inner products of rows; each is taken once and mirrored."""
    n = len(rows)
    if n < 4 * _BLOCK:
        return rows @ rows.T
    out = torch.empty(n, n, dtype=rows.dtype, device=rows.device)
    for start in range(0, n, _BLOCK):
        stop = min(start + _BLOCK, n)
        torch.mm(rows[start:stop], rows[start:].T, out=out[start:stop, start:])
        out[stop:, start:stop] = out[start:stop, stop:].T
    return out


def scaled_parts(
    kind: Kind,
    mean: Float64[Tensor, "*layer"],
    slope: Float64[Tensor, "*layer sample"],
    diagonal: Float64[Tensor, "*layer sample"],
) -> tuple[Float64[Tensor, "*layer"], Float64[Tensor, "*layer sample"]]:
    """The level and the vector u of matrices whose parts are c, a and d."""
    n = slope.shape[-1]
    if kind == "unbiased":
        return torch.zeros_like(mean), torch.zeros_like(slope)
    if kind == "biased":
        # The diagonal once rows and columns are centred with the diagonal in them.
        full = (n - 1) * mean[..., None] + (n - 2) * slope + diagonal
        left = diagonal - 2 * full / n + full.sum(dim=-1, keepdim=True) / n**2
        average = left.mean(dim=-1, keepdim=True)
        level = n / (n - 1) ** 0.5 * average.squeeze(-1)
        return level, (n / (n - 2)) ** 0.5 * (left - average)
    level = (n * (n - 1)) ** 0.5 * mean if kind == "cosine" else torch.zeros_like(mean)
    return level, (2 * (n - 2)) ** 0.5 * slope


def row_products(
    x: Sequence[Pairs], y: Sequence[Pairs]
) -> Float64[Tensor, "sample x_layer y_layer"]:
    """Sums over every row of Q_x times Q_y, for every two layers."""
    out = []
    for start, stop in spans(len(x[0]), len(x) + len(y)):
        left = torch.stack([s.rows(start, stop) for s in x], dim=1)
        right = left if x is y else torch.stack([s.rows(start, stop) for s in y], dim=1)
        out.append(torch.bmm(left, right.transpose(1, 2)).double())
    return torch.cat(out)


def products(x: Sequence[Pairs], y: Sequence[Pairs]) -> Float64[Tensor, "x_layer y_layer"]:
    """<Q_x, Q_y> of every two layers."""
    by_rows = grams(x, y)
    return row_products(x, y).sum(dim=0) if by_rows is None else gram_moments.products(*by_rows)


def grams(x: Sequence[Pairs], y: Sequence[Pairs]) -> tuple[list[Gram], list[Gram]] | None:
    """The layers of both sides by rows, if not all matrices are kept and all are Grams."""
    first, second = ([s.gram for s in side if s.gram is not None] for side in (x, y))
    kept = all(s.whole is not None for s in (*x, *y))
    return None if kept or len(first) < len(x) or len(second) < len(y) else (first, second)


def spans(n: int, layers: int) -> Iterator[tuple[int, int]]:
    """Runs of rows of n entries each, of as many layers, that are worked on together."""
    step = max(1, _CHUNK // (n * layers))
    for start in range(0, n, step):
        yield start, min(start + step, n)


def _affordable(layer: Layer) -> bool:
    return len(layer) ** 2 * layer.values.element_size() <= layer.budget


def _split(
    layer: Layer,
    kind: Kind,
    raw: Callable[[Tensor], Tensor],
    whole: Tensor | None,
    sums: Tensor,
    diagonal: Tensor,
    features: tuple[Tensor, float] | None,
) -> Pairs:
    """Splits A, given the sums of its rows off the diagonal, and the diagonal."""
    n, index = len(layer), torch.arange(len(layer), device=sums.device)
    mean = sums.mean() / (n - 1)
    slope = (sums - (n - 1) * mean) / (n - 2)
    offset = slope + mean / 2
    if whole is not None:
        whole = _centre(whole, offset, index)
    by_rows = None if features is None else Gram(*features, offset, diagonal - 2 * offset)
    if whole is None and by_rows is not None:
        squares = by_rows.squares()
    else:
        strips = (
            _centre(raw(index[i:j]), offset, index[i:j]) if whole is None else whole[i:j]
            for i, j in spans(n, 1)
        )
        squares = torch.cat([strip.square().sum(dim=1).double() for strip in strips])
    level, u = scaled_parts(kind, mean, slope, diagonal)
    own = float(squares.sum() + u.square().sum() + level**2)
    if not math.isfinite(own):
        raise DegenerateError(
            f"{layer.name} has products of samples that are too large for {layer.values.dtype};"
            " remove samples far from all others, or lower the degree"
        )
    # Entries are of size near 1, so a mean square as small as this is rounding.
    if own <= (64 * torch.finfo(layer.values.dtype).eps * n) ** 2:
        what = "debiased spread" if kind == "unbiased" else "spread"
        raise DegenerateError(
            f"{layer.name} has no {what} (all its samples are equally alike);"
            " needed at least two distances that differ, so add samples"
        )
    return Pairs(
        layer.name, kind, raw, whole, float(mean), slope, diagonal, float(level), u, squares, own,
        by_rows,
    )  # fmt: skip


def _centre(rows: Tensor, offset: Tensor, index: Tensor) -> Tensor:
    """Rows of A made rows of Q in place."""
    taken = offset.to(rows.dtype)
    rows -= taken[index, None]
    rows -= taken
    rows[torch.arange(len(rows), device=rows.device), index] = 0
    return rows

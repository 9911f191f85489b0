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
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from mirror_analysis.errors import DegenerateError
from mirror_analysis.similarity.measures import EXACT_ROWS, Layer
from mirror_analysis.similarity.pairwise import gram_moments
from mirror_analysis.similarity.pairwise.bands import Bands, band_products
from mirror_analysis.similarity.pairwise.gram_moments import Gram

Kind = Literal["unbiased", "biased", "correlation", "cosine"]
"""What counts: Q alone; all, centred with its diagonal; all off the diagonal but c; all off it."""

# Entries of all layers held together while rows are multiplied: inside the processor's cache.
_CHUNK = 1 << 21
# Share of a matrix that has to be left without offsets for them to be taken from its square.
_TRUSTED = 0.05
# Mean squares of the diagonal, in squares of its mean, above which moments are taken in float64.
_HEAVY = 16.0


@dataclass(frozen=True, eq=False)
class Pairs:
    """The parts of one layer's matrix.

    Attributes:
        name: what to call the layer in an error.
        kind: which parts count.
        raw: gives the rows of A with these numbers, as a new [row, sample].
        made: Q, where it is made and kept.
        bands: half of A without its diagonal, from which Q is made when it is asked for.
        mean: c.
        slope: a_i.
        diagonal: d_i.
        level: scaled level, 0 where it does not count.
        u: scaled vector, 0 where it does not count.
        own: inner product of what counts with itself.
        gram: the same by rows of features, where A is their Gram matrix.
    """

    name: str
    kind: Kind
    raw: Callable[[Tensor], Tensor]
    made: Float[Tensor, "sample sample"] | None
    bands: Bands | None
    mean: float
    slope: Float64[Tensor, " sample"]
    diagonal: Float64[Tensor, " sample"]
    level: float
    u: Float64[Tensor, " sample"]
    own: float
    gram: Gram | None

    def __len__(self) -> int:
        return len(self.u)

    @property
    def kept(self) -> bool:
        """Whether Q is in memory, or can be made there."""
        return self.made is not None or self.bands is not None

    @cached_property
    def whole(self) -> Float[Tensor, "sample sample"] | None:
        """Q; None where there is no room for it, and it is made by rows whenever it is needed."""
        if self.bands is None:
            return self.made
        return _centre(self.bands.whole(), self.offset, _all(self.u))

    @cached_property
    def squares(self) -> Float64[Tensor, " sample"]:
        """Sums of squares over the rows of Q."""
        if not self.kept and self.gram is not None:
            return self.gram.squares()
        strips = (self.rows(start, stop) for start, stop in spans(len(self), 1))
        return torch.cat([strip.square().sum(dim=1).double() for strip in strips])

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

    # Rows of a centred Gram sum to 0, so off the diagonal they sum to minus it.
    diagonal = sign * torch.linalg.vector_norm(rows, dim=1, dtype=torch.float64).square()
    sums = -diagonal
    if _affordable(layer) and not layer.by_rows:
        if len(rows) <= EXACT_ROWS:
            whole = sign * (rows @ rows.T)
            return _split(layer, kind, raw, sums, diagonal, whole=whole, features=(rows, sign))
        bands = Bands.of(rows, sign)
        return _split(layer, kind, raw, sums, diagonal, bands=bands, features=(rows, sign))
    # A few large rows fill the diagonal, which moments count and then take away again.
    heavy = float(diagonal.square().mean()) > _HEAVY
    features = rows.double() if heavy else rows
    return _split(layer, kind, raw, sums, diagonal, features=(features, sign))


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
    return _split(layer, kind, raw, sums - diagonal, diagonal, whole=whole)


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
    if by_rows is not None:
        return gram_moments.products(*by_rows)
    first, second = ([s.bands for s in side if s.bands is not None] for side in (x, y))
    if len(first) < len(x) or len(second) < len(y):
        return row_products(x, y).sum(dim=0)
    n, device = len(x[0]), x[0].u.device
    slopes = [torch.stack([s.slope for s in side]) for side in (x, y)]
    means = [
        torch.tensor([s.mean for s in side], dtype=torch.float64, device=device) for side in (x, y)
    ]
    offsets = 2 * (n - 2) * slopes[0] @ slopes[1].T + n * (n - 1) * torch.outer(*means)
    return band_products(first, second) - offsets


def grams(x: Sequence[Pairs], y: Sequence[Pairs]) -> tuple[list[Gram], list[Gram]] | None:
    """The layers of both sides by rows, if not all matrices are kept and all are Grams."""
    first, second = ([s.gram for s in side if s.gram is not None] for side in (x, y))
    kept = all(s.kept for s in (*x, *y))
    return None if kept or len(first) < len(x) or len(second) < len(y) else (first, second)


def spans(n: int, layers: int) -> Iterator[tuple[int, int]]:
    """Runs of rows of n entries each, of as many layers, that are worked on together."""
    step = max(1, _CHUNK // (n * layers))
    for start in range(0, n, step):
        yield start, min(start + step, n)


def _affordable(layer: Layer) -> bool:
    # A matrix, and the half it is made of.
    return 1.5 * len(layer) ** 2 * layer.values.element_size() <= layer.budget


def _split(
    layer: Layer,
    kind: Kind,
    raw: Callable[[Tensor], Tensor],
    sums: Tensor,
    diagonal: Tensor,
    *,
    whole: Tensor | None = None,
    bands: Bands | None = None,
    features: tuple[Tensor, float] | None = None,
) -> Pairs:
    """Splits A, given the sums of its rows off the diagonal, and the diagonal."""
    n = len(layer)
    mean = sums.mean() / (n - 1)
    slope = (sums - (n - 1) * mean) / (n - 2)
    offset = slope + mean / 2
    if whole is not None:
        whole = _centre(whole, offset, _all(sums))
    by_rows = None if features is None else Gram(*features, offset, diagonal - 2 * offset)
    level, u = scaled_parts(kind, mean, slope, diagonal)
    found = Pairs(
        layer.name, kind, raw, whole, bands, float(mean), slope, diagonal, float(level), u, 0.0,
        by_rows,
    )  # fmt: skip
    quadratic = None
    if bands is not None:
        entries = bands.squares()
        rest = entries - _offsets(found, found)
        # Where most of A is offsets, what is left after taking them away is mostly rounding.
        quadratic = rest if float(rest) > _TRUSTED * float(entries) else None
        if quadratic is None:
            found = replace(found, made=found.whole, bands=None)
    quadratic = found.squares.sum() if quadratic is None else quadratic
    own = float(quadratic + u.square().sum() + level**2)
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
    return replace(found, own=own)


def _offsets(x: Pairs, y: Pairs) -> Tensor:
    """What c and a have in the product of two matrices without their diagonals."""
    n = len(x)
    return 2 * (n - 2) * (x.slope @ y.slope) + n * (n - 1) * x.mean * y.mean


def _all(like: Tensor) -> Tensor:
    return torch.arange(len(like), device=like.device)


def _centre(rows: Tensor, offset: Tensor, index: Tensor) -> Tensor:
    """Rows of A made rows of Q in place."""
    taken = offset.to(rows.dtype)
    rows -= taken[index, None]
    rows -= taken
    rows[torch.arange(len(rows), device=rows.device), index] = 0
    return rows

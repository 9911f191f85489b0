"""Measures that are the cosine of two matrices over pairs of samples, with their inference."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float64, Int64
from numpy.typing import NDArray
from torch import Tensor

from mirror_analysis.inference.invariants import Invariants
from mirror_analysis.inference.leading import Leading, strongest
from mirror_analysis.similarity.measures import EXACT_ROWS, Layer, Measure
from mirror_analysis.similarity.pairwise import gram_moments
from mirror_analysis.similarity.pairwise.leave_out import leave_out
from mirror_analysis.similarity.pairwise.pairs import Pairs, grams, products, spans

# Entries gathered at a time, so that a draw stays within tens of megabytes.
_TILE = 1 << 16
# With more samples, sums over triangles and cubes, which only the skewness needs, are estimated.
_EXACT_SKEWNESS = 4096
_PROBES = 256
# Eigenvectors permuted themselves where a few carry a matrix.
_LEADING = 12


class PairwiseMeasure(Measure):
    """The cosine `<A, B> / sqrt(<A, A> <B, B>)` of two matrices; a subclass makes the matrix."""

    @abstractmethod
    def prepare(self, layer: Layer) -> Pairs:
        """The layer's matrix over pairs of samples."""

    def values(self, x: Sequence[Pairs], y: Sequence[Pairs]) -> Tensor:
        """Cosines, [x layer, y layer]."""
        cross = products(x, y) + _level(x, y) + _vectors(x) @ _vectors(y).T
        return cross / _norms(x)[:, None] / _norms(y)

    def null(self, x: Sequence[Pairs], y: Sequence[Pairs], permutations: Tensor) -> Tensor:
        """The same with rows and columns of every y permuted, [draw, x layer, y layer]."""
        low = [_vectors(x) @ _vectors(y)[:, order].T for order in permutations]
        cross = torch.stack(low) + _level(x, y) + _permuted(x, y, permutations)
        return cross / _norms(x)[:, None] / _norms(y)

    def leave_out(self, x: Sequence[Pairs], y: Sequence[Pairs], folds: Tensor) -> Tensor | None:
        """The same without each fold, exactly, [fold, x layer, y layer]."""
        return leave_out(x, y, folds)

    def invariants(
        self, x: Sequence[Pairs], y: Sequence[Pairs]
    ) -> tuple[Invariants, Invariants] | None:
        """What the exact permutation moments need of each side."""
        first = _invariants(x)
        return first, first if x is y else _invariants(y)

    def leading(self, side: Sequence[Pairs]) -> Leading | None:
        """The strongest eigenvectors of every layer's Q."""
        norms = _norms(side)
        found = [strongest(_product(s), len(s), _LEADING, like=s.rows(0, 1)) for s in side]
        return Leading(
            _numpy(torch.stack([weights for weights, _ in found]) / norms[:, None]),
            _numpy(torch.stack([vectors for _, vectors in found])),
            _numpy(_vectors(side) / norms[:, None]),
        )


def _product(s: Pairs) -> Callable[[Tensor], Tensor]:
    """Q times a block of vectors."""
    by_rows = s.gram
    if not s.kept and by_rows is not None:
        return by_rows.times
    return lambda block: torch.cat([s.rows(i, j) @ block for i, j in spans(len(s), 1)])


def _norms(side: Sequence[Pairs]) -> Float64[Tensor, " layer"]:
    own = [s.own for s in side]
    return torch.tensor(own, dtype=torch.float64, device=side[0].u.device).sqrt()


def _vectors(side: Sequence[Pairs]) -> Float64[Tensor, "layer sample"]:
    return torch.stack([s.u for s in side])


def _levels(side: Sequence[Pairs]) -> Float64[Tensor, " layer"]:
    return torch.tensor([s.level for s in side], dtype=torch.float64, device=side[0].u.device)


def _level(x: Sequence[Pairs], y: Sequence[Pairs]) -> Tensor:
    return _levels(x)[:, None] * _levels(y)


def _permuted(
    x: Sequence[Pairs], y: Sequence[Pairs], orders: Int64[Tensor, "draw sample"]
) -> Float64[Tensor, "draw x_layer y_layer"]:
    """<Q_x, Q_y> with the samples of y in other orders."""
    n, device = len(x[0]), x[0].u.device
    out = torch.zeros(len(orders), len(x), len(y), dtype=torch.float64, device=device)
    by_rows = grams(x, y)
    if by_rows is not None:
        return torch.stack([gram_moments.products(*by_rows, order) for order in orders])
    if not all(s.kept for s in (*x, *y)):
        for draw, order in enumerate(orders):
            for start, stop in spans(n, len(x) + len(y)):
                left = torch.stack([s.rows(start, stop).reshape(-1) for s in x])
                right = torch.stack([s.take(order[start:stop])[:, order].reshape(-1) for s in y])
                out[draw] += (left @ right.T).double()
        return out
    rows, columns = torch.tril_indices(n, n, -1, device=device)
    below = rows * n + columns
    left = torch.stack([s.rows(0, n).reshape(-1)[below] for s in x])
    # All y layers of an entry side by side: one gather reads them together.
    right = torch.stack([s.rows(0, n).reshape(-1) for s in y], dim=1)
    for draw, order in enumerate(orders):
        for start in range(0, len(rows), _TILE):
            part = slice(start, start + _TILE)
            entries = order[rows[part]] * n + order[columns[part]]
            out[draw] += (left[:, part] @ right.index_select(0, entries)).double()
    return 2 * out


def _invariants(side: Sequence[Pairs]) -> Invariants:
    """The numbers the permutation moments of one side's cosines depend on."""
    norms, u = _norms(side), _vectors(side)
    pair, cubed = norms[:, None] * norms, norms**3
    squares = torch.stack([s.squares for s in side])
    bare = not bool(u.any())
    held = [0.0 if bare else _held(s) for s in side]
    return Invariants(
        samples=len(side[0]),
        level=_numpy(_levels(side) / norms),
        linear=_numpy(u @ u.T / pair),
        linear_cubed=_numpy(u.pow(3).sum(dim=1) / cubed),
        quadratic=_numpy(products(side, side) / pair),
        triangles=_numpy(torch.stack([_triangles(s) for s in side]) / cubed),
        cubes=_numpy(torch.stack([_cubes(s) for s in side]) / cubed),
        bent=_numpy((u * squares).sum(dim=1) / cubed),
        held=_numpy(torch.tensor(held, dtype=torch.float64, device=u.device) / cubed),
    )


def _numpy(values: Tensor) -> NDArray[np.float64]:
    return values.cpu().numpy()


def _held(s: Pairs) -> float:
    """The form that Q gives with u on both sides."""
    v = s.u.to(s.rows(0, 1).dtype)
    parts = [s.u[i:j] @ (s.rows(i, j) @ v).double() for i, j in spans(len(s), 1)]
    return float(torch.stack(parts).sum())


def _cubes(s: Pairs) -> Tensor:
    """Sum of Q_ij^3; above the limit from evenly spaced rows."""
    n = len(s)
    if n > (_EXACT_SKEWNESS if s.gram is None or s.kept else EXACT_ROWS):
        index = torch.linspace(0, n - 1, _PROBES, device=s.u.device).long()
        return s.take(index).double().pow(3).sum() * (n / _PROBES)
    parts = []
    for i, j in spans(n, 1):
        rows = s.rows(i, j)
        parts.append(rows.square().mul_(rows).sum(dim=1).double().sum())
    return torch.stack(parts).sum()


def _triangles(s: Pairs) -> Tensor:
    """Trace of Q^3: from features where they are fewer, else exact, else estimated."""
    n = len(s)
    if s.gram is not None and s.gram.rows.shape[1] + 2 < n:
        return s.gram.triangles(s.squares)
    parts = []
    if n <= _EXACT_SKEWNESS:
        q = s.rows(0, n)
        for i, j in spans(n, 2):
            parts.append(((q[i:j] @ q) * q[i:j]).sum(dtype=torch.float64))
        return torch.stack(parts).sum()
    # Hutchinson 1990: the mean of v' Q^3 v over random signs.
    generator = torch.Generator().manual_seed(0)
    signs = torch.randint(0, 2, (n, _PROBES), generator=generator).mul(2).sub(1)
    signs = signs.to(s.u.device, s.rows(0, 1).dtype)
    once = torch.cat([s.rows(i, j) @ signs for i, j in spans(n, 1)])
    for i, j in spans(n, 1):
        parts.append((once[i:j] * (s.rows(i, j) @ once)).sum(dtype=torch.float64))
    return torch.stack(parts).sum() / _PROBES

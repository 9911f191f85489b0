"""Linear centred kernel alignment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float64
from torch import Tensor

from mirror_analysis.errors import DegenerateError
from mirror_analysis.results import Parameter
from mirror_analysis.similarity.measures import Invariance, Layer, Measure
from mirror_analysis.similarity.preparation import (
    Array,
    as_pair,
    need_rows,
    need_variation,
    residual,
)

# Entries gathered at a time, so that a draw stays within tens of megabytes.
_TILE = 1 << 18


def linear_cka(x: Array, y: Array, *, debiased: bool = True) -> float:
    """Linear CKA of two representations of the same samples.

    `HSIC(x, y) / sqrt(HSIC(x, x) HSIC(y, y))`. 1 means equal up to rotation, scale and shift.
    Debiased (HSIC_1) it lies in [-1, 1] and unrelated representations score 0 in expectation,
    so single values can be slightly negative; biased it lies in [0, 1] and nears 1 for anything
    with more features than samples.

    Args:
        x: [sample, x_feature].
        y: [sample, y_feature], row i of the same sample as row i of x.
        debiased: whether to use the unbiased HSIC estimator.

    Returns:
        The similarity, no unit.

    Raises:
        ShapeError: if the sample counts differ.
        DegenerateError: if a representation is constant or not finite, or there are fewer than
            4 samples (2 when biased).

    Source:
        Kornblith et al. 2019, section 3; Song et al. 2012, equation 4 (HSIC_1).

    Example:
        >>> x = np.arange(10.0).reshape(5, 2) % 3
        >>> round(linear_cka(x, 7 * x + 1000), 6)
        1.0
    """
    a, b = as_pair(x, y)
    need_rows(len(a), 4 if debiased else 2, measure="linear_cka")
    a, b = _scaled(residual(a), name="x"), _scaled(residual(b), name="y")
    n, p, q = len(a), a.shape[1], b.shape[1]
    if n * (p + q) + 3 * n < p * p + q * q + p * q:
        gram_a, gram_b = a @ a.T, b @ b.T
        products = [(gram_a * gram_b).sum(), gram_a.square().sum(), gram_b.square().sum()]
    else:
        products = [(s.T @ t).square().sum() for s, t in ((a, b), (a, a), (b, b))]
    if debiased:
        k, m = a.square().sum(dim=1), b.square().sum(dim=1)
        pairs = ((k, m), (k, k), (m, m))
        products = [h + _correction(s, t) for h, (s, t) in zip(products, pairs, strict=True)]
    cross, own_x, own_y = (float(h) for h in products)
    _need_spread(own_x, name="x")
    _need_spread(own_y, name="y")
    return cross / (own_x**0.5 * own_y**0.5)


def _correction(k: Tensor, m: Tensor) -> Tensor:
    """What turns <K, L> of centred Grams with diagonals k, m into n (n - 3) HSIC_1."""
    n = len(k)
    return k.sum() * m.sum() / ((n - 1) * (n - 2)) - n / (n - 2) * (k @ m)


def _scaled(centred: Tensor, *, name: str) -> Tensor:
    """Root mean square row of 1, so that products of tiny or huge features stay in range."""
    need_variation(centred, name=name)
    centred = centred / centred.abs().max()
    return centred / centred.square().sum(dim=1).mean().sqrt()


def _need_spread(own: float, *, name: str) -> None:
    # Rows have mean square 1, so anything this small is rounding.
    if own < 1e-18:
        raise DegenerateError(
            f"{name} has no debiased spread (all its samples are equally alike);"
            " needed at least two distances that differ, so add samples"
        )


@dataclass(frozen=True)
class LinearCKA(Measure):
    """`linear_cka` for whole grids: one centred Gram per layer, one product per draw.

    Attributes:
        debiased: whether to use the unbiased HSIC estimator.
    """

    name: ClassVar[str] = "linear_cka"
    lowest: ClassVar[float] = -1.0
    invariances: ClassVar[frozenset[Invariance]] = frozenset({"rotation", "scale", "shift"})
    debiased: bool = True

    @property
    def parameters(self) -> dict[str, Parameter]:
        """The settings."""
        return {"debiased": self.debiased}

    def chance(self, samples: int) -> float | None:
        """0 when debiased."""
        return 0.0 if self.debiased else None

    def prepare(self, layer: Layer) -> Float64[Tensor, "sample sample"]:
        """The centred Gram matrix, of norm 1."""
        n = len(layer)
        need_rows(n, 4 if self.debiased else 2, measure=self.name)
        rows = _scaled(layer.centred, name=layer.name)
        gram = rows @ rows.T
        if self.debiased:
            diagonal = gram.diagonal().clone()
            # Rows of a centred Gram sum to 0, so off the diagonal they sum to minus it.
            share = diagonal / (n - 2)
            gram += share[:, None] + share[None, :] - diagonal.sum() / ((n - 1) * (n - 2))
            gram.fill_diagonal_(0)
        own = gram.square().sum()
        _need_spread(float(own), name=layer.name)
        return gram.div_(own.sqrt())

    def values(self, x: Sequence[Tensor], y: Sequence[Tensor]) -> Tensor:
        """Inner products of the Grams, [x layer, y layer]."""
        flat_y = torch.stack([s.reshape(-1) for s in y])
        return torch.stack([flat_y @ s.reshape(-1) for s in x])

    def null(self, x: Sequence[Tensor], y: Sequence[Tensor], permutations: Tensor) -> Tensor:
        """The same with rows and columns of every y permuted, [draw, x layer, y layer]."""
        n = len(x[0])
        below = torch.tril_indices(n, n, -1 if self.debiased else 0, device=x[0].device)
        rows, columns = below[0], below[1]
        weight = torch.where(rows == columns, 1.0, 2.0).to(torch.float64)
        left = torch.stack([s[rows, columns] * weight for s in x])
        # All y layers of an entry side by side: one gather reads them together.
        right = torch.stack([s.reshape(-1) for s in y], dim=1)
        out = torch.zeros(
            len(permutations), len(x), len(y), dtype=torch.float64, device=left.device
        )
        for draw, order in enumerate(permutations):
            for start in range(0, len(rows), _TILE):
                part = slice(start, start + _TILE)
                entries = order[rows[part]] * n + order[columns[part]]
                out[draw] += left[:, part] @ right.index_select(0, entries)
        return out

"""Products of Gram matrices over many samples from moments of their features.

A Gram matrix less its offsets is M = Z C Z', with Z the rows, the offset and ones, and C the sign
on the rows and -1 between the last two. Q is M without its diagonal delta, so

    <Q_x, Q_y> = sum(C P C * P) - delta_x . delta_y,    P = Z_x' Z_y,

which costs what P costs and holds no matrix over pairs of samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

# Rows multiplied in the features' own type before they are added up in float64.
_ROWS = 4096


@dataclass(frozen=True, eq=False)
class Gram:
    """A Gram matrix times a sign, by its rows.

    Attributes:
        rows: [sample, feature], column means removed.
        sign: 1 or -1.
        offset: what is taken from rows and columns of the matrix to leave Q off the diagonal.
        delta: what is then on the diagonal, where Q has 0.
    """

    rows: Float[Tensor, "sample feature"]
    sign: float
    offset: Float64[Tensor, " sample"]
    delta: Float64[Tensor, " sample"]

    def augmented(self) -> Float[Tensor, "sample augmented"]:
        """Z."""
        offset = self.offset[:, None].to(self.rows.dtype)
        return torch.cat([self.rows, offset, torch.ones_like(offset)], dim=1)

    def signed(self, product: Float[Tensor, "augmented other"]) -> Float[Tensor, "augmented other"]:
        """C from the left."""
        return torch.cat([self.sign * product[:-2], -product[-2:].flip(0)])

    def squares(self) -> Float64[Tensor, " sample"]:
        """Sums of squares over the rows of Q."""
        z = self.augmented()
        inner = self.signed(self.signed(moments(z, z)).T).to(z.dtype)
        return ((z @ inner) * z).sum(dim=1, dtype=torch.float64) - self.delta.square()

    def times(self, block: Float[Tensor, "sample vector"]) -> Float[Tensor, "sample vector"]:
        """Q times vectors."""
        z = self.augmented()
        held = block.to(z.dtype)
        return (z @ self.signed(z.T @ held) - self.delta[:, None].to(z.dtype) * held).to(block)

    def row_sum(self, gone: Int64[Tensor, " row"]) -> Float64[Tensor, " sample"]:
        """The sum of some rows of Q."""
        z = self.augmented()
        total = z[gone].sum(dim=0, dtype=torch.float64)[:, None]
        out = (z @ self.signed(total).to(z.dtype)).double()[:, 0]
        out[gone] -= self.delta[gone]
        return out

    def triangles(self, squares: Float64[Tensor, " sample"]) -> Float64[Tensor, ""]:
        """Trace of Q^3, given the sums of squares over its rows."""
        z = self.augmented()
        product = self.signed(z.T @ z)
        cubed = ((product @ product) * product.T).sum(dtype=torch.float64)
        return cubed - 3 * (self.delta * squares).sum() - self.delta.pow(3).sum()


def moments(x: Float[Tensor, "sample x"], y: Float[Tensor, "sample y"]) -> Float64[Tensor, "x y"]:
    """Sums of products over all rows, added up in float64 over blocks of rows."""
    out = torch.zeros(x.shape[1], y.shape[1], dtype=torch.float64, device=x.device)
    kind = torch.promote_types(x.dtype, y.dtype)
    for start in range(0, len(x), _ROWS):
        out += x[start : start + _ROWS].T.to(kind) @ y[start : start + _ROWS].to(kind)
    return out


def products(
    x: Sequence[Gram], y: Sequence[Gram], order: Int64[Tensor, " sample"] | None = None
) -> Float64[Tensor, "x_layer y_layer"]:
    """<Q_x, Q_y> of every two layers, the samples of y in another order where one is given."""
    out = torch.empty(len(x), len(y), dtype=torch.float64, device=x[0].delta.device)
    for j, b in enumerate(y):
        z, delta = b.augmented(), b.delta
        if order is not None:
            z, delta = z[order], delta[order]
        for i, a in enumerate(x):
            p = moments(a.augmented(), z)
            out[i, j] = _inner(a, b, p, p) - a.delta @ delta
    return out


def fold_products(
    x: Sequence[Gram], y: Sequence[Gram], folds: Int64[Tensor, " sample"]
) -> tuple[Float64[Tensor, "fold x_layer y_layer"], Float64[Tensor, "fold x_layer y_layer"]]:
    """What each fold's rows, and its rows among themselves, have in <Q_x, Q_y>."""
    count = int(folds.max()) + 1
    order, sizes = folds.argsort(stable=True), torch.bincount(folds, minlength=count).tolist()
    rows = torch.empty(count, len(x), len(y), dtype=torch.float64, device=folds.device)
    block = torch.empty_like(rows)
    for j, b in enumerate(y):
        right = torch.split(b.augmented()[order], sizes)
        for i, a in enumerate(x):
            left = torch.split(a.augmented()[order], sizes)
            parts = torch.stack([moments(u, v) for u, v in zip(left, right, strict=True)])
            whole, delta = parts.sum(dim=0), torch.split((a.delta * b.delta)[order], sizes)
            for fold, part in enumerate(parts):
                gone = delta[fold].sum()
                rows[fold, i, j] = _inner(a, b, whole, part) - gone
                block[fold, i, j] = _inner(a, b, part, part) - gone
    return rows, block


def _inner(
    a: Gram, b: Gram, p: Float64[Tensor, "x y"], other: Float64[Tensor, "x y"]
) -> Float64[Tensor, ""]:
    """Sum of C P C times another P over all entries."""
    return (b.signed(a.signed(p).T).T * other).sum()

"""Sums of singular values of cross-products: what canonical correlations and Procrustes share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

# The error a sum of singular values taken from a Gram may have before it is taken by an SVD.
_TOLERANCE = 1e-9


def nuclear_norms(
    blocks: Float64[Tensor, "block row column"],
) -> Float64[Tensor, " block"]:
    """Sum of the singular values of each matrix, right to 1e-9 of the larger of 1 and itself.

    By the eigenvalues of the smaller Gram, which takes half the time of singular values; where
    singular values are so small that squaring them would lose more than that, by an SVD.

    Args:
        blocks: [block, row, column].

    Example:
        >>> nuclear_norms(torch.eye(3).double()[None])
        tensor([3.], dtype=torch.float64)
    """
    tall = blocks if blocks.shape[1] >= blocks.shape[2] else blocks.mT
    power = torch.linalg.eigvalsh(tall.mT @ tall).clamp(min=0)
    singular = power.sqrt()
    # Eigenvalues are right to about this, wherever they lie.
    noise = 8 * torch.finfo(power.dtype).eps * power.amax(dim=1, keepdim=True)
    error = torch.where(power > noise, noise / (2 * singular), noise.sqrt()).sum(dim=1)
    norms = singular.sum(dim=1)
    doubtful = error > _TOLERANCE * norms.clamp(min=1)
    if bool(doubtful.any()):
        norms[doubtful] = torch.linalg.svdvals(blocks[doubtful]).sum(dim=1)
    return norms


def cross_norms(
    x: Sequence[Float64[Tensor, "sample _"]], y: Sequence[Float64[Tensor, "sample _"]]
) -> Float64[Tensor, "x y"]:
    """Nuclear norm of x_i' y_j for all pairs.

    Args:
        x: [sample, component] per layer.
        y: [sample, component] per layer.
    """
    out = torch.empty(len(x), len(y), dtype=torch.float64, device=x[0].device)
    for columns, stacked in _by_width(y):
        for i, rows in enumerate(x):
            out[i, columns] = nuclear_norms(rows.T @ stacked)
    return out


def permuted_norms(
    x: Sequence[Float64[Tensor, "sample _"]],
    y: Sequence[Float64[Tensor, "sample _"]],
    permutations: Int64[Tensor, "draw sample"],
) -> Float64[Tensor, "draw x y"]:
    """The same with row i of x meeting row permutations[d, i] of y.

    Args:
        x: [sample, component] per layer.
        y: [sample, component] per layer.
        permutations: [draw, sample].
    """
    shape = len(permutations), len(x), len(y)
    out = torch.empty(shape, dtype=torch.float64, device=x[0].device)
    for columns, stacked in _by_width(y):
        for draw, order in enumerate(permutations):
            turned = stacked[:, order]
            for i, rows in enumerate(x):
                out[draw, i, columns] = nuclear_norms(rows.T @ turned)
    return out


def smaller_ranks(
    x: Sequence[Float64[Tensor, "sample _"]], y: Sequence[Float64[Tensor, "sample _"]]
) -> Float64[Tensor, "x y"]:
    """The smaller number of components of every two.

    Args:
        x: [sample, component] per layer.
        y: [sample, component] per layer.
    """
    sizes = [[min(a.shape[1], b.shape[1]) for b in y] for a in x]
    return torch.tensor(sizes, dtype=torch.float64, device=x[0].device)


@dataclass(frozen=True, eq=False)
class Alignment:
    """What the samples of two sides do to the nuclear norm of x' y = U S V'.

    Attributes:
        crossed: [sample] x_i' U V' y_i, whose sum is the norm.
        own_x: [sample] x_i' U S U' x_i.
        own_y: [sample] y_i' V S V' y_i.
        isometry: [x component, y component] U V', the derivative of the norm.
    """

    crossed: Float64[Tensor, " sample"]
    own_x: Float64[Tensor, " sample"]
    own_y: Float64[Tensor, " sample"]
    isometry: Float64[Tensor, "x_component y_component"]

    @property
    def influence(self) -> Float64[Tensor, " sample"]:
        """Change of the sum of correlations with a sample's weight, for orthonormal x and y."""
        return self.crossed - (self.own_x + self.own_y) / 2


def alignment(
    x: Float64[Tensor, "sample x_component"], y: Float64[Tensor, "sample y_component"]
) -> Alignment:
    """Each sample's part in the nuclear norm of M = x' y = U S V'.

    Args:
        x: [sample, component].
        y: [sample, component].

    """
    if x.shape[1] < y.shape[1]:
        turned = alignment(y, x)
        return Alignment(turned.crossed, turned.own_y, turned.own_x, turned.isometry.T)
    product = x.T @ y
    power, right = torch.linalg.eigh(product.T @ product)
    # Where a singular value is 0 the norm has a kink; its part there is left out.
    sure = power > 1e-12 * power[-1]
    singular = torch.where(sure, power, torch.ones_like(power)).sqrt()
    left = product @ (right * (sure / singular))
    image = x @ left
    weights = torch.where(sure, singular, torch.zeros_like(singular))
    turned = y @ right
    return Alignment(
        (image * turned).sum(dim=1),
        (image.square() * weights).sum(dim=1),
        (turned.square() * weights).sum(dim=1),
        left @ right.T,
    )


def fold_sums(
    parts: Float64[Tensor, " sample"], folds: Int64[Tensor, " sample"]
) -> tuple[Float64[Tensor, " fold"], Float64[Tensor, " fold"]]:
    """Sum of each fold, and how many rows each leaves.

    Args:
        parts: [sample].
        folds: [sample] fold numbers counted from 0.
    """
    count = torch.bincount(folds)
    sums = torch.zeros(len(count), dtype=parts.dtype, device=parts.device)
    return sums.index_add_(0, folds, parts), (len(parts) - count).double()


def _by_width(
    layers: Sequence[Tensor],
) -> list[tuple[list[int], Float64[Tensor, "layer sample component"]]]:
    """Layers of one width side by side, with their positions."""
    widths = dict.fromkeys(layer.shape[1] for layer in layers)
    groups = [[i for i, layer in enumerate(layers) if layer.shape[1] == w] for w in widths]
    return [(g, torch.stack([layers[i] for i in g])) for g in groups]

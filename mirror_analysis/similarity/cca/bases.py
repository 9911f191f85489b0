"""Orthonormal bases of what a layer's samples span."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from mirror_analysis.similarity.measures import Layer
from mirror_analysis.similarity.preparation import need_variation, residual

# Down to here the eigenvectors of a Gram are as good as singular vectors to 1e-8.
_CLEAR = 1e-8


@dataclass(frozen=True, eq=False)
class Basis:
    """Leading principal components of a layer, X = scores diag(scales) V' + the rest.

    Attributes:
        scores: [sample, component] orthonormal columns that sum to 0.
        scales: [component] singular values of the centred rows, falling.
        variance: mean variance of the layer's features times the samples: ||X||² / features.
    """

    scores: Float64[Tensor, "sample component"]
    scales: Float64[Tensor, " component"]
    variance: float


def exact_rows(layer: Layer) -> Float64[Tensor, "sample feature"]:
    """The centred rows in float64, centred in float64.

    Raises:
        DegenerateError: if the layer is constant.
    """
    rows = residual(layer.values.double())
    need_variation(rows, name=layer.name)
    return rows


def principal_basis(layer: Layer, count: Callable[[Tensor], int]) -> Basis:
    """The leading principal components of a layer, at most as many as it has.

    One decomposition serves all who ask for the same layer.

    Args:
        layer: whose components.
        count: how many to keep of all squared singular values, falling; at least 1.

    Raises:
        DegenerateError: if the layer is constant.
    """
    rows = exact_rows(layer)
    size = float(rows.abs().max())
    rows /= size
    least = _rounding(layer.values) / size
    variance = float(rows.square().sum()) / rows.shape[1] * size**2
    wide = rows.shape[1] > len(rows)
    power, vectors = layer.derive("eigenvectors of the smaller Gram", lambda: _eigen(rows))
    kept = count(power)
    if power[kept - 1] > max(_CLEAR * float(power[0]), least**2):
        scales = power[:kept].sqrt()
        leading = vectors[:, :kept]
        scores = leading.contiguous() if wide else rows @ leading / scales
        return Basis(scores, scales * size, variance)
    left, singular = layer.derive("singular vectors", lambda: _svd(rows))
    rank = max(1, int((singular > least).sum()))
    kept = min(rank, count(singular.square()))
    return Basis(left[:, :kept].contiguous(), singular[:kept] * size, variance)


def whole_basis(layer: Layer) -> Basis:
    """Every principal component of a layer.

    Raises:
        DegenerateError: if the layer is constant.
    """
    groups = 1 if layer.groups is None else int(layer.groups.max()) + 1
    most = max(1, len(layer) - groups)
    return layer.derive(
        "whole basis", lambda: principal_basis(layer, lambda power: min(most, len(power)))
    )


def count_of_share(power: Float64[Tensor, " component"], share: float) -> int:
    """The fewest components that hold a share of the variance.

    Args:
        power: [component] squared singular values, falling.
        share: in (0, 1].
    """
    if share == 1:
        return len(power)
    held = power.cumsum(0) / power.sum()
    # Rounding must not ask for one component more, nor for more than there are.
    return min(int((held < share - 1e-12).sum()) + 1, len(power))


def _rounding(values: Tensor) -> float:
    """Singular values that the rounding of the values themselves can give."""
    n, d = values.shape
    typical = float(values.double().square().mean().sqrt())
    return torch.finfo(values.dtype).eps * typical * (n**0.5 + d**0.5) / 2


def _eigen(rows: Tensor) -> tuple[Tensor, Tensor]:
    n, d = rows.shape
    power, vectors = torch.linalg.eigh(rows.T @ rows if d <= n else rows @ rows.T)
    return power.flip(0).clamp(min=0), vectors.flip(1)


def _svd(rows: Tensor) -> tuple[Tensor, Tensor]:
    left, singular, _ = torch.linalg.svd(rows, full_matrices=False)
    least = singular[0] * max(rows.shape) * torch.finfo(singular.dtype).eps
    rank = int((singular > least).sum())
    return left[:, :rank], singular[:rank]

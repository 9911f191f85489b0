"""Projection-weighted canonical correlations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float64
from torch import Tensor

from mirror_analysis.errors import UnknownNameError
from mirror_analysis.matrices import Array
from mirror_analysis.results import Parameter
from mirror_analysis.similarity.cca.bases import Basis, exact_rows, whole_basis
from mirror_analysis.similarity.cca.mean import overlap, warn_of_overlap
from mirror_analysis.similarity.measures import Invariance, Layer, Measure, layers_of
from mirror_analysis.similarity.preparation import need_rows

_SIDES = ("x", "y")

# Below this part of the largest, a singular value does not carry its vector across.
_CLEAR = 1e-6
# Correlations this near 1 are 1 up to rounding.
_TIED = 1e-9


def pwcca(x: Array, y: Array, *, weights: str = "y") -> float:
    """PWCCA: canonical correlations weighted by what their variates hold of one side, in [0, 1].

    `sum_j a_j r_j / sum_j a_j` with `a_j = sum_m |<h_j, z_m>|` over the centred columns z_m of
    the side that gives the weights, h_j that side's canonical variates of norm 1. Weighted by
    y it answers how much of y is in x. It is not symmetric. Correlations of 1, as those forced
    by too few samples are, leave their variates undetermined among themselves; their weights
    are then the mean over all choices. (One choice, left to rounding, moves the value by 1e-3.)

    Args:
        x: [sample, x_feature].
        y: [sample, y_feature], row i of the same sample as row i of x.
        weights: the side whose variates and columns give the weights.

    Returns:
        The weighted mean, no unit.

    Raises:
        ShapeError: if the sample counts differ.
        DegenerateError: if a representation is constant or not finite, or there are fewer than
            3 samples.
        UnknownNameError: if `weights` is neither "x" nor "y".

    Warns:
        SmallSampleWarning: if some correlations are 1 whatever the data.

    Source:
        Morcos et al. 2018, section 2.2.

    Example:
        >>> x = np.random.default_rng(0).standard_normal((50, 3))
        >>> round(pwcca(x, x[:, :2] + 5), 6)
        1.0
    """
    measure = PWCCA(weights)
    a, b = (measure.prepare(layer) for layer in layers_of(x, y))
    warn_of_overlap(a.basis, b.basis, measure=measure.name)
    return float(measure.values([a], [b])[0, 0])


@dataclass(frozen=True, eq=False)
class Columns:
    """A layer's basis and its columns in it.

    Attributes:
        basis: every principal component.
        columns: [component, feature] the centred columns in the basis.
    """

    basis: Basis
    columns: Float64[Tensor, "component feature"]


@dataclass(frozen=True)
class PWCCA(Measure):
    """`pwcca` for whole grids: one eigenproblem with vectors per cell.

    Attributes:
        weights: the side whose variates and columns give the weights.
        draws: most permutations to draw; each costs one eigenproblem per cell.
    """

    name: ClassVar[str] = "pwcca"
    lowest: ClassVar[float] = 0.0
    symmetric: ClassVar[bool] = False
    invariances: ClassVar[frozenset[Invariance]] = frozenset({"scale", "shift"})
    weights: str = "y"
    draws: int = 199

    @property
    def most_draws(self) -> int | None:
        """Permutations worth their cost."""
        return self.draws

    @property
    def parameters(self) -> dict[str, Parameter]:
        """The settings that decide the value."""
        return {"weights": self.weights}

    def prepare(self, layer: Layer) -> Columns:
        """An orthonormal basis and the columns in it.

        Raises:
            DegenerateError: if the layer is constant or has fewer than 3 samples.
            UnknownNameError: if the side is not known.
        """
        if self.weights not in _SIDES:
            raise UnknownNameError("side for the weights", self.weights, _SIDES)
        need_rows(len(layer), 3, measure=self.name)
        basis = whole_basis(layer)
        return layer.derive(
            "columns in the whole basis",
            lambda: Columns(basis, basis.scores.T @ exact_rows(layer)),
        )

    def values(self, x: Sequence[Columns], y: Sequence[Columns]) -> Tensor:
        """The weighted mean of every two layers, [x layer, y layer]."""
        cells = [self._cell(a, b, a.basis.scores.T @ b.basis.scores) for a in x for b in y]
        return torch.stack(cells).reshape(len(x), len(y))

    def note(self, x: Columns, y: Columns) -> str:
        """Says how many correlations are 1 whatever the data."""
        return overlap(x.basis, y.basis)

    def null(self, x: Sequence[Columns], y: Sequence[Columns], permutations: Tensor) -> Tensor:
        """The same with the rows of every y permuted, [draw, x layer, y layer]."""
        shape = len(permutations), len(x), len(y)
        out = torch.empty(shape, dtype=torch.float64, device=x[0].columns.device)
        for j, b in enumerate(y):
            for draw, order in enumerate(permutations):
                turned = b.basis.scores[order]
                for i, a in enumerate(x):
                    out[draw, i, j] = self._cell(a, b, a.basis.scores.T @ turned)
        return out

    def _cell(self, x: Columns, y: Columns, product: Tensor) -> Tensor:
        if self.weights == "x":
            return _weighted(product.T, x.columns)
        return _weighted(product, y.columns)


def _weighted(product: Tensor, columns: Tensor) -> Tensor:
    """The mean of the singular values of the product, weighted by its right vectors."""
    correlations, variates = _right(product)
    held = variates.T @ columns
    weights = held.abs().sum(dim=1)
    tied = correlations > 1 - _TIED
    count = tied.sum() / 2
    # Mean size of one coordinate of a random unit vector of so many.
    coordinate = torch.exp(torch.lgamma(count) - torch.lgamma(count + 0.5)) / math.pi**0.5
    together = coordinate * torch.linalg.vector_norm(held * tied[:, None], dim=0).sum()
    weights = torch.where(tied, together, weights)
    return (weights @ correlations / weights.sum()).clamp(max=1)


def _right(product: Tensor) -> tuple[Tensor, Tensor]:
    """Singular values and right singular vectors, as many as the smaller side."""
    wide = product.shape[0] < product.shape[1]
    power, vectors = torch.linalg.eigh(product @ product.T if wide else product.T @ product)
    singular = power.clamp(min=0).sqrt()
    if singular[0] > _CLEAR * singular[-1]:
        return singular, product.T @ (vectors / singular) if wide else vectors
    _, singular, right = torch.linalg.svd(product, full_matrices=False)
    return singular, right.T

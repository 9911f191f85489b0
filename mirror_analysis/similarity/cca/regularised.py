"""Regularised canonical correlations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float64
from torch import Tensor

from mirror_analysis.errors import DegenerateError
from mirror_analysis.matrices import Array
from mirror_analysis.results import Parameter
from mirror_analysis.similarity.cca.bases import whole_basis
from mirror_analysis.similarity.cca.nuclear import (
    alignment,
    cross_norms,
    fold_sums,
    permuted_norms,
    smaller_ranks,
)
from mirror_analysis.similarity.measures import Invariance, Layer, Measure, layers_of
from mirror_analysis.similarity.preparation import need_rows


def ridge_cca(x: Array, y: Array, *, relative_ridge: float = 0.1) -> float:
    """Mean canonical correlation with a ridge on either covariance, in [0, 1).

    Mean singular value of `(C_x + r v_x)^-1/2 C_xy (C_y + r v_y)^-1/2` over the smaller rank, v
    the mean variance of a side's features, so that r has no unit: directions of much less than
    r times the mean variance do not count. r = 0 is `mean_cca`; a large r leaves covariance
    alone. A layer with itself gives less than 1. No correlation is forced to 1 by too few
    samples, but chance is still above 0: judge the value by its null.

    Args:
        x: [sample, x_feature].
        y: [sample, y_feature], row i of the same sample as row i of x.
        relative_ridge: r, what is added to the variance of every direction, in mean variances
            of that side's features; above 0.

    Returns:
        The mean regularised correlation, no unit.

    Raises:
        ShapeError: if the sample counts differ.
        DegenerateError: if a representation is constant or not finite, there are fewer than 3
            samples, or the ridge is not above 0.

    Source:
        Vinod 1976, the ridge in mean variances.

    Example:
        >>> x = np.random.default_rng(0).standard_normal((50, 3))
        >>> round(ridge_cca(x, 7 * x, relative_ridge=1e-6), 5)
        1.0
    """
    measure = RidgeCCA(relative_ridge)
    a, b = (measure.prepare(layer) for layer in layers_of(x, y))
    return float(measure.values([a], [b])[0, 0])


@dataclass(frozen=True, eq=False)
class Shrunk:
    """A layer's rows after ridge whitening.

    Attributes:
        scores: [sample, component] principal scores times s / sqrt(s² + ridge).
        share: [sample] part of the total variance in each sample.
    """

    scores: Float64[Tensor, "sample component"]
    share: Float64[Tensor, " sample"]


@dataclass(frozen=True)
class RidgeCCA(Measure):
    """`ridge_cca` for whole grids.

    Attributes:
        relative_ridge: what is added to every variance, in mean variances of the features.
        draws: most permutations to draw; each costs one eigenproblem per cell.
    """

    name: ClassVar[str] = "ridge_cca"
    lowest: ClassVar[float] = 0.0
    invariances: ClassVar[frozenset[Invariance]] = frozenset({"rotation", "scale", "shift"})
    interval_method: ClassVar[str] = "infinitesimal jackknife"
    relative_ridge: float = 0.1
    draws: int = 199

    @property
    def most_draws(self) -> int | None:
        """Permutations worth their cost."""
        return self.draws

    @property
    def parameters(self) -> dict[str, Parameter]:
        """The settings that decide the value."""
        return {"relative_ridge": self.relative_ridge}

    def prepare(self, layer: Layer) -> Shrunk:
        """The whitened scores.

        Raises:
            DegenerateError: if the layer is constant, has fewer than 3 samples, or the ridge is
                not above 0.
        """
        if not self.relative_ridge > 0:
            raise DegenerateError(
                f"ridge_cca got relative_ridge {self.relative_ridge}; needed a number above 0,"
                " such as 0.1, or mean_cca for none"
            )
        need_rows(len(layer), 3, measure=self.name)
        basis = whole_basis(layer)
        ridge = self.relative_ridge * basis.variance
        scales = basis.scales / (basis.scales.square() + ridge).sqrt()
        squares = (basis.scores * basis.scales).square().sum(dim=1)
        return Shrunk(basis.scores * scales, squares / squares.sum())

    def values(self, x: Sequence[Shrunk], y: Sequence[Shrunk]) -> Tensor:
        """Mean singular value of the product of every two layers, [x layer, y layer]."""
        left, right = _scores(x), _scores(y)
        return cross_norms(left, right) / smaller_ranks(left, right)

    def null(self, x: Sequence[Shrunk], y: Sequence[Shrunk], permutations: Tensor) -> Tensor:
        """The same with the rows of every y permuted, [draw, x layer, y layer]."""
        left, right = _scores(x), _scores(y)
        return permuted_norms(left, right, permutations) / smaller_ranks(left, right)

    def leave_out(self, x: Sequence[Shrunk], y: Sequence[Shrunk], folds: Tensor) -> Tensor:
        """The mean without each fold, to first order, [fold, x layer, y layer]."""
        shape = int(folds.max()) + 1, len(x), len(y)
        out = torch.empty(shape, dtype=torch.float64, device=folds.device)
        for i, a in enumerate(x):
            for j, b in enumerate(y):
                found = alignment(a.scores, b.scores)
                norm = found.crossed.sum()
                # What the variates' own variance lacks of 1 is the ridge, which the total
                # variance sets.
                ridges = a.share * (norm - found.own_x.sum())
                ridges = ridges + b.share * (norm - found.own_y.sum())
                parts, left = fold_sums(found.influence - ridges / 2, folds)
                total = norm - len(folds) * parts / left
                out[:, i, j] = total / min(a.scores.shape[1], b.scores.shape[1])
        return out


def _scores(states: Sequence[Shrunk]) -> list[Tensor]:
    return [state.scores for state in states]

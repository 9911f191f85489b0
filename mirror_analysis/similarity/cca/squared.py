"""The mean squared canonical correlation: an inner product of projections."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from mirror_analysis.inference.invariants import Invariants
from mirror_analysis.inference.leading import Leading
from mirror_analysis.matrices import Array
from mirror_analysis.similarity.cca.bases import Basis, whole_basis
from mirror_analysis.similarity.cca.mean import overlap, warn_of_overlap
from mirror_analysis.similarity.cca.nuclear import fold_sums, smaller_ranks
from mirror_analysis.similarity.cka import RV
from mirror_analysis.similarity.measures import EXACT_ROWS, Invariance, Layer, Measure, layers_of
from mirror_analysis.similarity.pairwise.pairs import Pairs, gram_pairs
from mirror_analysis.similarity.preparation import need_rows


def mean_squared_cca(x: Array, y: Array) -> float:
    """Mean squared canonical correlation R²_CCA, in [0, 1].

    `||Q_x' Q_y||² / min(k_x, k_y)` for orthonormal bases Q. Under permutation its mean is exactly
    max(k_x, k_y) / (n - 1).

    Args:
        x: [sample, x_feature].
        y: [sample, y_feature], row i of the same sample as row i of x.

    Returns:
        The mean of the squares, no unit.

    Raises:
        ShapeError: if the sample counts differ.
        DegenerateError: if a representation is constant or not finite, or there are fewer than
            3 samples.

    Warns:
        SmallSampleWarning: if some correlations are 1 whatever the data.

    Source:
        Ramsay et al. 1984; Kornblith et al. 2019, table 1 (centred, over the smaller rank).

    Example:
        >>> x = np.random.default_rng(0).standard_normal((50, 3))
        >>> round(mean_squared_cca(x, x[:, :2] + 5), 6)
        1.0
    """
    measure = MeanSquaredCCA()
    a, b = (measure.prepare(layer) for layer in layers_of(x, y))
    warn_of_overlap(a.basis, b.basis, measure=measure.name)
    return float(measure.values([a], [b])[0, 0])


@dataclass(frozen=True, eq=False)
class Projection:
    """A layer's orthonormal basis Q and, for the null, its projection Q Q'.

    Attributes:
        basis: every principal component.
        layer: whose basis it is.
    """

    basis: Basis
    layer: Layer

    @property
    def rank(self) -> int:
        """Components of the basis."""
        return self.basis.scores.shape[1]

    @cached_property
    def pairs(self) -> Pairs:
        """The projection as a matrix over pairs of samples, in the type of the layer."""
        rows = self.basis.scores * (len(self.layer) / self.rank) ** 0.5
        return gram_pairs(rows.to(self.layer.values.dtype), self.layer, kind="biased")


@dataclass(frozen=True)
class MeanSquaredCCA(Measure):
    """`mean_squared_cca` for whole grids: no decomposition but one per layer.

    It is `<P_x, P_y> / min(k_x, k_y)` for projections P of ranks k, so that the permutation null
    is that of biased linear CKA between the bases, times sqrt(max(k) / min(k)). Replicates of
    the jackknife are to first order, by the influence 2 r (u v - r (u² + v²) / 2) of a sample
    with variates u, v of unit variance on the square of their correlation r.
    """

    name: ClassVar[str] = "mean_squared_cca"
    lowest: ClassVar[float] = 0.0
    invariances: ClassVar[frozenset[Invariance]] = frozenset(
        {"rotation", "scale", "shift", "linear"}
    )
    interval_method: ClassVar[str] = "infinitesimal jackknife"

    def prepare(self, layer: Layer) -> Projection:
        """The basis of the layer.

        Raises:
            DegenerateError: if the layer is constant or has fewer than 3 samples.
        """
        need_rows(len(layer), 3, measure=self.name)
        return Projection(whole_basis(layer), layer)

    def values(self, x: Sequence[Projection], y: Sequence[Projection]) -> Tensor:
        """Squared norm of the product of every two bases over the smaller rank."""
        if len(x[0].layer) > EXACT_ROWS and not x[0].layer.by_rows:
            # The matrices that the null needs give the products of all cells at once.
            cosines = _COSINE.values([a.pairs for a in x], [b.pairs for b in y])
            return cosines * self.factor(x, y)
        cells = [(a.basis.scores.T @ b.basis.scores).square().sum() for a in x for b in y]
        return torch.stack(cells).reshape(len(x), len(y)) / _smaller(x, y)

    def null(
        self, x: Sequence[Projection], y: Sequence[Projection], permutations: Tensor
    ) -> Tensor:
        """The same with the rows of every y permuted, [draw, x layer, y layer]."""
        cosines = _COSINE.null([a.pairs for a in x], [b.pairs for b in y], permutations)
        return cosines * self.factor(x, y)

    def leave_out(self, x: Sequence[Projection], y: Sequence[Projection], folds: Tensor) -> Tensor:
        """The mean without each fold, to first order, [fold, x layer, y layer]."""
        shape = int(folds.max()) + 1, len(x), len(y)
        out = torch.empty(shape, dtype=torch.float64, device=folds.device)
        for i, a in enumerate(x):
            for j, b in enumerate(y):
                product = a.basis.scores.T @ b.basis.scores
                to_y, to_x = a.basis.scores @ product, b.basis.scores @ product.T
                crossed = (to_y * b.basis.scores).sum(dim=1)
                squares = to_y.square().sum(dim=1) + to_x.square().sum(dim=1)
                parts, left = fold_sums(2 * crossed - squares, folds)
                total = crossed.sum() - len(folds) * parts / left
                out[:, i, j] = total / min(product.shape)
        return out

    def invariants(
        self, x: Sequence[Projection], y: Sequence[Projection]
    ) -> tuple[Invariants, Invariants] | None:
        """What the exact moments of the cosines of the projections need."""
        return _COSINE.invariants([a.pairs for a in x], [b.pairs for b in y])

    def leading(self, side: Sequence[Projection]) -> Leading | None:
        """The strongest eigenvectors of the projections' parts."""
        return _COSINE.leading([s.pairs for s in side])

    def factor(self, x: Sequence[Projection], y: Sequence[Projection]) -> Tensor:
        """From the cosine of two projections to the mean over the smaller rank."""
        return (_ranks(x)[:, None] * _ranks(y)).sqrt() / _smaller(x, y)

    def note(self, x: Projection, y: Projection) -> str:
        """Says how many correlations are 1 whatever the data."""
        return overlap(x.basis, y.basis)


# The cosine of two projections is the RV coefficient of their bases.
_COSINE = RV()


def _ranks(side: Sequence[Projection]) -> Tensor:
    device = side[0].basis.scores.device
    return torch.tensor([s.rank for s in side], dtype=torch.float64, device=device)


def _smaller(x: Sequence[Projection], y: Sequence[Projection]) -> Tensor:
    return smaller_ranks([a.basis.scores for a in x], [b.basis.scores for b in y])

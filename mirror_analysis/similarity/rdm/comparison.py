"""Representational similarity analysis: do two layers find the same samples far apart?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import torch
from jaxtyping import Float64
from torch import Tensor

from mirror_analysis.errors import DegenerateError, UnknownNameError
from mirror_analysis.inference.leading import Leading
from mirror_analysis.inference.moments import Invariants
from mirror_analysis.matrices import Array, as_matrix
from mirror_analysis.results import Parameter
from mirror_analysis.similarity.measures import Invariance, Layer, of_two
from mirror_analysis.similarity.pairwise.measure import PairwiseMeasure
from mirror_analysis.similarity.pairwise.pairs import Kind, strip_pairs
from mirror_analysis.similarity.preparation import need_rows
from mirror_analysis.similarity.rdm.distances import Distance, points
from mirror_analysis.similarity.rdm.ranks import leave_out_ranks, order, ranked

Comparison = Literal["pearson", "spearman", "kendall", "cosine"]

# A Kendall draw sorts all pairs once more for every two layers.
_KENDALL_DRAWS = 99


def rsa(
    x: Array,
    y: Array,
    *,
    distance: Distance = "correlation",
    comparison: Comparison = "spearman",
) -> float:
    """Representational similarity: how alike the distances between samples are in x and in y.

    Both sides become the `n (n - 1) / 2` distances between their samples, which are compared over
    pairs: by Pearson's or Spearman's correlation (ties get their average rank), by Kendall's tau-a
    (concordant less discordant, over all pairs of pairs) or by the uncentred cosine. In [-1, 1],
    cosine in [0, 1]; 1 means the same distances up to a linear map of rising slope (Pearson), up
    to any rising map (Spearman; Kendall, where nothing ties) or up to scale (cosine). Unrelated
    representations score 0 on average, by cosine near 1.

    Correlation distance is 1 less the correlation of two samples over features, so it does not
    see the mean and size of a sample, but sees features of large common mean; cosine distance
    does not see the size; Euclidean distances see neither rotation nor shift of all samples.

    Args:
        x: [sample, x_feature].
        y: [sample, y_feature], row i of the same sample as row i of x.
        distance: "correlation", "cosine", "euclidean" or "squared_euclidean".
        comparison: "pearson", "spearman", "kendall" or "cosine".

    Returns:
        The similarity, no unit.

    Raises:
        ShapeError: if the sample counts differ.
        DegenerateError: if a representation is constant or not finite, all its distances are the
            same, a row has no variance over features (correlation) or is zero (cosine), or there
            are fewer than 4 samples.
        UnknownNameError: if there is no such distance or comparison.

    Source:
        Kriegeskorte, Mur and Bandettini 2008; tau-a in Nili et al. 2014.

    Example:
        >>> x = np.arange(15.0).reshape(5, 3) ** 2 % 7
        >>> round(rsa(x, 3 * x + 1), 6)
        1.0
    """
    return of_two(RSA(distance, comparison), x, y)


def dissimilarities(
    x: Array, *, distance: Distance = "correlation"
) -> Float64[Tensor, "sample sample"]:
    """The representational dissimilarity matrix: the distance of every two samples.

    Args:
        x: [sample, feature].
        distance: "correlation" (1 less the correlation over features, in [0, 2]), "cosine" (1
            less the cosine, in [0, 2]), "euclidean" (in units of x) or "squared_euclidean".

    Returns:
        [sample, sample], symmetric, 0 on the diagonal, on the device of x.

    Raises:
        ShapeError: if x has not two axes.
        DegenerateError: if it is constant or not finite, or a row has no variance over features
            (correlation) or is zero (cosine).
        UnknownNameError: if there is no such distance.

    Source:
        Kriegeskorte, Mur and Bandettini 2008.

    Example:
        >>> dissimilarities(np.array([[0.0, 0.0], [3.0, 4.0]]), distance="euclidean")
        tensor([[0., 5.],
                [5., 0.]], dtype=torch.float64)
    """
    found = points(Layer("x", as_matrix(x, dtype=torch.float64)), distance)
    matrix = found.block(torch.arange(len(found), device=found.rows.device)) * found.scale
    return (matrix + matrix.T) / 2


@dataclass(frozen=True)
class RSA(PairwiseMeasure):
    """`rsa` for whole grids: one matrix of distances, or of their ranks, per layer.

    Attributes:
        distance: what is between two samples.
        comparison: how distances of two layers are compared. Kendall's counts all pairs of pairs
            anew for every two layers and draw (1 s for 2,000 samples), so it takes 99 draws.
    """

    name: ClassVar[str] = "rsa"
    lowest: ClassVar[float] = -1.0
    invariances: ClassVar[frozenset[Invariance]] = frozenset({"scale"})
    distance: Distance = "correlation"
    comparison: Comparison = "spearman"

    @property
    def parameters(self) -> dict[str, Parameter]:
        """The settings."""
        return {"distance": self.distance, "comparison": self.comparison}

    @property
    def most_draws(self) -> int | None:
        """99 for Kendall's, else no limit."""
        return _KENDALL_DRAWS if self.comparison == "kendall" else None

    def chance(self, samples: int) -> float | None:
        """0 but for the cosine, which depends on how the distances are spread."""
        return None if self.comparison == "cosine" else 0.0

    def prepare(self, layer: Layer) -> Any:
        """Distances of all pairs of samples, their ranks, or their order.

        Spearman's holds three matrices over pairs of samples at a time and one and a half after,
        or blocks of rows where the layer's budget does not hold one.
        """
        if self.comparison not in get_args(Comparison):
            raise UnknownNameError("comparison", self.comparison, get_args(Comparison))
        need_rows(len(layer), 4, measure=self.name)
        by_order = self.comparison in ("spearman", "kendall")
        found = layer.derive(
            ("distances", self.distance, by_order),
            lambda: points(layer, self.distance, ordered=by_order),
        )
        if self.comparison == "spearman":
            return ranked(found, layer)
        if self.comparison == "kendall":
            if len(layer) ** 2 * layer.values.element_size() > layer.budget:
                raise DegenerateError(
                    f"rsa got {len(layer)} samples in {layer.name}, whose order of distances takes"
                    f" more than the {layer.budget} bytes a matrix may take here; use comparison="
                    "'spearman' or raise memory"
                )
            return order(found, layer)
        kind: Kind = "cosine" if self.comparison == "cosine" else "correlation"
        return strip_pairs(found.block, layer, kind=kind)

    def values(self, x: Sequence[Any], y: Sequence[Any]) -> Tensor:
        """Comparisons, [x layer, y layer]."""
        if self.comparison == "kendall":
            from mirror_analysis.similarity.rdm.concordance import tau_a

            return tau_a(x, y)
        return super().values(*self._pairs(x, y))

    def null(self, x: Sequence[Any], y: Sequence[Any], permutations: Tensor) -> Tensor:
        """The same with the samples of every y permuted, [draw, x layer, y layer]."""
        if self.comparison == "kendall":
            from mirror_analysis.similarity.rdm.concordance import permuted_tau_a

            return permuted_tau_a(x, y, permutations)
        return super().null(*self._pairs(x, y), permutations)

    def leave_out(self, x: Sequence[Any], y: Sequence[Any], folds: Tensor) -> Tensor | None:
        """The same without each fold, the pairs left ranked anew, [fold, x layer, y layer].

        None for Spearman's where ranks are not kept.
        """
        if self.comparison == "kendall":
            from mirror_analysis.similarity.rdm.concordance import leave_out_tau_a

            return leave_out_tau_a(x, y, folds)
        if self.comparison != "spearman":
            return super().leave_out(x, y, folds)
        first = [s.order for s in x if s.order is not None]
        second = first if x is y else [s.order for s in y if s.order is not None]
        if len(first) < len(x) or len(second) < len(y):
            return None
        return leave_out_ranks(first, second, folds)

    def invariants(
        self, x: Sequence[Any], y: Sequence[Any]
    ) -> tuple[Invariants, Invariants] | None:
        """What the exact permutation moments need of each side; None for Kendall's."""
        if self.comparison == "kendall":
            return None
        return super().invariants(*self._pairs(x, y))

    def leading(self, side: Sequence[Any]) -> Leading | None:
        """The strongest eigenvectors of every layer's matrix, where all are kept whole."""
        return None if self.comparison == "kendall" else super().leading(self._pairs(side, side)[0])

    def _pairs(self, x: Sequence[Any], y: Sequence[Any]) -> tuple[Sequence[Any], Sequence[Any]]:
        """The matrices; of one side once, where both are the same."""
        if self.comparison != "spearman":
            return x, y
        first = [s.pairs for s in x]
        return first, first if x is y else [s.pairs for s in y]

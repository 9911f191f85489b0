"""Whether the same samples are near one another in both representations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float64
from torch import Tensor

from mirror_analysis.matrices import Array
from mirror_analysis.similarity.neighbors.nearest import Metric, Neighbors
from mirror_analysis.similarity.neighbors.overlap import NeighborMeasure, of_arrays, weights
from mirror_analysis.similarity.neighbors.shared_edges import SharedEdges


def mutual_knn(
    x: Array, y: Array, *, k: int = 10, metric: Metric = "cosine", centred: bool = False
) -> float:
    """Mean share of the k nearest neighbours that a sample has in both representations.

    The sample itself is excluded; in [0, 1], with k / (n - 1) expected of unrelated
    representations. Samples equally near as the k-th share the places left among
    them evenly, so that ties agree by chance only and never by the order of the rows; a row of
    zeros is equally near to all.

    Args:
        x: [sample, x_feature].
        y: [sample, y_feature], row i of the same sample as row i of x.
        k: neighbours per sample.
        metric: "cosine" as published, or "euclidean".
        centred: whether to remove column means first. Published numbers are without; with it
            the value does not depend on an offset common to all samples.

    Returns:
        The share, no unit.

    Raises:
        ShapeError: if the sample counts differ.
        DegenerateError: if a representation is constant or not finite, or there are fewer than
            k + 2 samples.
        UnknownNameError: if the metric is not known.

    Source:
        Huh et al. 2024, appendix A.

    Example:
        >>> x = np.random.default_rng(0).standard_normal((40, 3))
        >>> mutual_knn(x, 2 * x, k=5)
        1.0
    """
    return of_arrays(MutualKNN(k, centred, metric), x, y)


def knn_jaccard(
    x: Array, y: Array, *, k: int = 10, metric: Metric = "cosine", centred: bool = False
) -> float:
    """Mean Jaccard similarity of the sets of k nearest neighbours, in [0, 1].

    `mean over samples of s / (2 k - s)`, s the neighbours in common; where samples tie for the
    last places, s counts each by the product of its shares. Rises with `mutual_knn`, but weighs
    samples that agree on most neighbours more.

    Args:
        x: [sample, x_feature].
        y: [sample, y_feature], row i of the same sample as row i of x.
        k: neighbours per sample.
        metric: "cosine" or "euclidean".
        centred: whether to remove column means first; published numbers are without.

    Returns:
        The similarity, no unit.

    Raises:
        ShapeError: if the sample counts differ.
        DegenerateError: if a representation is constant or not finite, or there are fewer than
            k + 2 samples.
        UnknownNameError: if the metric is not known.

    Source:
        Wang et al. 2022; Klabunde et al. 2025, "Jaccard similarity".

    Example:
        >>> x = np.random.default_rng(0).standard_normal((40, 3))
        >>> knn_jaccard(x, 2 * x, k=5)
        1.0
    """
    return of_arrays(KNNJaccard(k, centred, metric), x, y)


def cycle_knn(
    x: Array, y: Array, *, k: int = 10, metric: Metric = "cosine", centred: bool = False
) -> float:
    """Share of samples that come back to themselves through a neighbour in y and then one in x.

    Sample i comes back if some j is among the k nearest of i in y and i among the k nearest of
    j in x. In [0, 1]; not symmetric; for unrelated representations at most k² / (n - 1), and less
    where x has hubs. Large k bring all samples back. Samples that tie for the last places
    bring i back with the probability that ties broken at random would.

    Args:
        x: [sample, x_feature].
        y: [sample, y_feature], row i of the same sample as row i of x.
        k: neighbours per sample.
        metric: "cosine" or "euclidean".
        centred: whether to remove column means first; published numbers are without.

    Returns:
        The share, no unit.

    Raises:
        ShapeError: if the sample counts differ.
        DegenerateError: if a representation is constant or not finite, or there are fewer than
            k + 2 samples.
        UnknownNameError: if the metric is not known.

    Source:
        Huh et al. 2024, published code, arguments in the same order.

    Example:
        >>> x = np.random.default_rng(0).standard_normal((40, 3))
        >>> cycle_knn(x, x, k=39 // 2)
        1.0
    """
    return of_arrays(CycleKNN(k, centred, metric), x, y)


@dataclass(frozen=True)
class _WithMetric(NeighborMeasure):
    k: int = 10
    centred: bool = False
    metric: Metric = "cosine"

    lowest: ClassVar[float] = 0.0

    @property
    def _metric(self) -> Metric:
        return self.metric


@dataclass(frozen=True)
class MutualKNN(_WithMetric):
    """`mutual_knn` for whole grids: neighbours once per layer, then only looked up.

    Attributes:
        k: neighbours per sample.
        centred: whether to remove column means first.
        metric: "cosine" or "euclidean".
    """

    name: ClassVar[str] = "mutual_knn"

    def chance(self, samples: int) -> float | None:
        """K / (samples - 1)."""
        return self.k / (samples - 1)

    def _measure(
        self, x: Sequence[Neighbors], y: Sequence[Neighbors], orders: Tensor
    ) -> Float64[Tensor, "draw x_layer y_layer"]:
        edges = SharedEdges(x, y)
        whole = edges.x.whole and edges.y.whole
        parts = []
        for count, hits in edges.at(orders, which=not whole):
            weight = None if whole else weights(edges, hits.x, hits.y)
            sums = torch.bincount(hits.cell, weight, count * edges.cells)
            parts.append(sums.double().reshape(count, *edges.layers))
        return torch.cat(parts) / (edges.samples * self.k)


@dataclass(frozen=True)
class KNNJaccard(_WithMetric):
    """`knn_jaccard` for whole grids.

    Attributes:
        k: neighbours per sample.
        centred: whether to remove column means first.
        metric: "cosine" or "euclidean".
    """

    name: ClassVar[str] = "knn_jaccard"

    def chance(self, samples: int) -> float | None:
        """Mean of s / (2 k - s) for s of the hypergeometric law, exact where nothing ties."""
        others, k = samples - 1, self.k
        ways = math.comb(others, k)
        return sum(
            math.comb(k, s) * math.comb(others - k, k - s) / ways * s / (2 * k - s)
            for s in range(1, k + 1)
        )

    def _measure(
        self, x: Sequence[Neighbors], y: Sequence[Neighbors], orders: Tensor
    ) -> Float64[Tensor, "draw x_layer y_layer"]:
        edges = SharedEdges(x, y)
        n = edges.samples
        whole = edges.x.whole and edges.y.whole
        parts = []
        for count, hits in edges.at(orders, which=not whole, per_row=True):
            weight = None if whole else weights(edges, hits.x, hits.y)
            place = hits.cell * n + edges.x.row[hits.x]
            common = torch.bincount(place, weight, count * edges.cells * n).double()
            share = (common / (2 * self.k - common)).reshape(-1, n).sum(dim=1)
            parts.append(share.reshape(count, *edges.layers))
        return torch.cat(parts) / n


@dataclass(frozen=True)
class CycleKNN(_WithMetric):
    """`cycle_knn` for whole grids.

    Attributes:
        k: neighbours per sample.
        centred: whether to remove column means first.
        metric: "cosine" or "euclidean".
    """

    name: ClassVar[str] = "cycle_knn"
    symmetric: ClassVar[bool] = False

    def _measure(
        self, x: Sequence[Neighbors], y: Sequence[Neighbors], orders: Tensor
    ) -> Float64[Tensor, "draw x_layer y_layer"]:
        # An edge out of j in x, turned round, meets the edge from i to j in y.
        edges = SharedEdges([_turned(s) for s in x], y)
        n = edges.samples
        whole = edges.x.whole and edges.y.whole
        parts = []
        for count, hits in edges.at(orders, which=not whole, per_row=True):
            place = hits.cell * n + edges.x.row[hits.x]
            size = count * edges.cells * n
            if whole:
                back = torch.bincount(place, minlength=size) > 0
            else:
                missed = torch.log1p(-weights(edges, hits.x, hits.y))
                back = -torch.expm1(torch.bincount(place, missed, size))
            parts.append(back.double().reshape(-1, n).sum(dim=1).reshape(count, *edges.layers))
        return torch.cat(parts) / n


def _turned(neighbors: Neighbors) -> Neighbors:
    """The same edges in the other direction."""
    n = neighbors.samples
    key, order = (neighbors.column * n + neighbors.row).sort()
    return Neighbors(n, key, neighbors.weight[order], neighbors.cosine[order])

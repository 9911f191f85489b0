"""Whether the neighbours of a sample come in the same order in both representations."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float64
from torch import Tensor

from mirror_analysis.matrices import Array
from mirror_analysis.similarity.neighbors.nearest import Metric, Neighbors
from mirror_analysis.similarity.neighbors.overlap import NeighborMeasure, of_arrays, weights
from mirror_analysis.similarity.neighbors.shared_edges import Edges, SharedEdges

# Neighbours this near to one another stand side by side in the list.
_TIE = 1e-12


def knn_lcs(
    x: Array, y: Array, *, k: int = 10, metric: Metric = "cosine", centred: bool = False
) -> float:
    """Length of the longest common subsequence of the lists of k nearest neighbours, over k.

    Lists run from the nearest; the mean over samples, in [0, 1]. The published code gives the
    length itself, k times this. Never above `mutual_knn`, from which it differs by order.
    Samples equally near have no order: at most one of them counts, by its share in the place.

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
        Huh et al. 2024, published code (`lcs_knn` there).

    Example:
        >>> x = np.random.default_rng(0).standard_normal((40, 3))
        >>> knn_lcs(x, 2 * x, k=5)
        1.0
    """
    return of_arrays(KNNSubsequence(k, centred, metric), x, y)


def knn_edit_similarity(
    x: Array, y: Array, *, k: int = 10, metric: Metric = "cosine", centred: bool = False
) -> float:
    """1 - (edit distance of the lists of k nearest neighbours) / k, in [0, 1].

    The distance is Levenshtein's: insertions, deletions and replacements cost 1 each. The mean
    over samples. A shared neighbour counts only if it stands at about the same place in both
    lists. Samples equally near stand at their mean place and are not kept apart by order.

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
        Huh et al. 2024, published code (`edit_distance_knn` there, which is this similarity).

    Example:
        >>> x = np.random.default_rng(0).standard_normal((40, 3))
        >>> knn_edit_similarity(x, 2 * x, k=5)
        1.0
    """
    return of_arrays(KNNEdit(k, centred, metric), x, y)


@dataclass(frozen=True)
class _OfLists(NeighborMeasure):
    k: int = 10
    centred: bool = False
    metric: Metric = "cosine"

    lowest: ClassVar[float] = 0.0

    @property
    def _metric(self) -> Metric:
        return self.metric

    def _measure(
        self, x: Sequence[Neighbors], y: Sequence[Neighbors], orders: Tensor
    ) -> Float64[Tensor, "draw x_layer y_layer"]:
        edges = SharedEdges(x, y)
        n = edges.samples
        x_place, y_place = _places(edges.x), _places(edges.y)
        parts = []
        for count, hits in edges.at(orders, which=True):
            assert hits.y is not None
            weight = weights(edges, hits.x, hits.y)
            list_ = hits.cell * n + edges.x.row[hits.x]
            of_list, score = self._scores(list_, x_place[hits.x], y_place[hits.y], weight)
            sums = torch.bincount(of_list // n, score, count * edges.cells)
            parts.append(sums.double().reshape(count, *edges.layers))
        return torch.cat(parts) / (n * self.k)

    def _scores(self, list_: Tensor, x: Tensor, y: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Score of every list that has a shared neighbour.

        Args:
            list_: [hit] which list each shared neighbour is of.
            x: [hit] its place in x.
            y: [hit] its place in y.
            weight: [hit] its share in both places.

        Returns:
            The lists, and the score of each, at most k.
        """
        order = x.argsort(stable=True)
        order = order[list_[order].argsort(stable=True)]
        names, sizes = torch.unique_consecutive(list_[order], return_counts=True)
        starts = sizes.cumsum(dim=0) - sizes
        out = torch.zeros(len(names), dtype=torch.float64, device=x.device)
        # Lists of one length together: most have one shared neighbour or two.
        for size in torch.unique(sizes).tolist():
            which = (sizes == size).nonzero()[:, 0]
            at = order[starts[which, None] + torch.arange(size, device=x.device)]
            best = torch.empty_like(x[at])
            total = torch.zeros(len(which), dtype=torch.float64, device=x.device)
            for j in range(size):
                last = at[:, j]
                chain = self._gain(x[last], y[last], torch.zeros_like(total))
                if j:
                    before = at[:, :j]
                    dx, dy = x[last, None] - x[before], y[last, None] - y[before]
                    longer = best[:, :j] + self._gain(dx, dy, torch.zeros_like(dx))
                    ordered = (dx > 0) & (dy > 0)
                    longer = torch.where(ordered, longer, -torch.inf).amax(dim=1)
                    chain = torch.maximum(chain, longer)
                best[:, j] = chain + weight[last]
                total = torch.maximum(total, best[:, j] + self._end(x[last], y[last]))
            out[which] = total
        return names, out

    @abstractmethod
    def _gain(self, dx: Tensor, dy: Tensor, zero: Tensor) -> Tensor:
        """What stepping on by so many places in both lists adds to the score."""

    @abstractmethod
    def _end(self, x: Tensor, y: Tensor) -> Tensor:
        """What the places after the last shared neighbour add."""


@dataclass(frozen=True)
class KNNSubsequence(_OfLists):
    """`knn_lcs` for whole grids.

    Attributes:
        k: neighbours per sample.
        centred: whether to remove column means first.
        metric: "cosine" or "euclidean".
    """

    name: ClassVar[str] = "knn_lcs"

    def _gain(self, dx: Tensor, dy: Tensor, zero: Tensor) -> Tensor:
        return zero

    def _end(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.zeros_like(x)


@dataclass(frozen=True)
class KNNEdit(_OfLists):
    """`knn_edit_similarity` for whole grids.

    Attributes:
        k: neighbours per sample.
        centred: whether to remove column means first.
        metric: "cosine" or "euclidean".
    """

    name: ClassVar[str] = "knn_edit_similarity"

    # Between two neighbours kept, dx places apart in x and dy in y, max(dx, dy) - 1 edits are
    # needed. As the steps of a whole list come to k + 1 on either side, all edits together are
    # k - kept + sum of |dx - dy| / 2.
    def _gain(self, dx: Tensor, dy: Tensor, zero: Tensor) -> Tensor:
        return -(dx - dy).abs() / 2

    def _end(self, x: Tensor, y: Tensor) -> Tensor:
        return -(x - y).abs() / 2


def _places(edges: Edges) -> Float64[Tensor, " edge"]:
    """Place of every edge in its sample's list from 1; those equally near share a mean place."""
    list_ = edges.layer * edges.samples + edges.row
    order = edges.cosine.argsort(descending=True, stable=True)
    order = order[list_[order].argsort(stable=True)]
    row, near, weight = list_[order], edges.cosine[order], edges.weight[order]
    first = torch.ones_like(row, dtype=torch.bool)
    new_row = row[1:] != row[:-1]
    apart = near[:-1] - near[1:] > _TIE * near[:-1].abs().clamp(min=1)
    first[1:] = new_row | apart | ((weight[1:] < 1) != (weight[:-1] < 1))
    group = first.long().cumsum(dim=0) - 1
    mass = torch.bincount(group, weight)
    ends = mass.cumsum(dim=0)
    opens = torch.ones_like(row, dtype=torch.bool)
    opens[1:] = new_row
    # Mass before the first group of each row.
    origin = (ends - mass)[group[opens]][opens.long().cumsum(dim=0) - 1]
    place = torch.empty_like(near)
    place[order] = (ends - mass)[group] - origin + (mass[group] + 1) / 2
    return place

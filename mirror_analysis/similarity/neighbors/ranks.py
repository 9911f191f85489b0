"""How near in y the nearest neighbours of x are: information imbalance."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from mirror_analysis.matrices import Array
from mirror_analysis.results import Parameter
from mirror_analysis.similarity.measures import Invariance, Layer, Measure
from mirror_analysis.similarity.neighbors.nearest import Metric, Neighbors, Points, without
from mirror_analysis.similarity.neighbors.overlap import constant_without, neighbors_of, of_arrays
from mirror_analysis.similarity.neighbors.shared_edges import Edges

# Entries of a block of ranks.
_TILE = 1 << 21


def information_imbalance(x: Array, y: Array, *, k: int = 1, metric: Metric = "euclidean") -> float:
    """Information imbalance from x to y: how far in y the nearest neighbours in x are.

    `2 / (n² k) * sum of the ranks in y of the k nearest neighbours in x`. 2 / n where y has the
    same nearest neighbours (for k = 1), 1 expected of unrelated representations. Low from x to y
    and high from y to x: x tells more of y than y of x. Samples equally near share their mean
    rank.

    Args:
        x: [sample, x_feature].
        y: [sample, y_feature], row i of the same sample as row i of x.
        k: neighbours per sample.
        metric: "euclidean" as published, or "cosine".

    Returns:
        The imbalance, no unit; low is near. `knn_rank_similarity` is 1 minus it.

    Raises:
        ShapeError: if the sample counts differ.
        DegenerateError: if a representation is constant or not finite, or there are fewer than
            k + 2 samples.
        UnknownNameError: if the metric is not known.

    Source:
        Glielmo et al. 2022, equation 2.

    Example:
        >>> x = np.random.default_rng(0).standard_normal((40, 3))
        >>> information_imbalance(x, 2 * x)
        0.05
    """
    return 1 - knn_rank_similarity(x, y, k=k, metric=metric)


def knn_rank_similarity(x: Array, y: Array, *, k: int = 1, metric: Metric = "euclidean") -> float:
    """1 - information imbalance from x to y, so that it rises with similarity.

    At most 1 - (k + 1) / n, which x and x give; 0 is expected of unrelated representations, and
    at least -1. Not symmetric: neighbours are taken in x and ranked in y.

    Args:
        x: [sample, x_feature].
        y: [sample, y_feature], row i of the same sample as row i of x.
        k: neighbours per sample.
        metric: "euclidean" or "cosine".

    Returns:
        The similarity, no unit.

    Raises:
        ShapeError: if the sample counts differ.
        DegenerateError: if a representation is constant or not finite, or there are fewer than
            k + 2 samples.
        UnknownNameError: if the metric is not known.

    Source:
        After Glielmo et al. 2022, equation 2.

    Example:
        >>> x = np.random.default_rng(0).standard_normal((40, 3))
        >>> round(knn_rank_similarity(x, 2 * x), 6)
        0.95
    """
    return of_arrays(KNNRank(k, metric), x, y)


@dataclass(frozen=True)
class KNNRank(Measure):
    """`knn_rank_similarity` for whole grids; ranks are made for a block of rows at a time.

    Attributes:
        k: neighbours per sample.
        metric: "euclidean" or "cosine".
    """

    name: ClassVar[str] = "knn_rank_similarity"
    lowest: ClassVar[float] = -1.0
    symmetric: ClassVar[bool] = False
    invariances: ClassVar[frozenset[Invariance]] = frozenset({"rotation", "scale"})
    k: int = 1
    metric: Metric = "euclidean"

    @property
    def parameters(self) -> dict[str, Parameter]:
        """The settings."""
        return {"k": self.k, "metric": self.metric}

    def chance(self, samples: int) -> float | None:
        """0: ranks average samples / 2."""
        return 0.0

    def prepare(self, layer: Layer) -> Neighbors:
        """The neighbours of every sample, with the samples to rank."""
        found = neighbors_of(layer, self.k, metric=self.metric, centred=False, measure=self.name)
        if found.ranked is None:
            # Group means change with the samples, but the ranks of all samples need them.
            points = Points(layer.values, self.metric)
            return _Grouped(found.samples, found.key, found.weight, found.cosine, None, points)
        return found

    def values(self, x: Sequence[Neighbors], y: Sequence[Neighbors]) -> Tensor:
        """The similarity of every pair, [x layer, y layer]."""
        order = torch.arange(x[0].samples, device=x[0].key.device)
        return self.null(x, y, order[None])[0]

    def null(self, x: Sequence[Neighbors], y: Sequence[Neighbors], permutations: Tensor) -> Tensor:
        """The same with the rows of every y permuted, [draw, x layer, y layer]."""
        edges, n = Edges.of(x), x[0].samples
        out = torch.zeros(len(permutations), len(x), len(y), dtype=torch.float64)
        out = out.to(edges.key.device)
        step = max(1, _TILE // len(edges.row))
        for j, state in enumerate(y):
            for start, _, ranks in _ranks(_points(state)):
                for first in range(0, len(permutations), step):
                    part = permutations[first : first + step]
                    row = part[:, edges.row] - start
                    draw, edge = ((row >= 0) & (row < len(ranks))).nonzero().T
                    found = ranks[row[draw, edge], part[draw, edges.column[edge]]].double()
                    cell = draw * len(x) + edges.layer[edge]
                    sums = torch.bincount(cell, edges.weight[edge] * found, len(part) * len(x))
                    out[first : first + step, :, j] += sums.reshape(len(part), len(x))
        return 1 - out * 2 / (n * n * self.k)

    def leave_out(
        self, x: Sequence[Neighbors], y: Sequence[Neighbors], folds: Tensor
    ) -> Tensor | None:
        """The same without each fold, exactly, [fold, x layer, y layer]; None with groups."""
        if any(s.ranked is None for s in (*x, *y)):
            return None
        count = int(folds.max()) + 1
        out = torch.full((count, len(x), len(y)), torch.nan, dtype=torch.float64)
        out = out.to(folds.device)
        constant = [torch.stack([constant_without(s, folds) for s in side]) for side in (x, y)]
        gone = [(folds == fold).nonzero()[:, 0] for fold in range(count)]
        left: dict[int, tuple[Tensor, ...]] = {}
        for fold in range(count):
            keep = (folds != fold).nonzero()[:, 0]
            if len(keep) >= self.k + 2:
                edges = Edges.of([e for e in (without(s, keep, self.k) for s in x) if e])
                left[fold] = edges.layer, keep[edges.row], keep[edges.column], edges.weight
        for j, state in enumerate(y):
            sums = torch.zeros(count, len(x), dtype=torch.float64, device=folds.device)
            points = _points(state)
            for start, between, ranks in _ranks(points):
                for fold, parts in left.items():
                    here = (parts[1] >= start) & (parts[1] < start + len(ranks))
                    layer, row, column, weight = (part[here] for part in parts)
                    near = between[row - start, column]
                    slack = points.slack(near, row)
                    # Of the fold that goes, those nearer and half of those as near.
                    fewer = between[:, gone[fold]][row - start]
                    above = (fewer > (near + slack)[:, None]).sum(dim=1)
                    level = (fewer >= (near - slack)[:, None]).sum(dim=1)
                    rank = ranks[row - start, column].double() - (above + level) / 2
                    sums[fold] += torch.bincount(layer, weight * rank, len(x))
            for fold in left:
                rows = len(folds) - len(gone[fold])
                out[fold, :, j] = 1 - sums[fold] * 2 / (rows**2 * self.k)
        bad = constant[0].T[:, :, None] | constant[1].T[:, None, :]
        return out.masked_fill(bad, torch.nan)


@dataclass(frozen=True, eq=False)
class _Grouped(Neighbors):
    """Neighbours whose samples can be ranked but not left out.

    Attributes:
        points: the samples.
    """

    points: Points | None = None


def _points(state: Neighbors) -> Points:
    if state.ranked is not None:
        return state.ranked.points
    assert isinstance(state, _Grouped) and state.points is not None
    return state.points


def _ranks(points: Points) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Blocks of rows: the number of the first, similarities, and ranks, 1 the nearest.

    Those equally near have their mean rank: 1 + how many are nearer + half of the others as near.
    """
    n = len(points.values)
    step = max(1, _TILE // n)
    for start in range(0, n, step):
        rows = torch.arange(start, min(start + step, n), device=points.values.device)
        between = points.between(rows)
        order = between.sort(dim=1).values
        # A sample's similarity with itself is never asked for.
        slack = points.slack(between, rows[:, None]).nan_to_num(posinf=0.0)
        above = torch.searchsorted(order, between + slack, right=True)
        level = torch.searchsorted(order, between - slack)
        yield start, between, (n + 0.5 - (above + level) / 2).float()

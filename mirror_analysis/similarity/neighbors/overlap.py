"""What all measures of common neighbours do alike: preparing, nulls, leaving folds out."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from mirror_analysis.errors import DegenerateError, UnknownNameError
from mirror_analysis.matrices import Array
from mirror_analysis.results import Parameter
from mirror_analysis.similarity.measures import Invariance, Layer, Measure, layers_of
from mirror_analysis.similarity.neighbors.nearest import Metric, Neighbors, nearest, without
from mirror_analysis.similarity.neighbors.shared_edges import SharedEdges
from mirror_analysis.similarity.preparation import ROUNDING, need_rows, need_variation


def of_arrays(measure: Measure, x: Array, y: Array) -> float:
    """A measure of two arrays, float32 as it comes."""
    states = [measure.prepare(layer) for layer in layers_of(x, y)]
    return float(measure.values(states[:1], states[1:])[0, 0])


def neighbors_of(layer: Layer, k: int, *, metric: Metric, centred: bool, measure: str) -> Neighbors:
    """The k nearest of every sample, found once per layer.

    Raises:
        DegenerateError: if k is below 1, there are fewer than k + 2 samples, or the layer is
            constant.
        UnknownNameError: if the metric is not known.
    """
    if metric not in ("cosine", "euclidean"):
        raise UnknownNameError("metric", metric, ("cosine", "euclidean"))
    if k < 1:
        raise DegenerateError(f"{measure} got k {k}; needed at least 1 neighbour")
    need_rows(len(layer), k + 2, measure=measure)
    low, high = torch.aminmax(layer.values, dim=0)
    size = torch.maximum(high.abs(), low.abs())
    if not bool((high - low > 4 * ROUNDING[layer.values.dtype] * size).any()):
        need_variation(layer.centred, name=layer.name)
    # Distances do not depend on the mean.
    centred = centred and metric == "cosine"

    def find() -> Neighbors:
        found = nearest(layer.centred if centred else layer.values, k, metric=metric)
        # Means, of all or of groups, change with the samples left out.
        return replace(found, ranked=None) if centred or layer.groups is not None else found

    return layer.derive(("nearest", k, metric, centred), find)


class NeighborMeasure(Measure):
    """A measure of which neighbours both sides share; subclasses have k, metric and centred."""

    invariances: ClassVar[frozenset[Invariance]] = frozenset({"rotation", "scale"})
    k: int
    centred: bool

    @property
    def parameters(self) -> dict[str, Parameter]:
        """The settings."""
        return {"k": self.k, "metric": self._metric, "centred": self.centred}

    @property
    def _metric(self) -> Metric:
        return "cosine"

    def prepare(self, layer: Layer) -> Any:
        """The neighbours of every sample."""
        return neighbors_of(
            layer, self.k, metric=self._metric, centred=self.centred, measure=self.name
        )

    def values(self, x: Sequence[Any], y: Sequence[Any]) -> Tensor:
        """The measure of every pair, [x layer, y layer]."""
        first = self._neighbors(x[0])
        return self.null(x, y, torch.arange(first.samples, device=first.key.device)[None])[0]

    def null(self, x: Sequence[Any], y: Sequence[Any], permutations: Tensor) -> Tensor:
        """The same with the rows of every y permuted, [draw, x layer, y layer]."""
        return self._measure(
            [self._neighbors(s) for s in x], [self._neighbors(s) for s in y], permutations
        )

    def leave_out(self, x: Sequence[Any], y: Sequence[Any], folds: Tensor) -> Tensor | None:
        """The same without each fold, exactly, [fold, x layer, y layer].

        None where group or column means were removed, as these change with the samples.
        """
        sides = [[self._neighbors(s) for s in side] for side in (x, y)]
        if any(s.ranked is None for side in sides for s in side):
            return None
        count = int(folds.max()) + 1
        constant = [torch.stack([constant_without(s, folds) for s in side]) for side in sides]
        out = torch.full((count, len(x), len(y)), torch.nan, dtype=torch.float64)
        out = out.to(folds.device)
        for fold in range(count):
            keep = (folds != fold).nonzero()[:, 0]
            left = [
                {i: self._kept(s, keep) for i, s in enumerate(side) if not bool(flat[i, fold])}
                for side, flat in zip(sides, constant, strict=True)
            ]
            first, second = ({i: s for i, s in side.items() if s is not None} for side in left)
            if first and second:
                part = self.values(list(first.values()), list(second.values()))
                rows = torch.tensor(list(first), device=out.device)[:, None]
                out[fold, rows, torch.tensor(list(second), device=out.device)] = part
        return out

    def _kept(self, neighbors: Neighbors, keep: Tensor) -> Any | None:
        """The state of the samples that stay; None where the measure is not defined on them."""
        if len(keep) < self.k + 2:
            return None
        left = without(neighbors, keep, self.k)
        return None if left is None else self._state(left)

    def _neighbors(self, state: Any) -> Neighbors:
        """The neighbours in a state."""
        found: Neighbors = state
        return found

    def _state(self, neighbors: Neighbors) -> Any | None:
        """The state of given neighbours; None where the measure is not defined on them."""
        return neighbors

    @abstractmethod
    def _measure(
        self,
        x: Sequence[Neighbors],
        y: Sequence[Neighbors],
        orders: Int64[Tensor, "draw sample"],
    ) -> Float64[Tensor, "draw x_layer y_layer"]:
        """The measure under each order of the rows of y."""


def weights(edges: SharedEdges, hit_x: Tensor, hit_y: Tensor | None) -> Tensor:
    """Product of both sides' shares in the place, [hit]."""
    left = edges.x.weight[hit_x]
    return left if hit_y is None else left * edges.y.weight[hit_y]


def constant_without(neighbors: Neighbors, folds: Tensor) -> Tensor:
    """[fold] whether all samples are the same without that fold."""
    assert neighbors.ranked is not None
    values = neighbors.ranked.points.values
    size = 4 * ROUNDING[values.dtype] * values.abs().amax(dim=0)
    count = int(folds.max()) + 1
    # Whichever fold goes, one of two samples of different folds stays.
    anchors = [0, int((folds != folds[0]).nonzero()[0])]
    differing = []
    for anchor in anchors:
        other = ((values - values[anchor]).abs() > size).any(dim=1)
        by_fold = torch.bincount(folds[other], minlength=count)
        differing.append(by_fold.sum() - by_fold)
    fold = torch.arange(count, device=folds.device)
    return torch.where(fold == folds[0], differing[1], differing[0]) == 0

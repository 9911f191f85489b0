"""What a similarity measure is to the layer grid, and the table of those there are."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

from mirror_analysis.errors import UnknownNameError

if TYPE_CHECKING:
    from torch import Tensor

    from mirror_analysis.results import Parameter

Invariance = Literal["rotation", "scale", "shift", "linear"]
T = TypeVar("T")

MEASURES = {
    "cknna": "mirror_analysis.similarity.neighbors.aligned:CKNNA",
    "cycle_knn": "mirror_analysis.similarity.neighbors.sets:CycleKNN",
    "distance_correlation": "mirror_analysis.similarity.distances:DistanceCorrelation",
    "knn_edit_similarity": "mirror_analysis.similarity.neighbors.lists:KNNEdit",
    "knn_jaccard": "mirror_analysis.similarity.neighbors.sets:KNNJaccard",
    "knn_lcs": "mirror_analysis.similarity.neighbors.lists:KNNSubsequence",
    "knn_rank_similarity": "mirror_analysis.similarity.neighbors.ranks:KNNRank",
    "linear_cka": "mirror_analysis.similarity.cka:LinearCKA",
    "linear_predictivity": "mirror_analysis.similarity.regression:LinearPredictivity",
    "mean_cca": "mirror_analysis.similarity.cca.mean:MeanCCA",
    "mean_squared_cca": "mirror_analysis.similarity.cca.squared:MeanSquaredCCA",
    "mutual_knn": "mirror_analysis.similarity.neighbors.sets:MutualKNN",
    "orthogonal_predictivity": "mirror_analysis.similarity.regression:OrthogonalPredictivity",
    "polynomial_cka": "mirror_analysis.similarity.cka:PolynomialCKA",
    "procrustes_similarity": "mirror_analysis.similarity.procrustes:ProcrustesSimilarity",
    "pwcca": "mirror_analysis.similarity.cca.weighted:PWCCA",
    "rbf_cka": "mirror_analysis.similarity.cka:RBFCKA",
    "ridge_cca": "mirror_analysis.similarity.cca.regularised:RidgeCCA",
    "rsa": "mirror_analysis.similarity.rdm.comparison:RSA",
    "rv": "mirror_analysis.similarity.cka:RV",
    "svcca": "mirror_analysis.similarity.cca.mean:SVCCA",
}
"""Name of the function -> its class for whole grids."""

EXACT_ROWS = 512
"""Up to here products in float64 and whole matrices cost little."""

DEFAULT = ("linear_cka", "mutual_knn", "cknna", "mean_squared_cca")
"""What is measured when nothing is chosen: kernels, neighbours twice, and correlations."""


@dataclass(frozen=True, eq=False)
class Layer:
    """One layer's rows, ready to be measured.

    Attributes:
        name: what to call it in an error.
        values: float32 or float64 [sample, feature], finite; group means removed where there are
            groups. Products are taken in this type, sums over samples in float64.
        groups: int64 [sample] group numbers counted from 0; None for one group.
        units: int64 [sample] numbers of independent units counted from 0; None for every row.
        budget: bytes that a matrix over its pairs of samples may take.
        by_rows: whether moments of rows are cheaper than Gram matrices, with as many samples and
            layers as there are.
        memo: what several measures derive from the same layer, filled by `derive`.
    """

    name: str
    values: Tensor
    groups: Tensor | None = None
    units: Tensor | None = None
    budget: int = 1 << 28
    by_rows: bool = False
    memo: dict[object, Any] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.values)

    @cached_property
    def centred(self) -> Tensor:
        """The values less their float64 column means, [sample, feature], in their own type."""
        from mirror_analysis.similarity.preparation import residual

        return residual(self.values)

    def derive(self, key: object, make: Callable[[], T]) -> T:
        """What `make` gives, made once per layer and key."""
        if key not in self.memo:
            self.memo[key] = make()
        return self.memo[key]


class Measure(ABC):
    """A similarity measure as the grid sees it; subclasses are frozen dataclasses of settings.

    A state is whatever `prepare` returns; the grid only hands it back.

    Attributes:
        name: name of the function that gives the same number for two arrays.
        lowest: the least value it can take; highest: the largest.
        symmetric: whether exchanging x and y leaves the value as it is.
        invariances: changes of one side that leave the value as it is: "rotation" of the
            features, one "scale" for all, one "shift" per feature, any invertible "linear" map.
        most_draws: permutations worth their cost; None for no limit.
        interval_method: how replicates are made: "jackknife" exactly, or in other words, such as
            "infinitesimal jackknife" to first order.
    """

    name: ClassVar[str]
    lowest: ClassVar[float]
    highest: ClassVar[float] = 1.0
    symmetric: ClassVar[bool] = True
    invariances: ClassVar[frozenset[Invariance]]
    interval_method: ClassVar[str] = "jackknife"

    @property
    def most_draws(self) -> int | None:
        """Permutations worth their cost; None for no limit."""
        return None

    @property
    def parameters(self) -> dict[str, Parameter]:
        """The settings, as they are recorded with every score."""
        return {}

    def chance(self, samples: int) -> float | None:
        """The value expected of unrelated x and y, where that is known; else None."""
        return None

    @abstractmethod
    def prepare(self, layer: Layer) -> Any:
        """Everything that depends on one layer alone.

        Raises:
            DegenerateError: if the measure is not defined on this layer.
        """

    @abstractmethod
    def values(self, x: Sequence[Any], y: Sequence[Any]) -> Tensor:
        """The measure of every x with every y.

        Args:
            x: states of the layers of the first side.
            y: states of the layers of the second side, of the same rows.

        Returns:
            Float64 [x layer, y layer].
        """

    def leave_out(self, x: Sequence[Any], y: Sequence[Any], folds: Tensor) -> Tensor | None:
        """The measure without the rows of each fold in turn, from what was prepared of all rows.

        Where there is no way cheaper than preparing anew, None, and the grid does that.

        Args:
            x: states of the layers of the first side.
            y: states of the layers of the second side.
            folds: int64 [sample] fold numbers counted from 0.

        Returns:
            Float64 [fold, x layer, y layer], exact or to first order (`interval_method` says), NaN
            where a fold's rest is degenerate; or None.
        """
        return None

    def invariants(self, x: Sequence[Any], y: Sequence[Any]) -> tuple[Any, Any] | None:
        """What the exact permutation moments need to know of each side, or None.

        Only for measures that are inner products of two matrices over pairs of samples.

        Returns:
            `inference.Invariants` of the layers of x and of y, scaled so that the statistic they
            describe, times `factor`, is the measure.
        """
        return None

    def factor(self, x: Sequence[Any], y: Sequence[Any]) -> Tensor | None:
        """Float64 [x layer, y layer] above 0, by which `invariants` miss the measure; or None."""
        return None

    def note(self, x: Any, y: Any) -> str:
        """What a reader of this cell must know, one sentence; "" for nothing.

        Args:
            x: state of the layer of the first side.
            y: state of the layer of the second side.
        """
        return ""

    def leading(self, side: Sequence[Any]) -> Any | None:
        """`inference.leading.Leading` of one side's matrices, for laws that moments do not tell."""
        return None

    @abstractmethod
    def null(self, x: Sequence[Any], y: Sequence[Any], permutations: Tensor) -> Tensor:
        """The measure of every x with every y whose rows are put in another order.

        Args:
            x: states of the layers of the first side.
            y: states of the layers of the second side.
            permutations: int64 [draw, sample]; row i of x meets row permutations[d, i] of y.

        Returns:
            Float64 [draw, x layer, y layer].
        """


def load_measure(name: str | Measure) -> Measure:
    """The measure of that name with its default settings; a measure is returned as it is.

    Raises:
        UnknownNameError: if there is none.
    """
    if isinstance(name, Measure):
        return name
    if name not in MEASURES:
        raise UnknownNameError("measure", name, MEASURES)
    module, _, attribute = MEASURES[name].partition(":")
    return getattr(importlib.import_module(module), attribute)()


def layers_of(x: Any, y: Any) -> tuple[Layer, Layer]:
    """Two arrays of the same samples as layers, in the type the grid would hold them in.

    Raises:
        ShapeError: if one has not two axes, or the sample counts differ.
        DegenerateError: if a value is NaN or infinite.
        DeviceError: if they are on two devices.
    """
    from mirror_analysis.matrices import as_pair

    a, b = as_pair(x, y, dtype=None)
    return Layer("x", a), Layer("y", b)


def of_two(measure: Measure, x: Any, y: Any) -> float:
    """One measure of two arrays, in float64.

    Args:
        measure: with its settings.
        x: [sample, x_feature], numpy or torch.
        y: [sample, y_feature].

    Raises:
        ShapeError: if one has not two axes, or the sample counts differ.
        DegenerateError: if a value is not finite, or the measure is not defined.
        DeviceError: if they are on two devices.
    """
    from mirror_analysis.matrices import as_pair

    a, b = as_pair(x, y)
    rows = cheaper_by_rows(len(a), [a.shape[1]], [b.shape[1]])
    states = [measure.prepare(Layer(n, m, by_rows=rows)) for n, m in (("x", a), ("y", b))]
    return float(measure.values(states[:1], states[1:])[0, 0])


def cheaper_by_rows(samples: int, x: Sequence[int], y: Sequence[int]) -> bool:
    """Whether products of Gram matrices cost less by moments of rows than by the matrices.

    Args:
        samples: number of samples.
        x: widths of the layers of the first side.
        y: widths of the layers of the second side.
    """
    if samples <= EXACT_ROWS:
        return False
    # Half of a symmetric product is enough; products over all pairs run at a fraction of the rate.
    gram = samples * (0.6 * (sum(x) + sum(y)) + 4 * len(x) * len(y))
    return sum(x) * sum(y) + sum(d * d for d in (*x, *y)) < gram

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
    "cknna": "mirror_analysis.similarity.neighbors:CKNNA",
    "linear_cka": "mirror_analysis.similarity.cka:LinearCKA",
    "mutual_knn": "mirror_analysis.similarity.neighbors:MutualKNN",
    "svcca": "mirror_analysis.similarity.cca:SVCCA",
}
"""Name of the function -> its class for whole grids."""

DEFAULT = ("linear_cka", "mutual_knn", "cknna", "svcca")
"""What is measured when nothing is chosen."""


@dataclass(frozen=True, eq=False)
class Layer:
    """One layer's rows, ready to be measured.

    Attributes:
        name: what to call it in an error.
        values: float64 [sample, feature], finite; group means removed where there are groups.
        groups: int64 [sample] group numbers counted from 0; None for one group.
        memo: what several measures derive from the same layer, filled by `derive`.
    """

    name: str
    values: Tensor
    groups: Tensor | None = None
    memo: dict[object, Any] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.values)

    @cached_property
    def centred(self) -> Tensor:
        """The values less their column means, [sample, feature]."""
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
    """

    name: ClassVar[str]
    lowest: ClassVar[float]
    highest: ClassVar[float] = 1.0
    symmetric: ClassVar[bool] = True
    invariances: ClassVar[frozenset[Invariance]]

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

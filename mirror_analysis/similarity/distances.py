"""Distance correlation: zero in the population only where two representations are independent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from mirror_analysis.inference.invariants import Invariants
from mirror_analysis.matrices import Array
from mirror_analysis.results import Parameter
from mirror_analysis.similarity.measures import Invariance, Layer, of_two
from mirror_analysis.similarity.pairwise.measure import PairwiseMeasure
from mirror_analysis.similarity.pairwise.pairs import Pairs, strip_pairs
from mirror_analysis.similarity.preparation import need_rows, need_variation


def distance_correlation(x: Array, y: Array, *, debiased: bool = True) -> float:
    """Distance correlation of two representations of the same samples.

    The cosine of the two matrices of Euclidean distances, centred. Debiased it is the bias
    corrected statistic R*, on the scale of a squared correlation, in [-1, 1] and 0 in expectation
    for unrelated representations; biased it is the classical root, in [0, 1], which nears 1 for
    anything with more features than samples.

    Args:
        x: [sample, x_feature].
        y: [sample, y_feature], row i of the same sample as row i of x.
        debiased: whether to centre without bias (U-centring).

    Returns:
        The similarity, no unit.

    Raises:
        ShapeError: if the sample counts differ.
        DegenerateError: if a representation is constant or not finite, or there are fewer than
            4 samples (3 when biased).

    Source:
        Szekely, Rizzo and Bakirov 2007, definition 3 (biased); Szekely and Rizzo 2013, equation
        2.2, and 2014, section 3 (debiased).

    Example:
        >>> x = np.arange(10.0).reshape(5, 2) % 3
        >>> round(distance_correlation(x, 7 * x + 1000), 6)
        1.0
    """
    return of_two(DistanceCorrelation(debiased), x, y)


@dataclass(frozen=True)
class DistanceCorrelation(PairwiseMeasure):
    """`distance_correlation` for whole grids: one matrix of distances per layer.

    Attributes:
        debiased: whether to centre without bias.
    """

    name: ClassVar[str] = "distance_correlation"
    lowest: ClassVar[float] = -1.0
    invariances: ClassVar[frozenset[Invariance]] = frozenset({"rotation", "scale", "shift"})
    debiased: bool = True

    @property
    def parameters(self) -> dict[str, Parameter]:
        """The settings."""
        return {"debiased": self.debiased}

    def chance(self, samples: int) -> float | None:
        """0 when debiased."""
        return 0.0 if self.debiased else None

    def prepare(self, layer: Layer) -> Pairs:
        """The matrix of distances in its parts."""
        need_rows(len(layer), 4 if self.debiased else 3, measure=self.name)
        need_variation(layer.centred, name=layer.name)
        rows = layer.centred / layer.centred.abs().max()
        squares = rows.square().sum(dim=1)
        # Twice the mean squared norm is the mean squared distance: entries of size near 1.
        scale = 1 / (2 * float(squares.double().mean()))

        def raw(index: Tensor) -> Tensor:
            found = torch.addmm(squares[index, None] + squares, rows[index], rows.T, alpha=-2)
            found.mul_(scale).clamp_(min=0)
            found[torch.arange(len(index), device=index.device), index] = 0
            return found.sqrt_()

        return strip_pairs(raw, layer, kind="unbiased" if self.debiased else "biased")

    def values(self, x: Sequence[Pairs], y: Sequence[Pairs]) -> Tensor:
        """Cosines, or their roots when biased, [x layer, y layer]."""
        return self._scale(super().values(x, y))

    def null(self, x: Sequence[Pairs], y: Sequence[Pairs], permutations: Tensor) -> Tensor:
        """The same with rows and columns of every y permuted, [draw, x layer, y layer]."""
        return self._scale(super().null(x, y, permutations))

    def leave_out(self, x: Sequence[Pairs], y: Sequence[Pairs], folds: Tensor) -> Tensor | None:
        """The same without each fold, exactly, [fold, x layer, y layer]."""
        found = super().leave_out(x, y, folds)
        return None if found is None else self._scale(found)

    def invariants(
        self, x: Sequence[Pairs], y: Sequence[Pairs]
    ) -> tuple[Invariants, Invariants] | None:
        """When debiased; the root of the biased statistic has no exact moments."""
        return super().invariants(x, y) if self.debiased else None

    def _scale(self, cosines: Tensor) -> Tensor:
        return cosines if self.debiased else cosines.clamp(min=0).sqrt()

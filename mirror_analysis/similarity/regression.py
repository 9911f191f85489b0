"""How well one representation predicts another on samples held out."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from mirror_analysis.errors import DegenerateError, ShapeError, UnknownNameError
from mirror_analysis.inference.units import Labels, gather_units
from mirror_analysis.matrices import Array
from mirror_analysis.results import Parameter
from mirror_analysis.similarity.cca.bases import exact_rows, whole_basis
from mirror_analysis.similarity.cca.nuclear import fold_sums
from mirror_analysis.similarity.measures import Invariance, Layer, Measure, layers_of
from mirror_analysis.similarity.preparation import need_rows

_DIRECTIONS = ("mean", "x_to_y", "y_to_x")

# Ridge strengths in mean variances of the predictor's features, half a decade apart.
_STRENGTHS = torch.logspace(-6, 4, 21, dtype=torch.float64)


def linear_predictivity(
    x: Array,
    y: Array,
    *,
    direction: str = "x_to_y",
    folds: int = 5,
    units: Labels | None = None,
) -> float:
    """Held-out R² of a ridge regression of one representation on the other, at most 1.

    `1 - sum ||y_i - p_i||² / sum ||y_i - m_i||²` over samples i, each predicted (p_i) by a model
    that has not seen its fold, m_i the mean of the folds it has seen; features of large variance
    count most. The ridge strength is chosen inside the training folds by generalised
    cross-validation, out of 21 from 1e-6 to 1e4 mean variances. It is not symmetric. Unrelated
    layers give 0 or a little less; there is no lower bound.

    Folds depend on the predictor's rows and not on their order: units are ranked by the mean
    squared norm of their centred rows and dealt out in turn.

    Args:
        x: [sample, x_feature].
        y: [sample, y_feature], row i of the same sample as row i of x.
        direction: "x_to_y" predicts y from x, "y_to_x" x from y, "mean" is the mean of both.
        folds: parts held out in turn, at least 2.
        units: [sample] labels of what is held out together, such as episode ids; None for rows.

    Returns:
        The share of the target's variance that is predicted, no unit.

    Raises:
        ShapeError: if the sample counts differ.
        DegenerateError: if a representation is constant or not finite, or there are fewer than
            2 units per fold.
        UnknownNameError: if the direction is not known.

    Source:
        Golub, Heath and Wahba 1979 (strength); Kornblith et al. 2019, table 1 (in-sample form).

    Example:
        >>> x = np.random.default_rng(0).standard_normal((200, 3))
        >>> round(linear_predictivity(x, x @ [[1], [2], [3]]), 4)
        1.0
    """
    return _of_arrays(LinearPredictivity(direction, folds), x, y, units)


def orthogonal_predictivity(
    x: Array,
    y: Array,
    *,
    direction: str = "x_to_y",
    folds: int = 5,
    units: Labels | None = None,
) -> float:
    """Held-out R² of the best rotation, scale and shift of one representation, at most 1.

    As `linear_predictivity` with the map `c R`: R the orthogonal Procrustes solution of the
    training folds (a partial isometry where widths differ or samples are few) and c the
    least-squares scale. It asks whether the geometry carries over, not only the content.
    Unrelated layers give less than 0, since a rotation always fits a little.

    Args:
        x: [sample, x_feature].
        y: [sample, y_feature], row i of the same sample as row i of x.
        direction: "x_to_y" predicts y from x, "y_to_x" x from y, "mean" is the mean of both.
        folds: parts held out in turn, at least 2.
        units: [sample] labels of what is held out together, such as episode ids; None for rows.

    Returns:
        The share of the target's variance that is predicted, no unit.

    Raises:
        ShapeError: if the sample counts differ.
        DegenerateError: if a representation is constant or not finite, or there are fewer than
            2 units per fold.
        UnknownNameError: if the direction is not known.

    Source:
        Schönemann 1966 (the map).

    Example:
        >>> x = np.random.default_rng(0).standard_normal((200, 2))
        >>> round(orthogonal_predictivity(x, 3 * x[:, ::-1] + 1), 6)
        1.0
    """
    return _of_arrays(OrthogonalPredictivity(direction, folds), x, y, units)


def _of_arrays(measure: Predictivity, x: Array, y: Array, units: Labels | None) -> float:
    first, second = layers_of(x, y)
    numbers = None
    if units is not None:
        numbers = _numbers(units, len(first)).to(first.values.device)
    a, b = (measure.prepare_units(layer, numbers) for layer in (first, second))
    return float(measure.values([a], [b])[0, 0])


def _numbers(units: Labels, rows: int) -> Int64[Tensor, " sample"]:
    """Unit numbers counted from 0."""
    gathered = gather_units(units)
    numbers = torch.empty(sum(len(members) for members in gathered.rows), dtype=torch.int64)
    for number, members in enumerate(gathered.rows):
        numbers[torch.from_numpy(members)] = number
    if len(numbers) != rows:
        raise ShapeError(f"units has {len(numbers)} labels for {rows} rows; needed one per row")
    return numbers


@dataclass(frozen=True, eq=False)
class Fold:
    """What one part held out needs of the predictor.

    Attributes:
        held: [test] positions of the samples held out.
        count: samples in the rest.
        mean: [component] mean of the rest.
        rows: [test, component] samples held out less that mean, in the axes below.
        axes: [component, component] principal axes of the rest, in columns.
        power: [component] squared singular values of the rest along them.
        unit: mean variance of the predictor's features over the rest, times its samples.
    """

    held: Int64[Tensor, " test"]
    count: int
    mean: Float64[Tensor, " component"]
    rows: Float64[Tensor, "test component"]
    axes: Float64[Tensor, "component component"]
    power: Float64[Tensor, " component"]
    unit: Float64[Tensor, ""]


@dataclass(frozen=True, eq=False)
class Rows:
    """A layer as predictor or target.

    Attributes:
        values: [sample, component] centred, with no more columns than samples.
        numbers: [sample] fold of each sample when this layer predicts.
        features: columns of the layer.
    """

    values: Float64[Tensor, "sample component"]
    numbers: Int64[Tensor, " sample"]
    features: int

    @cached_property
    def folds(self) -> list[Fold]:
        """The decompositions of every fold's rest, made when the layer first predicts."""
        made = []
        for number in range(int(self.numbers.max()) + 1):
            held = (self.numbers == number).nonzero()[:, 0]
            rest = self.values[self.numbers != number]
            mean = rest.mean(dim=0)
            rest = rest - mean
            power, axes = torch.linalg.eigh(rest.T @ rest)
            rows = (self.values[held] - mean) @ axes
            unit = rest.square().sum() / self.features
            made.append(Fold(held, len(rest), mean, rows, axes, power.clamp(min=0), unit))
        return made


@dataclass(frozen=True)
class Predictivity(Measure):
    """A held-out R² as the grid sees it: predictor decomposed once per layer and fold.

    Replicates of the jackknife leave out held-out errors, not the fits. At 10, 20 and 50 samples
    per feature the 95 % interval held the estimate's mean in 91, 93 and 95 % of samples.

    Attributes:
        direction: which side is predicted.
        folds: parts held out in turn.
        draws: most permutations to draw; each costs all folds of all cells.
    """

    lowest: ClassVar[float] = float("-inf")
    symmetric: ClassVar[bool] = False
    invariances: ClassVar[frozenset[Invariance]] = frozenset({"rotation", "scale", "shift"})
    interval_method: ClassVar[str] = "jackknife of held-out errors"
    direction: str = "x_to_y"
    folds: int = 5
    draws: int = 99

    @property
    def most_draws(self) -> int | None:
        """Permutations worth their cost."""
        return self.draws

    @property
    def parameters(self) -> dict[str, Parameter]:
        """The settings that decide the value."""
        return {"direction": self.direction, "folds": self.folds}

    def prepare(self, layer: Layer) -> Rows:
        """The rows and which fold each is in, whole units where the layer knows them.

        Raises:
            DegenerateError: if the layer is constant or has too few units.
            UnknownNameError: if the direction is not known.
        """
        return self.prepare_units(layer, getattr(layer, "units", None))

    def prepare_units(self, layer: Layer, units: Tensor | None) -> Rows:
        """The same with units given.

        Args:
            layer: whose rows.
            units: int64 [sample] unit numbers counted from 0; None for rows.
        """
        if self.direction not in _DIRECTIONS:
            raise UnknownNameError("direction", self.direction, _DIRECTIONS)
        if self.folds < 2:
            raise DegenerateError(f"{self.name} got {self.folds} folds; needed at least 2")
        numbers = torch.arange(len(layer), device=layer.values.device) if units is None else units
        count = int(numbers.max()) + 1
        if count < 2 * self.folds:
            need_rows(len(layer), 2 * self.folds, measure=self.name)
            raise DegenerateError(
                f"{self.name} got {count} units for {self.folds} folds; needed at least"
                f" {2 * self.folds}, so ask for fewer folds"
            )
        values = exact_rows(layer)
        if values.shape[1] > len(values):
            basis = whole_basis(layer)
            values = basis.scores * basis.scales
        values = values / values.abs().max()
        sizes = torch.zeros(count, dtype=torch.float64, device=values.device)
        sizes.index_add_(0, numbers, values.square().sum(dim=1))
        rank = (sizes / torch.bincount(numbers)).argsort(stable=True).argsort()
        return Rows(values, (rank % self.folds)[numbers], layer.values.shape[1])

    def values(self, x: Sequence[Rows], y: Sequence[Rows]) -> Tensor:
        """R² of every two layers, [x layer, y layer]."""
        return self._all(x, y, None, None)[0]

    def null(self, x: Sequence[Rows], y: Sequence[Rows], permutations: Tensor) -> Tensor:
        """The same with the rows of every y permuted, [draw, x layer, y layer]."""
        return torch.stack([self._all(x, y, order, None)[0] for order in permutations])

    def leave_out(self, x: Sequence[Rows], y: Sequence[Rows], folds: Tensor) -> Tensor:
        """R² over the held-out errors of all but each fold, [fold, x layer, y layer]."""
        return self._all(x, y, None, folds)

    def _all(
        self, x: Sequence[Rows], y: Sequence[Rows], order: Tensor | None, folds: Tensor | None
    ) -> Tensor:
        """[1 or fold, x layer, y layer]."""
        cells = [self._cell(a, b, order, folds) for a in x for b in y]
        return torch.stack(cells, dim=-1).reshape(-1, len(x), len(y))

    def _cell(self, x: Rows, y: Rows, order: Tensor | None, folds: Tensor | None) -> Tensor:
        found = []
        if self.direction != "y_to_x":
            target = y.values if order is None else y.values[order]
            found.append(self._score(x, target, folds))
        if self.direction != "x_to_y":
            # Row order[i] of y meets row i of x, so it is x that is put in the inverse order.
            target = x.values if order is None else x.values[order.argsort()]
            found.append(self._score(y, target, folds))
        return torch.stack(found).mean(dim=0)

    def _score(self, predictor: Rows, target: Tensor, folds: Tensor | None) -> Tensor:
        """[1 or fold]: 1 less summed squared errors over summed squares about the mean."""
        held = [target[fold.held] for fold in predictor.folds]
        products = [
            predictor.values[fold.held].T @ part
            for fold, part in zip(predictor.folds, held, strict=True)
        ]
        sums, product = target.sum(dim=0), torch.stack(products).sum(dim=0)
        squares = target.square().sum()
        errors, totals = (torch.empty_like(target[:, 0]) for _ in range(2))
        for fold, part, inside in zip(predictor.folds, held, products, strict=True):
            # Everything about the rest is what all samples have less what the fold has.
            mean = (sums - part.sum(dim=0)) / fold.count
            crossed = product - inside - fold.count * torch.outer(fold.mean, mean)
            power = squares - part.square().sum() - fold.count * mean.square().sum()
            guess = fold.rows @ self._map(fold, fold.axes.T @ crossed, power)
            truth = part - mean
            errors[fold.held] = (truth - guess).square().sum(dim=1)
            totals[fold.held] = truth.square().sum(dim=1)
        if folds is None:
            return 1 - errors.sum(dim=0, keepdim=True) / totals.sum()
        lost_errors, lost_totals = fold_sums(errors, folds)[0], fold_sums(totals, folds)[0]
        return 1 - (errors.sum() - lost_errors) / (totals.sum() - lost_totals)

    @abstractmethod
    def _map(self, fold: Fold, crossed: Tensor, power: Tensor) -> Tensor:
        """The linear map from the predictor's axes to the target, fitted on the rest.

        Args:
            fold: decomposition of the predictor.
            crossed: [component, target feature] product of the rest of both sides.
            power: sum of squares of the rest of the target about its mean.
        """


@dataclass(frozen=True)
class LinearPredictivity(Predictivity):
    """`linear_predictivity` for whole grids; every strength costs one weighted sum."""

    name: ClassVar[str] = "linear_predictivity"

    def _map(self, fold: Fold, crossed: Tensor, power: Tensor) -> Tensor:
        own = fold.power
        sure = own > 1e-13 * own[-1]
        strengths = _STRENGTHS.to(own.device)[:, None] * fold.unit
        # What the rest of the target has along each left singular vector, and beyond them all.
        along = crossed.square().sum(dim=1) / torch.where(sure, own, torch.ones_like(own))
        along = along * sure
        beyond = (power - along.sum()).clamp(min=0)
        share = own * sure / (own + strengths)
        left = ((1 - share).square() * along).sum(dim=1) + beyond
        freedom = 1 - (share.sum(dim=1) + 1) / fold.count
        best = (left / freedom.clamp(min=1e-12).square()).argmin()
        return crossed / (own + strengths[best])[:, None]


@dataclass(frozen=True)
class OrthogonalPredictivity(Predictivity):
    """`orthogonal_predictivity` for whole grids."""

    name: ClassVar[str] = "orthogonal_predictivity"

    def _map(self, fold: Fold, crossed: Tensor, power: Tensor) -> Tensor:
        left, singular, right = torch.linalg.svd(crossed, full_matrices=False)
        # Directions the rest does not relate are turned nowhere.
        rank = int((singular > 1e-12 * singular[0]).sum())
        return left[:, :rank] @ right[:rank] * (singular.sum() / fold.power.sum())

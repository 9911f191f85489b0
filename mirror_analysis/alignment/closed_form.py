"""Linear maps with a closed form on the same rows, to see what the contrastive fit adds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from mirror_analysis.alignment.fitting import divide, require_pairs
from mirror_analysis.alignment.linear import AlignmentConfig, LinearAlignment, Solved
from mirror_analysis.alignment.losses import info_nce
from mirror_analysis.alignment.pairing import Matrix, Pairing, Pairs
from mirror_analysis.alignment.standardising import Side, standardise
from mirror_analysis.errors import DefinitionError, ShapeError, UnknownNameError
from mirror_analysis.features import Features

STRENGTHS = (1e-6, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Regularisation that is tried, as a share of the mean variance of a feature."""

_TEMPERATURES = (0.02, 0.05, 0.1, 0.2, 0.5)
_BLOCK = 512  # rows whose partners are told apart at once when choosing
_NOTHING = 1e-12  # of the largest variance: a direction that is rounding


def align_closed_form(
    x: Features | Matrix,
    y: Features | Matrix,
    x_validation: Features | Matrix | None = None,
    y_validation: Features | Matrix | None = None,
    *,
    method: str,
    pairing: Pairing = "episode",
    strengths: Sequence[float] = STRENGTHS,
) -> LinearAlignment:
    """Maps of two models into one space that have a closed form, regularised as validation says.

    On features standardised as `align` does, with S their covariances and l the strength times
    the mean variance of a feature:

    - "procrustes": the rotation (padded where widths differ) that brings x nearest to y.
    - "cca": the singular vectors of (S_xx + l)^-1/2 S_xy (S_yy + l)^-1/2, the leading ones.
    - "ridge_x_to_y": y as (S_xx + l)^-1 S_xy predicts it from x, beside y itself.
    - "ridge_y_to_x": the other way round.
    - "raw": x and y as they are, where they have equally many features.

    Strength and dimensions are those with the least InfoNCE of the validation rows, at the best
    of five temperatures. A row with several partners is fitted to their mean.

    Args:
        x: features, or [sample, x_feature], of the first model.
        y: the same of the second model.
        x_validation: rows that choose; without them a fifth of the episodes is held out.
        y_validation: the same of the second model.
        method: one of those above.
        pairing: what makes rows partners, as in `align`.
        strengths: of the regularisation, that are tried; at least 0.

    Returns:
        An alignment like any other; its `config` says what was chosen and tried.

    Raises:
        UnknownNameError: if there is no such method.
        DefinitionError: if a strength is negative or there is none.
        ShapeError: if rows or columns do not fit, or raw features have different widths.
        DegenerateError: if there are too few pairs, or a side is constant or not finite.
        PairingError: if features do not match.

    Source:
        Schönemann (1966) for the rotation; Hotelling (1936) and Vinod (1976) for canonical
        correlations and their regularisation.

    Example:
        >>> align_closed_form(x[:300], y[:300], x[300:], y[300:], method="cca").config.strength
        0.01
    """
    fit, held = divide(x, y, x_validation, y_validation, pairing=pairing, config=AlignmentConfig())
    return solve_pairs(fit, held, method=method, strengths=strengths)


def solve_pairs(
    fit: Pairs, validation: Pairs, *, method: str, strengths: Sequence[float] = STRENGTHS
) -> LinearAlignment:
    """`align_closed_form` for rows that are matched and divided already."""
    if method not in METHODS:
        raise UnknownNameError("closed form", method, METHODS)
    if not strengths or not min(strengths) >= 0:
        raise DefinitionError(f"strengths are {list(strengths)}; needed some, each 0 or more")
    require_pairs(len(fit), len(validation))
    x, y = standardise(fit.x, validation.x, name="x"), standardise(fit.y, validation.y, name="y")
    both = _Both(x, y, None if fit.positives is None else torch.from_numpy(fit.positives))
    judge = _Judge(x, y, validation)
    tried: list[tuple[float, int, float]] = []

    def judged() -> Iterator[tuple[float, float, Maps]]:
        for maps in METHODS[method](both, strengths):
            loss, temperature = judge(*maps[1:])
            tried.append((maps[0], maps[1].shape[1], loss))
            yield loss, temperature, maps

    _, temperature, (strength, x_map, y_map) = min(judged(), key=itemgetter(0))
    none = x_map.new_zeros(x_map.shape[1])
    config = Solved(method, temperature, strength, x_map.shape[1], tried)
    return LinearAlignment(*x.fold(x_map, none), *y.fold(y_map, none), config=config, curve=None)


Maps: TypeAlias = tuple[float, Tensor, Tensor]
"""A strength and the maps of x and of y, [feature, width] each, for standardised features."""


class _Both:
    """Moments of both sides, in float64."""

    def __init__(self, x: Side, y: Side, positives: Tensor | None) -> None:
        self.x, self.y = x.fit.double(), y.fit.double()
        self.to_x, self.to_y = (
            side if positives is None else _means(side, positives) for side in (self.x, self.y)
        )
        self.cross = self.x.T @ self.to_y / len(self.x)

    def spectrum(self, side: str) -> _Spectrum:
        """Directions and variances of a side."""
        values = self.x if side == "x" else self.y
        return _Spectrum.of(values)


@dataclass(frozen=True, eq=False)
class _Spectrum:
    """Principal directions [feature, direction], their variances, and the mean of a feature's."""

    directions: Tensor
    variance: Tensor
    mean: float

    @staticmethod
    def of(values: Float[Tensor, "sample feature"]) -> _Spectrum:
        count, features = values.shape
        if count >= features:
            variance, directions = torch.linalg.eigh(values.T @ values / count)
        else:
            variance, rows = torch.linalg.eigh(values @ values.T / count)
            directions = values.T @ rows / (count * variance.clamp_min(1e-300)).sqrt()
        real = variance > _NOTHING * float(variance.max())
        return _Spectrum(directions[:, real], variance[real], float(values.square().mean()))

    def power(self, strength: float, exponent: float) -> Tensor:
        """Directions scaled by (variance + strength * mean variance) ** exponent."""
        return self.directions * (self.variance + strength * self.mean) ** exponent


class _Judge:
    """The validation loss of maps, and the temperature that makes it least."""

    def __init__(self, x: Side, y: Side, validation: Pairs) -> None:
        order = torch.randperm(len(validation), generator=torch.Generator().manual_seed(0))
        blocks = order.tensor_split(-(-len(validation) // _BLOCK))
        self._x, self._y = ([s.validation[rows] for rows in blocks] for s in (x, y))
        self._positives: list[Tensor | None] = [None] * len(blocks)
        if validation.positives is not None:
            numbers = torch.from_numpy(validation.positives)
            self._positives = [numbers[rows] for rows in blocks]

    def __call__(self, x_map: Tensor, y_map: Tensor) -> tuple[float, float]:
        temperatures = torch.tensor(_TEMPERATURES)
        total = torch.zeros(len(_TEMPERATURES))
        for x, y, positives in zip(self._x, self._y, self._positives, strict=True):
            a, b = (x @ x_map.float(), y @ y_map.float())
            shared = (side.expand(len(temperatures), *side.shape) for side in (a, b))
            total += len(x) * info_nce(*shared, temperature=temperatures, positives=positives)
        best = int(total.argmin())
        return float(total[best]) / sum(map(len, self._x)), _TEMPERATURES[best]


def _means(side: Tensor, positives: Tensor) -> Tensor:
    """For every row the mean over the partners it has."""
    count = int(positives.max()) + 1
    sums = side.new_zeros(count, side.shape[1]).index_add_(0, positives, side)
    return (sums / torch.bincount(positives, minlength=count)[:, None])[positives]


def _raw(both: _Both, strengths: Sequence[float]) -> Iterator[Maps]:
    width = both.x.shape[1]
    if width != both.y.shape[1]:
        raise ShapeError(
            f"x has {width} features and y {both.y.shape[1]}, which are not comparable as they"
            " are; needed equally many, or one of the other methods"
        )
    one = torch.eye(width, dtype=torch.float64)
    yield 0.0, one, one


def _procrustes(both: _Both, strengths: Sequence[float]) -> Iterator[Maps]:
    left, _, right = torch.linalg.svd(both.cross, full_matrices=False)
    turn = left @ right
    # The narrower side is turned into the wider one's space, as if it were padded with zeros.
    if turn.shape[0] <= turn.shape[1]:
        yield 0.0, turn, torch.eye(turn.shape[1], dtype=turn.dtype)
    else:
        yield 0.0, torch.eye(turn.shape[0], dtype=turn.dtype), turn.T.contiguous()


def _cca(both: _Both, strengths: Sequence[float]) -> Iterator[Maps]:
    x, y = both.spectrum("x"), both.spectrum("y")
    for strength in strengths:
        whites = [side.power(strength, -0.5) for side in (x, y)]
        left, _, right = torch.linalg.svd(whites[0].T @ both.cross @ whites[1], full_matrices=False)
        most = left.shape[1]
        some = {
            number for k in range(1, 12) for number in (2**k, 3 * 2 ** (k - 1)) if number < most
        }
        for width in sorted(some | {most}):
            yield strength, whites[0] @ left[:, :width], whites[1] @ right.T[:, :width]


def _ridge_x_to_y(both: _Both, strengths: Sequence[float]) -> Iterator[Maps]:
    own = both.spectrum("x")
    target = own.directions.T @ both.cross
    for strength in strengths:
        yield (
            strength,
            own.power(strength, -1.0) @ target,
            torch.eye(both.y.shape[1], dtype=torch.float64),
        )


def _ridge_y_to_x(both: _Both, strengths: Sequence[float]) -> Iterator[Maps]:
    own = both.spectrum("y")
    target = own.directions.T @ (both.y.T @ both.to_x / len(both.y))
    for strength in strengths:
        one = torch.eye(both.x.shape[1], dtype=torch.float64)
        yield strength, one, own.power(strength, -1.0) @ target


METHODS: dict[str, Callable[[_Both, Sequence[float]], Iterator[Maps]]] = {
    "cca": _cca,
    "procrustes": _procrustes,
    "raw": _raw,
    "ridge_x_to_y": _ridge_x_to_y,
    "ridge_y_to_x": _ridge_y_to_x,
}
"""Closed forms by name."""

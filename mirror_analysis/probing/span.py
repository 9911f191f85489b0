"""Rows standardised by themselves, in the principal axes that they span."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

# Share of its magnitude below which a feature's spread is rounding of float32.
_STILL = 1e-6
# Share of the largest variance below which an axis is rounding of the eigenvalues.
_FLAT = 1e-12


@dataclass(frozen=True, eq=False)
class Span:
    """Fitted rows of several problems, each in its own orthonormal coordinates.

    With `z` the rows standardised by their own mean and deviation, `z = rows diag(scale) axesᵀ`
    on all but the last coordinate, which is the constant. A linear map of z of weights w and
    intercept b is `rows @ v` with `v = scale * (axesᵀ w, b)`, and its penalty |w|² is the sum of
    (v / scale)² without the last. Every linear map that matters is of this form, since weights
    outside the span of the rows only add to the penalty: with fewer rows than features the
    problem shrinks to as many coordinates as there are rows, without an approximation.

    Attributes:
        rows: [problem, row, axis] orthonormal columns; rows beyond those of a problem are 0.
        scale: [problem, axis] singular values, then √rows; 1 for axes that a problem lacks.
        mean: [problem, feature] of the rows.
        spread: [problem, feature] standard deviation of the rows; infinite for constant features,
            which thereby vanish.
        axes: [problem, feature, axis - 1] orthonormal columns; 0 for axes that a problem lacks.
        count: [problem] rows.
    """

    rows: Float[Tensor, "problem row axis"]
    scale: Float[Tensor, "problem axis"]
    mean: Float[Tensor, "problem feature"]
    spread: Float[Tensor, "problem feature"]
    axes: Float[Tensor, "problem feature inner"]
    count: Float[Tensor, " problem"]

    @property
    def curb(self) -> Float[Tensor, "problem axis"]:
        """Penalty of a unit along each axis, per unit of strength: 1 / scale², 0 for the last."""
        out = self.scale.square().reciprocal()
        out[:, -1] = 0.0
        return out

    def place(
        self, x: Float[Tensor, "problem other feature"]
    ) -> Float[Tensor, "problem other axis"]:
        """Other rows in the coordinates of the fitted ones, standardised as those were."""
        inner = ((x - self.mean[:, None]) / self.spread[:, None]) @ self.axes
        last = self.scale[:, -1:, None].reciprocal().expand(len(x), x.shape[1], 1)
        return torch.cat([inner / self.scale[:, None, :-1], last], dim=2)

    def weights(
        self, v: Float[Tensor, "problem axis out"]
    ) -> tuple[Float[Tensor, "problem feature out"], Float[Tensor, "problem out"]]:
        """Weights and intercept, of features as they came, of a map in these coordinates."""
        w = (self.axes @ (v[:, :-1] / self.scale[:, :-1, None])) / self.spread[:, :, None]
        b = v[:, -1] / self.scale[:, -1:]
        return w, b - (self.mean[:, None] @ w)[:, 0]

    def coordinates(
        self, w: Float[Tensor, "problem feature out"], b: Float[Tensor, "problem out"]
    ) -> Float[Tensor, "problem axis out"]:
        """The map of these weights in these coordinates: the inverse of `weights` on the span."""
        finite = torch.where(self.spread.isinf(), 0.0, self.spread)
        inner = self.axes.mT @ (w * finite[:, :, None]) * self.scale[:, :-1, None]
        last = (b + (self.mean[:, None] @ w)[:, 0]) * self.scale[:, -1:]
        return torch.cat([inner, last[:, None]], dim=1)


def moments(
    x: Float[Tensor, "problem row feature"], there: Bool[Tensor, "problem row"]
) -> tuple[Float[Tensor, "problem feature"], Float[Tensor, "problem feature"]]:
    """Mean and standard deviation of the rows that are there; infinite where it is rounding."""
    mean, spread, _ = _centered(x, there)
    return mean, spread


def _centered(x: Tensor, there: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, standard deviation and deviations from the mean, which are 0 in padding."""
    mask = None if bool(there.all()) else there[:, :, None].to(x.dtype)
    count = there.sum(dim=1, keepdim=True).to(x.dtype)
    x = x if mask is None else x * mask
    mean = x.sum(dim=1) / count
    apart = x - mean[:, None]
    if mask is not None:
        apart *= mask
    spread = (apart.square().sum(dim=1) / count).sqrt()
    largest = torch.maximum(x.amax(dim=1), -x.amin(dim=1))
    return mean, torch.where(spread <= _STILL * largest, torch.inf, spread), apart


def span(
    x: Float[Tensor, "problem row feature"],
    there: Bool[Tensor, "problem row"],
    *,
    dtype: torch.dtype = torch.float64,
) -> Span:
    """Standardises rows by their own mean and deviation, and finds the axes they span.

    Everything is computed in float64 and handed over in `dtype`.

    Args:
        x: [problem, row, feature].
        there: [problem, row] which rows are a problem's; the others are padding.
        dtype: of what is returned.
    """
    mean, spread, z = _centered(x.to(torch.float64), there)
    z *= spread.reciprocal()[:, None]
    count = there.sum(dim=1).to(z.dtype)
    if z.shape[1] < z.shape[2]:
        squared, u = torch.linalg.eigh(z @ z.mT)
        known, squared = _known(squared)
        scale = squared.sqrt()
        rows = u * known[:, None]
        axes = z.mT @ (rows / scale[:, None])
    else:
        squared, q = torch.linalg.eigh(z.mT @ z)
        known, squared = _known(squared)
        scale = squared.sqrt()
        axes = q * known[:, None]
        rows = z @ (axes / scale[:, None])
    last = count.sqrt()
    ones = there[:, :, None] / last[:, None, None]
    return Span(
        torch.cat([rows, ones], dim=2).to(dtype),
        torch.cat([scale, last[:, None]], dim=1).to(dtype),
        mean.to(dtype),
        spread.to(dtype),
        axes.to(dtype),
        count.to(dtype),
    )


def _known(squared: Tensor) -> tuple[Tensor, Tensor]:
    """Which eigenvalues are more than rounding, and the eigenvalues with 1 for the others."""
    known = squared > _FLAT * squared[:, -1:].clamp(min=torch.finfo(squared.dtype).tiny)
    return known, torch.where(known, squared, 1.0)

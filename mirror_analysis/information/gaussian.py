"""Mutual information of two Gaussian representations, from their canonical correlations."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64, Int64
from scipy import special
from torch import Tensor

from mirror_analysis.errors import DegenerateError, UnknownNameError
from mirror_analysis.information.inputs import paired_rows, scaled
from mirror_analysis.matrices import Array

_SHRINKAGES = ("none", "ledoit_wolf", "oas")

# An eigenvalue this small a part of the largest is rounding.
_RANK = 1e-10


def gaussian_mi(
    x: Array,
    y: Array,
    *,
    shrinkage: str = "none",
    correct: bool = True,
    components: int | None = None,
    draws: int = 100,
    seed: int = 0,
) -> float:
    """Mutual information of two jointly Gaussian representations, in nats.

    `-1/2 sum log(1 - rho_i^2)` over the canonical correlations. Without shrinkage the expected
    excess of n Gaussian samples is known (`gaussian_mi_bias`) and is taken off: the result is
    then exactly unbiased, and can be somewhat below 0. With shrinkage the mean over shuffled
    pairings is taken off instead, which is exact only where x and y are unrelated; related ones
    come out too low. On data that are not Gaussian it is the information of the Gaussian with
    their covariance: a lower bound when each side is Gaussian by itself, else neither bound.

    Args:
        x: [sample, x_feature].
        y: [sample, y_feature], the same samples.
        shrinkage: towards equal, uncorrelated features (after each is scaled to variance 1), of
            the covariance of both together: "none", "ledoit_wolf" or "oas".
        correct: whether the expected excess is taken off.
        components: principal components kept of each side (of its features scaled to
            variance 1), none when it is None. Without shrinkage their excess is the exact one
            where x and y are unrelated.
        draws: shuffled pairings averaged, with shrinkage.
        seed: of the shuffles.

    Returns:
        The estimate in nats.

    Raises:
        ShapeError: if a side is not [sample, feature], or sample counts differ.
        DegenerateError: if there are not more than x_feature + y_feature + 1 samples and neither
            shrinkage nor fewer components; if features of a side are linearly dependent, or x
            and y determine one another; NaN, infinity, or nothing varies.
        UnknownNameError: if there is no such shrinkage.

    Source:
        Cover and Thomas 2006, section 8.5; Ledoit and Wolf 2004; Chen et al. 2010 (OAS).

    Example:
        >>> rng = np.random.default_rng(0)
        >>> x = rng.standard_normal((5000, 1))
        >>> y = 0.75 * x + 0.4375**0.5 * rng.standard_normal((5000, 1))
        >>> round(gaussian_mi(x, y), 2)  # exact: 0.4133
        0.42
    """
    if shrinkage not in _SHRINKAGES:
        raise UnknownNameError("shrinkage", shrinkage, _SHRINKAGES)
    a, b = paired_rows(x, y)
    a, b = (_reduce(scaled(v), components, name) for v, name in ((a, "x"), (b, "y")))
    n, total = len(a), a.shape[1] + b.shape[1]
    if shrinkage == "none" and n <= total + 1:
        raise DegenerateError(
            f"gaussian_mi got {n} samples of {a.shape[1]} + {b.shape[1]} features; needed at least"
            f" {total + 2}, so add samples, keep fewer components (components="
            f"{max(1, n // 20)}) or shrink (shrinkage='ledoit_wolf')"
        )
    sides = _Sides.of(a, b, shrunk=shrinkage != "none")
    value = sides.information(torch.arange(n, device=a.device), shrinkage)
    if not math.isfinite(value):
        raise DegenerateError(
            "x and y determine one another exactly in some direction, so their information is"
            " infinite; leave the shared feature out or add shrinkage"
        )
    if not correct:
        return value
    if shrinkage == "none":
        return value - gaussian_mi_bias(n, a.shape[1], b.shape[1])
    if draws < 1:
        raise DegenerateError(f"gaussian_mi got draws {draws}; needed at least 1 to correct with")
    rng = np.random.default_rng(seed)
    orders = [torch.from_numpy(rng.permutation(n)).to(a.device) for _ in range(draws)]
    return value - math.fsum(sides.information(order, shrinkage) for order in orders) / draws


def gaussian_mi_bias(samples: int, x_features: int, y_features: int) -> float:
    """How much the plug-in estimate of Gaussian information exceeds the truth on average.

    `1/2 (S(d_x) + S(d_y) - S(d_x + d_y))` with `S(d) = sum over i = 1..d of psi((n - i) / 2)`:
    the mean log determinant of a Wishart matrix is that of its scale plus S(d) and terms that
    cancel here, whatever the covariance. About `d_x d_y / (2 n)` where n is large.

    Args:
        samples: n, at least x_features + y_features + 1; means are estimated too.
        x_features: d_x, at least 1.
        y_features: d_y, at least 1.

    Returns:
        The expected excess in nats, above 0.

    Raises:
        DegenerateError: if there are too few samples for it to be finite.

    Source:
        Misra et al. 2005, lemma 2.1 (mean log determinant of a Wishart matrix).

    Example:
        >>> round(gaussian_mi_bias(5000, 25, 25), 4)
        0.0631
    """
    total = x_features + y_features
    if samples <= total:
        raise DegenerateError(
            f"the excess of {samples} samples of {x_features} + {y_features} features is infinite;"
            f" needed at least {total + 1} samples"
        )
    terms = special.digamma((samples - np.arange(1, total + 1)) / 2)
    return float(terms[:x_features].sum() + terms[:y_features].sum() - terms.sum()) / 2


def _reduce(values: Tensor, components: int | None, name: str) -> Tensor:
    if components is None:
        return values
    if not 1 <= components <= min(values.shape[1], len(values) - 1):
        raise DegenerateError(
            f"components is {components} but {name} has {len(values)} samples of"
            f" {values.shape[1]} features that vary; needed between 1 and"
            f" {min(values.shape[1], len(values) - 1)}"
        )
    left, singular, _ = torch.linalg.svd(values, full_matrices=False)
    return left[:, :components] * singular[:components]


@dataclass(frozen=True, eq=False)
class _Sides:
    """Both sides in their principal axes, so that another pairing costs one product.

    Attributes:
        x, y: scores on the principal axes, [sample, axis].
        x_variance, y_variance: [axis], with 1/n.
        x_square, y_square: [sample] squared lengths of the rows.
    """

    x: Float64[Tensor, "sample x_axis"]
    y: Float64[Tensor, "sample y_axis"]
    x_variance: Float64[Tensor, " x_axis"]
    y_variance: Float64[Tensor, " y_axis"]
    x_square: Float64[Tensor, " sample"]
    y_square: Float64[Tensor, " sample"]

    @staticmethod
    def of(x: Tensor, y: Tensor, *, shrunk: bool) -> _Sides:
        axes = []
        for values, name in ((x, "x"), (y, "y")):
            variance, vectors = torch.linalg.eigh(values.T @ values / len(values))
            if not shrunk and float(variance[0]) <= _RANK * float(variance[-1]):
                raise DegenerateError(
                    f"features of {name} depend linearly on one another; needed full rank, so keep"
                    " fewer components (components=...) or shrink (shrinkage='ledoit_wolf')"
                )
            axes.append((values @ vectors, variance.clamp(min=0)))
        squares = [values.square().sum(dim=1) for values in (x, y)]
        return _Sides(axes[0][0], axes[1][0], axes[0][1], axes[1][1], *squares)

    def information(self, order: Int64[Tensor, " sample"], shrinkage: str) -> float:
        """The plug-in estimate where row i of x meets row order[i] of y."""
        n = len(self.x)
        cross = self.x.T @ self.y[order] / n
        keep, floor = 1.0, 0.0
        if shrinkage != "none":
            amount, floor = self._shrinkage(cross, order, shrinkage)
            keep, floor = 1 - amount, amount * floor
        x_scale = (keep * self.x_variance + floor).rsqrt()
        y_scale = (keep * self.y_variance + floor).rsqrt()
        squared = torch.linalg.svdvals(keep * x_scale[:, None] * cross * y_scale).square()
        if float(squared.max()) >= 1 - 1e-13:
            return math.inf
        return -0.5 * float(torch.log1p(-squared).sum())

    def _shrinkage(self, cross: Tensor, order: Tensor, shrinkage: str) -> tuple[float, float]:
        """How far, from 0 to 1, and to what variance the covariance of both is shrunk."""
        n, p = len(self.x), self.x.shape[1] + self.y.shape[1]
        mean = float(self.x_variance.sum() + self.y_variance.sum()) / p
        size = float(self.x_variance.square().sum() + self.y_variance.square().sum())
        size += 2 * float(cross.square().sum())
        spread = size - p * mean**2
        if shrinkage == "oas":
            amount = (size / p**2 + mean**2) / ((n + 1) * (size / p**2 - mean**2 / p))
        else:
            fourth = float((self.x_square + self.y_square[order]).square().mean())
            amount = (fourth - size) / n / spread
        return min(max(amount, 0.0), 1.0), mean

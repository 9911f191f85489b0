"""The permutation null of an inner product of two matrices over pairs of samples, without draws."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from jaxtyping import Float64
from numpy.typing import NDArray

from mirror_analysis.errors import DegenerateError, ShapeError
from mirror_analysis.inference.invariants import Invariants, need_samples
from mirror_analysis.inference.leading import drawn
from mirror_analysis.inference.partitions import third_moment
from mirror_analysis.inference.pearson import from_normal, upper_tail
from mirror_analysis.inference.permutation import p_value as drawn_p_value
from mirror_analysis.inference.units import Numbers

__all__ = ["ExactNull", "Invariants", "exact_null"]

_LEAST_P = 1e-6
"""No p below this is given: that far out three moments do not pin the tail down."""

# A spread this small beside the mean is rounding.
_ROUNDING = 1e-12
# In sds, what single precision leaves undecided.
_TIE = 1e-5
# Values a block of drawn grids may hold.
_BLOCK = 1 << 21


@dataclass(frozen=True, eq=False)
class ExactNull:
    """The permutation distribution of a grid, known by its moments over all n! permutations.

    With `leading` on both sides, the leading parts are permuted themselves and only the rest of T
    is taken to be of Pearson type III: its sd is what the exact one leaves, and so is its
    skewness, up to 1. Without, all of T is, which holds to 0.01 where many samples and many
    directions carry both matrices (|skewness| below 0.5, say) and can be far off where few do.

    Attributes:
        x: invariants of the layers of the first side.
        y: invariants of the layers of the second side.
        mean: [x layer, y layer] exact.
        sd: [x layer, y layer] exact.
        skewness: [x layer, y layer] exact; 0 where the sd is 0.
        memo: the leading parts' permutations, kept for the next question.
    """

    x: Invariants
    y: Invariants
    mean: Float64[np.ndarray, "x y"]
    sd: Float64[np.ndarray, "x y"]
    skewness: Float64[np.ndarray, "x y"]
    memo: dict[tuple[int, int], NDArray[np.float32]] = field(default_factory=dict, repr=False)

    def p_value(
        self, observed: Numbers, *, draws: int = 9999, seed: int = 0
    ) -> Float64[np.ndarray, "x y"]:
        """Upper-tail p of each cell by itself.

        Args:
            observed: [x layer, y layer] the measured values; NaN gives NaN.
            draws: permutations of the leading parts, where there are any.
            seed: of the draws.

        Returns:
            [x layer, y layer] p; 1 where no permutation changes the value. At least 1e-6, or
            1 / (draws + 1) where leading parts were permuted.

        Raises:
            ShapeError: if it is not one value per cell.
            DegenerateError: if there are no draws.

        Source:
            Mielke 1978; Kazi-Aoual et al. 1995; Josse, Pagès and Husson 2008.
        """
        t, drawn_parts = self._studentised(observed), self._drawn(draws, seed)
        if drawn_parts is None:
            p = np.clip(upper_tail(t, self.skewness), _LEAST_P, 1.0)
        else:
            p, (sd, skewness) = np.empty(t.shape), self._rest(drawn_parts)
            for cell in np.ndindex(t.shape):
                # What differs by single precision only is a tie, and counts against the finding.
                over = t[cell] - _TIE - drawn_parts[(slice(None), *cell)].astype(np.float64)
                above = upper_tail(
                    over / np.maximum(sd[cell], _TIE / 10), np.asarray(skewness[cell])
                )
                p[cell] = (1 + above.sum()) / (draws + 1)
        return np.where(self._still & ~np.isnan(t), 1.0, p)

    def p_max(
        self, observed: Numbers, *, draws: int = 9999, seed: int = 0
    ) -> Float64[np.ndarray, "x y"]:
        """Single-step max-T p of every cell, corrected for having looked at all of them.

        Grids are drawn with the exact permutation covariance of all cells and, cell by cell,
        the law of `p_value`.

        Args:
            observed: [x layer, y layer] the measured values; NaN gives NaN.
            draws: how many grids to draw.
            seed: of the draws.

        Returns:
            [x layer, y layer] `(1 + #{draws whose largest T >= this cell's T}) / (draws + 1)`.

        Raises:
            ShapeError: if it is not one value per cell.
            DegenerateError: if there are no draws.

        Source:
            Westfall and Young 1993, section 2.3 (single-step max-T).
        """
        t = self._studentised(observed)
        largest = self._largest(self._drawn(draws, seed), draws, seed)
        p = drawn_p_value(t - _TIE, largest[:, None, None])
        return np.where(np.isnan(t), np.nan, p)

    @cached_property
    def _still(self) -> NDArray[np.bool_]:
        return self.sd <= _ROUNDING * np.abs(self.mean)

    @cached_property
    def _unit(self) -> NDArray[np.float64]:
        """What divides a cell by its sd; 0 where that is 0."""
        return np.where(self._still, 0.0, 1 / np.where(self._still, 1.0, self.sd))

    def _studentised(self, observed: Numbers) -> NDArray[np.float64]:
        values = np.asarray(observed, dtype=np.float64)
        if values.shape != self.mean.shape:
            raise ShapeError(
                f"observed has shape {values.shape} but the null is of {self.mean.shape};"
                " needed one value per x layer and y layer"
            )
        return (values - self.mean) * self._unit

    def _drawn(self, draws: int, seed: int) -> NDArray[np.float32] | None:
        """[draw, x layer, y layer] the leading parts in sds of T, if both sides have them."""
        if draws < 1:
            raise DegenerateError(f"the null got {draws} draws; needed at least 1")
        if self.x.leading is None or self.y.leading is None:
            return None
        if (draws, seed) not in self.memo:
            # At size 1, so that single precision holds tiny and huge matrices alike.
            x, y = self.x.size, self.y.size
            sides = self.x.leading.scaled(1 / x), self.y.leading.scaled(1 / y)
            parts = drawn(*sides, draws=draws, seed=seed)
            parts *= (np.outer(x, y) * self._unit).astype(np.float32)
            self.memo[draws, seed] = parts
        return self.memo[draws, seed]

    def _rest(
        self, drawn_parts: NDArray[np.float32] | None
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """[x layer, y layer] sd and skewness of what is not drawn, in sds of T."""
        if drawn_parts is None or self.x.leading is None or self.y.leading is None:
            return np.ones_like(self.sd), self.skewness
        n, x, y = self.x.samples, self.x.leading, self.y.leading
        held = _variance(
            n,
            (x.linear**2).sum(axis=1),
            (y.linear**2).sum(axis=1),
            x.quadratic().diagonal(),
            y.quadratic().diagonal(),
        )
        sd = np.sqrt(np.maximum(1 - held * self._unit**2, 0.0))
        third = self.skewness - (drawn_parts**3).mean(axis=0, dtype=np.float64)
        skewness = np.divide(third, sd**3, out=np.zeros_like(third), where=sd > _TIE)
        return sd, np.clip(skewness, -1.0, 1.0)

    def _largest(
        self, drawn_parts: NDArray[np.float32] | None, draws: int, seed: int
    ) -> NDArray[np.float64]:
        """[draw] the largest studentised cell of grids drawn under the null."""
        n, shape = self.x.samples, self.mean.shape
        sd, skewness = self._rest(drawn_parts)
        quadratic, linear = 2 / (n * (n - 3)), 1 / (n - 1)
        x, y = self.x.quadratic, self.y.quadratic
        if self.x.leading is None or self.y.leading is None:
            parts = [(x, y, quadratic), (self.x.linear, self.y.linear, linear)]
        else:
            held, met = self.x.leading.quadratic(), self.y.leading.quadratic()
            parts = [(x - held, y, quadratic), (held, y - met, quadratic)]
        roots = [(_root(a), _root(b) * math.sqrt(c)) for a, b, c in parts]
        variance = np.zeros(shape)
        for left, right in roots:
            variance += np.outer(np.square(left).sum(axis=0), np.square(right).sum(axis=0))
        unit = np.divide(1, np.sqrt(variance), out=np.zeros(shape), where=variance > 0)
        normal = np.linspace(-6.0, 6.0, 601)
        curves = from_normal(normal, skewness.reshape(-1)[:, None]) * sd.reshape(-1)[:, None]
        rng = np.random.default_rng([seed, 1])
        out, block = np.empty(draws), max(1, _BLOCK // max(1, self.mean.size))
        for start in range(0, draws, block):
            rows = slice(start, min(draws, start + block))
            count = rows.stop - start
            rest = np.zeros((count, *shape))
            for left, right in roots:
                rest += left @ rng.standard_normal((count, *shape)) @ right
            flat = (rest * unit).reshape(count, -1)
            for cell, curve in enumerate(curves):
                flat[:, cell] = np.interp(flat[:, cell], normal, curve)
            if drawn_parts is not None:
                flat += drawn_parts[rows].reshape(count, -1)
            flat[:, self._still.reshape(-1)] = 0.0
            out[rows] = flat.max(axis=1)
        return out


def exact_null(x: Invariants, y: Invariants) -> ExactNull:
    """Mean, sd and skewness of T over all n! permutations, for every pair of layers.

    Args:
        x: invariants of the layers of the first side.
        y: invariants of the layers of the second side, of the same samples and kind (or one side
            "unbiased": what the other side has more is met by nothing).

    Returns:
        The null of the [x layer, y layer] grid.

    Raises:
        ShapeError: if the sides have different numbers of samples.
        DegenerateError: if there are fewer than 4 samples.

    Source:
        Mantel 1967 (mean and variance); Mielke 1978, Kazi-Aoual et al. 1995 (third moment).

    Example:
        >>> ring = np.roll(np.eye(6), 1, 0) + np.roll(np.eye(6), -1, 0)
        >>> side = Invariants.of(ring[None], kind="uncentred")
        >>> null = exact_null(side, side)
        >>> round(float(null.mean[0, 0]), 3), round(float(null.sd[0, 0]), 3)
        (4.8, 2.4)
    """
    if x.samples != y.samples:
        raise ShapeError(f"x has {x.samples} samples but y has {y.samples}; pair() them first")
    n = x.samples
    need_samples(n)
    variance = _variance(
        n,
        x.linear.diagonal(),
        y.linear.diagonal(),
        x.quadratic.diagonal(),
        y.quadratic.diagonal(),
    )
    third = np.zeros_like(variance)
    for linears, times in ((0, 1), (1, 3), (2, 3), (3, 1)):
        names, weights = third_moment(linears, n)
        left = np.stack([getattr(x, name) for name in names])
        right = np.stack([getattr(y, name) for name in names])
        third += times * (left.T @ weights @ right)
    sd = np.sqrt(variance)
    skewness = np.divide(third, sd**3, out=np.zeros_like(third), where=sd**3 > 0)
    return ExactNull(x, y, np.outer(x.level, y.level), sd, skewness)


def _variance(
    n: int,
    x_linear: NDArray[np.float64],
    y_linear: NDArray[np.float64],
    x_quadratic: NDArray[np.float64],
    y_quadratic: NDArray[np.float64],
) -> NDArray[np.float64]:
    linear, quadratic = np.outer(x_linear, y_linear), np.outer(x_quadratic, y_quadratic)
    return linear / (n - 1) + quadratic * 2 / (n * (n - 3))


def _root(gram: NDArray[np.float64]) -> NDArray[np.float64]:
    """The symmetric root of a positive semidefinite matrix."""
    values, vectors = np.linalg.eigh(gram)
    return (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T

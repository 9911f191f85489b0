"""Whether one number per model goes with another, such as alignment with success."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import permutations
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy import stats

from mirror_analysis.errors import DegenerateError, ShapeError, UnknownNameError
from mirror_analysis.inference.units import Numbers
from mirror_analysis.results import Interval

Method = Literal["pearson", "spearman", "kendall"]
Vector = NDArray[np.float64]

# All orders of 8 points are 40,320; of 9 they are more than it pays to go through.
_EXACT = 8
# Entries looked at together, so that a batch of orders stays within tens of megabytes.
_TILE = 1 << 21
# Coefficients that differ by less than rounding count as ties, against the finding.
_ROUNDING = 1e-12


class Correlation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A correlation over models with everything needed to judge it.

    Attributes:
        method: "pearson", "spearman" or "kendall" (tau-b).
        value: the coefficient, in [-1, 1].
        n: points, one per model.
        p_value: one-sided permutation p of a positive relation, in (0, 1]; None below 4
            points, where no order could be rarer than 1 in 6.
        p_two_sided: permutation p of a relation of either sign, in (0, 1].
        p_parametric: two-sided p of the textbook (Student t; normal for Kendall), for
            comparison with published numbers.
        draws: orders drawn at random; 0 when all orders were gone through.
        interval: by Fisher's z; None below 4 points (5 for Kendall) or on a perfect line.
        bootstrap: percentile interval over points drawn with replacement; None below 4 points.
        leave_one_out: least and largest coefficient without each point in turn; None below 4
            points, or where the rest is constant.
    """

    method: Method
    value: float
    n: int
    p_value: float | None
    p_two_sided: float | None
    p_parametric: float | None
    draws: int
    interval: Interval | None
    bootstrap: Interval | None
    leave_one_out: tuple[float, float] | None


def correlation(
    x: Numbers,
    y: Numbers,
    *,
    method: Method = "pearson",
    level: float = 0.95,
    draws: int = 19_999,
    seed: int = 0,
) -> Correlation:
    """How closely two numbers per model go together, with what a handful of models can carry.

    Args:
        x: [model] one number per model, such as its alignment.
        y: [model] another, such as its success rate; same order.
        method: "pearson" (a line), "spearman" or "kendall" (any rising curve).
        level: coverage of the intervals, in (0, 1).
        draws: random orders where there are too many to go through all, and bootstrap samples.
        seed: of both.

    Returns:
        The coefficient with its permutation p, intervals and leave-one-out range.

    Raises:
        ShapeError: if x and y are not two lists of equal length.
        DegenerateError: if there are fewer than 3 points, a value is not finite, all values of
            a side are equal, or `level` or `draws` is out of range.
        UnknownNameError: if the method is not known.

    Source:
        Fisher 1921 (interval); Bonett and Wright 2000 (of Spearman); Fieller et al. 1957 (of
        Kendall); Phipson and Smyth 2010 (p from random orders).

    Example:
        >>> found = correlation([1, 2, 3, 4, 5], [2, 1, 4, 3, 5])
        >>> round(found.value, 3), round(found.p_value, 3)
        (0.8, 0.067)
    """
    a, b = _checked(x, y, level, draws)
    coefficient = _coefficient(method)
    value = float(coefficient(a[None], b[None])[0])
    rng = np.random.default_rng(seed)
    n = len(a)
    exact = n <= _EXACT
    greater = either = parametric = None
    if n > 3:
        greater, either = _permutation_p(a, b, value, coefficient, 0 if exact else draws, rng)
        parametric = _parametric_p(a, b, method)
    return Correlation(
        method=method,
        value=value,
        n=n,
        p_value=greater,
        p_two_sided=either,
        p_parametric=parametric,
        draws=0 if exact else draws,
        interval=_fisher(value, n, method, level),
        bootstrap=_bootstrap(a, b, coefficient, level, draws, rng) if n > 3 else None,
        leave_one_out=_leave_one_out(a, b, coefficient) if n > 3 else None,
    )


def _checked(x: Numbers, y: Numbers, level: float, draws: int) -> tuple[Vector, Vector]:
    a, b = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if a.ndim != 1 or a.shape != b.shape:
        raise ShapeError(
            f"x has shape {a.shape} and y {b.shape}; needed one number per model on both sides"
        )
    if len(a) < 3:
        raise DegenerateError(f"correlation got {len(a)} points; needed at least 3, so add models")
    for name, side in (("x", a), ("y", b)):
        if not np.isfinite(side).all():
            raise DegenerateError(f"{name} holds NaN or infinity; leave that model out")
        if np.ptp(side) == 0:
            raise DegenerateError(f"all {len(side)} values of {name} are equal; nothing can vary")
    if not 0 < level < 1:
        raise DegenerateError(f"correlation got level {level}; needed one in (0, 1), such as 0.95")
    if draws < 1:
        raise DegenerateError(f"correlation got {draws} draws; needed at least 1")
    return a, b


def _coefficient(method: str) -> Callable[[Vector, Vector], Vector]:
    """The coefficient of many pairs of lists at once: [draw, n] and [draw, n] give [draw]."""
    known = {"pearson": _pearson, "spearman": _spearman, "kendall": _kendall}
    if method not in known:
        raise UnknownNameError("correlation", method, known)
    return known[method]


def _pearson(a: Vector, b: Vector) -> Vector:
    a = a - a.mean(axis=1, keepdims=True)
    b = b - b.mean(axis=1, keepdims=True)
    return _ratio((a * b).sum(axis=1), np.square(a).sum(axis=1), np.square(b).sum(axis=1))


def _spearman(a: Vector, b: Vector) -> Vector:
    return _pearson(stats.rankdata(a, axis=1), stats.rankdata(b, axis=1))


def _kendall(a: Vector, b: Vector) -> Vector:
    out = np.empty(len(a))
    step = max(1, _TILE // a.shape[1] ** 2)
    for start in range(0, len(a), step):
        part = slice(start, start + step)
        s = np.sign(a[part, :, None] - a[part, None, :])
        t = np.sign(b[part, :, None] - b[part, None, :])
        out[part] = _ratio(
            (s * t).sum(axis=(1, 2)), np.square(s).sum(axis=(1, 2)), np.square(t).sum(axis=(1, 2))
        )
    return out


def _ratio(cross: Vector, own_a: Vector, own_b: Vector) -> Vector:
    """NaN where a side does not vary, as happens in bootstrap samples."""
    scale = np.sqrt(own_a) * np.sqrt(own_b)
    return np.clip(cross / np.where(scale > 0, scale, np.nan), -1.0, 1.0)


def _permutation_p(
    a: Vector,
    b: Vector,
    value: float,
    coefficient: Callable[[Vector, Vector], Vector],
    draws: int,
    rng: np.random.Generator,
) -> tuple[float, float]:
    if draws:
        orders = rng.permuted(np.tile(np.arange(len(b)), (draws, 1)), axis=1)
    else:
        orders = np.array(list(permutations(range(len(b)))))
    null = coefficient(np.broadcast_to(a, orders.shape), b[orders])
    greater = int((null >= value - _ROUNDING).sum())
    either = int((np.abs(null) >= abs(value) - _ROUNDING).sum())
    # Among all orders is the one that was seen; random orders have it added.
    extra = 1 if draws else 0
    return (greater + extra) / (len(null) + extra), (either + extra) / (len(null) + extra)


def _parametric_p(a: Vector, b: Vector, method: Method) -> float:
    if method == "kendall":
        return float(stats.kendalltau(a, b, method="asymptotic").pvalue)
    if method == "spearman":
        return float(stats.spearmanr(a, b)[1])
    return float(stats.pearsonr(a, b)[1])


def _fisher(value: float, n: int, method: Method, level: float) -> Interval | None:
    spare = n - (4 if method == "kendall" else 3)
    if spare < 1 or abs(value) > 1 - _ROUNDING:
        return None
    spread = {"pearson": 1.0, "spearman": 1 + value**2 / 2, "kendall": 0.437}[method]
    half = float(stats.norm.ppf((1 + level) / 2)) * math.sqrt(spread / spare)
    z = math.atanh(value)
    return Interval(math.tanh(z - half), math.tanh(z + half), level, "Fisher z")


def _bootstrap(
    a: Vector,
    b: Vector,
    coefficient: Callable[[Vector, Vector], Vector],
    level: float,
    draws: int,
    rng: np.random.Generator,
) -> Interval:
    rows = rng.integers(0, len(a), size=(draws, len(a)))
    drawn = coefficient(a[rows], b[rows])
    low, high = np.nanquantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high), level, f"bootstrap over {len(a)} points")


def _leave_one_out(
    a: Vector, b: Vector, coefficient: Callable[[Vector, Vector], Vector]
) -> tuple[float, float] | None:
    n = len(a)
    rows = np.array([[j for j in range(n) if j != i] for i in range(n)])
    without = coefficient(a[rows], b[rows])
    if not np.isfinite(without).all():
        return None
    return float(without.min()), float(without.max())

"""Distributions whose mutual information is known exactly: the ground truth of the estimators.

Every sample is made from a seed alone. Transformations that can be undone on each side leave the
information as it is, so the same exact value holds before and after.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import special

from mirror_analysis.errors import DegenerateError, ShapeError

Rows: TypeAlias = NDArray[np.float64]
Draw: TypeAlias = Callable[[int, np.random.Generator], tuple[Rows, Rows]]


@dataclass(frozen=True, eq=False)
class Task:
    """A distribution of pairs.

    Attributes:
        name: of the table `TASKS`.
        exact: mutual information, in nats.
        draw: (pairs, generator) -> x [pair, x_feature], y [pair, y_feature].
    """

    name: str
    exact: float
    draw: Draw

    def sample(self, n: int, seed: int) -> tuple[Rows, Rows]:
        """Independent pairs; the same for the same n and seed.

        Args:
            n: how many, at least 1.
            seed: of the draw.

        Returns:
            x [pair, x_feature] and y [pair, y_feature], float64.

        Raises:
            DegenerateError: if no pair is asked for.
        """
        if n < 1:
            raise DegenerateError(f"task {self.name} was asked for {n} pairs; needed at least 1")
        return self.draw(n, np.random.default_rng(seed))


def dense_covariance(dimensions: int, correlation: float) -> Rows:
    """Unit variances and one correlation between all variables."""
    return np.full((dimensions, dimensions), correlation) + (1 - correlation) * np.eye(dimensions)


def sparse_covariance(x_features: int, y_features: int, correlations: list[float]) -> Rows:
    """Unit variances; x_i and y_i have the i-th correlation, all else is independent."""
    covariance = np.eye(x_features + y_features)
    for i, correlation in enumerate(correlations):
        covariance[i, x_features + i] = covariance[x_features + i, i] = correlation
    return covariance


def gaussian_information(covariance: Rows, x_features: int) -> float:
    """`(log det C_x + log det C_y - log det C) / 2`, the information of a normal pair in nats.

    Args:
        covariance: [x and y, x and y] of the variables of x followed by those of y.
        x_features: how many are of x.

    Raises:
        ShapeError: if the covariance is not square or leaves no y.
        DegenerateError: if it is not positive definite.

    Source:
        Cover and Thomas 2006, example 8.5.1.

    Example:
        >>> round(gaussian_information(dense_covariance(2, 0.75), 1), 6)
        0.413339
    """
    if covariance.ndim != 2 or len(set(covariance.shape)) != 1:
        raise ShapeError(f"covariance has shape {covariance.shape}; needed a square matrix")
    if not 0 < x_features < len(covariance):
        raise ShapeError(
            f"x has {x_features} of {len(covariance)} variables; needed at least one of each side"
        )
    parts = (covariance[:x_features, :x_features], covariance[x_features:, x_features:], covariance)
    signs, logs = zip(*(np.linalg.slogdet(part) for part in parts), strict=True)
    if min(signs) <= 0:
        raise DegenerateError(
            "covariance is not positive definite, so its information is infinite; lower the"
            " correlations"
        )
    return float(logs[0] + logs[1] - logs[2]) / 2


def student_information(dispersion: Rows, x_features: int, freedom: float) -> float:
    """Information of a multivariate Student t pair: the Gaussian part and what tails share.

    `I_Gauss + f(nu) + f(nu + d) - f(nu + d_x) - f(nu + d_y)` with
    `f(a) = log Gamma(a/2) - a/2 psi(a/2)`: above 0 even for an identity dispersion.

    Args:
        dispersion: [x and y, x and y].
        x_features: how many variables are of x.
        freedom: degrees of freedom nu, above 0.

    Raises:
        ShapeError: if the dispersion is not square or leaves no y.
        DegenerateError: if it is not positive definite, or freedom is not above 0.

    Source:
        Arellano-Valle et al. 2013, section 3.

    Example:
        >>> round(student_information(np.eye(2), 1, 1), 6)
        0.224171
    """
    if not freedom > 0:
        raise DegenerateError(f"freedom is {freedom}; needed a number above 0")

    def part(a: float) -> float:
        return float(special.gammaln(a / 2) - a / 2 * special.digamma(a / 2))

    total = len(dispersion)
    tails = part(freedom) + part(freedom + total)
    tails -= part(freedom + x_features) + part(freedom + total - x_features)
    return gaussian_information(dispersion, x_features) + tails


def additive_information(epsilon: float) -> float:
    """Information of x uniform on [0, 1] and y = x + uniform on [-epsilon, epsilon].

    `epsilon - log(2 epsilon)` to epsilon = 1/2, `1 / (4 epsilon)` above.

    Raises:
        DegenerateError: if epsilon is not above 0.

    Source:
        Czyz et al. 2023, appendix.

    Example:
        >>> round(additive_information(0.75), 6)
        0.333333
    """
    if not epsilon > 0:
        raise DegenerateError(f"epsilon is {epsilon}; needed a number above 0")
    return epsilon - math.log(2 * epsilon) if epsilon <= 0.5 else 1 / (4 * epsilon)


def normal_cdf(values: Rows) -> Rows:
    """Through the normal distribution function, to uniform margins."""
    return np.asarray(special.ndtr(values), dtype=np.float64)


def half_cube(values: Rows) -> Rows:
    """`sign(v) |v|^1.5`: longer tails."""
    return np.asarray(values * np.sqrt(np.abs(values)), dtype=np.float64)


def swiss_roll(values: Rows) -> Rows:
    """One variable [n, 1] rolled up in the plane [n, 2]; the margin first made uniform."""
    angle = 1.5 * math.pi * (1 + 2 * normal_cdf(values))
    return np.hstack([angle * np.cos(angle), angle * np.sin(angle)]) / 21


def _normal(name: str, covariance: Rows, x_features: int) -> Task:
    factor = np.linalg.cholesky(covariance)

    def draw(n: int, rng: np.random.Generator) -> tuple[Rows, Rows]:
        both = rng.standard_normal((n, len(factor))) @ factor.T
        return both[:, :x_features], both[:, x_features:]

    return Task(name, gaussian_information(covariance, x_features), draw)


def _student(features: int, freedom: int) -> Task:
    def draw(n: int, rng: np.random.Generator) -> tuple[Rows, Rows]:
        both = rng.standard_normal((n, 2 * features))
        both /= np.sqrt(rng.chisquare(freedom, size=(n, 1)) / freedom)
        return both[:, :features], both[:, features:]

    exact = student_information(np.eye(2 * features), features, freedom)
    return Task(f"student-identity-{features}x{features}-dof{freedom}", exact, draw)


def _additive(epsilon: float) -> Task:
    def draw(n: int, rng: np.random.Generator) -> tuple[Rows, Rows]:
        x = rng.uniform(size=(n, 1))
        return x, x + rng.uniform(-epsilon, epsilon, size=(n, 1))

    return Task(f"uniform-additive-{epsilon}", additive_information(epsilon), draw)


def _through(task: Task, word: str, change_x: Callable[[Rows], Rows], *, y: bool = True) -> Task:
    """The task after a transformation of x, and of y where it is to be transformed too."""

    def draw(n: int, rng: np.random.Generator) -> tuple[Rows, Rows]:
        x_rows, y_rows = task.draw(n, rng)
        return change_x(x_rows), change_x(y_rows) if y else y_rows

    return Task(f"{task.name}-{word}", task.exact, draw)


def _table() -> dict[str, Task]:
    bivariate = _normal("normal-bivariate-0.75", dense_covariance(2, 0.75), 1)
    sparse = {
        d: _normal(f"normal-sparse-{d}x{d}-2-pairs-0.8", sparse_covariance(d, d, [0.8, 0.8]), d)
        for d in (2, 3, 5, 25)
    }
    students = {(d, f): _student(d, f) for d, f in _STUDENTS}
    tasks = [
        bivariate,
        _through(bivariate, "normal-cdf", normal_cdf),
        _through(bivariate, "half-cube", half_cube),
        _through(bivariate, "swiss-roll", swiss_roll, y=False),
        *(
            _normal(f"normal-dense-{d}x{d}-0.5", dense_covariance(2 * d, 0.5), d)
            for d in (2, 3, 5, 25, 50)
        ),
        *sparse.values(),
        *(_through(sparse[d], "normal-cdf", normal_cdf) for d in (3, 5, 25)),
        *(_through(sparse[d], "half-cube", half_cube) for d in (3, 5, 25)),
        *students.values(),
        *(_through(students[key], "asinh", np.arcsinh) for key in ((1, 1), (2, 1), (3, 2), (5, 2))),
        _additive(0.1),
        _additive(0.75),
    ]
    return {task.name: task for task in sorted(tasks, key=lambda task: task.name)}


_STUDENTS = ((1, 1), (2, 1), (2, 2), (3, 2), (3, 3), (5, 2), (5, 3))

TASKS = _table()
"""Name -> task with a known exact value, after the published benchmark of Czyz et al. 2023."""

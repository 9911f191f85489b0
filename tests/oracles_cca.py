"""Canonical correlation, Procrustes and regression as their definitions say, written slowly."""

from __future__ import annotations

import math

import numpy as np


def centred(z):
    z = np.float64(z)
    return z - z.mean(axis=0)


def power_of(matrix, exponent):
    """A power of a symmetric matrix without null space."""
    values, vectors = np.linalg.eigh(matrix)
    return sum(v**exponent * np.outer(q, q) for v, q in zip(values, vectors.T, strict=True))


def correlations(x, y):
    """By the eigenvalues of Cxx^-1 Cxy Cyy^-1 Cyx."""
    x, y = centred(x), centred(y)
    cxx, cyy, cxy = x.T @ x, y.T @ y, x.T @ y
    squares = np.linalg.eigvals(np.linalg.solve(cxx, cxy) @ np.linalg.solve(cyy, cxy.T)).real
    return np.sqrt(np.clip(np.sort(squares)[::-1], 0, 1))[: min(x.shape[1], y.shape[1])]


def pwcca(x, y):
    """Weights of y: every variate against every column, one by one."""
    x, y = centred(x), centred(y)
    root = power_of(y.T @ y, -0.5)
    m = root @ y.T @ x @ np.linalg.solve(x.T @ x, x.T @ y) @ root
    squares, vectors = np.linalg.eigh(m)
    total = weighted = 0.0
    for square, vector in list(zip(squares, vectors.T, strict=True))[-min(x.shape[1], len(m)) :]:
        variate = y @ root @ vector
        assert abs(variate @ variate - 1) < 1e-9
        weight = sum(abs(variate @ column) for column in y.T)
        total += weight
        weighted += weight * math.sqrt(max(square, 0))
    return weighted / total


def ridge_cca(x, y, relative):
    x, y = centred(x), centred(y)

    def whitener(z):
        covariance = z.T @ z / len(z)
        mean = np.trace(covariance) / len(covariance)
        return power_of(covariance + relative * mean * np.eye(len(covariance)), -0.5)

    m = whitener(x) @ (x.T @ y / len(x)) @ whitener(y)
    return np.linalg.svd(m, compute_uv=False).mean()


def procrustes_squared_distance(x, y):
    """What is left of layers of norm 1 after the rotation that the SVD gives."""
    x, y = centred(x), centred(y)
    width = max(x.shape[1], y.shape[1])
    x, y = (np.pad(z / np.linalg.norm(z), ((0, 0), (0, width - z.shape[1]))) for z in (x, y))
    u, _, v = np.linalg.svd(y.T @ x)
    return np.square(x - y @ (u @ v)).sum()


def shape_angle(x, y, alpha):
    sides = []
    for z in (centred(x), centred(y)):
        z = z @ (alpha * np.eye(z.shape[1]) + (1 - alpha) * power_of(z.T @ z, -0.5))
        sides.append(z / np.linalg.norm(z))
    return math.acos(np.linalg.svd(sides[0].T @ sides[1], compute_uv=False).sum())


def fold_numbers(x, folds, units):
    """Units ranked by their mean squared norm, dealt out in turn."""
    x = centred(x)
    sizes = {u: np.mean([r @ r for r, v in zip(x, units, strict=True) if v == u]) for u in units}
    ranked = sorted(sizes, key=lambda u: sizes[u])
    return np.array([ranked.index(u) % folds for u in units])


def held_out_r2(x, y, fit, *, folds=5, units=None):
    """1 - squared errors / squares about the training mean, fold by fold, row by row."""
    x, y = np.float64(x), np.float64(y)
    numbers = fold_numbers(x, folds, range(len(x)) if units is None else list(units))
    errors = totals = 0.0
    for fold in range(folds):
        kept = numbers != fold
        mean_x, mean_y = x[kept].mean(axis=0), y[kept].mean(axis=0)
        coefficients = fit(x[kept] - mean_x, y[kept] - mean_y)
        for row, target in zip(x[~kept], y[~kept], strict=True):
            guess = mean_y + (row - mean_x) @ coefficients
            errors += np.square(target - guess).sum()
            totals += np.square(target - mean_y).sum()
    return 1 - errors / totals


def ridge(x, y):
    """The strength of least generalised cross-validation, by the hat matrix of each."""
    n, d = x.shape
    best = None
    for strength in np.logspace(-6, 4, 21) * np.trace(x.T @ x) / d:
        inverse = np.linalg.inv(x.T @ x + strength * np.eye(d))
        hat = x @ inverse @ x.T + np.ones((n, n)) / n
        score = np.square(y - hat @ y).sum() / (1 - np.trace(hat) / n) ** 2
        if best is None or score < best[0]:
            best = score, inverse @ x.T @ y
    return best[1]


def rotation(x, y):
    u, s, v = np.linalg.svd(x.T @ y, full_matrices=False)
    turn = sum(np.outer(a, b) for a, size, b in zip(u.T, s, v, strict=True) if size > 1e-9 * s[0])
    return s.sum() / np.square(x).sum() * turn


def jackknife(measure, x, y, folds):
    """The measure without the rows of each fold in turn."""
    return np.array([measure(x[folds != k], y[folds != k]) for k in range(folds.max() + 1)])

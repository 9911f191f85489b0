"""Textbook formulas of information written slowly, to hold the fast ones against."""

from __future__ import annotations

import itertools
import math

import numpy as np


def _digamma(a):
    """psi(a), by its recurrence and asymptotic series."""
    shift = 0.0
    while a < 20:
        shift -= 1 / a
        a += 1
    return shift + math.log(a) - 1 / (2 * a) - 1 / (12 * a**2) + 1 / (120 * a**4) - 1 / (252 * a**6)


def _mean(values):
    values = list(values)
    return sum(values) / len(values)


def _joint(scores):
    return [scores[i][i] for i in range(len(scores))]


def _product(scores):
    return [scores[i][j] for i, j in itertools.permutations(range(len(scores)), 2)]


def donsker_varadhan(scores):
    return _mean(_joint(scores)) - math.log(_mean(math.exp(s) for s in _product(scores)))


def nwj(scores):
    return _mean(_joint(scores)) - _mean(math.exp(s - 1) for s in _product(scores))


def smile(scores, tau):
    clipped = [min(max(math.exp(s), math.exp(-tau)), math.exp(tau)) for s in _product(scores)]
    return _mean(_joint(scores)) - math.log(_mean(clipped))


def js_divergence(scores):
    """From the probability a critic gives to "these belong together"."""

    def belongs(s):
        return 1 / (1 + math.exp(-s))

    true = _mean(math.log(belongs(s)) for s in _joint(scores))
    other = _mean(math.log(1 - belongs(s)) for s in _product(scores))
    return (true + other) / 2 + math.log(2)


def jensen_shannon(scores):
    return 1 + _mean(_joint(scores)) - _mean(math.exp(s) for s in _product(scores))


def infonce(scores):
    n, total = len(scores), 0.0
    for i in range(n):
        row = _mean(math.exp(s) for s in scores[i])
        column = _mean(math.exp(scores[j][i]) for j in range(n))
        total += scores[i][i] - (math.log(row) + math.log(column)) / 2
    return total / n


def gaussian_mi(x, y):
    """Plug-in estimate from the canonical correlations, by eigenvalues."""
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    xx, yy, xy = x.T @ x, y.T @ y, x.T @ y
    squared = np.linalg.eigvals(np.linalg.inv(xx) @ xy @ np.linalg.inv(yy) @ xy.T).real
    return -0.5 * sum(math.log(1 - s) for s in squared)


def gaussian_mi_bias(n, d, e):
    def part(k):
        return sum(_digamma((n - i) / 2) for i in range(1, k + 1))

    return (part(d) + part(e) - part(d + e)) / 2


def ksg_mi(x, y, k, algorithm):
    n, local = len(x), 0.0
    for i in range(n):
        dx = [max(abs(a - b) for a, b in zip(x[i], x[j], strict=True)) for j in range(n)]
        dy = [max(abs(a - b) for a, b in zip(y[i], y[j], strict=True)) for j in range(n)]
        others = [j for j in range(n) if j != i]
        nearest = sorted(others, key=lambda j: max(dx[j], dy[j]))[:k]
        if algorithm == 1:
            radius = max(dx[nearest[-1]], dy[nearest[-1]])
            local += _digamma(sum(dx[j] < radius for j in others) + 1)
            local += _digamma(sum(dy[j] < radius for j in others) + 1)
        else:
            x_radius, y_radius = max(dx[j] for j in nearest), max(dy[j] for j in nearest)
            local += _digamma(sum(dx[j] <= x_radius for j in others))
            local += _digamma(sum(dy[j] <= y_radius for j in others))
    shift = 1 / k if algorithm == 2 else 0
    return _digamma(k) - shift + _digamma(n) - local / n

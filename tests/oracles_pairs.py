"""Measures of two matrices over pairs of samples, written slowly."""

from __future__ import annotations

import itertools
import math

import numpy as np
import oracles


def squared_distances(x):
    x = np.float64(x)
    x = x - x.mean(axis=0)
    return np.array([[sum((p - q) ** 2 for p, q in zip(a, b, strict=True)) for b in x] for a in x])


def rbf_kernel(x, fraction):
    squared = squared_distances(x)
    return np.exp(-squared / (2 * fraction**2 * np.median(squared)))


def polynomial_kernel(x, degree, constant):
    x = np.float64(x)
    x = x - x.mean(axis=0)
    size = np.mean([a @ a for a in x])
    return np.array([[(constant + a @ b / size) ** degree for b in x] for a in x])


def kernel_cka(k, m, *, debiased):
    if debiased:
        hsic = oracles.hsic_u
    else:

        def hsic(a, b):
            h = np.eye(len(a)) - 1 / len(a)
            return np.trace(h @ a @ h @ b)

    return hsic(k, m) / math.sqrt(hsic(k, k) * hsic(m, m))


def rv_coefficient(x, y):
    """Robert and Escoufier 1976, from covariances."""
    d = np.shape(x)[1]
    s = np.cov(np.hstack([x, y]), rowvar=False)
    xx, yy, xy = s[:d, :d], s[d:, d:], s[:d, d:]
    return np.trace(xy @ xy.T) / math.sqrt(np.trace(xx @ xx) * np.trace(yy @ yy))


def distances(x):
    return np.array([[math.dist(a, b) for b in np.float64(x)] for a in np.float64(x)])


def distance_correlation(x, y, *, debiased):
    """Szekely et al. 2007, definition 3; Szekely and Rizzo 2013, equation 2.2."""
    n = len(x)

    def centred(d):
        out = np.zeros((n, n))
        for i in range(n):
            for j in range(n):
                row, column, total = d[i].sum(), d[:, j].sum(), d.sum()
                if not debiased:
                    out[i, j] = d[i, j] - row / n - column / n + total / n**2
                elif i != j:
                    out[i, j] = d[i, j] - row / (n - 2) - column / (n - 2)
                    out[i, j] += total / ((n - 1) * (n - 2))
        return out

    a, b = centred(distances(x)), centred(distances(y))

    def product(p, q):
        return sum(p[i, j] * q[i, j] for i in range(n) for j in range(n))

    ratio = product(a, b) / math.sqrt(product(a, a) * product(b, b))
    return ratio if debiased else math.sqrt(max(0.0, ratio))


def cosine_of(a, b, kind):
    """Cosine of two symmetric matrices, after what each kind of centring leaves."""
    n = len(a)
    if kind == "unbiased":
        return kernel_cka(a, b, debiased=True)
    if kind == "biased":
        return kernel_cka(a, b, debiased=False)
    upper = [(i, j) for i in range(n) for j in range(i)]
    u, v = (np.array([m[i, j] for i, j in upper]) for m in (a, b))
    if kind == "correlation":
        u, v = u - u.mean(), v - v.mean()
    return u @ v / math.sqrt((u @ u) * (v @ v))


def all_orders(n):
    return np.array(list(itertools.permutations(range(n))))


def moments_of(t):
    """Mean, sd and skewness over the first axis."""
    away = t - t.mean(axis=0)
    return t.mean(axis=0), t.std(axis=0), (away**3).mean(axis=0) / t.std(axis=0) ** 3

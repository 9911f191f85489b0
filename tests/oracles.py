"""Textbook formulas written slowly, to hold the fast ones against."""

from __future__ import annotations

import itertools
import math

import numpy as np


def pair(n, d=768, e=512, r=64, seed=0):
    """Two noisy views of one latent: the data of the published reference values."""
    g = np.random.default_rng(seed)
    z = g.standard_normal((n, r))
    a = g.standard_normal((r, d)) / np.sqrt(r)
    b = g.standard_normal((r, e)) / np.sqrt(r)
    x = z @ a + g.standard_normal((n, d))
    y = z @ b + g.standard_normal((n, e))
    return x.astype(np.float32), y.astype(np.float32)


def hsic_u(k, m):
    """HSIC_1 of Song et al. 2012, equation 4, by matrix products."""
    n = len(k)
    k, m = k.copy(), m.copy()
    np.fill_diagonal(k, 0)
    np.fill_diagonal(m, 0)
    one = np.ones(n)
    middle = (one @ k @ one) * (one @ m @ one) / ((n - 1) * (n - 2))
    return (np.trace(k @ m) + middle - 2 / (n - 2) * (one @ k @ m @ one)) / (n * (n - 3))


def hsic_u_by_quadruples(k, m):
    """The U-statistic itself: the mean over all ordered quadruples of different samples."""
    total, count = 0.0, 0
    for i, j, q, r in itertools.permutations(range(len(k)), 4):
        total += k[i, j] * (m[i, j] + m[q, r] - 2 * m[i, q])
        count += 1
    return total / count


def linear_cka(x, y, *, debiased):
    x, y = np.float64(x), np.float64(y)
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    k, m = x @ x.T, y @ y.T
    if debiased:
        return hsic_u(k, m) / math.sqrt(hsic_u(k, k) * hsic_u(m, m))
    return (k * m).sum() / math.sqrt((k * k).sum() * (m * m).sum())


def _cosines(x):
    x = np.float64(x)
    return np.array([[a @ b / math.sqrt((a @ a) * (b @ b)) for b in x] for a in x])


def _mask(cosines, k):
    mask = np.zeros_like(cosines)
    for i, row in enumerate(cosines):
        others = sorted((j for j in range(len(row)) if j != i), key=lambda j: -row[j])
        mask[i, others[:k]] = 1
    return mask


def mutual_knn(x, y, k):
    a, b = _mask(_cosines(x), k), _mask(_cosines(y), k)
    return (a * b).sum() / (k * len(a))


def cknna(x, y, k, form):
    kx, ky = _cosines(x), _cosines(y)
    a, b = _mask(kx, k), _mask(ky, k)

    def alignment(p, q, mask):
        n = len(p)
        p, q = p * mask, q * mask
        if form == "elementwise":
            p = p.T  # then p[j, i] meets q[i, j] transposed: every edge meets itself
        product = sum(p[i, j] * q[j, i] for i in range(n) for j in range(n))
        chained = sum(p[i, j] * q[j, r] for i in range(n) for j in range(n) for r in range(n))
        return product + p.sum() * q.sum() / ((n - 1) * (n - 2)) - 2 * chained / (n - 2)

    return alignment(kx, ky, a * b) / math.sqrt(alignment(kx, kx, a) * alignment(ky, ky, b))


def svcca(x, y, variance):
    def kept(z):
        z = np.float64(z) - np.float64(z).mean(axis=0)
        u, s, _ = np.linalg.svd(z, full_matrices=False)
        share = np.cumsum(s**2) / np.sum(s**2)
        count = int(np.argmax(share >= variance)) + 1
        return u[:, :count] * s[:count]

    a, b = kept(x), kept(y)
    caa, cbb, cab = a.T @ a, b.T @ b, a.T @ b
    squared = np.linalg.eigvals(np.linalg.solve(caa, cab) @ np.linalg.solve(cbb, cab.T)).real
    top = np.sort(np.clip(squared, 0, 1))[::-1][: min(a.shape[1], b.shape[1])]
    return float(np.sqrt(top).mean())


def infonce(logits):
    n = len(logits)
    loss = 0.0
    for i in range(n):
        loss -= math.log(math.exp(logits[i][i]) / sum(math.exp(v) for v in logits[i])) / 2
        loss -= math.log(math.exp(logits[i][i]) / sum(math.exp(r[i]) for r in logits)) / 2
    return math.log(n) - loss / n


def group_residual(x, groups):
    x = np.float64(x).copy()
    for g in set(groups):
        rows = [i for i, h in enumerate(groups) if h == g]
        x[rows] -= x[rows].mean(axis=0)
    return x

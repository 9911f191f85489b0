"""Centrings and permutation draws written slowly."""

from __future__ import annotations

import numpy as np


def u_centred(a):
    n = len(a)
    out = np.zeros((n, n))
    off = a - np.diag(np.diag(a))
    total = off.sum()
    for s in range(n):
        for t in range(n):
            if s != t:
                out[s, t] = a[s, t] - (off[s].sum() + off[t].sum()) / (n - 2)
                out[s, t] += total / ((n - 1) * (n - 2))
    return out


def centred(a, kind):
    n = len(a)
    if kind == "unbiased":
        return u_centred(a)
    if kind == "biased":
        h = np.eye(n) - 1 / n
        return h @ a @ h
    off = ~np.eye(n, dtype=bool)
    return np.where(off, a - (a[off].mean() if kind == "grand" else 0.0), 0.0)


def draws_of(x, y, count, seed=0):
    """[draw, x layer, y layer] inner products with rows and columns of y in random orders."""
    g = np.random.default_rng(seed)
    n = x.shape[1]
    i, j = np.tril_indices(n, -1)
    left, right = 2 * x[:, i, j], np.ascontiguousarray(y.reshape(len(y), -1).T)
    out = np.empty((count, len(x), len(y)))
    for draw in range(count):
        p = g.permutation(n)
        out[draw] = left @ right[p[i] * n + p[j]]
    return out


def largest_of(t):
    """[draw] the largest cell of each draw, studentised by the draws."""
    z = (t - t.mean(axis=0)) / t.std(axis=0)
    return z.reshape(len(z), -1).max(axis=1)

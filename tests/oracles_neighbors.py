"""Textbook formulas of neighbour measures written slowly; no ties are expected."""

from __future__ import annotations

import numpy as np


def similarities(x, metric):
    """Cosines, or minus squared distances."""
    x = np.float64(x)
    if metric == "cosine":
        return np.array([[a @ b / np.sqrt((a @ a) * (b @ b)) for b in x] for a in x])
    return np.array([[-((a - b) ** 2).sum() for b in x] for a in x])


def lists(x, k, metric="cosine"):
    """The k nearest of every sample, the nearest first."""
    near = similarities(x, metric)
    out = []
    for i, row in enumerate(near):
        others = sorted((j for j in range(len(row)) if j != i), key=lambda j: -row[j])
        out.append(others[:k])
    return out


def mutual_knn(x, y, k, metric="cosine"):
    pairs = zip(lists(x, k, metric), lists(y, k, metric), strict=True)
    return np.mean([len(set(a) & set(b)) / k for a, b in pairs])


def knn_jaccard(x, y, k, metric="cosine"):
    pairs = zip(lists(x, k, metric), lists(y, k, metric), strict=True)
    return np.mean([len(set(a) & set(b)) / len(set(a) | set(b)) for a, b in pairs])


def cycle_knn(x, y, k, metric="cosine"):
    a, b = lists(x, k, metric), lists(y, k, metric)
    return np.mean([any(i in a[j] for j in b[i]) for i in range(len(a))])


def knn_lcs(x, y, k, metric="cosine"):
    def length(a, b):
        if not a or not b:
            return 0
        if a[0] == b[0]:
            return 1 + length(a[1:], b[1:])
        return max(length(a[1:], b), length(a, b[1:]))

    pairs = zip(lists(x, k, metric), lists(y, k, metric), strict=True)
    return np.mean([length(a, b) / k for a, b in pairs])


def knn_edit_similarity(x, y, k, metric="cosine"):
    def distance(a, b):
        table = [[i + j if i * j == 0 else 0 for j in range(k + 1)] for i in range(k + 1)]
        for i in range(1, k + 1):
            for j in range(1, k + 1):
                table[i][j] = min(
                    table[i - 1][j] + 1,
                    table[i][j - 1] + 1,
                    table[i - 1][j - 1] + (a[i - 1] != b[j - 1]),
                )
        return table[k][k]

    pairs = zip(lists(x, k, metric), lists(y, k, metric), strict=True)
    return np.mean([1 - distance(a, b) / k for a, b in pairs])


def knn_rank_similarity(x, y, k, metric="euclidean"):
    n = len(x)
    order = lists(y, n - 1, metric)
    total = 0
    for i, near in enumerate(lists(x, k, metric)):
        for j in near:
            total += 1 + order[i].index(j)
    return 1 - 2 * total / (n * n * k)

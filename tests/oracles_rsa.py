"""Representational similarity analysis, written slowly."""

from __future__ import annotations

import itertools
import math

import numpy as np


def distance_between(a, b, kind):
    if kind == "correlation":
        a, b = a - a.mean(), b - b.mean()
    if kind in ("correlation", "cosine"):
        return 1 - sum(a * b) / math.sqrt(sum(a * a) * sum(b * b))
    squared = sum((a - b) ** 2)
    return squared if kind == "squared_euclidean" else math.sqrt(squared)


def distances(x, kind):
    """Of all pairs (0, 1), (0, 2), ..., (1, 2), ...; rounded, so that what is equal ties."""
    x = np.float64(x)
    found = [distance_between(a, b, kind) for a, b in itertools.combinations(x, 2)]
    return np.round(found, 12)


def average_ranks(values):
    return np.array([(sum(values < v) + sum(values <= v) + 1) / 2 for v in values])


def pearson(a, b):
    a, b = a - a.mean(), b - b.mean()
    return sum(a * b) / math.sqrt(sum(a * a) * sum(b * b))


def tau_a(a, b):
    score = sum(
        np.sign(a[i] - a[j]) * np.sign(b[i] - b[j])
        for i, j in itertools.combinations(range(len(a)), 2)
    )
    return score / math.comb(len(a), 2)


def compare(a, b, comparison):
    if comparison == "pearson":
        return pearson(a, b)
    if comparison == "spearman":
        return pearson(average_ranks(a), average_ranks(b))
    if comparison == "kendall":
        return tau_a(a, b)
    return sum(a * b) / math.sqrt(sum(a * a) * sum(b * b))


def rsa(x, y, distance, comparison):
    return compare(distances(x, distance), distances(y, distance), comparison)

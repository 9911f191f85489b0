"""Time warping, rotations and the sensorimotor alignment, written slowly."""

from __future__ import annotations

import itertools
import math

import numpy as np


def turn(axis, angle):
    """The matrix of a rotation about a coordinate axis."""
    a, b = [(1, 2), (2, 0), (0, 1)]["xyz".index(axis)]
    m = np.eye(3)
    m[a, a] = m[b, b] = math.cos(angle)
    m[a, b], m[b, a] = -math.sin(angle), math.sin(angle)
    return m


def of_euler(angles):
    """Roll about x, then pitch about y, then yaw about z, all fixed axes."""
    return turn("z", angles[2]) @ turn("y", angles[1]) @ turn("x", angles[0])


def of_axis_angle(v):
    """Rodrigues' formula."""
    angle = math.sqrt(sum(a * a for a in v))
    if angle == 0:
        return np.eye(3)
    x, y, z = (a / angle for a in v)
    k = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + math.sin(angle) * k + (1 - math.cos(angle)) * k @ k


def of_wxyz(q):
    w, x, y, z = q
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def angle(a, b):
    """Of the rotation from one matrix to the other, by trace and by antisymmetric part."""
    r = a.T @ b
    cosine = (np.trace(r) - 1) / 2
    sine = math.sqrt(sum((r[i, j] - r[j, i]) ** 2 for i, j in ((0, 1), (0, 2), (1, 2)))) / 2
    return math.atan2(sine, cosine)


def pose_cost(a, b):
    """Position, roll pitch yaw and gripper, each distance with weight 1."""
    return math.dist(a[:3], b[:3]) + angle(of_euler(a[3:6]), of_euler(b[3:6])) + abs(a[6] - b[6])


def paths(n, m):
    """Every warping path from (0, 0) to (n - 1, m - 1)."""
    if n == 1 and m == 1:
        return [[(0, 0)]]
    found = []
    for i, j in ((n - 1, m), (n, m - 1), (n - 1, m - 1)):
        if i >= 1 and j >= 1:
            found += [[*path, (n - 1, m - 1)] for path in paths(i, j)]
    return found


def inside(n, m, i, j, band):
    return band is None or -band - max(0, n - m) <= j - i <= band + max(0, m - n)


def dtw_by_paths(x, y, cost, *, diagonal, band=None):
    """The least over all paths, a diagonal step weighed as asked, the first cell once."""
    best = math.inf
    for path in paths(len(x), len(y)):
        if not all(inside(len(x), len(y), i, j, band) for i, j in path):
            continue
        total = cost(x[0], y[0])
        for (i, j), (p, q) in itertools.pairwise(path):
            total += (diagonal if p > i and q > j else 1) * cost(x[p], y[q])
        best = min(best, total)
    return best


def dtw(x, y, cost, *, diagonal, band=None):
    """The same by the recurrence, cell by cell."""
    table = np.full((len(x), len(y)), math.inf)
    for i in range(len(x)):
        for j in range(len(y)):
            if not inside(len(x), len(y), i, j, band):
                continue
            c = cost(x[i], y[j])
            if i == j == 0:
                table[i, j] = c
                continue
            if i:
                table[i, j] = min(table[i, j], table[i - 1, j] + c)
            if j:
                table[i, j] = min(table[i, j], table[i, j - 1] + c)
            if i and j:
                table[i, j] = min(table[i, j], table[i - 1, j - 1] + diagonal * c)
    return table[-1, -1]


def nearest_mask(closeness, k):
    mask = np.zeros_like(closeness)
    for i, row in enumerate(closeness):
        others = sorted((j for j in range(len(row)) if j != i), key=lambda j: -row[j])
        mask[i, others[:k]] = 1
    return mask


def sensorimotor(features, distances, k, form):
    """Cosines masked on one side, the mask itself on the other, HSIC_1 without its constant."""
    f = np.float64(features)
    f = f / np.sqrt((f * f).sum(axis=1, keepdims=True))
    kernel = f @ f.T
    a, b = nearest_mask(kernel, k), nearest_mask(-np.float64(distances), k)

    def alignment(p, q):
        n = len(p)
        q = q if form == "reciprocal" else q.T
        product = sum(p[i, j] * q[j, i] for i in range(n) for j in range(n))
        chained = (p.sum(axis=0) if form == "reciprocal" else p.sum(axis=1)) @ (
            q.sum(axis=1) if form == "reciprocal" else q.sum(axis=0)
        )
        return product + p.sum() * q.sum() / ((n - 1) * (n - 2)) - 2 * chained / (n - 2)

    both = a * b
    own = alignment(a * kernel, a * kernel) * alignment(b, b)
    return alignment(both * kernel, both) / math.sqrt(own)

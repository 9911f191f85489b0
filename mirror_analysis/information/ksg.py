"""Mutual information from distances to nearest neighbours."""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import special
from scipy.spatial import cKDTree
from torch import Tensor

from mirror_analysis.errors import DegenerateError
from mirror_analysis.information.inputs import paired_rows, scaled
from mirror_analysis.matrices import Array

Counts: TypeAlias = NDArray[np.int64]

# Beyond so many features of both a tree visits nearly everything and plain distances are faster.
_TREE_FEATURES = 8

# Distances held at a time, 32 MB.
_BLOCK = 2**22


def ksg_mi(
    x: Array,
    y: Array,
    *,
    k: int = 3,
    algorithm: int = 1,
    standardise: bool = True,
) -> float:
    """Mutual information by nearest neighbours (Kraskov, Stögbauer and Grassberger), in nats.

    `psi(k) + psi(n) - mean(psi(n_x + 1) + psi(n_y + 1))`, where n_x counts the samples strictly
    nearer in x than the k-th neighbour in (x, y) is, in the largest coordinate difference. It
    needs no model and is nearly unbiased in few dimensions; with many features all distances are
    alike and it falls far below the truth (from about 10 on, at thousands of samples). Around 0
    where x and y are unrelated, of either sign. No noise is added to break ties.

    Args:
        x: [sample, x_feature], continuous.
        y: [sample, y_feature], the same samples.
        k: neighbours, at least 1 and below the sample count; more lowers variance, raises bias.
        algorithm: 1 or 2 of the paper: one cube, or one box with a side for each of x and y
            (`psi(k) - 1/k + psi(n) - mean(psi(n_x) + psi(n_y))`; of several samples that are
            equally far as the k-th any one makes the box).
        standardise: whether each feature is first scaled to variance 1.

    Returns:
        The estimate in nats.

    Raises:
        ShapeError: if a side is not [sample, feature], or sample counts differ.
        DegenerateError: if k or algorithm is out of range; if more than k samples have the same
            x, or the same y, so that neighbours are not defined; NaN, infinity, or nothing
            varies.

    Source:
        Kraskov et al. 2004, equations 8 and 9.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> x = rng.standard_normal((5000, 1))
        >>> y = 0.75 * x + 0.4375**0.5 * rng.standard_normal((5000, 1))
        >>> round(ksg_mi(x, y), 2)  # exact: 0.4133
        0.41
    """
    if algorithm not in (1, 2):
        raise DegenerateError(f"ksg_mi got algorithm {algorithm}; needed 1 or 2")
    a, b = paired_rows(x, y)
    n = len(a)
    if not 1 <= k < n:
        raise DegenerateError(
            f"ksg_mi got k {k} and {n} samples; needed k of at least 1 and below the sample count"
        )
    if standardise:
        a, b = scaled(a), scaled(b)
    for values, name in ((a, "x"), (b, "y")):
        most = int(torch.unique(values, dim=0, return_counts=True)[1].max())
        if most > k:
            raise DegenerateError(
                f"{name} has the same values in {most} samples, more than k = {k}; needed"
                " continuous data, so leave repeated samples out or raise k"
            )
    trees = not a.is_cuda and a.shape[1] + b.shape[1] <= _TREE_FEATURES
    counts = (_by_trees if trees else _by_blocks)(a, b, k, boxes=algorithm == 2)
    # Boxes are counted with their edge, on which the farthest neighbour itself lies.
    shift = 0.0 if algorithm == 1 else 1 / k
    local = special.digamma(counts + (2 - algorithm)).sum(axis=0).mean()
    return float(special.digamma(k) - shift + special.digamma(n) - local)


def _by_trees(x: Tensor, y: Tensor, k: int, *, boxes: bool) -> Counts:
    """How many others are near each sample in x and in y, [2, sample]."""
    left, right = (np.ascontiguousarray(v.numpy()) for v in (x, y))
    both = np.hstack([left, right])
    distances, found = cKDTree(both).query(both, k=k + 1, p=np.inf)
    # The next smaller number makes "at most" of the tree the "nearer than" of the paper.
    inside = np.nextafter(np.asarray(distances)[:, -1], 0)
    counts = []
    for side in (left, right):
        radius = np.abs(side[found] - side[:, None]).max(axis=(1, 2)) if boxes else inside
        near = cKDTree(side).query_ball_point(side, radius, p=np.inf, return_length=True)
        counts.append(np.asarray(near, dtype=np.int64) - 1)
    return np.stack(counts)


def _by_blocks(x: Tensor, y: Tensor, k: int, *, boxes: bool) -> Counts:
    """The same from all distances, a block of rows at a time: many features, or a GPU."""
    counts = []
    for rows in torch.split(torch.arange(len(x), device=x.device), max(1, _BLOCK // len(x))):
        apart = [torch.cdist(v[rows], v, p=math.inf) for v in (x, y)]
        nearest = torch.maximum(*apart).topk(k + 1, largest=False)
        if boxes:
            near = [d <= d.gather(1, nearest.indices).amax(1, keepdim=True) for d in apart]
        else:
            near = [d < nearest.values.amax(1, keepdim=True) for d in apart]
        counts.append(torch.stack([each.sum(dim=1) - 1 for each in near]))
    return np.asarray(torch.cat(counts, dim=1).cpu().numpy(), dtype=np.int64)

"""Mean and variance of shared neighbours over all permutations, without drawing one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float64
from torch import Tensor

from mirror_analysis.errors import DegenerateError
from mirror_analysis.similarity.neighbors.nearest import Neighbors
from mirror_analysis.similarity.neighbors.shared_edges import Edges


def shared_moments(
    x: Sequence[Neighbors], y: Sequence[Neighbors]
) -> tuple[Float64[Tensor, "x_layer y_layer"], Float64[Tensor, "x_layer y_layer"]]:
    """Mean and variance of `sum_ij a_ij b_p(i)p(j)` over all permutations p, exactly.

    a and b are the shares of place of j among the nearest of i. The second moment sums over pairs
    of edges by what they have in common: the edge itself, the edge turned round, the start, the
    end, the end of one and the start of the other, nothing.

    Args:
        x: neighbours of the layers of the first side.
        y: neighbours of the layers of the second side.

    Returns:
        Mean and variance, float64; divided by n k and its square they are those of `mutual_knn`.

    Raises:
        DegenerateError: if there are fewer than 4 samples.

    Source:
        Mantel 1967 and Friedman and Rafsky 1983, for matrices that are not symmetric.
    """
    n = x[0].samples
    if n < 4:
        raise DegenerateError(f"shared_moments got {n} samples; needed at least 4")
    first, second = _patterns(Edges.of(x), len(x)), _patterns(Edges.of(y), len(y))
    pairs = n * (n - 1)
    ways = [pairs, pairs, *[pairs * (n - 2)] * 3, pairs * (n - 2) * (n - 3)]
    # The end of one at the start of the other comes twice, once for each edge.
    times = [1, 1, 1, 1, 2, 1]
    mean = first[0][:, None] * second[0] / pairs
    square = torch.zeros_like(mean)
    for a, b, count, often in zip(first[1:], second[1:], ways, times, strict=True):
        square += often * a[:, None] * b / count
    return mean, (square - mean.square()).clamp(min=0)


def _patterns(edges: Edges, layers: int) -> list[Tensor]:
    """[layer] sum of all shares, then of products over pairs of edges by what they have in common.

    Returns:
        The sum; then pairs that are the same edge, the edge turned round, have the same start, the
        same end, one's end at the other's start (counted one way), and nothing in common.
    """
    n, w = edges.samples, edges.weight
    total = torch.bincount(edges.layer, w, layers)
    out = torch.bincount(edges.layer * n + edges.row, w, layers * n).reshape(layers, n)
    into = torch.bincount(edges.layer * n + edges.column, w, layers * n).reshape(layers, n)
    back = edges.reverse()
    turned = torch.where(back >= 0, w[back.clamp(min=0)], 0.0)
    same = torch.bincount(edges.layer, w * w, layers)
    mutual = torch.bincount(edges.layer, w * turned, layers)
    start = out.square().sum(dim=1) - same
    end = into.square().sum(dim=1) - same
    chain = (out * into).sum(dim=1) - mutual
    apart = total.square() - same - mutual - start - end - 2 * chain
    return [total, same, mutual, start, end, chain, apart]

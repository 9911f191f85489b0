"""Nearest neighbours among fitted rows, in blocks, for every number of neighbours at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mirror_analysis.errors import DegenerateError

# Distances held at once.
_ENTRIES = 1 << 24


def nearest_rows(
    fitted: Float[Tensor, "row feature"], asked: Float[Tensor, "other feature"], *, k: int
) -> Int[Tensor, "other k"]:
    """The k rows nearest to each asked one by Euclidean distance, nearest first.

    Raises:
        DegenerateError: if there are fewer than k rows.
    """
    if k > len(fitted):
        raise DegenerateError(
            f"{k} neighbours are asked for among {len(fitted)} fitted rows; ask for fewer"
        )
    own = fitted.square().sum(dim=1)
    block = max(1, _ENTRIES // len(fitted))
    # The square of the asked row's length changes no order.
    return torch.cat(
        [
            torch.addmm(own[None], part, fitted.T, alpha=-2).topk(k, largest=False).indices
            for part in torch.split(asked, block)
        ]
    )


def neighbour_votes(
    labels: Int[Tensor, "*draw row"],
    found: Int[Tensor, "other k"],
    ks: Sequence[int],
    *,
    classes: int,
) -> Int[Tensor, "neighbours *draw other"]:
    """The commonest class among the first k neighbours, for each k; of equals the first class.

    Args:
        labels: [..., row] class numbers of the fitted rows; further axes for further labellings.
        found: [other, k] neighbours, nearest first.
        ks: numbers of neighbours, none above those found.
        classes: how many there are.
    """
    near = labels[..., found]
    counts = torch.zeros((*near.shape[:-1], classes), dtype=torch.float32, device=near.device)
    # Of equal counts the smaller class number wins, whichever way a maximum is searched.
    prefer = torch.arange(classes, device=near.device) / (2 * classes)
    out, done = {}, 0
    for k in sorted(set(ks)):
        part = near[..., done:k]
        counts.scatter_add_(-1, part, torch.ones_like(part, dtype=torch.float32))
        out[k], done = (counts - prefer).argmax(dim=-1), k
    return torch.stack([out[k] for k in ks])


def neighbour_means(
    values: Float[Tensor, "row target"], found: Int[Tensor, "other k"], ks: Sequence[int]
) -> Float[Tensor, "neighbours other target"]:
    """The mean over the first k neighbours, for each k."""
    sums = torch.zeros((len(found), values.shape[1]), dtype=values.dtype, device=values.device)
    out, done = {}, 0
    for k in sorted(set(ks)):
        sums = sums + values[found[:, done:k]].sum(dim=1)
        out[k], done = sums / k, k
    return torch.stack([out[k] for k in ks])

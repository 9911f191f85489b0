"""A bound on held-out pairs, without each fold of them, and with their pairing shuffled.

All three come from one score matrix, so neither interval nor null asks the critic again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

Objective = Literal["donsker_varadhan", "infonce", "js_divergence", "mine", "nwj"]


@dataclass(frozen=True)
class Bound:
    """A bound as the estimator sees it.

    Attributes:
        name: such as "smile".
        objective: what its critic is trained on.
        tau: clip of the scores in the partition; infinity for none.
    """

    name: str
    objective: Objective
    tau: float = math.inf

    def value(self, pairs: Tensor, partition: Tensor, batch: Tensor | int) -> Tensor:
        """The bound from the mean score of true pairs and what stands against it.

        Args:
            pairs: mean score of the true pairs.
            partition: for "infonce" the mean over pairs of their row's and column's
                logsumexp; else the logarithm of the mean exp(score) of other pairs.
            batch: number of pairs.
        """
        if self.name == "infonce":
            return pairs - partition + torch.as_tensor(batch, dtype=pairs.dtype).log().to(pairs)
        if self.name == "nwj":
            return pairs - (partition - 1).exp()
        if self.name == "jensen_shannon":
            return 1 + pairs - partition.exp()
        return pairs - partition


def bound_value(bound: Bound, scores: Float64[Tensor, "pair pair"]) -> Float64[Tensor, ""]:
    """The bound of one score matrix, true pairs on its diagonal."""
    if bound.name == "infonce":
        both = (scores.logsumexp(dim=1) + scores.logsumexp(dim=0)) / 2
        return bound.value(scores.diagonal().mean(), both.mean(), len(scores))
    apart = _apart(bound, scores).logsumexp(dim=(0, 1)) - _log_others(len(scores))
    return bound.value(scores.diagonal().mean(), apart, len(scores))


def without_folds(
    bound: Bound, scores: Float64[Tensor, "pair pair"], folds: Int64[Tensor, " pair"], count: int
) -> Float64[Tensor, " fold"]:
    """The bound without the pairs of each fold in turn: rows and columns both left out.

    Args:
        bound: which.
        scores: true pairs on the diagonal.
        folds: fold number of each pair, from 0.
        count: how many folds there are.
    """
    if bound.name == "infonce":
        by_row, by_column = (_by_fold(s, folds, count) for s in (scores, scores.T))
        both = (_without(by_row) + _without(by_column)) / 2
        return torch.stack(
            [
                bound.value(
                    scores.diagonal()[kept].mean(), both[kept, fold].mean(), int(kept.sum())
                )
                for fold, kept in enumerate(_kept(folds, count))
            ]
        )
    by_row = _by_fold(_apart(bound, scores), folds, count)
    blocks = _without(_by_fold(by_row.T, folds, count).T)  # [row fold, left-out column fold]
    values = []
    for fold, kept in enumerate(_kept(folds, count)):
        others = torch.arange(count, device=folds.device) != fold
        partition = blocks[others, fold].logsumexp(dim=0) - _log_others(int(kept.sum()))
        values.append(bound.value(scores.diagonal()[kept].mean(), partition, int(kept.sum())))
    return torch.stack(values)


def shuffled(
    bound: Bound, scores: Float64[Tensor, "pair pair"], orders: Int64[Tensor, "draw pair"]
) -> Float64[Tensor, " draw"]:
    """The bound where x_i is paired with y of order[i]: the null of the trained critic.

    Args:
        bound: which.
        scores: true pairs on the diagonal.
        orders: permutations of the pairs.
    """
    rows = torch.arange(len(scores), device=scores.device)
    drawn = scores[rows, orders]
    if bound.name == "infonce":
        # Rows and columns keep their sums whoever is whose partner.
        both = (scores.logsumexp(dim=1) + scores.logsumexp(dim=0)).mean() / 2
        return bound.value(drawn.mean(dim=1), both, len(scores))
    clipped = scores.clamp(-bound.tau, bound.tau)
    everything = clipped.logsumexp(dim=(0, 1))
    share = (clipped[rows, orders].logsumexp(dim=1) - everything).exp()
    apart = everything + torch.log1p(-share.clamp(max=1))
    # Where the pairs drawn are nearly all of the sum, what is left is lost in rounding.
    for draw in torch.nonzero(share > 1 - 1e-6).flatten().tolist():
        masked = clipped.clone()
        masked[rows, orders[draw]] = -math.inf
        apart[draw] = masked.logsumexp(dim=(0, 1))
    return bound.value(drawn.mean(dim=1), apart - _log_others(len(scores)), len(scores))


def _apart(bound: Bound, scores: Tensor) -> Tensor:
    clipped = scores.clamp(-bound.tau, bound.tau)
    same = torch.eye(len(scores), dtype=torch.bool, device=scores.device)
    return clipped.masked_fill(same, -math.inf)


def _log_others(batch: int) -> float:
    return math.log(batch * (batch - 1))


def _by_fold(scores: Tensor, folds: Tensor, count: int) -> Float64[Tensor, "row fold"]:
    """Logsumexp of each row over the columns of each fold."""
    return torch.stack([scores[:, folds == f].logsumexp(dim=1) for f in range(count)], dim=1)


def _without(by_fold: Float64[Tensor, "row fold"]) -> Float64[Tensor, "row fold"]:
    """Logsumexp of each row over the columns of all folds but one."""
    count = by_fold.shape[1]
    apart = torch.eye(count, dtype=torch.bool, device=by_fold.device)
    return by_fold[:, None].masked_fill(apart, -math.inf).logsumexp(dim=2)


def _kept(folds: Tensor, count: int) -> Bool[Tensor, "fold pair"]:
    return torch.stack([folds != fold for fold in range(count)])

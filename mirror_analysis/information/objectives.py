"""Bounds on information as differentiable functions of score matrices; training maximises them.

`scores[i, j]` is what the critic gives x_i with y_j: the diagonal holds the true pairs, samples of
the joint distribution; what is off it stands for the product of the marginals.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus


def log_partition(scores: Float[Tensor, "batch batch"]) -> Float[Tensor, ""]:
    """Logarithm of the mean of exp(score) over pairs that do not belong together."""
    batch = len(scores)
    apart = scores.masked_fill(_same(scores), -math.inf)
    return apart.logsumexp(dim=(0, 1)) - math.log(batch * (batch - 1))


def infonce(scores: Float[Tensor, "batch batch"]) -> Float[Tensor, ""]:
    """`log(batch)` less the mean cross entropy of finding partners by row and by column."""
    both = (scores.logsumexp(dim=1) + scores.logsumexp(dim=0)) / 2
    return math.log(len(scores)) + (scores.diagonal() - both).mean()


def donsker_varadhan(scores: Float[Tensor, "batch batch"]) -> Float[Tensor, ""]:
    """Mean score of true pairs less the log partition."""
    return scores.diagonal().mean() - log_partition(scores)


def nwj(scores: Float[Tensor, "batch batch"]) -> Float[Tensor, ""]:
    """Mean score of true pairs less exp(log partition - 1)."""
    return scores.diagonal().mean() - (log_partition(scores) - 1).exp()


def smile(scores: Float[Tensor, "batch batch"], tau: float) -> Float[Tensor, ""]:
    """Donsker-Varadhan with the scores of the partition clipped to [-tau, tau]."""
    return scores.diagonal().mean() - log_partition(scores.clamp(-tau, tau))


def js_divergence(scores: Float[Tensor, "batch batch"]) -> Float[Tensor, ""]:
    """`log 2` less the mean cross entropy of telling true pairs from others."""
    batch = len(scores)
    together = softplus(-scores.diagonal()).mean()
    apart = softplus(scores).masked_fill(_same(scores), 0).sum() / (batch * (batch - 1))
    return math.log(2) - (together + apart) / 2


def mine(scores: Float[Tensor, "batch batch"], log_average: Float[Tensor, ""]) -> Float[Tensor, ""]:
    """What MINE climbs: Donsker-Varadhan whose gradient divides by a moving average.

    The value is of no use. Its gradient is that of the mean true score less the mean exp(score)
    over its running average, which is nearly unbiased where the batch's own mean is not.

    Args:
        scores: of the batch.
        log_average: logarithm of the moving average of the partition, a constant here.
    """
    return scores.diagonal().mean() - (log_partition(scores) - log_average).exp()


def moving_average(log_average: Tensor, log_value: Tensor, rate: float) -> Tensor:
    """Logarithm of `(1 - rate) * average + rate * value`, from logarithms, without gradient."""
    old, new = log_average.detach(), log_value.detach()
    return torch.logaddexp(old + math.log1p(-rate), new + math.log(rate))


def _same(scores: Tensor) -> Tensor:
    return torch.eye(len(scores), dtype=torch.bool, device=scores.device)

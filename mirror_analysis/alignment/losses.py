"""The contrastive loss of the alignment."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

_SHORTEST = 1e-12  # an embedding of length 0 has cosine 0 with all others


def info_nce(
    x: Float[Tensor, "*problem batch width"],
    y: Float[Tensor, "*problem batch width"],
    *,
    temperature: float,
) -> Float[Tensor, "*problem"]:
    """Bidirectional InfoNCE in nats (van den Oord et al., 2018; both directions averaged).

    Row i of x and row i of y are a positive pair, all other rows of the batch are negatives;
    similarity is the cosine over the temperature. At least 0; log(batch) when nothing is known.

    Args:
        x: embeddings of the first side, of any length.
        y: embeddings of the second side.
        temperature: tau, above 0.
    """
    # The products are normalised, not the embeddings: batch x batch is the smaller array.
    x_length = x.norm(dim=-1, keepdim=True).clamp_min(_SHORTEST)
    y_length = y.norm(dim=-1, keepdim=True).clamp_min(_SHORTEST)
    logits = x @ y.mT / (x_length * (temperature * y_length).mT)
    positive = logits.diagonal(dim1=-2, dim2=-1)
    both = torch.logsumexp(logits, dim=-1) + torch.logsumexp(logits, dim=-2)
    return (0.5 * both - positive).mean(dim=-1)

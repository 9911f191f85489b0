"""Lower bounds on mutual information from a matrix of pair scores."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mirror_analysis.errors import DegenerateError, ShapeError


def infonce(similarity: NDArray[Any] | torch.Tensor) -> float:
    """InfoNCE lower bound on the mutual information of paired rows, in nats.

    `log(batch) - L`, where L is the mean of the two cross entropies of finding the partner of
    every row among all columns and of every column among all rows. At most `log(batch)` (see
    `infonce_ceiling`); 0 where scores do not depend on the pair, negative where they mislead.

    Args:
        similarity: [batch, batch] logits, the temperature already divided out; entry (i, i) is
            the score of the true pair i.

    Returns:
        The bound in nats.

    Raises:
        ShapeError: if the scores are not a square matrix.
        DegenerateError: if there are fewer than 2 pairs, or NaN or infinity.

    Source:
        van den Oord et al. 2018, equation 5; both directions as in Radford et al. 2021.

    Example:
        >>> round(infonce([[9.0, 0.0], [0.0, 9.0]]), 3)  # log 2 = 0.693
        0.693
    """
    if isinstance(similarity, torch.Tensor):
        logits = similarity.detach().double()
    else:
        logits = torch.from_numpy(np.array(similarity, dtype=np.float64))
    if logits.ndim != 2 or logits.shape[0] != logits.shape[1]:
        raise ShapeError(
            f"similarity has shape {tuple(logits.shape)}; needed [batch, batch],"
            " the score of every x with every y of the same pairs"
        )
    batch = len(logits)
    if batch < 2:
        raise DegenerateError(f"infonce got {batch} pair; needed at least 2 to tell pairs apart")
    if not bool(torch.isfinite(logits).all()):
        raise DegenerateError(
            "similarity holds NaN or infinity; needed finite logits, so leave pairs out"
            " instead of masking them and raise the temperature if they overflow"
        )
    correct = logits.diagonal()
    rows = (logits.logsumexp(dim=1) - correct).mean()
    columns = (logits.logsumexp(dim=0) - correct).mean()
    return math.log(batch) - float((rows + columns) / 2)


def infonce_ceiling(batch: int) -> float:
    """The largest value `infonce` can take with so many pairs: log(batch), in nats.

    Args:
        batch: number of pairs, at least 2.

    Raises:
        DegenerateError: if there are fewer than 2 pairs.
    """
    if batch < 2:
        raise DegenerateError(f"infonce got {batch} pair; needed at least 2 to tell pairs apart")
    return math.log(batch)

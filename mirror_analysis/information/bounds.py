"""Lower bounds on mutual information from a matrix of pair scores, in nats.

Entry (i, j) of the scores is what a critic gives x_i with y_j. The diagonal holds the true pairs.
In expectation each is a lower bound only for a critic that has not been fitted to the same pairs;
on its own training pairs a critic can reach any value. `mutual_information` keeps them apart.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mirror_analysis.errors import DegenerateError, ShapeError
from mirror_analysis.information import objectives


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
    return float(objectives.infonce(_scores(similarity, "infonce")))


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


def donsker_varadhan(scores: NDArray[Any] | torch.Tensor) -> float:
    """Donsker-Varadhan bound on mutual information, in nats.

    `mean score of true pairs - log mean exp(score of other pairs)`. Tight where scores are the
    log density ratio plus any constant. No ceiling, any sign. The logarithm of a mean over few
    pairs is too small on average, so the value is somewhat too large on average; both that bias
    and the variance grow like exp(information) over the number of pairs. No honest estimate
    stands above the logarithm of the number of pairs (McAllester and Stratos 2020).

    Args:
        scores: [batch, batch] critic scores, true pairs on the diagonal.

    Raises:
        ShapeError: if the scores are not a square matrix.
        DegenerateError: if there are fewer than 2 pairs, or NaN or infinity.

    Source:
        Donsker and Varadhan 1983; Belghazi et al. 2018, equation 5.

    Example:
        >>> round(donsker_varadhan([[2.0, 0.0], [0.0, 2.0]]), 3)
        2.0
    """
    return float(objectives.donsker_varadhan(_scores(scores, "donsker_varadhan")))


def nwj(scores: NDArray[Any] | torch.Tensor) -> float:
    """Nguyen-Wainwright-Jordan bound on mutual information (f-GAN KL, MINE-f), in nats.

    `mean score of true pairs - mean exp(score of other pairs) / e`. Tight where scores are the
    log density ratio plus 1; a wrong constant costs, so it never stands above
    `donsker_varadhan` of the same scores. Unbiased for the bound of its critic; no ceiling, any
    sign. One large score off the diagonal moves it by its exponential: the variance grows like
    exp(information) over the number of pairs.

    Args:
        scores: [batch, batch] critic scores, true pairs on the diagonal.

    Raises:
        ShapeError: if the scores are not a square matrix.
        DegenerateError: if there are fewer than 2 pairs, or NaN or infinity.

    Source:
        Nguyen et al. 2010; Poole et al. 2019, equation 4.

    Example:
        >>> round(nwj([[1.0, 1.0], [1.0, 1.0]]), 3)
        0.0
    """
    return float(objectives.nwj(_scores(scores, "nwj")))


def smile(scores: NDArray[Any] | torch.Tensor, *, tau: float = 5.0) -> float:
    """SMILE: `donsker_varadhan` with the scores of other pairs clipped to [-tau, tau], in nats.

    Clipping bounds the variance of the partition by exp(2 tau) over the number of pairs and
    costs the guarantee: where scores reach past tau it can stand above the truth. tau = infinity
    is `donsker_varadhan`.

    Args:
        scores: [batch, batch] critic scores, true pairs on the diagonal.
        tau: largest score counted in the partition, above 0, in nats.

    Raises:
        ShapeError: if the scores are not a square matrix.
        DegenerateError: if there are fewer than 2 pairs, NaN or infinity, or tau is not above 0.

    Source:
        Song and Ermon 2020, equation 13.

    Example:
        >>> round(smile([[2.0, 9.0], [9.0, 2.0]], tau=1.0), 3)
        1.0
    """
    if not tau > 0:
        raise DegenerateError(f"smile got tau {tau}; needed a number above 0, such as 5")
    return float(objectives.smile(_scores(scores, "smile"), tau))


def js_divergence(scores: NDArray[Any] | torch.Tensor) -> float:
    """Lower bound on the Jensen-Shannon divergence of pairs from shuffled pairs, in nats.

    `log 2 - mean of the cross entropies of true and other pairs`. At most log 2 = 0.693; 0 where
    scores are all 0. It is *not* mutual information: it rises with it, and is what the critics
    of `jensen_shannon` and `smile` are trained on because its variance stays small.

    Args:
        scores: [batch, batch] critic scores, true pairs on the diagonal; best at the log density
            ratio.

    Raises:
        ShapeError: if the scores are not a square matrix.
        DegenerateError: if there are fewer than 2 pairs, or NaN or infinity.

    Source:
        Nowozin et al. 2016, table 6 (halved, plus log 2); Hjelm et al. 2019, equation 4.

    Example:
        >>> round(js_divergence([[9.0, -9.0], [-9.0, 9.0]]), 3)
        0.693
    """
    return float(objectives.js_divergence(_scores(scores, "js_divergence")))


def jensen_shannon(scores: NDArray[Any] | torch.Tensor) -> float:
    """Bound on mutual information for a critic trained by `js_divergence`, in nats.

    `1 + mean score of true pairs - mean exp(score of other pairs)`: `nwj` of scores + 1, since
    such a critic tends to the log density ratio itself. A lower bound on mutual information
    whatever the critic, with the variance of `nwj` but without its unstable training.

    Args:
        scores: [batch, batch] critic scores, true pairs on the diagonal.

    Raises:
        ShapeError: if the scores are not a square matrix.
        DegenerateError: if there are fewer than 2 pairs, or NaN or infinity.

    Source:
        Poole et al. 2019, section 2.3 (I_JS).

    Example:
        >>> round(jensen_shannon([[0.0, 0.0], [0.0, 0.0]]), 3)
        0.0
    """
    return float(objectives.nwj(_scores(scores, "jensen_shannon") + 1))


def _scores(scores: NDArray[Any] | torch.Tensor, bound: str) -> torch.Tensor:
    if isinstance(scores, torch.Tensor):
        logits = scores.detach().double()
    else:
        logits = torch.from_numpy(np.array(scores, dtype=np.float64))
    if logits.ndim != 2 or logits.shape[0] != logits.shape[1]:
        raise ShapeError(
            f"scores of {bound} have shape {tuple(logits.shape)}; needed [batch, batch],"
            " the score of every x with every y of the same pairs"
        )
    if len(logits) < 2:
        raise DegenerateError(
            f"{bound} got {len(logits)} pair; needed at least 2 to tell pairs apart"
        )
    if not bool(torch.isfinite(logits).all()):
        raise DegenerateError(
            f"scores of {bound} hold NaN or infinity; needed finite logits, so leave pairs out"
            " instead of masking them and raise the temperature if they overflow"
        )
    return logits

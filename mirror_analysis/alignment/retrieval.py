"""How well paired rows find each other: exact expected Recall@k in a gallery, and its null.

Every statistic here is a mean of credits: credit[i, j] is what query pair i earns if row j of the
second side were its partner. The observed value is the mean of the diagonal, the value under a
permuted pairing the mean of credit[i, permutation[i]], so a permutation costs n look-ups.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp
from scipy.stats import hypergeom

from mirror_analysis.errors import DefinitionError, DegenerateError, ShapeError

Square = NDArray[np.float64]


def recall_at_k(
    similarity: Square, *, k: int = 1, gallery: int = 64, within: NDArray[np.generic] | None = None
) -> float:
    """Expected Recall@k when partners are sought among `gallery` rows drawn at random.

    The partner and gallery - 1 others, drawn without replacement, are ranked by similarity; the
    share of queries whose partner is among the first k, in expectation over the draw (computed
    exactly: hypergeometric), ties counted as broken at random, both directions averaged.
    Chance is k / gallery.

    Args:
        similarity: [sample, sample]; row i and column i are partners.
        k: from 1.
        gallery: rows in the gallery, from 2, the partner included; all when there are fewer.
        within: [sample] labels; the gallery is then drawn from the same label only.

    Returns:
        In [0, 1].

    Raises:
        ShapeError: if similarity is not square, or the labels are not one per row.
        DegenerateError: if there are fewer than two rows (in a label), or NaN or infinity.
        DefinitionError: if k or the gallery is too small.
    """
    return float(recall_diagonal(similarity, k=k, gallery=gallery, within=within).mean())


def recall_diagonal(
    similarity: Square, *, k: int, gallery: int, within: NDArray[np.generic] | None = None
) -> NDArray[np.float64]:
    """The expected recall of every row alone, [sample], both directions averaged."""
    masked, sizes = _mask(similarity, within)
    earned = np.zeros(len(masked))
    for table in (masked, masked.T):
        own = table.diagonal()[:, None]
        above = (table > own).sum(axis=1)
        equal = (table == own).sum(axis=1) - 1
        earned += _expected(above, equal, sizes, k=k, gallery=gallery)
    return earned / 2


def recall_credit(
    similarity: Square, *, k: int, gallery: int, within: NDArray[np.generic] | None = None
) -> Square:
    """Credits [sample, sample] of `recall_at_k`; -inf never enters: other labels earn 0."""
    masked, sizes = _mask(similarity, within)
    credit = np.zeros_like(masked)
    for table, turn in ((masked, False), (masked.T, True)):
        ordered = np.sort(table, axis=1)
        count = table.shape[1]
        above, equal = np.empty(table.shape, np.int64), np.empty(table.shape, np.int64)
        for i, (row, values) in enumerate(zip(ordered, table, strict=True)):
            right = np.searchsorted(row, values, side="right")
            above[i] = count - right
            equal[i] = right - np.searchsorted(row, values, side="left") - 1
        finite = np.isfinite(table)
        earned = _expected(
            np.where(finite, above, 0), np.where(finite, equal, 0), sizes[:, None], k=k,
            gallery=gallery,
        )  # fmt: skip
        earned = np.where(finite, earned, 0.0)
        credit += earned.T if turn else earned
    return credit / 2


def infonce_credit(similarity: Square, *, temperature: float) -> Square:
    """Credits in nats of the bidirectional InfoNCE bound with all rows as the batch.

    Their diagonal's mean is log(sample) minus the loss, a lower bound on mutual information.
    """
    logits = _square(similarity) / temperature
    rows = logsumexp(logits, axis=1, keepdims=True)
    columns = logsumexp(logits, axis=0, keepdims=True)
    return logits - 0.5 * (rows + columns) + np.log(len(logits))


def task_ceiling(labels: NDArray[np.generic], *, k: int = 1, gallery: int = 64) -> float:
    """Recall@k of somebody who knows the label of every row perfectly and nothing else."""
    same = (labels[:, None] == labels[None, :]).astype(np.float64)
    return recall_at_k(same, k=k, gallery=gallery)


def _square(similarity: Square) -> Square:
    if similarity.ndim != 2 or similarity.shape[0] != similarity.shape[1]:
        raise ShapeError(f"similarity has shape {similarity.shape}; needed [sample, sample]")
    if not np.isfinite(similarity).all():
        raise DegenerateError(
            "similarity holds NaN or infinity; needed numbers, so leave out the rows it comes from"
        )
    return similarity


def _mask(
    similarity: Square, within: NDArray[np.generic] | None
) -> tuple[Square, NDArray[np.int64]]:
    """Similarities with -inf between labels, and how many rows share each row's label."""
    count = len(_square(similarity))
    if within is None:
        sizes = np.full(count, count)
        masked = similarity
    elif within.shape != (count,):
        raise ShapeError(
            f"within has shape {within.shape} but similarity {similarity.shape}; needed one label"
            " per row"
        )
    else:
        same = within[:, None] == within[None, :]
        sizes = same.sum(axis=1)
        masked = np.where(same, similarity, -np.inf)
    if count == 0 or int(sizes.min()) < 2:
        raise DegenerateError(
            f"a row has no other row to be confused with ({count} rows); give every group at"
            " least 2 episodes"
        )
    return masked, sizes


def _expected(
    above: NDArray[np.int64],
    equal: NDArray[np.int64],
    sizes: NDArray[np.int64],
    *,
    k: int,
    gallery: int,
) -> NDArray[np.float64]:
    """Chance to be among the first k given how many rows score above and equal to the partner."""
    if k < 1 or gallery < 2:
        raise DefinitionError(
            f"Recall@{k} in a gallery of {gallery}; needed k from 1 and a gallery of 2 or more"
        )
    above, equal, sizes = np.broadcast_arrays(above, equal, sizes)
    earned = np.empty(above.shape)
    for size in np.unique(sizes):
        rows = sizes == size
        cumulative = _cumulative(int(size), k, min(gallery, int(size)))
        low, width = above[rows], equal[rows] + 1
        # A tie of t others leaves the partner in any of t + 1 places alike.
        earned[rows] = (cumulative[low + width] - cumulative[low]) / width
    return earned


@lru_cache(maxsize=512)
def _cumulative(size: int, k: int, gallery: int) -> NDArray[np.float64]:
    """Running sum over m of P(at most k - 1 of the m better rows are in the gallery)."""
    better = np.arange(size)
    chance = hypergeom.cdf(k - 1, size - 1, better, gallery - 1)
    return np.concatenate([[0.0], np.cumsum(chance)])

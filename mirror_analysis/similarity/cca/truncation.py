"""What leaving samples out does to the leading principal components that are kept."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from mirror_analysis.similarity.cca.bases import Basis, count_of_share, whole_basis
from mirror_analysis.similarity.cca.nuclear import alignment, fold_sums, nuclear_norms
from mirror_analysis.similarity.measures import Layer


@dataclass(frozen=True, eq=False)
class Truncated:
    """All components of a layer and how many are kept, of all samples and without each fold."""

    whole: Basis
    count: int
    counts: list[int]

    @property
    def kept(self) -> Tensor:
        """[sample, component] scores of those kept."""
        return self.whole.scores[:, : self.count]

    def turning(self, other: Tensor, isometry: Tensor) -> Tensor:
        """What a sample's weight does to the sum of correlations by turning those kept, [sample].

        A sample mixes kept component a and dropped component b by its product of scores over
        the gap between their variances; damped where the gap is within its sampling error.

        Args:
            other: [sample, component] scores kept of the other side.
            isometry: [component, other component] derivative of the sum.
        """
        scores, power = self.whole.scores, self.whole.scales.square()
        above, below = power[: self.count, None], power[self.count :]
        gap = above - below
        weight = below * gap / (gap.square() + 4 * above * below / len(scores))
        dropped = scores[:, self.count :]
        pull = isometry @ (dropped.T @ other).T
        return ((self.kept @ (weight * pull)) * dropped).sum(dim=1)


def truncate(
    layer: Layer, count: int, share: float | None, folds: Int64[Tensor, " sample"]
) -> Truncated:
    """Finds how many components would be kept without each fold, their axes as they are.

    Args:
        layer: whose components.
        count: how many are kept of all samples.
        share: of the variance, in (0, 1]; None for a fixed count.
        folds: [sample] fold numbers counted from 0.
    """
    whole, number = whole_basis(layer), int(folds.max()) + 1
    if share is None:
        return Truncated(whole, count, [count] * number)
    power = (whole.scores * whole.scales).square()
    inside = torch.zeros(number, power.shape[1], dtype=power.dtype, device=power.device)
    rest = power.sum(dim=0) - inside.index_add_(0, folds, power)
    return Truncated(whole, count, [count_of_share(left, share) for left in rest])


def replicates(
    x: Truncated, y: Truncated, folds: Int64[Tensor, " sample"]
) -> Float64[Tensor, " fold"]:
    """The mean canonical correlation of those kept without each fold, to first order.

    Args:
        x: components of one side.
        y: components of the other.
        folds: [sample] fold numbers counted from 0.
    """
    found = alignment(x.kept, y.kept)
    influence = found.influence + x.turning(y.kept, found.isometry)
    influence = influence + y.turning(x.kept, found.isometry.T)
    parts, left = fold_sums(influence, folds)
    pairs = list(zip(x.counts, y.counts, strict=True))
    most = max(x.counts), max(y.counts)
    product = x.whole.scores[:, : most[0]].T @ y.whole.scores[:, : most[1]]
    means = {(p, q): nuclear_norms(product[None, :p, :q]) / min(p, q) for p, q in set(pairs)}
    values = torch.cat([means[pair] for pair in pairs])
    return values - len(folds) * parts / left / min(x.count, y.count)

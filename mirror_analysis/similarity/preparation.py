"""What every measure does to its input first: checks and centring."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from mirror_analysis.errors import DegenerateError

ROUNDING = {torch.float32: 1e-7, torch.float64: 1e-13}
"""A column whose spread is this small a part of its size is constant up to rounding."""


def need_rows(count: int, needed: int, *, measure: str) -> None:
    """Refuses fewer rows than an estimator is defined for.

    Raises:
        DegenerateError: naming both numbers.
    """
    if count < needed:
        raise DegenerateError(f"{measure} got {count} samples; needed at least {needed}")


def residual(
    values: Float[Tensor, "sample feature"], groups: Tensor | None = None
) -> Float[Tensor, "sample feature"]:
    """Values less the mean of every column, over all rows or over the rows of each group.

    Means are taken in float64 whatever the type, so an offset common to all samples leaves
    nothing behind but its own rounding. What is left of a constant column is set to exactly 0.

    Args:
        values: [sample, feature] float32 or float64.
        groups: [sample] group numbers counted from 0; None for one group.

    Returns:
        [sample, feature] in the type of the values.
    """
    if groups is None:
        mean = values.mean(dim=0, dtype=torch.float64)
    else:
        count = torch.bincount(groups).double().clamp(min=1)
        totals = torch.zeros(len(count), values.shape[1], dtype=torch.float64, device=values.device)
        totals.index_add_(0, groups, values.double())
        mean = (totals / count[:, None])[groups]
    # In two steps a float32 subtraction loses nothing of the float64 mean.
    coarse = mean.to(values.dtype)
    left = (values - coarse).sub_((mean - coarse).to(values.dtype))
    spread = left.abs().amax(dim=0)
    size = torch.maximum(spread, coarse.abs() if groups is None else coarse.abs().amax(dim=0))
    constant = spread <= ROUNDING[values.dtype] * size
    if bool(constant.any()):
        left[:, constant] = 0
    return left


def need_variation(centred: Float[Tensor, "sample feature"], *, name: str) -> None:
    """Refuses a representation that is the same for all samples.

    Args:
        centred: what `residual` returned.
        name: what to call it in the error.

    Raises:
        DegenerateError: if nothing varies.
    """
    if float(centred.max()) == 0 == float(centred.min()):
        raise DegenerateError(
            f"{name} is constant over its {len(centred)} samples (inside every group, where there"
            " are groups); choose a layer that responds to the input"
        )

"""What every measure does to its input first: checks, float64, centring."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Float64
from numpy.typing import NDArray
from torch import Tensor

from mirror_analysis.errors import DegenerateError, DeviceError, ShapeError

Array: TypeAlias = NDArray[Any] | Tensor

# A column whose spread is this small a part of its size is constant up to rounding.
_ROUNDING = 1e-13


def as_matrix(values: Array, *, name: str = "x") -> Float64[Tensor, "sample feature"]:
    """Any real array as float64 on the device it is on.

    Args:
        values: [sample, feature], numpy or torch, any real type.
        name: what to call it in an error.

    Raises:
        ShapeError: if it has not two axes.
        DegenerateError: if a value is NaN or infinite.
    """
    if isinstance(values, Tensor):
        matrix = values.detach().double()
    else:
        matrix = torch.from_numpy(np.array(values, dtype=np.float64))
    if matrix.ndim != 2 or matrix.shape[1] == 0:
        raise ShapeError(
            f"{name} has shape {tuple(matrix.shape)}; needed [sample, feature], so pool the rest"
        )
    bad = int((~torch.isfinite(matrix)).any(dim=1).sum())
    if bad:
        raise DegenerateError(
            f"{name} holds NaN or infinity in {bad} of {len(matrix)} rows;"
            " check the model and its input normalisation"
        )
    return matrix


def as_pair(
    x: Array, y: Array
) -> tuple[Float64[Tensor, "sample x_feature"], Float64[Tensor, "sample y_feature"]]:
    """Two representations of the same samples as float64.

    Raises:
        ShapeError: if one has not two axes, or the sample counts differ.
        DegenerateError: if a value is NaN or infinite.
        DeviceError: if they are on two devices.
    """
    a, b = as_matrix(x, name="x"), as_matrix(y, name="y")
    if len(a) != len(b):
        raise ShapeError(f"x has {len(a)} samples but y has {len(b)}; pair() them first")
    if a.device != b.device:
        raise DeviceError(f"x is on {a.device} but y on {b.device}; move one to the other's device")
    return a, b


def need_rows(count: int, needed: int, *, measure: str) -> None:
    """Refuses fewer rows than an estimator is defined for.

    Raises:
        DegenerateError: naming both numbers.
    """
    if count < needed:
        raise DegenerateError(f"{measure} got {count} samples; needed at least {needed}")


def residual(
    values: Float64[Tensor, "sample feature"], groups: Tensor | None = None
) -> Float64[Tensor, "sample feature"]:
    """Values less the mean of every column, over all rows or over the rows of each group.

    What is left of a constant column by rounding is set to exactly 0.

    Args:
        values: [sample, feature].
        groups: [sample] group numbers counted from 0; None for one group.
    """
    if groups is None:
        left = values - values.mean(dim=0, keepdim=True)
    else:
        count = torch.bincount(groups).to(values.dtype).clamp(min=1)
        totals = torch.zeros(len(count), values.shape[1], dtype=values.dtype, device=values.device)
        totals.index_add_(0, groups, values)
        left = values - (totals / count[:, None])[groups]
    rounding = _ROUNDING * values.abs().amax(dim=0, keepdim=True)
    return torch.where(left.abs() <= rounding, torch.zeros_like(left), left)


def need_variation(centred: Float64[Tensor, "sample feature"], *, name: str) -> None:
    """Refuses a representation that is the same for all samples.

    Args:
        centred: what `residual` returned.
        name: what to call it in the error.

    Raises:
        DegenerateError: if nothing varies.
    """
    if not bool(centred.any()):
        raise DegenerateError(
            f"{name} is constant over its {len(centred)} samples (inside every group, where there"
            " are groups); choose a layer that responds to the input"
        )

"""What every measure does to its input first: checks, type, centring."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Float64
from numpy.typing import NDArray
from torch import Tensor

from mirror_analysis.errors import DegenerateError, DeviceError, ShapeError

Array: TypeAlias = NDArray[Any] | Tensor

# A column whose spread is this small a part of its size is constant up to rounding.
_ROUNDING = {torch.float32: 1e-7, torch.float64: 1e-13}


def as_matrix(
    values: Array, *, name: str = "x", dtype: torch.dtype | None = None
) -> Float[Tensor, "sample feature"]:
    """Any real array as a floating tensor on the device it is on.

    Args:
        values: [sample, feature], numpy or torch, any real type.
        name: what to call it in an error.
        dtype: the type to give; None keeps float32 and float64, makes shorter floats float32
            and everything else float64.

    Raises:
        ShapeError: if it has not two axes.
        DegenerateError: if a value is NaN or infinite, or too large for the type.
    """
    if isinstance(values, Tensor):
        matrix = values.detach()
    else:
        array = np.asarray(values)
        if array.dtype.kind not in "buif":
            raise ShapeError(f"{name} is of type {array.dtype}; needed real numbers")
        known = array.dtype.kind in "bi" or array.dtype.name in ("float16", "float32", "float64")
        odd = any(step < 0 or step % array.itemsize for step in array.strides)
        if odd or not array.flags.writeable or not known or not array.dtype.isnative:
            array = array.astype(
                np.float64 if not known else array.dtype.newbyteorder("="), order="C"
            )
        matrix = torch.from_numpy(array)
    if matrix.is_complex():
        raise ShapeError(f"{name} is of type {matrix.dtype}; needed real numbers")
    if dtype is None:
        short = matrix.dtype in (torch.float16, torch.bfloat16, torch.float32)
        dtype = torch.float32 if short else torch.float64
    matrix = matrix.to(dtype)
    if matrix.ndim != 2 or matrix.shape[1] == 0:
        raise ShapeError(
            f"{name} has shape {tuple(matrix.shape)}; needed [sample, feature], so pool the rest"
        )
    # NaN and infinity both show in the extremes.
    if len(matrix) and not bool(torch.isfinite(torch.stack(torch.aminmax(matrix))).all()):
        bad = int((~torch.isfinite(matrix)).any(dim=1).sum())
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
    a, b = (as_matrix(v, name=n, dtype=torch.float64) for v, n in ((x, "x"), (y, "y")))
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
    constant = spread <= _ROUNDING[values.dtype] * size
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

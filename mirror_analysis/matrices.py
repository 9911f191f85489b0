"""Any real array as a checked matrix of samples and features."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from mirror_analysis.errors import DegenerateError, DeviceError, ShapeError

Array: TypeAlias = NDArray[Any] | Tensor


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
    x: Array, y: Array, *, dtype: torch.dtype | None = torch.float64
) -> tuple[Float[Tensor, "sample x_feature"], Float[Tensor, "sample y_feature"]]:
    """Two representations of the same samples.

    Args:
        x: [sample, x_feature].
        y: [sample, y_feature].
        dtype: as of `as_matrix`.

    Raises:
        ShapeError: if one has not two axes, or the sample counts differ.
        DegenerateError: if a value is NaN or infinite.
        DeviceError: if they are on two devices.
    """
    a, b = (as_matrix(v, name=n, dtype=dtype) for v, n in ((x, "x"), (y, "y")))
    if len(a) != len(b):
        raise ShapeError(f"x has {len(a)} samples but y has {len(b)}; pair() them first")
    if a.device != b.device:
        raise DeviceError(f"x is on {a.device} but y on {b.device}; move one to the other's device")
    return a, b

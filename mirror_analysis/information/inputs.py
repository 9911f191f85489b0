"""What every estimator of information does to its input first: checks and type."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Float64
from numpy.typing import NDArray
from torch import Tensor

from mirror_analysis.errors import DegenerateError, DeviceError, ShapeError

Array: TypeAlias = NDArray[Any] | Tensor


def paired_rows(
    x: Array, y: Array
) -> tuple[Float64[Tensor, "sample x_feature"], Float64[Tensor, "sample y_feature"]]:
    """Two representations of the same samples as float64, each on the device it is on.

    Raises:
        ShapeError: if one has not two axes or holds no real numbers, or sample counts differ.
        DegenerateError: if a value is NaN or infinite, or a representation is constant.
        DeviceError: if they are on two devices.
    """
    a, b = _rows(x, "x"), _rows(y, "y")
    if len(a) != len(b):
        raise ShapeError(f"x has {len(a)} samples but y has {len(b)}; pair() them first")
    if a.device != b.device:
        raise DeviceError(f"x is on {a.device} but y on {b.device}; move one to the other's device")
    return a, b


def scaled(
    values: Float64[Tensor, "sample feature"],
) -> Float64[Tensor, "sample kept"]:
    """Columns with mean 0 and variance 1 over their rows; constant columns are left out."""
    centred = values - values.mean(dim=0)
    spread = centred.square().mean(dim=0).sqrt()
    # What is left of a constant column is the rounding of its mean.
    kept = spread > 1e-12 * values.abs().amax(dim=0)
    return centred[:, kept] / spread[kept]


def _rows(values: Array, name: str) -> Tensor:
    if isinstance(values, Tensor):
        matrix = values.detach()
    else:
        array = np.asarray(values)
        if array.dtype.kind not in "buif":
            raise ShapeError(f"{name} is of type {array.dtype}; needed real numbers")
        matrix = torch.from_numpy(np.array(array, dtype=np.float64))
    if matrix.is_complex():
        raise ShapeError(f"{name} is of type {matrix.dtype}; needed real numbers")
    matrix = matrix.double()
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise ShapeError(
            f"{name} has shape {tuple(matrix.shape)}; needed [sample, feature], so pool the rest"
        )
    bad = int((~torch.isfinite(matrix)).any(dim=1).sum())
    if bad:
        raise DegenerateError(
            f"{name} holds NaN or infinity in {bad} of {len(matrix)} rows;"
            " check the model and its input normalisation"
        )
    if scaled(matrix).shape[1] == 0:
        raise DegenerateError(
            f"{name} is constant over its {len(matrix)} samples;"
            " choose a layer that responds to the input"
        )
    return matrix

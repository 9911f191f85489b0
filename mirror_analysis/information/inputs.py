"""What every estimator of information does to its input first: checks and type."""

from __future__ import annotations

from jaxtyping import Float64
from torch import Tensor

from mirror_analysis.errors import DegenerateError, ShapeError
from mirror_analysis.matrices import Array, as_pair


def paired_rows(
    x: Array, y: Array
) -> tuple[Float64[Tensor, "sample x_feature"], Float64[Tensor, "sample y_feature"]]:
    """Two representations of the same samples as float64, each on the device it is on.

    Raises:
        ShapeError: if one has not two axes or holds no real numbers, or sample counts differ.
        DegenerateError: if a value is NaN or infinite, or a representation is constant.
        DeviceError: if they are on two devices.
    """
    a, b = as_pair(x, y)
    for name, matrix in (("x", a), ("y", b)):
        if not len(matrix):
            raise ShapeError(
                f"{name} has shape {tuple(matrix.shape)}; needed [sample, feature], so pool the"
                " rest"
            )
        if scaled(matrix).shape[1] == 0:
            raise DegenerateError(
                f"{name} is constant over its {len(matrix)} samples;"
                " choose a layer that responds to the input"
            )
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

"""Features brought to a common size before a fit, which is folded into the fitted maps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from mirror_analysis.errors import DegenerateError, ShapeError

_ROWS = 256
_STILL = 1e-12  # a spread below this share of the mean is rounding of the mean


@dataclass(frozen=True, eq=False)
class Side:
    """One layer, standardised by the rows that are fitted on.

    Attributes:
        fit: rows to fit on, each feature of mean 0 and standard deviation 1 or less.
        validation: rows to make choices on, by the same means and deviations.
        mean: of the features; scale: what they were divided by.
    """

    fit: Float[Tensor, "sample feature"]
    validation: Float[Tensor, "other feature"]
    mean: Float[Tensor, " feature"]
    scale: Float[Tensor, " feature"]

    def fold(
        self, weight: Float[Tensor, "feature width"], bias: Float[Tensor, " width"]
    ) -> tuple[Float[Tensor, "feature width"], Float[Tensor, " width"]]:
        """The same map for features that are not standardised, in float32."""
        raw = (weight.double() / self.scale[:, None]).float()
        # From the rounded weights, so that their rounding does not move all rows together.
        shift = self.mean @ raw.double()
        return raw.contiguous(), (bias.double() - shift).float().contiguous()

    def to(self, device: torch.device) -> Side:
        """The same with its rows on a device; what folds stays."""
        return replace(self, fit=self.fit.to(device), validation=self.validation.to(device))


def standardise(fit: NDArray[np.floating], validation: NDArray[np.floating], *, name: str) -> Side:
    """Standardises one layer by the rows that are fitted on.

    Args:
        fit: [sample, feature] rows to fit on.
        validation: [other sample, feature] rows to make choices on.
        name: of the layer, for the words of an error.

    Raises:
        ShapeError: if either is not a matrix, or they have different features.
        DegenerateError: if the layer is constant or not finite.
    """
    if fit.ndim != 2 or validation.ndim != 2 or fit.shape[1] != validation.shape[1]:
        raise ShapeError(
            f"{name} has shape {fit.shape} and its validation {validation.shape};"
            " needed [sample, feature] with equal features"
        )
    values, held = (_floating(part) for part in (fit, validation))
    mean = values.sum(dim=0, dtype=torch.float64) / len(values)
    centred = torch.empty_like(values, dtype=torch.float32)
    squares = torch.zeros_like(mean)
    for rows in _blocks(len(values)):
        block = values[rows] - mean
        squares += block.square().sum(dim=0)
        centred[rows] = block
    scale = (squares / len(values)).sqrt()
    scale = torch.where(scale <= _STILL * mean.abs(), 0.0, scale)
    finite = bool(torch.isfinite(scale).all() and torch.isfinite(held).all())
    if not finite or float(scale.max()) == 0.0:
        raise DegenerateError(
            f"{name} is constant over its {len(fit)} samples or not finite; choose another layer"
        )
    # A nearly dead unit must not be blown up to the size of the others.
    scale = scale.clamp_min(0.01 * float(scale.mean()))
    return Side(centred.div_(scale.float()), ((held - mean) / scale).float(), mean, scale)


def _floating(values: NDArray[np.floating]) -> Tensor:
    """The values as torch knows them, copied only where it does not."""
    return torch.as_tensor(
        values if values.dtype in (np.float32, np.float64) else np.float32(values)
    )


def _blocks(count: int) -> Iterator[slice]:
    """Rows few enough that their float64 copies stay in a cache."""
    for start in range(0, count, _ROWS):
        yield slice(start, start + _ROWS)

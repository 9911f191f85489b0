"""From the units of a robot to the numbers a policy is trained on, and back."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from mirror_analysis.models.lerobot.folder import Mode

# Mode -> the two statistics it takes.
NEEDED: dict[Mode, tuple[str, ...]] = {
    "IDENTITY": (),
    "MEAN_STD": ("mean", "std"),
    "MIN_MAX": ("min", "max"),
    "QUANTILES": ("q01", "q99"),
    "QUANTILE10": ("q10", "q90"),
}


@final
class Scaling(nn.Module):
    """How one feature is normalised; its statistics are buffers, no parameters.

    MEAN_STD is (x - mean) / (std + epsilon). The others map the lower statistic to -1 and the
    upper one to 1. IDENTITY leaves everything as it is.

    Args:
        mode: which of them.
        low: mean or lower statistic, of a shape that broadcasts with the feature.
        high: standard deviation or upper statistic.
        epsilon: keeps a feature without spread from a division by 0.
        added: whether epsilon is added to every range, as lerobot up to 0.3 did, or takes the
            place of a range that is 0.

    Example:
        >>> Scaling("MIN_MAX", torch.tensor([0.0]), torch.tensor([10.0]))(torch.tensor([7.5]))
        tensor([0.5000])
    """

    low: Tensor
    high: Tensor

    def __init__(
        self,
        mode: Mode,
        low: Tensor | None = None,
        high: Tensor | None = None,
        *,
        epsilon: float = 1e-8,
        added: bool = False,
    ) -> None:
        super().__init__()
        self.mode, self.epsilon, self.added = mode, epsilon, added
        self.register_buffer("low", torch.zeros(1) if low is None else low)
        self.register_buffer("high", torch.ones(1) if high is None else high)

    def forward(self, x: Tensor) -> Tensor:
        """What the network takes."""
        if self.mode == "IDENTITY":
            return x
        if self.mode == "MEAN_STD":
            return (x - self.low) / (self.high + self.epsilon)
        return 2 * (x - self.low) / self._range() - 1

    def inverse(self, x: Tensor) -> Tensor:
        """What the network gives, in the units of the robot."""
        if self.mode == "IDENTITY":
            return x
        if self.mode == "MEAN_STD":
            return x * self.high + self.low
        return (x + 1) / 2 * self._range(inverse=True) + self.low

    def _range(self, *, inverse: bool = False) -> Tensor:
        found = self.high - self.low
        if self.added:
            return found if inverse else found + self.epsilon
        return torch.where(found == 0, torch.full_like(found, self.epsilon), found)

"""The unit in which actions are learned, from the episodes that are trained on and no others."""

from __future__ import annotations

from typing import final

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from mirror_analysis.episodes.episode import Episodes
from mirror_analysis.errors import DegenerateError, StreamError

_CONSTANT = 1e-6  # a spread below this share of the largest value is rounding


@final
class ActionScale(nn.Module):
    """(action - mean) / scale, number by number; both are buffers and go with the weights.

    A number that is the same in all episodes has scale 1, so that a deviation from it counts.

    Args:
        actions: [sample, action] of the episodes that are trained on.

    Example:
        >>> scale = ActionScale(np.array([[0.0], [2.0]], dtype=np.float32))
        >>> scale(torch.tensor([[3.0]]))
        tensor([[2.]])
    """

    mean: Tensor
    scale: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, actions: NDArray[np.float32]) -> None:
        super().__init__()
        wide = actions.astype(np.float64)
        spread = wide.std(axis=0)
        constant = spread <= _CONSTANT * np.maximum(1.0, np.abs(wide).max(axis=0))
        spread[constant] = 1.0
        for name, values in (
            ("mean", wide.mean(axis=0)),
            ("scale", spread),
            ("low", wide.min(axis=0)),
            ("high", wide.max(axis=0)),
        ):
            self.register_buffer(name, torch.from_numpy(values.astype(np.float32)))

    @property
    def width(self) -> int:
        """Numbers in an action."""
        return len(self.mean)

    def forward(self, actions: Float[Tensor, "*batch action"]) -> Float[Tensor, "*batch action"]:
        """In the unit that is learned: mean 0 and standard deviation 1 over the episodes."""
        return (actions - self.mean) / self.scale

    def inverse(self, scaled: Float[Tensor, "*batch action"]) -> Float[Tensor, "*batch action"]:
        """In the unit of the episodes again."""
        return scaled * self.scale + self.mean

    def within(self, actions: Float[Tensor, "*batch action"]) -> Float[Tensor, "*batch action"]:
        """Cut to what was done in the episodes."""
        return torch.minimum(torch.maximum(actions, self.low), self.high)


def actions_of(episodes: Episodes, stream: str) -> NDArray[np.float32]:
    """Every action of episodes, one after the other.

    Args:
        episodes: with actions of one width.
        stream: such as "actions" or "array:expert_actions".

    Returns:
        [sample, action].

    Raises:
        StreamError: if an episode has no such stream of vectors, or they differ in width.
        DegenerateError: if there are no episodes.
    """
    if not len(episodes):
        raise DegenerateError("no episodes to take actions of; needed at least one")
    shape = episodes.streams.get(stream, ())
    if len(shape) != 1:
        there = ", ".join(k for k, v in episodes.streams.items() if len(v) == 1) or "none"
        raise StreamError(
            f"not every episode has the vectors '{stream}' with one width (vectors of all:"
            f" {there}); name another stream, or give episodes of one robot"
        )
    return np.concatenate([episode.stream(stream) for episode in episodes]).astype(np.float32)

"""What every way of cloning behaviour shares: features in, actions of the episodes as targets."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mirror_analysis.alignment.joint.objectives.objective import Head, Shown
from mirror_analysis.alignment.joint.objectives.scaling import ActionScale, actions_of
from mirror_analysis.episodes.episode import Episodes
from mirror_analysis.errors import DefinitionError, StreamError


@dataclass(frozen=True, kw_only=True)
class Target:
    """Which actions are cloned.

    Attributes:
        stream: of the episodes, such as "actions" or "array:expert_actions".
        horizon: actions that are predicted at once, that of the frame itself and those of the
            stored frames after it; steps behind the end of an episode do not count.
        valid: a stream of one number per frame; where it is 0 the action does not count. None
            counts all.

    Raises:
        DefinitionError: if the horizon is below 1.
    """

    stream: str = "actions"
    horizon: int = 1
    valid: str | None = None

    def __post_init__(self) -> None:
        if self.horizon < 1:
            raise DefinitionError(f"a horizon of {self.horizon} actions; needed 1 or more")


ACTIONS = Target()
"""What was done, one action at a time."""


class CloningHead(Head):
    """A head that predicts actions.

    Args:
        target: which actions.
        episodes: those that are trained on; the scale of the actions is theirs.
    """

    def __init__(self, target: Target, episodes: Episodes) -> None:
        super().__init__()
        self.target = target
        self.scale = ActionScale(actions_of(episodes, target.stream))
        if target.valid is not None and target.valid not in episodes.streams:
            raise StreamError(
                f"not every episode has '{target.valid}', which says where actions count (streams"
                f" of all: {', '.join(episodes.streams) or 'none'})"
            )

    @abstractmethod
    def act(
        self, features: Float[Tensor, "*batch feature"], generator: torch.Generator
    ) -> Float[Tensor, "*batch step action"]:
        """The actions from each moment on, in the unit of the episodes.

        Args:
            features: the layer at each moment.
            generator: for ways of cloning that draw their actions.
        """

    def targets(
        self, shown: Shown
    ) -> tuple[Float[Tensor, "episode place step action"], Bool[Tensor, "episode place step"]]:
        """Actions of the episodes in the unit that is learned, and which of them count."""
        places, steps = shown.live.places, self.target.horizon
        actions, there = shown.followed(self.target.stream, steps, places)
        if self.target.valid is not None:
            valid, _ = shown.followed(self.target.valid, steps, places)
            there = there & (valid != 0).all(dim=-1)
        return self.scale(actions), there


def mean_where(
    values: Float[Tensor, "episode place step *rest"], there: Bool[Tensor, "episode place step"]
) -> Float[Tensor, ""]:
    """Mean over what counts; 0 where nothing does."""
    per_step = values.flatten(3).mean(dim=-1) if values.ndim > 3 else values
    return (per_step * there).sum() / there.sum().clamp(min=1)

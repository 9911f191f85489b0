"""What a task of training is: a description, and the head it becomes for a layer and episodes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, final

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor, nn

from mirror_analysis.episodes.episode import Episode, Episodes
from mirror_analysis.errors import HookError, ShapeError, StreamError
from mirror_analysis.models.recording.live import Live

Source = Literal["layer", "output"]
"""What is trained: a head on a layer, or the model's own output."""


@final
@dataclass(frozen=True, eq=False)
class Shown:
    """A batch of episodes, what the model was shown of them, and what it gave.

    Attributes:
        live: what the layer and the model gave.
        episodes: the whole episodes.
        frames: [episode, frame] positions of the frames that were shown.
    """

    live: Live
    episodes: Sequence[Episode]
    frames: NDArray[np.int64]

    @property
    def device(self) -> torch.device:
        """Where the representation is."""
        return self.live.representation.device

    def labels(self, name: str) -> list[str]:
        """A label of every episode, such as its instruction, as a word."""
        return [label_of(episode, name) for episode in self.episodes]

    def moments(self) -> Float[Tensor, "episode place feature"]:
        """The layer at every place in time.

        Raises:
            HookError: if it has no axis of time.
        """
        if self.live.moments is None:
            raise HookError(
                "the layer gives one vector for a whole episode; cloning behaviour needs one for"
                " every frame, so train on a layer with an axis of time"
            )
        return self.live.moments

    def output(self) -> Tensor:
        """The model's own output.

        Raises:
            HookError: if it has none, or one that no gradient passes.
        """
        output = self.live.output
        if output is None or (torch.is_grad_enabled() and not output.requires_grad):
            what = "gives no output" if output is None else "chooses its output, without gradients"
            raise HookError(f"the model {what}; train on a layer, with source='layer'")
        return output

    def followed(
        self, stream: str, horizon: int, places: NDArray[np.int64]
    ) -> tuple[Float[Tensor, "episode place step number"], Bool[Tensor, "episode place step"]]:
        """The vectors of a stream from every place on, frame by stored frame.

        Args:
            stream: such as "actions" or "array:expert_actions".
            horizon: frames that are looked at, the one of the place among them.
            places: [place] which of the frames shown.

        Returns:
            The vectors, the last one repeated behind the end of an episode, and which of them are
            before it.
        """
        values, there = [], []
        for episode, shown in zip(self.episodes, self.frames, strict=True):
            wanted = shown[places][:, None] + np.arange(horizon)
            last = len(episode.steps) - 1
            values.append(episode.stream(stream)[np.minimum(wanted, last)].astype(np.float32))
            there.append(wanted <= last)
        found = torch.from_numpy(np.stack(values)).to(self.device)
        return found, torch.from_numpy(np.stack(there)).to(self.device)


class Head(nn.Module, ABC):
    """What a task adds to a model: layers of its own, and its loss."""

    @abstractmethod
    def forward(self, shown: Shown, generator: torch.Generator) -> Float[Tensor, ""]:
        """The loss of a batch.

        Args:
            shown: the batch.
            generator: what is left to chance is drawn from it.
        """


class Objective(ABC):
    """The description of a task."""

    @abstractmethod
    def head(self, width: int, episodes: Episodes, *, seed: int) -> Head:
        """Its head for a layer, with first weights.

        What it takes of the episodes, such as classes and the scale of actions, is kept in it.

        Args:
            width: numbers of the layer in a vector.
            episodes: those that are trained on, and no others.
            seed: of the first weights.

        Raises:
            DegenerateError: if there is nothing to learn in the episodes.
            StreamError: if they lack what the task needs.
        """


def label_of(episode: Episode, name: str) -> str:
    """A label of an episode as a word: its instruction, task, or another.

    Raises:
        StreamError: if it has none of that name.
    """
    value = getattr(episode, name) if name in ("instruction", "task", "success") else (
        episode.labels.get(name)
    )  # fmt: skip
    if value is None or value == "":
        there = ", ".join(("instruction", "task", "success", *sorted(episode.labels)))
        raise StreamError(f"episode {episode.id} has no label '{name}' (labels: {there})")
    return str(value)


def require_width(values: Tensor, width: int, what: str) -> Tensor:
    """Makes sure that the last axis has so many numbers.

    Raises:
        ShapeError: if it has others.
    """
    if values.shape[-1] != width:
        raise ShapeError(
            f"{what} has {values.shape[-1]} numbers where the actions of the episodes have {width};"
            " give episodes of the same robot, or train a layer with source='layer'"
        )
    return values

"""One side of joint training: a model with its own task, and the representation to be aligned."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor

from mirror_analysis.models.model import Model


class Step(NamedTuple):
    """What a learner gives for a batch of episodes, both with gradients.

    Attributes:
        loss: mean task loss over the batch, a scalar in the unit of the task.
        representation: [episode, feature] of the aligned layer.
    """

    loss: Tensor
    representation: Tensor


class Learner(torch.nn.Module, ABC):
    """A model in training on the episodes it was given.

    As a torch module its parameters are the model's weights and those of its own heads, so that
    an optimiser, a checkpoint and a device reach all of them.

    Attributes:
        name: unique among the learners that are trained together, such as "observation".
        episodes: ids of its episodes; rows are positions in it.
    """

    name: str
    episodes: tuple[str, ...]

    @property
    @abstractmethod
    def model(self) -> Model:
        """The model as it is now, in evaluation mode as soon as training is over."""

    @property
    @abstractmethod
    def width(self) -> int:
        """Features of the representation."""

    @abstractmethod
    def step(self, rows: Tensor, generator: torch.Generator) -> Step:
        """The loss and the representation of a batch.

        Args:
            rows: [batch] int64 positions in `episodes`, on the CPU.
            generator: of everything random but dropout, on the CPU.
        """

    @abstractmethod
    def untrained(self, seed: int) -> Learner:
        """The same learner with all weights drawn anew."""

"""What the two representations are pulled towards during joint training."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mirror_analysis.alignment.gathering import global_info_nce
from mirror_analysis.alignment.joint.config import JointConfig
from mirror_analysis.alignment.joint.learners import Learner
from mirror_analysis.errors import ShapeError, UnknownNameError

_NOISE = 128  # numbers in the fixed random vector of an episode


class Meeting(torch.nn.Module):
    """Two linear maps into one space, and how far paired rows are from meeting there."""

    def __init__(self, x_width: int, y_width: int, *, width: int, temperature: float) -> None:
        super().__init__()
        self.x = torch.nn.Linear(x_width, width)
        self.y = torch.nn.Linear(y_width, width)
        self._temperature = temperature

    def forward(self, x: Tensor, y: Tensor, positives: Tensor | None) -> Tensor:
        """Bidirectional InfoNCE in nats of the rows of all processes.

        Args:
            x: [batch, x_width] of this process.
            y: [batch, y_width].
            positives: [batch] labels; None for each row alone.
        """
        # In float32 whatever the networks ran in: the loss is a difference of large numbers.
        with torch.autocast(x.device.type, enabled=False):
            return global_info_nce(
                self.x(x.float()), self.y(y.float()),
                temperature=self._temperature, positives=positives,
            )  # fmt: skip


class Targets(torch.nn.Module):
    """The alignment loss of a batch, whatever the two models are aligned to.

    Args:
        observation: the learner that watches.
        execution: the learner that acts.
        groups: [episode] numbers that are equal where episodes belong together; None for each
            alone.
        config: settings.
    """

    noise: Tensor

    def __init__(
        self, observation: Learner, execution: Learner, groups: Tensor | None, *,
        config: JointConfig,
    ) -> None:  # fmt: skip
        super().__init__()
        self._config = config
        u, e, widths = observation.width, execution.width, {}
        if config.target in ("partner", "shuffled"):
            widths = {"partner": (u, e)}
        elif config.target == "untrained":
            widths = {"observation": (u, e), "execution": (u, e)}
            self.execution_twin = execution.untrained(config.seed + 20_001).requires_grad_(False)
            self.observation_twin = observation.untrained(config.seed + 10_001)
            self.observation_twin.requires_grad_(False)
        else:
            widths = {"observation": (u, _NOISE), "execution": (_NOISE, e)}
            vectors = torch.randn(len(observation.episodes), _NOISE)
            alone = config.target == "noise" or groups is None
            self.register_buffer("noise", vectors if alone else vectors[groups])
        self.meetings = torch.nn.ModuleDict(
            {
                name: Meeting(x, y, width=config.width, temperature=config.temperature)
                for name, (x, y) in widths.items()
            }
        )

    def train(self, mode: bool = True) -> Targets:
        """Twins are never in training mode: their statistics and dropout must not move."""
        super().train(mode)
        for name in ("observation_twin", "execution_twin"):
            if hasattr(self, name):
                getattr(self, name).eval()
        return self

    def forward(
        self, u: Tensor, e: Tensor, rows: Tensor, positives: Tensor | None,
        generators: Mapping[str, torch.Generator],
    ) -> Tensor:  # fmt: skip
        """InfoNCE in nats, the mean over the meetings.

        Args:
            u: [batch, feature] of the observation model; its gradient is already weighed.
            e: [batch, feature] of the execution model.
            rows: [batch] episodes.
            positives: [batch] labels of what belongs together; None for the episode alone.
            generators: "observation twin" and "execution twin", of the appearance twins see.
        """
        if self._config.target in ("partner", "shuffled"):
            return self.meetings["partner"](u, e, positives)
        if self._config.target == "untrained":
            with torch.no_grad():
                e_twin = self.execution_twin.step(rows, generators["execution twin"])
                u_twin = self.observation_twin.step(rows, generators["observation twin"])
            pairs = (u, e_twin.representation), (u_twin.representation, e)
        else:
            noise = self.noise[rows.to(u.device)]
            positives = None if self._config.target == "noise" else positives
            pairs = (u, noise), (noise, e)
        losses = [
            meeting(x, y, positives)
            for meeting, (x, y) in zip(self.meetings.values(), pairs, strict=True)
        ]
        return torch.stack(losses).mean()


def pair_labels(
    labels: Mapping[str, NDArray[np.generic]], *, config: JointConfig, episodes: int
) -> Tensor | None:
    """[episode] numbers that are equal where two episodes belong together; None for each alone.

    Raises:
        UnknownNameError: if there is no such label.
        ShapeError: if there is not one label per episode.
    """
    if config.pairing == "episode":
        return None
    if config.pairing not in labels:
        raise UnknownNameError("label to pair by", config.pairing, labels)
    values = np.asarray(labels[config.pairing])
    if values.shape != (episodes,):
        raise ShapeError(
            f"label '{config.pairing}' has shape {list(values.shape)}; needed one for each of the"
            f" {episodes} episodes"
        )
    return torch.from_numpy(np.unique(values, return_inverse=True)[1].astype(np.int64))


def partners(episodes: int, *, config: JointConfig) -> Tensor:
    """[episode] which episode the execution model sees beside each: itself, but for "shuffled".

    A shuffled pairing is a single random cycle through all episodes, so none is its own partner.
    """
    rows = torch.arange(episodes)
    if config.target != "shuffled":
        return rows
    order = torch.randperm(episodes, generator=torch.Generator().manual_seed(config.seed))
    rows[order] = order.roll(1)
    return rows

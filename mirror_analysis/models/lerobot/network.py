"""What the networks of LeRobot policies have in common: frames in, planned actions out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mirror_analysis.models.model import LayerInfo
from mirror_analysis.models.structure.discovery import Structure

VECTOR = "episode*time channel"
TOKENS = "episode*time token channel"
MAP = "episode*time channel height width"


class Network(nn.Module, ABC):
    """A policy without the units of its robot: normalised numbers in and out.

    Attributes:
        history: frames it looks at, the present one among them.
        executed: planned actions that are taken before it plans again.
        ensemble: weight of older plans in temporal ensembling; None for none.
    """

    history: int = 1
    executed: int
    ensemble: float | None = None

    @abstractmethod
    def forward(
        self,
        seen: Mapping[str, Tensor],
        past: Int[Tensor, "row history"],
        chance: Tensor | None,
    ) -> Float[Tensor, "row step action"]:
        """What to do from each moment on.

        Args:
            seen: LeRobot's name of a feature -> [frame, ...] normalised; each frame once.
            past: for each row the frames it looks at, the present one last.
            chance: [row, ...] random numbers that `chance` of each row gave.
        """

    def chance(self, seed: int) -> Tensor | None:
        """The random numbers that one row takes; None where nothing is left to chance."""
        return None

    @abstractmethod
    def structure(self, *, calls: str) -> Structure:
        """Its layers; `calls` for those that run several times."""


def listed(entries: Iterable[tuple[LayerInfo, nn.Module]]) -> Structure:
    """Layers and their modules, as a structure."""
    found = list(entries)
    return Structure(
        tuple(info for info, _ in found), {info.name: module for info, module in found}
    )


def generator(seed: int) -> torch.Generator:
    """A source of random numbers of its own, on the CPU so that every device sees the same."""
    return torch.Generator().manual_seed(seed)

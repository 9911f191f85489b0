"""Policies that act from one vector of the state alone: the many multilayer perceptrons."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mirror_analysis.models.model import EpisodeLike, ExecutionModel, Input, LayerInfo


class VectorPolicy(ExecutionModel):
    """A stateless policy from the state vector to the action.

    Args:
        module: takes [row, state] float32 and gives [row, action]; in evaluation mode.
        name: what to call it.
        need: the stream it reads, with its width.
        taps: layer name -> module that gives [row, channel], in forward order.
        widths: layer name -> channels.
        rebuild: a fresh module of this architecture and its taps, for untrained twins; what is
            no weight (normalisation of the input) has to be carried over.
        limits: (lowest, highest) [action] that an action is clipped to; None for not.
        facts: what its files say of it.
        settings: whatever else decides its features.
    """

    framewise = True

    def __init__(
        self,
        module: nn.Module,
        *,
        name: str,
        need: Input,
        taps: Mapping[str, nn.Module],
        widths: Mapping[str, int],
        rebuild: Callable[[], tuple[nn.Module, Mapping[str, nn.Module]]],
        limits: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None,
        facts: Mapping[str, str] | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.module = module
        self.needs = (need,)
        self.limits = limits
        self._taps, self._widths, self._rebuild = taps, widths, rebuild
        self.facts, self.settings = facts or {}, settings or {}

    def layers(self) -> list[LayerInfo]:
        """The layers in forward order, the action last."""
        return [
            LayerInfo(name, width, "episode*time channel", type(self._taps[name]).__name__)
            for name, width in self._widths.items()
        ]

    def taps(self) -> Mapping[str, nn.Module]:
        """Layer name -> module."""
        return self._taps

    def forward_batch(self, episodes: Sequence[EpisodeLike]) -> Tensor:
        """Actions [episode, time, action]."""
        states = np.stack([self._rows(episode) for episode in episodes])
        x = torch.from_numpy(states.astype(np.float32)).to(self.device)
        actions: Tensor = self.module(x.flatten(0, 1))
        return actions.reshape(*x.shape[:2], -1)

    @torch.inference_mode()
    def act(self, now: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """The action of this moment, [environment, action]."""
        states = torch.from_numpy(np.asarray(now[self.needs[0].name], dtype=np.float32))
        action: NDArray[np.float32] = self.module(states.to(self.device)).cpu().numpy()
        return action if self.limits is None else np.clip(action, *self.limits)

    def untrained(self, seed: int) -> VectorPolicy:
        """The same architecture with weights drawn anew; it knows the scale of its input."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            module, taps = self._rebuild()
        return VectorPolicy(
            module.to(self.device).eval(),
            name=f"{self.name}-untrained{seed}",
            need=self.needs[0],
            taps=taps,
            widths=self._widths,
            rebuild=self._rebuild,
            limits=self.limits,
            facts=self.facts,
            settings=self.settings,
        )

    def _rows(self, episode: EpisodeLike) -> NDArray[Any]:
        """What it reads of an episode, [time, state]."""
        return episode.stream(self.needs[0].name)

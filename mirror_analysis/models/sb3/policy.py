"""An agent of Stable-Baselines3 as an execution model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mirror_analysis.errors import ShapeError
from mirror_analysis.models.model import EpisodeLike, ExecutionModel, Input, LayerInfo
from mirror_analysis.models.sb3.networks import AgentNetwork, widths
from mirror_analysis.models.sb3.spaces import Done, Seen

_GREY = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601


@final
@dataclass(frozen=True)
class Wire:
    """How one observation of the agent is made from a stream.

    Attributes:
        seen: the observation.
        need: the stream.
        max_steps: the time that is left, 1 - step / max_steps, is added as the last number; None
            for not.
        stack: pictures that the agent sees at once, the newest last; 0 for a vector.
        grey: whether its pictures are grey.
        scale: what a byte of a picture is multiplied by.
    """

    seen: Seen
    need: Input
    max_steps: int | None = None
    stack: int = 0
    grey: bool = False
    scale: float = 1.0

    def rows(self, values: NDArray[Any], steps: NDArray[np.int64]) -> NDArray[np.float32]:
        """[time, ...] of a stream to what the network takes, but for the stacking of pictures."""
        if self.stack:
            return self._pictures(values)
        if self.seen.choices:
            found = values.reshape(len(values)).round().astype(np.int64)
            if ((found < 0) | (found >= self.seen.choices)).any():
                raise ShapeError(
                    f"{self.need.name} holds choices outside 0 to {self.seen.choices - 1}; map"
                    " another stream to it"
                )
            marked = np.zeros((len(found), self.seen.choices), dtype=np.float32)
            marked[np.arange(len(found)), found] = 1.0
            return marked
        flat = values.reshape(len(values), -1).astype(np.float32)
        if self.max_steps is not None:
            left = 1.0 - steps.astype(np.float64) / self.max_steps
            flat = np.concatenate([flat, left[:, None].astype(np.float32)], axis=1)
        return flat

    def stacked(self, pictures: NDArray[np.float32], before: int = 0) -> NDArray[np.float32]:
        """[time, channel, ...] with the pictures before each one; black before the first.

        Args:
            pictures: of one episode, in order.
            before: how many of them are only there to be before the rest.
        """
        if self.stack < 2:
            return pictures[before:]
        black = np.zeros((self.stack - 1, *pictures.shape[1:]), dtype=np.float32)
        padded = np.concatenate([black, pictures])
        parts = [padded[i : i + len(pictures)] for i in range(self.stack)]
        return np.concatenate(parts, axis=1)[before:]

    def _pictures(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        height, width = self.seen.shape[1:]
        if self.grey:
            frames = (frames @ _GREY).round().astype(np.uint8)[..., None]
        if frames.shape[1:3] != (height, width):
            # Areas, as the usual wrapper of Atari games does it.
            rows, columns = _areas(frames.shape[1], height), _areas(frames.shape[2], width)
            small = np.einsum("ih,thwc,jw->tijc", rows, frames.astype(np.float64), columns)
            frames = small.round().astype(np.uint8)
        return frames.transpose(0, 3, 1, 2).astype(np.float32) * np.float32(self.scale)


@final
class AgentPolicy(ExecutionModel):
    """Acts as the agent does when it does not explore.

    Args:
        network: gives the raw action.
        name: what to call it.
        wires: how its observations are made.
        done: its actions.
        squashed: whether the raw action is in [-1, 1], to be spread over the box of actions;
            else it is cut to the box.
        quantiles: of the value of each action, where it gives several; 1 for one.
        orthogonal: how its weights were drawn before training.
        facts: what its files say of it.
        settings: whatever else decides its features.
    """

    module: AgentNetwork

    def __init__(
        self,
        network: AgentNetwork,
        *,
        name: str,
        wires: Sequence[Wire],
        done: Done,
        squashed: bool,
        quantiles: int,
        orthogonal: bool,
        facts: Mapping[str, str],
        settings: Mapping[str, str],
    ) -> None:
        self.module, self.name = network, name
        self.wires, self.done, self.squashed, self.quantiles = wires, done, squashed, quantiles
        self.orthogonal, self.facts, self.settings = orthogonal, facts, settings
        self.needs = tuple(wire.need for wire in wires)
        self.framewise = all(wire.stack < 2 for wire in wires)
        self._step = 0
        self._seen: dict[str, list[NDArray[np.float32]]] = {}

    def layers(self) -> list[LayerInfo]:
        """Convolutions, hidden layers and the action; then the critic's where it is there."""
        found = []
        for name, width in widths(self.module.taps()).items():
            flat = not name.rpartition("_")[2].startswith("conv")
            axes = "episode*time channel" + ("" if flat else " height width")
            found.append(LayerInfo(name, width, axes, _kind(name.rpartition("_")[2])))
        return found

    def taps(self) -> Mapping[str, nn.Module]:
        """Layer name -> module."""
        return self.module.taps()

    def forward_batch(self, episodes: Sequence[EpisodeLike]) -> Tensor:
        """Actions [episode, time, action]."""
        seen: dict[str, Tensor] = {}
        for wire in self.wires:
            parts = [wire.rows(e.stream(wire.need.name), e.steps) for e in episodes]
            parts = [wire.stacked(part) for part in parts] if wire.stack else parts
            seen[wire.seen.key] = torch.from_numpy(np.concatenate(parts)).to(self.device)
        actions = self._action(self.module(seen))
        return actions.reshape(len(episodes), -1, actions.shape[1])

    @torch.inference_mode()
    def act(self, now: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """The action of this moment, [environment, action]; a choice is its number.

        All environments are at the same step since `reset`, which counts for the time that is
        left and for the pictures before this one.
        """
        seen: dict[str, Tensor] = {}
        for wire in self.wires:
            values = np.asarray(now[wire.need.name])
            rows = wire.rows(values, np.full(len(values), self._step, dtype=np.int64))
            if wire.stack > 1:
                memory = self._seen.setdefault(wire.seen.key, [])
                memory.append(rows)
                del memory[: -wire.stack]
                black = [np.zeros_like(rows)] * (wire.stack - len(memory))
                rows = np.concatenate([*black, *memory], axis=1)
            seen[wire.seen.key] = torch.from_numpy(rows).to(self.device)
        self._step += 1
        action: NDArray[np.float32] = self._action(self.module(seen)).cpu().numpy()
        return action

    def reset(self) -> None:
        """Starts an episode: no time has passed, nothing was seen."""
        self._step = 0
        self._seen = {}

    def untrained(self, seed: int) -> AgentPolicy:
        """The same network before training; it knows the scale of what it sees."""
        return AgentPolicy(
            self.module.redrawn(seed, orthogonal=self.orthogonal).eval(),
            name=f"{self.name}-untrained{seed}",
            wires=[replace(wire) for wire in self.wires],
            done=self.done,
            squashed=self.squashed,
            quantiles=self.quantiles,
            orthogonal=self.orthogonal,
            facts=self.facts,
            settings=self.settings,
        )

    def _action(self, raw: Tensor) -> Tensor:
        """What is done, [row, action], from what the network gives."""
        done = self.done
        if done.kind == "box":
            low = torch.from_numpy(done.low).to(raw.device)
            high = torch.from_numpy(done.high).to(raw.device)
            if self.squashed:
                return low + 0.5 * (raw + 1.0) * (high - low)
            return torch.minimum(torch.maximum(raw, low), high)
        if done.kind == "switches":
            return (raw > 0).float()
        if self.quantiles > 1:
            raw = raw.reshape(len(raw), self.quantiles, -1).mean(dim=1)
        parts = torch.split(raw, list(done.choices), dim=1)
        chosen = [part.argmax(dim=1) for part in parts]
        return torch.stack(chosen, dim=1).float()


def _kind(name: str) -> str:
    words = {"conv": "convolution", "features": "vector of a picture", "shared": "hidden layer",
             "hidden": "hidden layer", "action": "action"}  # fmt: skip
    return next((kind for start, kind in words.items() if name.startswith(start)), "critic")


def _areas(before: int, after: int) -> NDArray[np.float64]:
    """[after, before] share that each old row has in each new one, by area."""
    edges = np.arange(after + 1) * before / after
    low = np.maximum(edges[:-1, None], np.arange(before))
    high = np.minimum(edges[1:, None], np.arange(before) + 1)
    return np.clip(high - low, 0.0, None) * after / before

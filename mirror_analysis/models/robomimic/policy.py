"""A policy of robomimic as an execution model: streams in, layers recorded, actions out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mirror_analysis.errors import ShapeError
from mirror_analysis.models.model import EpisodeLike, ExecutionModel, Input, LayerInfo
from mirror_analysis.models.preparation import Preparation
from mirror_analysis.models.robomimic.config import Settings
from mirror_analysis.models.robomimic.networks import Policy, State


@final
class Affine(nn.Module):
    """(x - offset) / scale; both are buffers, no parameters."""

    offset: Tensor
    scale: Tensor

    def __init__(self, offset: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("offset", offset)
        self.register_buffer("scale", scale)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised."""
        return (x - self.offset) / self.scale

    def inverse(self, x: Tensor) -> Tensor:
        """In its own unit again."""
        return x * self.scale + self.offset


class RobomimicPolicy(ExecutionModel):
    """A policy that acts from this moment, or from what it remembers of the last ones.

    A recurrent policy begins anew with every episode and forgets everything after as many frames
    as it was trained on at once, as it does in robomimic. Where it draws its action from a
    distribution, the draw depends on the episode's id and the frame's step alone; when it acts,
    on the number of the environment and the steps since `reset`.

    Args:
        policy: in evaluation mode.
        settings: what it reads and gives.
        observed: key -> how it is normalised.
        unit: how actions are; None where they are as the network gives them.
        name: what to call it.
        rebuild: a network of this architecture with weights drawn anew.
        seed: of the draws.
        resize: whether pictures of another size are resized, not refused.
        facts: what its file says of it.
        chosen: whatever else decides its features.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        settings: Settings,
        observed: Mapping[str, Affine],
        unit: Affine | None,
        name: str,
        rebuild: Callable[[], Policy],
        seed: int,
        resize: bool,
        facts: Mapping[str, str],
        chosen: Mapping[str, str],
    ) -> None:
        self.name, self.facts, self.settings = name, facts, chosen
        self.policy, self.observed, self.unit = policy, dict(observed), unit
        self.seed, self.resize = seed, resize
        self.framewise = not settings.algorithm.rnn.enabled
        self.streams = {
            key: f"camera:{key}" if key in settings.views else f"array:{key}"
            for key in settings.observed
        }
        self.needs = tuple(
            Input(self.streams[key], note=f"{shape[1]} x {shape[2]} pixels")
            if key in settings.views
            else Input(self.streams[key], shape[0])
            for key, shape in settings.observed.items()
        )
        # Statistics are part of the digest of the weights, since they change what comes out.
        parts: dict[str, nn.Module] = {"policy": policy}
        parts |= {f"normalised {key}": part for key, part in self.observed.items()}
        parts |= {"unit": unit} if unit is not None else {}
        self.module = nn.ModuleDict(parts)
        self._read, self._rebuild = settings, rebuild
        self._structure = policy.structure()
        self._steps = self._count = 0
        self._memory: list[State] | None = None
        self._first: Mapping[str, NDArray[Any]] = {}

    def layers(self) -> list[LayerInfo]:
        """What is seen, what is remembered, hidden layers and action, in forward order."""
        return list(self._structure.layers)

    def taps(self) -> Mapping[str, nn.Module]:
        """Layer name -> module."""
        return self._structure.taps

    def forward_batch(self, episodes: Sequence[EpisodeLike]) -> Tensor:
        """Actions [episode, time, action] in the robot's units."""
        streams = {
            name: np.concatenate([episode.stream(name) for episode in episodes])
            for name in self.inputs
        }
        rows = [(episode.id, int(step)) for episode in episodes for step in episode.steps]
        action = self.policy(self._seen(streams), self._chance(rows), episodes=len(episodes))
        return self._in_units(action).reshape(len(episodes), -1, action.shape[1])

    @torch.inference_mode()
    def act(self, now: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """The action of this moment, [environment, action] in the robot's units.

        Raises:
            ShapeError: if the number of environments changed without a `reset`, or pictures are
                of another size.
        """
        count = len(now[self.inputs[0]])
        if self._count not in (0, count):
            raise ShapeError(
                f"{self.name} acts in {count} environments but began in {self._count}; call"
                " reset() before their number changes"
            )
        rnn = self._read.algorithm.rnn
        if self._steps % rnn.horizon == 0:
            self._memory, self._first = None, now
        seen = self._seen(self._first if rnn.enabled and rnn.open_loop else now)
        rows = [(f"environment {i}", self._steps) for i in range(count)]
        action, self._memory = self.policy.step(seen, self._chance(rows), self._memory)
        self._steps, self._count = self._steps + 1, count
        found: NDArray[np.float32] = self._in_units(action).cpu().numpy()
        return found

    def reset(self) -> None:
        """Forgets what was seen; draws begin anew."""
        self._steps = self._count = 0
        self._memory, self._first = None, {}

    def untrained(self, seed: int) -> RobomimicPolicy:
        """The same architecture, drawn as robomimic draws it, with the same normalisation."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            policy = self._rebuild().eval().requires_grad_(False)
        return RobomimicPolicy(
            policy.to(self.device),
            settings=self._read,
            observed=self.observed,
            unit=self.unit,
            name=f"{self.name}-untrained{seed}",
            rebuild=self._rebuild,
            seed=self.seed,
            resize=self.resize,
            facts=self.facts,
            chosen=self.settings,
        )

    def _seen(self, streams: Mapping[str, NDArray[Any]]) -> dict[str, Tensor]:
        found = {}
        for key, shape in self._read.observed.items():
            stream = streams[self.streams[key]]
            if key in self._read.views:
                x = self._pictures(key, stream)
            elif stream.shape[1:] == shape:
                x = torch.from_numpy(stream.astype(np.float32)).to(self.device)
            else:
                raise ShapeError(
                    f"{self.streams[key]} has the shape {stream.shape[1:]} per frame; {self.name}"
                    f" needs {shape}"
                )
            found[key] = self.observed[key](x) if key in self.observed else x
        return found

    def _pictures(self, key: str, stream: NDArray[Any]) -> Tensor:
        """Pictures [row, 3, height, width], 0 to 1."""
        _, height, width = self._read.observed[key]
        if stream.shape[1:3] != (height, width) and not self.resize:
            raise ShapeError(
                f"{self.streams[key]} has frames of {stream.shape[1]} x {stream.shape[2]} pixels;"
                f" {self.name} was trained on {height} x {width}, so give it such pictures or say"
                " resize=yes"
            )
        size = Preparation(size=(height, width), mean=(0.0,) * 3, std=(1.0,) * 3)
        return size(stream).to(self.device)

    def _chance(self, rows: Sequence[tuple[str, int]]) -> Tensor:
        """[row, number] random numbers of moments, by the name of what they are of and the step."""
        count = self.policy.chances
        found = torch.zeros(len(rows), count)
        for i, (name, step) in enumerate(rows if count else ()):
            digest = hashlib.sha256(f"{self.seed} {name} {step}".encode()).digest()
            g = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
            found[i, 0] = torch.rand((), generator=g)
            found[i, 1:] = torch.randn(count - 1, generator=g)
        return found.to(self.device)

    def _in_units(self, action: Tensor) -> Tensor:
        found: Tensor = action if self.unit is None else self.unit.inverse(action)
        return found

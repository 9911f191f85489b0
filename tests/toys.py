"""Small Gymnasium environments that need no simulator, and a policy for them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray

from mirror_analysis.models.model import EpisodeLike, ExecutionModel, Input, LayerInfo


class Track(gym.Env):
    """A point on a line; an action moves it, the reward is where it is, 2 is success."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}
    kind = "plain"

    def __init__(self, render_mode: str | None = None, kind: str = "plain") -> None:
        self.render_mode, self.kind = render_mode, kind
        self.action_space = spaces.Box(-1.0, 1.0, (1, 1))
        self.observation_space = spaces.Box(-np.inf, np.inf, (2,), dtype=np.float64)
        if kind == "dictionary":
            self.observation_space = spaces.Dict(
                {
                    "observation": self.observation_space,
                    "goal": spaces.Box(0, 9, (1, 3)),
                    "view": spaces.Box(0, 255, (4, 6, 3), np.uint8),
                }
            )
            self.action_space = spaces.Discrete(3)
        if kind == "picture":
            self.observation_space = spaces.Box(0, 255, (8, 8, 3), np.uint8)
            self.action_space = spaces.MultiDiscrete([3, 3])
        if kind == "nested":
            self.observation_space = spaces.Dict({"a": spaces.Dict({"b": spaces.Discrete(2)})})

    def _seen(self) -> Any:
        plain = np.array([self.where, self.time], dtype=np.float64)
        if self.kind == "dictionary":
            view = np.full((4, 6, 3), int(self.time), np.uint8)
            return {"goal": np.ones((1, 3), np.float32), "observation": plain, "view": view}
        if self.kind == "picture":
            return np.full((8, 8, 3), int(self.time), np.uint8)
        return plain

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.where, self.time = float(self.np_random.uniform(0, 1)), 0
        return self._seen(), {}

    def step(self, action: Any) -> Any:
        if self.kind == "dictionary":
            assert isinstance(action, int)
            move = action - 1.0
        elif self.kind == "picture":
            assert action.tolist() in self.action_space
            move = float(action[0] - action[1])
        else:
            assert action.shape == (1, 1) and action.dtype == np.float32
            move = float(action[0, 0])
        self.where, self.time = self.where + move, self.time + 1
        info = {} if self.kind == "picture" else {"success": np.bool_(self.where > 2)}
        info = {"is_success": 0.0} if self.kind == "dictionary" else info
        return self._seen(), self.where, self.where < -3, False, info

    def render(self) -> Any:
        return np.full((10, 20, 3), 40 + 10 * self.time, np.uint8)


@contextmanager
def toys() -> Iterator[None]:
    """Registers the environments for as long as it lasts."""
    names = {"ToyPlain-v0": "plain", "ToyDictionary-v0": "dictionary", "ToyPicture-v0": "picture",
             "ToyNested-v0": "nested"}  # fmt: skip
    for name, kind in names.items():
        gym.register(name, entry_point=Track, max_episode_steps=6, kwargs={"kind": kind})
    try:
        yield
    finally:
        for name in names:
            del gym.registry[name]


class Scripted(ExecutionModel):
    """Does what a function says, and keeps what it saw."""

    def __init__(self, does: Any, *needs: Input) -> None:
        self.name, self.needs, self.module = "scripted", needs, torch.nn.Identity()
        self.does, self.seen, self.resets = does, [], 0

    def layers(self) -> list[LayerInfo]:
        return []

    def taps(self) -> Mapping[str, torch.nn.Module]:
        return {}

    def forward_batch(self, episodes: Sequence[EpisodeLike]) -> None:
        return None

    def untrained(self, seed: int) -> Scripted:
        return Scripted(self.does, *self.needs)

    def reset(self) -> None:
        self.resets += 1

    def act(self, now: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        assert tuple(now) == self.inputs
        assert all(len(values) == 1 for values in now.values())
        self.seen.append({name: values[0] for name, values in now.items()})
        return np.asarray(self.does(self.seen[-1]), dtype=np.float32)[None]

"""A policy in several simulators at once: one forward pass decides for all of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from mirror_analysis.episodes.nuisance import Nuisance, NuisanceDraw, draw, jitter
from mirror_analysis.episodes.simulator import VIEWS, Simulator
from mirror_analysis.models.model import ExecutionModel
from mirror_analysis.streams import resolve

STREAMS = {f"camera:{view}": () for view in VIEWS} | {"states": (39,), "instruction": ()}
"""What a policy may read of Meta-World: stream -> shape per frame."""


class End(NamedTuple):
    """How an episode ended.

    Attributes:
        success: whether the task was done.
        steps: environment steps taken.
    """

    success: bool
    steps: int


def wires(model: ExecutionModel, given: Mapping[str, str] | None = None) -> dict[str, str]:
    """The stream of the simulator that each input of a policy reads.

    Args:
        model: the policy.
        given: input -> stream, as the user maps them.

    Raises:
        StreamError: if the simulator lacks what the policy reads.
        UnknownNameError: if the map names what is not there.
    """
    return resolve(model.name, model.needs, STREAMS, given)


def cameras(streams: Mapping[str, str]) -> tuple[str, ...]:
    """Names of the cameras among the streams a policy reads: all that has to be drawn."""
    found = [stream.partition(":")[2] for stream in streams.values() if ":" in stream]
    return tuple(sorted(set(found)))


def remembers(model: ExecutionModel) -> bool:
    """Whether a policy carries something from one moment to the next, so that it has to reset."""
    return type(model).reset is not ExecutionModel.reset


def roll(
    model: ExecutionModel,
    simulators: Sequence[Simulator],
    seeds: Sequence[int],
    *,
    streams: Mapping[str, str],
    nuisance: Nuisance | None,
    horizon: int,
    rows: int = 1,
) -> list[list[End]]:
    """Lets a policy act in every simulator, in the episodes of the seeds, one after the other.

    The first `rows` simulators take a step at a time, then the next ones. The batch always has
    as many rows, those without a simulator repeating another: what an episode gives then depends
    on that number (in the last bits of the forward pass), but not on which episodes are beside it.

    Args:
        model: the policy.
        simulators: of one task each.
        seeds: environment seeds, the same for all simulators.
        streams: model input -> stream of the simulator.
        nuisance: changes of appearance, drawn once per episode; None for plain pictures.
        horizon: steps an episode may take, at least 1.
        rows: of the batch, at least 1; more than 1 only where the policy does not remember.

    Returns:
        [simulator][episode] how each ended.
    """
    drawn = cameras(streams)
    ends = []
    for start in range(0, len(simulators), rows):
        group = simulators[start : start + rows]
        lanes = [_Lane(simulator, model, iter(seeds), nuisance, drawn) for simulator in group]
        _advance(model, lanes, streams, horizon, rows)
        ends += [lane.ends for lane in lanes]
    return ends


def _advance(
    model: ExecutionModel, lanes: Sequence[_Lane], streams: Mapping[str, str], horizon: int,
    rows: int,
) -> None:  # fmt: skip
    while busy := [lane for lane in lanes if not lane.done]:
        seen = [lane.look() for lane in busy]
        seen += seen[:1] * (rows - len(busy))
        actions = model.act(
            {name: np.stack([one[stream] for one in seen]) for name, stream in streams.items()}
        )
        for lane, action in zip(busy, actions, strict=False):
            lane.move(action, horizon)


@final
class _Lane:
    """A simulator and the episodes it still has to go through."""

    def __init__(
        self, simulator: Simulator, model: ExecutionModel, seeds: Iterator[int],
        nuisance: Nuisance | None, cameras: tuple[str, ...],
    ) -> None:  # fmt: skip
        self._simulator, self._model, self._seeds = simulator, model, seeds
        self._nuisance, self._cameras = nuisance, cameras
        self.ends: list[End] = []
        self._begin()

    def look(self) -> dict[str, NDArray[Any]]:
        """Stream -> what is there now."""
        seen: dict[str, NDArray[Any]] = {
            "states": np.asarray(self._state, dtype=np.float32),
            "instruction": self._instruction,
        }
        for camera in self._cameras:
            picture = self._simulator.render(camera)
            if camera in self._changes:
                picture = jitter(picture[None], self._changes[camera])[0]
            seen[f"camera:{camera}"] = picture
        return seen

    def move(self, action: NDArray[np.float32], horizon: int) -> None:
        """Takes an action, and starts the next episode where this one is over."""
        self._state, success = self._simulator.step(action)
        self._steps += 1
        if success or self._steps == horizon:
            self.ends.append(End(success, self._steps))
            self._begin()

    def _begin(self) -> None:
        seed = next(self._seeds, None)
        self.done = seed is None
        if seed is None:
            return
        self._model.reset()
        self._state, self._steps = self._simulator.reset(seed), 0
        self._instruction = np.asarray(self._simulator.instruction)
        self._changes: dict[str, NuisanceDraw] = {}
        if self._nuisance is not None:
            name = f"{self._simulator.task}-{seed}"
            self._changes = {c: draw(self._nuisance, name, c) for c in self._cameras}

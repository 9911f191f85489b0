"""Attempts at an episode: the expert, hindered, until an attempt turns out as wanted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice, zip_longest
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mirror_analysis.episodes.arrays import Record
from mirror_analysis.episodes.episode import Label
from mirror_analysis.episodes.simulator import Simulator, Snapshot
from mirror_analysis.episodes.tasks import find_task

NOISE = (0.0, 0.2, 0.4, 0.7)
"""Standard deviations of the noise on the hand's movement; each in a quarter of the successes."""

ERROR = (0.04, 0.16)
"""Range of the perceptual error that makes an expert fail, metres in the plane of the table."""

HORIZON = 150
AFTER_SUCCESS = 3

_OBJECT = slice(4, 6)  # x and y of the object in an observation


class Slot(NamedTuple):
    """An episode that is wanted.

    Attributes:
        side: of its target, such as "left".
        noise: standard deviation of the noise on the hand's movement, in units of actions.
        length: steps of a failure; None for a success, which ends when it is done.
        twin: id of the success whose side, noise and length a failure has.
    """

    side: str
    noise: float
    length: int | None = None
    twin: str = ""


def success_slots(task: str, count: int) -> list[Slot]:
    """Slots for successes: half on either side, each amount of noise equally often."""
    sides = find_task(task).sides
    return [Slot(sides[i % 2], NOISE[i // 2 % len(NOISE)]) for i in range(count)]


def failure_slots(twins: Sequence[Record], count: int, *, seed: int) -> list[Slot]:
    """Slots for failures that match successes, so that only the outcome tells them apart.

    Args:
        twins: successes of one task. With as many failures each is matched once; with fewer,
            a random choice, half of it on either side.
        count: failures.
        seed: of the choice.
    """
    by_side: dict[Label, list[Record]] = {twin.labels["side"]: [] for twin in twins}
    for row in np.random.default_rng(seed).permutation(len(twins)):
        by_side[twins[row].labels["side"]].append(twins[row])
    alternating = [twin for pair in zip_longest(*by_side.values()) for twin in pair if twin]
    return [slot_of(twin, as_twin=True) for twin in islice(cycle(alternating), count)]


def slot_of(record: Record, *, as_twin: bool = False) -> Slot:
    """The slot that an episode fills, or, as a twin, the slot of a failure that matches it."""
    side, noise = str(record.labels["side"]), float(record.labels["noise"])
    if as_twin:
        return Slot(side, noise, record.length, record.id)
    if record.success:
        return Slot(side, noise)
    return Slot(side, noise, record.length, str(record.labels["twin"]))


@dataclass(frozen=True, eq=False)
class Course:
    """An attempt that turned out as wanted, step by step.

    Attributes:
        observations: before each step, [39].
        actions: what was done, [4].
        expert_actions: what the unhindered expert would have done, [4].
        snapshots: before each step.
        error: (x, y) metres, how far off the expert saw the object.
    """

    observations: list[NDArray[np.float64]]
    actions: list[NDArray[np.float32]]
    expert_actions: list[NDArray[np.float32]]
    snapshots: list[Snapshot]
    error: tuple[float, float]

    def __len__(self) -> int:
        return len(self.actions)


def attempt(
    simulator: Simulator, slots: Sequence[Slot], *, seed: int, shortest: int
) -> tuple[Slot, Course] | None:
    """Lets the hindered expert act in the episode of a seed.

    Noise is drawn in every step, on the movement and not on the gripper. The error of a failure
    is drawn once: any direction in the plane of the table, 4 to 16 cm.

    Args:
        simulator: left in the episode, so that its snapshots can be drawn.
        slots: what is wanted; the first on the side where the target turns out to be is tried.
        seed: of the environment; the expert's own random numbers come from it, too.
        shortest: steps a success must have.

    Returns:
        The slot and what happened; None where it is not what the slot wants.
    """
    observation = simulator.reset(seed)
    slot = next((slot for slot in slots if slot.side == simulator.side), None)
    if slot is None:
        return None
    # Not the seed alone: the environment draws its targets from the stream of that one.
    rng = np.random.default_rng((seed, 1))
    fails = slot.length is not None
    error = _draw_error(rng) if fails else (0.0, 0.0)
    course = Course([], [], [], [], error)
    end = slot.length if slot.length is not None else HORIZON
    succeeded = False
    while len(course) < end:
        expert_action = simulator.expert(observation)
        seen = observation.copy()
        seen[_OBJECT] += error
        action = simulator.expert(seen)
        action[:3] += rng.normal(0.0, slot.noise, size=3)
        action = np.clip(action, -1.0, 1.0)
        course.snapshots.append(simulator.snapshot())
        course.observations.append(observation)
        course.actions.append(action)
        course.expert_actions.append(expert_action)
        observation, success = simulator.step(action)
        if success and fails:
            return None
        if success and not succeeded:
            succeeded, end = True, min(end, len(course) + AFTER_SUCCESS)
    return (slot, course) if fails or (succeeded and len(course) >= shortest) else None


def _draw_error(rng: np.random.Generator) -> tuple[float, float]:
    magnitude, angle = rng.uniform(*ERROR), rng.uniform(0.0, 2.0 * np.pi)
    return float(magnitude * np.cos(angle)), float(magnitude * np.sin(angle))

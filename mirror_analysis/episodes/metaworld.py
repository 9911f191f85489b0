"""Collects episodes in Meta-World: successes of a scripted expert, and failures that match them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from math import hypot
from pathlib import Path
from typing import final

import msgspec
import numpy as np
from msgspec import UNSET, UnsetType
from numpy.typing import NDArray

from mirror_analysis.episodes import arrays, attempts
from mirror_analysis.episodes.arrays import ArraysWriter, Record
from mirror_analysis.episodes.attempts import Course, Slot
from mirror_analysis.episodes.collection import SETTINGS, is_whole, settle
from mirror_analysis.episodes.episode import Episode, Episodes, Label
from mirror_analysis.episodes.simulator import Simulator
from mirror_analysis.episodes.tasks import TASKS
from mirror_analysis.episodes.variants import PLAIN, Variant
from mirror_analysis.errors import (
    ChecksumError,
    DefinitionError,
    DegenerateError,
    StoreError,
    UnknownNameError,
)
from mirror_analysis.parallel import Progress, processes, serial
from mirror_analysis.writing import write_whole

__all__ = ["ATTEMPTS", "ROLLOUTS", "SPLITS", "TASKS", "TRIES", "collect", "environment_seed"]

SPLITS = ("fit", "validation", "test")

ATTEMPTS = 10_000
"""Environment seeds of one task of one collection: the first half for successes."""

ROLLOUTS = 2**31
"""First environment seed of roll-outs; collections use those below, so the two never meet."""

_LARGEST_SEED = ROLLOUTS // (len(SPLITS) * len(TASKS) * ATTEMPTS) - 1

TRIES = 40
"""Attempts for each episode that is wanted, on average, before giving up."""


class _Collection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is collected of each task, and with what; see `collect`.

    The plain look is not written down, so that folders from before there were others stay valid.
    """

    successes: int
    failures: int
    seed: int
    split: str
    frames: int
    size: int
    metaworld: str
    mujoco: str
    schema: int = 1
    variant: Variant | UnsetType = UNSET

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise UnknownNameError("split", self.split, SPLITS)
        lowest = {"successes": 0, "failures": 0, "seed": 0, "frames": 2, "size": 1}
        for name, low in lowest.items():
            if getattr(self, name) < low:
                raise DefinitionError(f"{name} is {getattr(self, name)}; needed {low} or more")
        if self.seed > _LARGEST_SEED:
            raise DefinitionError(
                f"seed is {self.seed}; needed {_LARGEST_SEED} or less, since the environment seeds"
                " above belong to roll-outs"
            )
        if self.failures and not self.successes:
            raise DefinitionError(
                f"{self.failures} failures but 0 successes asked for; each failure is the twin of"
                " a success, so ask for successes, too"
            )


def environment_seed(task: str, *, seed: int, split: str, attempt: int) -> int:
    """The seed of one attempt: another one for any other arguments.

    Args:
        task: one of `TASKS`.
        seed: of the collection, 0 to 3975.
        split: one of `SPLITS`.
        attempt: in [0, 10000).
    """
    collection = seed * len(SPLITS) + SPLITS.index(split)
    return (collection * len(TASKS) + sorted(TASKS).index(task)) * ATTEMPTS + attempt


def collect(
    out: Path,
    *,
    successes: int,
    failures: int,
    seed: int,
    split: str,
    tasks: Sequence[str] = tuple(TASKS),
    frames: int = 16,
    size: int = 64,
    variant: Variant | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Episodes:
    """Collects episodes of each task into a folder of arrays.

    Successes: the scripted expert under Gaussian noise on its movements (standard deviation 0,
    .2, .4 or .7, a quarter of the episodes each), until three steps after success, at most 150.
    Failures: the same expert seeing the object 4 to 16 cm from where it is. Each failure has
    the length, the noise and the instruction of a success, so none of these tells the outcome.
    The target is on either side in half of the episodes. `actions` are what was done,
    `extras["expert_actions"]` what the unhindered expert would have done in the state reached.

    The same arguments give the same bytes, whatever the number of workers. An interrupted run
    goes on where it stopped, and damaged files are made again.

    Args:
        out: folder; other collections may share it.
        successes: per task.
        failures: per task.
        seed: of everything random, 0 or more.
        split: one of `SPLITS`; no two splits or seeds share an environment seed.
        tasks: names out of `TASKS`.
        frames: pictures per camera, evenly spread from the first step to the last.
        size: height and width of the pictures in pixels.
        variant: another look of the scene, such as `VARIANTS["camera-side"]`: the same episodes
            under the same ids, with other pictures, in a folder of their own.
        workers: processes; as many as there are usable cores when not given.
        progress: called with (tasks done, tasks in all).

    Returns:
        The episodes of this collection, task by task.

    Raises:
        UnknownNameError: if there is no such task or split.
        DefinitionError: if a number is out of its range.
        DegenerateError: if a task does not give enough episodes in 40 tries for each.
        StoreError: if the folder holds this collection made with other settings.
        ChecksumError: if a damaged file cannot be made again as it was.
        MissingDependencyError: if the simulator is not installed.

    Example:
        >>> collect(Path("out"), successes=20, failures=0, seed=0, split="fit")
    """
    collection = _Collection(
        successes, failures, seed, split, frames, size, _version("metaworld"), _version("mujoco"),
        variant=UNSET if variant is None or variant == PLAIN else variant,
    )  # fmt: skip
    for name in tasks:
        if name not in TASKS:
            raise UnknownNameError("task", name, TASKS)
    executor = serial() if workers == 1 else processes(workers)
    found = executor.map(partial(_collect_task, out, collection), tasks, progress)
    records = [record for of_task in found for record in of_task]
    arrays.merge_manifest(out, records)
    return arrays.read_records(out, records)


def _collect_task(out: Path, collection: _Collection, task: str) -> list[Record]:
    """Collects one task into a folder of its own; gives its records as seen from `out`."""
    name = f"{task}-{collection.split}-{collection.seed}"
    writer = ArraysWriter(out / name)
    if writer.records and not (writer.folder / SETTINGS).exists():
        raise StoreError(f"{writer.folder} holds episodes but no {SETTINGS}; choose another folder")
    settle(writer.folder, collection)
    damaged = [record for record in writer.records if not is_whole(writer.folder, record)]
    if damaged or len(writer.records) < collection.successes + collection.failures:
        with Simulator(task, size=collection.size, variant=collection.variant or None) as simulator:
            work = _Work(simulator, collection, writer)
            for record in damaged:
                work.mend(record)
            work.fill(attempts.success_slots(task, collection.successes), success=True)
            twins = [record for record in writer.records if record.success]
            choice = environment_seed(task, seed=collection.seed, split=collection.split, attempt=0)
            slots = attempts.failure_slots(twins, collection.failures, seed=choice)
            work.fill(slots, success=False)
    return [msgspec.structs.replace(r, file=f"{name}/{r.file}") for r in writer.records]


@final
class _Work:
    """One task of one collection."""

    def __init__(self, simulator: Simulator, collection: _Collection, writer: ArraysWriter) -> None:
        self._simulator, self._collection, self._writer = simulator, collection, writer

    def fill(self, slots: Sequence[Slot], *, success: bool) -> None:
        """Makes attempts, in order, until every slot has its episode."""
        left = list(slots)
        first = 0 if success else ATTEMPTS // 2
        number = first
        for record in self._writer.records:
            if record.success == success:
                left.remove(attempts.slot_of(record))
                number = int(record.labels["attempt"]) + 1
        end = first + min(TRIES * len(slots), ATTEMPTS // 2)
        while left:
            if number >= end:
                done, what = len(slots) - len(left), "successes" if success else "failures"
                raise DegenerateError(
                    f"{self._simulator.task} gave {done} of {len(slots)} {what} in"
                    f" {end - first} attempts; ask for fewer or leave the task out"
                )
            found = self._attempt(number, left)
            if found is not None:
                slot, episode = found
                self._writer.add(episode)
                left.remove(slot)
            number += 1

    def mend(self, record: Record) -> None:
        """Makes the damaged file of an episode again."""
        found = self._attempt(int(record.labels["attempt"]), [attempts.slot_of(record)])
        data = arrays.encode(found[1]) if found else b""
        if hashlib.sha256(data).hexdigest() != record.sha256:
            raise ChecksumError(
                f"{self._writer.folder / record.file} is damaged and does not come out as it was;"
                " collect into another folder"
            )
        write_whole(self._writer.folder / record.file, data)

    def _attempt(self, number: int, slots: Sequence[Slot]) -> tuple[Slot, Episode] | None:
        task, settings = self._simulator.task, self._collection
        seed = environment_seed(task, seed=settings.seed, split=settings.split, attempt=number)
        found = attempts.attempt(self._simulator, slots, seed=seed, shortest=settings.frames)
        if found is None:
            return None
        slot, course = found
        labels: dict[str, Label] = {
            "split": settings.split,
            "seed": settings.seed,
            "attempt": number,
            "environment_seed": seed,
            "twin": slot.twin,
            "side": slot.side,
            "noise": slot.noise,
            "error": hypot(*course.error),
            "error_x": course.error[0],
            "error_y": course.error[1],
        }
        name = f"{task}-{settings.split}-{settings.seed}-{number:04d}"
        return slot, _episode(self._simulator, slot, course, name, settings.frames, labels)


def _episode(
    simulator: Simulator, slot: Slot, course: Course, name: str, count: int,
    labels: dict[str, Label],
) -> Episode:  # fmt: skip
    """Draws and words an attempt whose episode the simulator is still in."""
    steps = np.linspace(0, len(course) - 1, count).round().astype(np.int64)
    point = simulator.target[TASKS[simulator.task].coordinate // 3 * 3 :][:3]
    where = dict(zip(("target_x", "target_y", "target_z"), point.tolist(), strict=True))
    instruction = simulator.instruction
    pictures: dict[str, list[NDArray[np.uint8]]] = {camera: [] for camera in simulator.cameras}
    for step in steps:
        simulator.restore(course.snapshots[step])
        for camera, seen in pictures.items():
            seen.append(simulator.render(camera))
    return Episode.from_frames(
        {camera: np.stack(seen) for camera, seen in pictures.items()},
        id=name,
        task=simulator.task,
        instruction=instruction,
        success=slot.length is None,
        states=np.array(course.observations, dtype=np.float32)[steps],
        actions=np.array(course.actions, dtype=np.float32)[steps],
        timestamps=steps * simulator.dt,
        steps=steps,
        length=len(course),
        labels=labels | where,
        extras={"expert_actions": np.array(course.expert_actions, dtype=np.float32)[steps]},
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""

"""What the stored frames do not say: replays of collected episodes, contact by contact."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from mirror_analysis.episodes import attempts
from mirror_analysis.episodes.attempts import Course, Slot
from mirror_analysis.episodes.episode import Episode
from mirror_analysis.episodes.simulator import Simulator
from mirror_analysis.errors import FormatError, StreamError
from mirror_analysis.files.places import contents
from mirror_analysis.parallel import Progress, processes, serial
from mirror_analysis.writing import write_whole

PHASES = ("reach", "manipulate", "done")
"""What a moment of an episode belongs to."""

_WORD = f"<U{max(map(len, PHASES))}"
_NEEDED = ("environment_seed", "side", "noise", "twin")
_PART = 24  # episodes of a task that a worker replays in one simulator
_MOST = 2**26  # bytes of a file of outcomes
_SCHEMA = 1
_CLOSE = 1e-4  # metres and the like: rounding of other processors, not another course of events


@dataclass(frozen=True, eq=False)
class Replay:
    """What a replay tells of one episode; time are its stored frames.

    Attributes:
        contact: [time] whether the hand touches anything that can move.
        phase: [time] one of `PHASES`. An episode is "done" from the moment on that the
            environment first counts the task as done. Before, it is "manipulate" from the first
            touch on, and "reach" until then. A touch that the hand starts with does not count
            where it lets go and touches again later: some tasks put the two side by side.
    """

    contact: NDArray[np.bool_]
    phase: NDArray[np.str_]


@dataclass(frozen=True, eq=False, repr=False)
class _Recipe:
    """What it takes to replay an episode, and to know that it is the same one."""

    id: str
    task: str
    seed: int
    slot: Slot
    length: int
    steps: NDArray[np.int64]
    states: NDArray[np.float32]


@dataclass(frozen=True, repr=False)
class _Job:
    recipes: tuple[_Recipe, ...]
    path: Path | None  # where its outcome is kept

    def __repr__(self) -> str:
        return f"{self.recipes[0].task}, episodes {self.recipes[0].id} to {self.recipes[-1].id}"


class _Kept(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The outcome of a job on disk: episode by episode, frame by frame."""

    contact: list[list[bool]]
    phase: list[list[Literal["reach", "manipulate", "done"]]]


def replay(
    episodes: Sequence[Episode],
    *,
    store: Path | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Replay]:
    """Replays episodes that `collect` made, without drawing, and looks at what the hand touches.

    The environment seed, the noise and the error of an episode determine it, so that the replay
    goes through the very states that were stored, which is checked.

    Args:
        episodes: collected in Meta-World, under any variant.
        store: a folder where outcomes are kept as they come; what is found there is not done
            again.
        workers: processes; as many as there are usable cores when not given.
        progress: called with (parts done, parts in all).

    Returns:
        Episode id -> what the replay tells.

    Raises:
        StreamError: if an episode lacks the labels that collecting gives it.
        FormatError: if a replay comes out otherwise than the episode, or what is kept is damaged.
        MissingDependencyError: if the simulator is not installed.

    Example:
        >>> replay(episodes)["drawer-open-fit-0-0003"].phase[:3]
        array(['reach', 'reach', 'manipulate'], dtype='<U10')
    """
    by_task: dict[str, list[_Recipe]] = {}
    for episode in episodes:
        by_task.setdefault(episode.task, []).append(_recipe(episode))
    jobs = [
        _job(tuple(of_task[i : i + _PART]), store)
        for of_task in by_task.values()
        for i in range(0, len(of_task), _PART)
    ]
    todo = [job for job in jobs if job.path is None or not job.path.is_file()]
    executor = serial() if workers == 1 or len(todo) < 2 else processes(workers)
    fresh = dict(zip(map(id, todo), executor.map(_replay, todo, progress), strict=True))
    found = (
        fresh[id(job)] if id(job) in fresh or job.path is None else _read(job.path, job.recipes)
        for job in jobs
    )
    return {name: one for part in found for name, one in part.items()}


def _recipe(episode: Episode) -> _Recipe:
    lacking = [name for name in _NEEDED if name not in episode.labels]
    if lacking:
        raise StreamError(
            f"episode {episode.id} has no label '{lacking[0]}', so it cannot be replayed; needed"
            " one that `mirror episodes metaworld` collected"
        )
    labels = episode.labels
    side, noise, twin = str(labels["side"]), float(labels["noise"]), str(labels["twin"])
    slot = Slot(side, noise) if episode.success else Slot(side, noise, episode.length, twin)
    seed = int(labels["environment_seed"])
    return _Recipe(
        episode.id, episode.task, seed, slot, episode.length, episode.steps, episode.states
    )


def _job(recipes: tuple[_Recipe, ...], store: Path | None) -> _Job:
    """A job whose outcome is kept under a name made of everything that decides it."""
    if store is None:
        return _Job(recipes, None)
    digest = hashlib.sha256(str(_SCHEMA).encode())
    for one in recipes:
        digest.update(f"\0{one.id}\0{one.task}\0{one.seed}\0{one.slot}\0{one.length}".encode())
        digest.update(one.steps.tobytes() + one.states.tobytes())
    return _Job(recipes, store / f"{digest.hexdigest()[:32]}.json")


def _replay(job: _Job) -> dict[str, Replay]:
    with Simulator(job.recipes[0].task, cameras=()) as simulator:
        found = {recipe.id: _one(simulator, recipe) for recipe in job.recipes}
    if job.path is not None:
        kept = _Kept([r.contact.tolist() for r in found.values()],
                     [r.phase.tolist() for r in found.values()])  # fmt: skip
        write_whole(job.path, msgspec.json.encode(kept))
    return found


def _read(path: Path, recipes: Sequence[_Recipe]) -> dict[str, Replay]:
    try:
        kept = msgspec.json.decode(contents(path, "replays", most=_MOST), type=_Kept)
        found = {
            recipe.id: Replay(np.array(contact, dtype=np.bool_), np.array(phase, dtype=_WORD))
            for recipe, contact, phase in zip(recipes, kept.contact, kept.phase, strict=True)
        }
        fits = all(
            len(found[r.id].contact) == len(found[r.id].phase) == len(r.steps) for r in recipes
        )
    except (msgspec.MsgspecError, UnicodeDecodeError, ValueError):
        fits = False
    if not fits:
        raise FormatError(f"{path} is damaged; remove it, and it is made again")
    return found


def _one(simulator: Simulator, recipe: _Recipe) -> Replay:
    found = attempts.attempt(simulator, [recipe.slot], seed=recipe.seed, shortest=0)
    course = found[1] if found else None
    if course is None or not _same(course, recipe):
        raise FormatError(
            f"episode {recipe.id} does not come out of a replay as it was stored; use the versions"
            " of Meta-World and MuJoCo that it was collected with"
        )
    contact = np.zeros(len(course), dtype=np.bool_)
    for step, snapshot in enumerate(course.snapshots):
        simulator.restore(snapshot)
        contact[step] = simulator.touching
    done = len(course) if recipe.slot.length is not None else _done(simulator, course, recipe.seed)
    phase = np.full(len(course), PHASES[0], dtype=_WORD)
    phase[_first_touch(contact) :] = PHASES[1]
    phase[done:] = PHASES[2]
    return Replay(contact[recipe.steps], phase[recipe.steps])


def _same(course: Course, recipe: _Recipe) -> bool:
    states = np.array(course.observations, dtype=np.float32)
    return len(course) == recipe.length and np.allclose(
        states[recipe.steps], recipe.states, rtol=0.0, atol=_CLOSE
    )


def _first_touch(contact: NDArray[np.bool_]) -> int:
    """The step of the first touch that counts; the number of steps where there is none."""
    apart = np.flatnonzero(~contact)
    start = int(apart[0]) if len(apart) else len(contact)  # end of the touch it starts with
    later = np.flatnonzero(contact[start:])
    if len(later):
        return start + int(later[0])
    return 0 if start else len(contact)


def _done(simulator: Simulator, course: Course, seed: int) -> int:
    """Number of the state in which the task is done first."""
    if len(course) < attempts.HORIZON:  # or else it was cut off before the steps after success
        return len(course) - attempts.AFTER_SUCCESS
    simulator.reset(seed)
    states = enumerate(course.actions, start=1)
    return next((state for state, action in states if simulator.step(action)[1]), len(course))

"""Collects what policies do in a Gymnasium environment, as episodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from mirror_analysis.episodes.arrays import (
    ArraysWriter,
    Record,
    merge_manifest,
    read_records,
)
from mirror_analysis.episodes.collection import is_whole, settle
from mirror_analysis.episodes.environment import Environment, versions
from mirror_analysis.episodes.episode import Episode, Episodes
from mirror_analysis.errors import DefinitionError, StoreError
from mirror_analysis.models.model import ExecutionModel
from mirror_analysis.parallel import Progress, processes, serial
from mirror_analysis.playing import RANDOM, Course, PolicySource, play, policy_source
from mirror_analysis.writing import write_whole

LARGEST_SEED = 200_000
"""Collections use the environment seeds below 2^31; those from there on belong to roll-outs."""

_SEEDS = 10_000  # environment seeds of a collection
_PART = 5  # episodes a worker collects into one folder


class _Collection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is collected, and with what; see `collect_gym`."""

    environment: str
    policy: str
    weights: str
    settings: dict[str, str]
    camera: str
    size: int
    frames: int
    horizon: int
    seed: int
    versions: dict[str, str]
    schema: int = 1


@dataclass(frozen=True, repr=False)
class _Job:
    out: Path
    policy: PolicySource
    environment: str
    camera: str | None
    size: int
    frames: int
    horizon: int | None
    seed: int
    episodes: range

    def __repr__(self) -> str:
        first, last = self.episodes[0], self.episodes[-1]
        return f"{self.environment} by {self.policy.source}, episodes {first} to {last}"


def collect_gym(
    env: str,
    out: Path,
    *,
    policies: Sequence[str | Path | PolicySource] = (RANDOM,),
    episodes: int = 20,
    camera: str | None = None,
    size: int = 128,
    frames: int = 64,
    horizon: int | None = None,
    seed: int = 0,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Episodes:
    """Lets policies act in an environment and keeps what they see and do.

    One task per policy, named like it. Each policy meets the same starts: environment seeds are
    seed * 10 000 + episode. The observation is `states`, other parts of a dictionary are extras,
    and so are the `rewards` of the stored steps; labels say the return of the whole episode, the
    environment, the policy, the environment seed and whether the environment judges success.
    `success` is that of any step; True where the environment never judges.

    The same arguments give the same numbers, whatever the number of workers. An interrupted run
    goes on where it stopped, and damaged files are made again.

    Args:
        env: such as "HalfCheetah-v5".
        out: folder; other collections may share it.
        policies: execution models, by name, file or as a `PolicySource`; "random" acts evenly at
            random, drawn from the environment seed and the step.
        episodes: per policy.
        camera: name of a camera of the scene, "free" or "render"; None for no pictures.
        size: height and width of the pictures in pixels.
        frames: stored moments of an episode, evenly spread from the first step to the last; all
            of a shorter one.
        horizon: most steps; the environment's own limit when None.
        seed: 0 to 200 000.
        workers: processes; as many as there are usable cores when not given.
        progress: called with (parts done, parts in all).

    Returns:
        The episodes of this collection, policy by policy.

    Raises:
        DefinitionError: if a number is out of its range, or there is no policy, or two have one
            name.
        FormatError: if a checkpoint does not act.
        UnknownNameError: if there is no such environment or camera.
        StreamError: if the environment lacks what a policy reads.
        StoreError: if the folder holds this collection made with other settings.

    Example:
        >>> collect_gym("HalfCheetah-v5", Path("out"), policies=["tqc.zip"], camera="track")
    """
    for name, value, low, high in (
        ("episodes", episodes, 1, _SEEDS), ("frames", frames, 2, 10**6), ("size", size, 1, 4096),
        ("seed", seed, 0, LARGEST_SEED), ("horizon", 1 if horizon is None else horizon, 1, 10**9),
    ):  # fmt: skip
        if not low <= value <= high:
            raise DefinitionError(f"{name} is {value}; needed {low} to {high}")
    camera = camera or None
    if not policies:
        raise DefinitionError(f"no policy that acts in {env}; name files, or '{RANDOM}'")
    sources = [policy_source(policy) for policy in policies]
    names = [Path(source.source).stem for source in sources]
    for name in names:
        if names.count(name) > 1:
            raise DefinitionError(
                f"two policies are named {name}; give the files names of their own"
            )
    jobs = [
        _Job(out, source, env, camera, size, frames, horizon, seed,
             range(start, min(start + _PART, episodes)))
        for source in sources
        for start in range(0, episodes, _PART)
    ]  # fmt: skip
    executor = serial() if workers == 1 else processes(workers)
    records = [r for part in executor.map(_collect, jobs, progress) for r in part]
    merge_manifest(out, records)
    return read_records(out, records)


def _collect(job: _Job) -> list[Record]:
    """Collects the episodes of a job into a folder of its own; gives them as seen from `out`."""
    model = job.policy.load()
    name = RANDOM if model is None else model.name
    # What follows the last colon of an environment is its own name.
    place = f"{job.environment.rpartition(':')[2].replace('/', '-')}-{name}-{job.seed}"
    folder = f"{place}/{job.episodes[0] // _PART:04d}"
    writer = ArraysWriter(job.out / folder)
    trusted = job.environment in job.policy.trust
    ids = [f"{place}-{i:04d}" for i in job.episodes]
    with Environment(
        job.environment, camera=job.camera, size=job.size, trusted=trusted
    ) as environment:
        settle(writer.folder, _settings(job, model, name, environment))
        there = {record.id: record for record in writer.records}
        for i, key in zip(job.episodes, ids, strict=True):
            record = there.get(key)
            if record is not None and is_whole(writer.folder, record):
                continue
            episode = _episode(job, environment, model, name, key, i)
            if record is None:
                there[key] = writer.add(episode)
            else:
                _mend(writer.folder, record, episode)
    return [msgspec.structs.replace(there[key], file=f"{folder}/{there[key].file}") for key in ids]


def _episode(
    job: _Job, environment: Environment, model: ExecutionModel | None, name: str, key: str, i: int
) -> Episode:
    seed = job.seed * _SEEDS + i
    course = play(
        environment,
        model,
        seed=seed,
        horizon=job.horizon,
        streams=dict(job.policy.streams),
        watch=job.camera is not None,
    )
    length = len(course.rewards)
    steps = np.unique(np.linspace(0, length - 1, min(job.frames, length)).round()).astype(np.int64)
    pictures = {
        stream.partition(":")[2]: np.stack([values[t] for t in steps])
        for stream, values in course.seen.items()
        if stream.startswith("camera:")
    }
    if job.camera is not None:
        pictures[job.camera] = np.stack([environment.draw(course.snapshots[t]) for t in steps])
    vectors = _vectors(course, steps)
    return Episode.from_frames(
        pictures,
        id=key,
        task=name,
        instruction=f"{job.environment} as {name} does it",
        success=True if course.success is None else course.success,
        states=vectors.pop("states", np.zeros((len(steps), 0), dtype=np.float32)),
        actions=np.stack([course.actions[t] for t in steps]),
        timestamps=steps * environment.dt,
        steps=steps,
        length=length,
        labels={
            "environment": job.environment,
            "policy": name,
            "return": course.total,
            "environment_seed": seed,
            "ended": course.ended,
            "judged": course.success is not None,
        },
        extras={"rewards": np.array(course.rewards, dtype=np.float32)[steps], **vectors},
    )


def _vectors(
    course: Course, steps: np.ndarray[tuple[int, ...], np.dtype[np.int64]]
) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    """The observations of the stored steps, by the name an episode has for them."""
    return {
        stream.removeprefix("array:"): np.stack([values[t] for t in steps]).astype(np.float32)
        for stream, values in course.seen.items()
        if not stream.startswith("camera:")
    }


def _settings(
    job: _Job, model: ExecutionModel | None, name: str, environment: Environment
) -> _Collection:
    return _Collection(
        environment=job.environment,
        policy=name,
        weights="" if model is None else model.weights_sha256,
        settings={} if model is None else dict(model.settings),
        camera=job.camera or "",
        size=job.size,
        frames=job.frames,
        horizon=job.horizon or environment.horizon,
        seed=job.seed,
        versions=versions(),
    )


def _mend(folder: Path, record: Record, episode: Episode) -> None:
    """Makes a damaged file again; it has to come out as it was."""
    from mirror_analysis.episodes.arrays import encode

    write_whole(folder / record.file, encode(episode))
    if not is_whole(folder, record):
        (folder / record.file).unlink()
        raise StoreError(
            f"{folder / record.file} is damaged and does not come out as it was; collect into"
            " another folder"
        )

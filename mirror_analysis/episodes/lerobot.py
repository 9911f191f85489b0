"""Episodes of a LeRobotDataset, version 2.0, 2.1 or 3.0: arrays now, pictures when asked for."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mirror_analysis.episodes.episode import Episode, Episodes, Label
from mirror_analysis.episodes.identity import identity
from mirror_analysis.episodes.lerobot_meta import (
    Entry,
    Info,
    read_entries,
    read_info,
    read_tasks,
)
from mirror_analysis.episodes.parquet import batches, numbers, open_parquet
from mirror_analysis.episodes.pictures import ImageColumn, Source, Sources, VideoSpan
from mirror_analysis.episodes.selection import evenly_spaced
from mirror_analysis.errors import FormatError, MirrorError
from mirror_analysis.files.digests import content_digest
from mirror_analysis.files.jsons import read_json
from mirror_analysis.files.places import inside

SUMMARY = "LeRobotDataset folders of versions 2.0, 2.1 and 3.0"

STATES, ACTIONS, CAMERA = "observation.state", "action", "observation.images."
TIME, STEP = "source.timestamp", "source.step"
"""Features in which our writer keeps what the format's own columns cannot hold."""

_COUNTERS = ("timestamp", "frame_index", "episode_index", "index", "task_index")
_ENDS = ("next.success", "next.done")
_NUMBERS = {"bool", "float16", "float32", "float64"} | {
    f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)
}

Arrays = dict[str, NDArray[np.generic]]


def recognise(path: Path) -> bool:
    """Whether a path is the folder of a LeRobotDataset, by what its `meta/info.json` holds."""
    place = path / "meta" / "info.json"
    if not place.is_file():
        return False
    try:
        info: dict[str, object] = read_json(inside(path, "meta/info.json"), most=2**24)
    except MirrorError:
        return False
    return {"codebase_version", "features", "data_path"} <= info.keys()


def read(
    path: Path,
    *,
    limit: int | None = None,
    frames: int | None = None,
    tolerance: float | None = None,
) -> Episodes:
    """Reads a LeRobotDataset; video files and pictures stay on disk until they are asked for.

    `observation.state` becomes states and `action` actions; every other numeric feature is an
    extra array of that name, laid out in a row. Cameras are the video and image features, without
    `observation.images.` before their names unless two would then be called alike. Task and
    instruction are the text of the task at the first frame. An episode succeeded if
    `next.success` is ever true; where that feature is missing, demonstrations are taken to have
    succeeded and carry the label `success_known` = False. Labels are the further columns of the
    list of episodes, `robot_type`, and the split where more than one is declared. What
    `write_lerobot` wrote comes back as it was.

    Args:
        path: folder of the data set.
        limit: read only the first so many episodes.
        frames: keep so many evenly spaced frames of each episode, the first and the last among
            them; all when not given. Steps stay true, and only these frames are decoded.
        tolerance: seconds a picture may be off its time; a quarter of the time between two
            pictures when not given.

    Raises:
        MissingFileError: if a file is not there.
        FormatError: if a file is damaged, beyond bounds, or names one outside the folder.
        MirrorError: if the arrays do not make an episode.

    Example:
        >>> episodes = read(Path("pusht"), limit=10, frames=16)
        >>> episodes[0].instruction
        'Push the T-shaped block onto the T-shaped target.'
    """
    info = read_info(path)
    tasks = read_tasks(path, info)
    entries = read_entries(path, info, limit=limit)
    cameras = _cameras(info)
    digest = cache(content_digest)
    columns = [
        name
        for name, feature in info.features.items()
        if feature.dtype in _NUMBERS and name != "index"
    ]
    columns += [name for name in _COUNTERS if name != "index" and name not in columns]
    by_file: dict[Path, list[Entry]] = {}
    for entry in entries:
        by_file.setdefault(entry.data, []).append(entry)
    found: dict[int, Episode] = {}
    for data, held in by_file.items():
        for entry, arrays in zip(held, _rows(data, held, columns), strict=True):
            kept = evenly_spaced(entry.length, frames)
            sources = _sources(path, entry, cameras, info, arrays, kept, tolerance)
            files = {file for file, _ in entry.videos.values()}
            if info.images:
                files.add(data)
            parts = [digest(file) for file in sorted(files)]
            parts += [f"{key} {start}" for key, (_, start) in sorted(entry.videos.items())]
            found[entry.index] = _episode(info, tasks, entry, arrays, kept, sources, parts)
    return Episodes([found[entry.index] for entry in entries])


def _rows(path: Path, entries: list[Entry], columns: list[str]) -> list[Arrays]:
    """Per episode the rows of every column, from one pass through one file."""
    parts: dict[int, list[Arrays]] = {entry.index: [] for entry in entries}
    with open_parquet(path) as file:
        span = ("episode_index", min(parts), max(parts))
        for batch in batches(path, file, columns, where=span):
            values = {name: numbers(path, name, batch.column(name)) for name in columns}
            index = values["episode_index"][:, 0]
            cuts = [0, *(np.flatnonzero(np.diff(index)) + 1).tolist(), len(index)]
            for first, last in itertools.pairwise(cuts):
                if first < last and int(index[first]) in parts:
                    part = {name: array[first:last].copy() for name, array in values.items()}
                    parts[int(index[first])].append(part)
    found = []
    for entry in entries:
        pieces = parts.pop(entry.index)
        rows = sum(len(piece["episode_index"]) for piece in pieces)
        if rows != entry.length or not rows:
            raise FormatError(
                f"{path} has {rows} rows of episode {entry.index}, whose length is said to be"
                f" {entry.length}; fetch the data set again"
            )
        try:
            arrays = {n: np.concatenate([piece[n] for piece in pieces]) for n in columns}
        except ValueError:
            raise FormatError(
                f"rows of episode {entry.index} in {path} differ in length; write them anew"
            ) from None
        if not np.array_equal(arrays["frame_index"][:, 0], np.arange(rows)):
            raise FormatError(
                f"frame_index of episode {entry.index} in {path} does not count from 0 to"
                f" {rows - 1}; write it anew"
            )
        found.append(arrays)
    return found


def _episode(
    info: Info,
    tasks: Mapping[int, str],
    entry: Entry,
    arrays: Arrays,
    kept: NDArray[np.int64],
    sources: Sources,
    parts: Iterable[str],
) -> Episode:
    success, labels = _labels(info, entry, arrays)
    text = _task(tasks, entry, arrays)
    steps = arrays[STEP][:, 0] if STEP in arrays else arrays["frame_index"][:, 0]
    times = arrays[TIME][:, 0] if TIME in arrays else arrays["timestamp"][:, 0]
    taken = {STATES, ACTIONS, TIME, STEP, *_COUNTERS, *_ENDS}
    extras = {
        name: _shaped(info, name, values)[kept]
        for name, values in arrays.items()
        if name not in taken
    }
    if len(np.unique(arrays["task_index"])) > 1:
        extras["task_index"] = arrays["task_index"][:, 0][kept]
    name = str(entry.facts.get("source/id", f"episode_{entry.index:06d}"))
    task = str(entry.facts.get("source/task", text))
    states = _floats(arrays.get(STATES), entry.length)[kept]
    actions = _floats(arrays.get(ACTIONS), entry.length)[kept]
    timestamps, steps = times.astype(np.float64)[kept], steps.astype(np.int64)[kept]
    held: Arrays = {"states": states, "actions": actions, "timestamps": timestamps, "steps": steps}
    return Episode(
        id=name,
        task=task,
        instruction=text,
        success=success,
        length=int(entry.facts.get("source/length", entry.length)),
        states=states,
        actions=actions,
        timestamps=timestamps,
        steps=steps,
        cameras=tuple(sources.cameras),
        loader=sources,
        digest=identity(name, task, text, str(success), *parts, arrays=held | extras),
        labels=labels,
        extras=extras,
    )


def _sources(
    folder: Path,
    entry: Entry,
    cameras: Mapping[str, str],
    info: Info,
    arrays: Arrays,
    kept: NDArray[np.int64],
    tolerance: float | None,
) -> Sources:
    times = arrays["timestamp"][:, 0].astype(np.float64)[kept]
    found: dict[str, Source] = {}
    for camera, key in cameras.items():
        if key in entry.videos:
            file, start = entry.videos[key]
            limit = 0.25 / info.fps if tolerance is None else tolerance
            found[camera] = VideoSpan(file, start, times, limit)
        else:
            found[camera] = ImageColumn(folder, entry.data, key, entry.index, kept)
    return Sources(found)


def _cameras(info: Info) -> dict[str, str]:
    """Name -> feature of every camera, in the order of the file."""
    keys = [n for n, feature in info.features.items() if feature.dtype in ("video", "image")]
    short = [key.removeprefix(CAMERA) for key in keys]
    return {
        key if short.count(name) > 1 or not name else name: key
        for key, name in zip(keys, short, strict=True)
    }


def _labels(info: Info, entry: Entry, arrays: Arrays) -> tuple[bool, dict[str, Label]]:
    labels: dict[str, Label] = {}
    if info.robot_type:
        labels["robot_type"] = info.robot_type
    if info.splits and len(info.splits) > 1:
        for name, span in info.splits.items():
            first, _, last = str(span).partition(":")
            if first.isdecimal() and last.isdecimal() and int(first) <= entry.index < int(last):
                labels["split"] = name
    for name, value in entry.facts.items():
        if not name.startswith("source/"):
            labels[name.removeprefix("labels/")] = value
    said = entry.facts.get("source/success", entry.facts.get("success"))
    if isinstance(said, bool):
        return said, labels
    if "next.success" in arrays:
        return bool(arrays["next.success"].any()), labels
    return True, labels | {"success_known": False}


def _task(tasks: Mapping[int, str], entry: Entry, arrays: Arrays) -> str:
    number = int(arrays["task_index"][0, 0])
    if number in tasks:
        return tasks[number]
    if entry.tasks:
        return entry.tasks[0]
    raise FormatError(
        f"episode {entry.index} in {entry.data} has task {number}, which the list of tasks lacks"
    )


def _floats(values: NDArray[np.generic] | None, rows: int) -> NDArray[np.float32]:
    if values is None:
        return np.empty((rows, 0), dtype=np.float32)
    return values.astype(np.float32)


def _shaped(info: Info, name: str, values: NDArray[np.generic]) -> NDArray[np.generic]:
    feature = info.features[name]
    values = values.astype(np.dtype(feature.dtype), copy=False)
    shape = feature.source_shape
    return values if shape is None else values.reshape(len(values), *shape)

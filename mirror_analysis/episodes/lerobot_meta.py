"""What the `meta` folder of a LeRobotDataset says: features, tasks, and where episodes lie."""

from __future__ import annotations

import re
import string
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import isfinite, prod
from pathlib import Path
from typing import Any, final

import msgspec

from mirror_analysis.episodes.episode import Label
from mirror_analysis.episodes.parquet import column_names, open_parquet, plain_rows
from mirror_analysis.errors import FormatError, MirrorError, MissingFileError
from mirror_analysis.files.jsons import read_json
from mirror_analysis.files.places import inside, require_file, shown

MOST_FEATURES = 2000
"""Of one data set."""
MOST_VALUES = 2**20
"""Of one numeric feature at one time."""

_VERSIONS = re.compile(r"v(2\.[01]|3\.\d+)")
_WIDTH = re.compile(r"0?\d{0,2}d?")
_MOST_LINES = 512 * 2**20


class Feature(msgspec.Struct, frozen=True):
    """One line of `features` in `info.json`.

    Attributes:
        dtype: "video", "image", "string", or a type of number.
        shape: of one value.
        source_shape: the shape it had before it was laid out in a row, where that is known.
    """

    dtype: str
    shape: list[int] | None = None
    source_shape: list[int] | None = None


class Info(msgspec.Struct, frozen=True):
    """The part of `info.json` that is read.

    Attributes:
        codebase_version: such as "v3.0".
        fps: frames per second.
        features: by name.
        data_path: template of the Parquet files.
        video_path: template of the video files, where there are any.
        chunks_size: files, or in version 2 episodes, per folder.
        robot_type: what was moved.
        splits: name -> "first:last" episode, the last not included.
    """

    codebase_version: str
    fps: float
    features: dict[str, Feature]
    data_path: str
    video_path: str | None = None
    chunks_size: int = 1000
    robot_type: str | None = None
    splits: dict[str, Any] | None = None

    @property
    def videos(self) -> list[str]:
        """Features whose pictures are in video files."""
        return [name for name, feature in self.features.items() if feature.dtype == "video"]

    @property
    def images(self) -> list[str]:
        """Features whose pictures are in the Parquet files."""
        return [name for name, feature in self.features.items() if feature.dtype == "image"]


@final
@dataclass(frozen=True, kw_only=True)
class Entry:
    """Where one episode lies.

    Attributes:
        index: its number.
        length: its rows.
        tasks: what was asked for; usually one text.
        data: its Parquet file.
        videos: feature -> (video file, seconds at which the episode starts in it).
        facts: what else is said of the whole episode.
    """

    index: int
    length: int
    tasks: tuple[str, ...]
    data: Path
    videos: Mapping[str, tuple[Path, float]]
    facts: Mapping[str, Label]


def read_info(folder: Path) -> Info:
    """The checked `meta/info.json` of a data set.

    Raises:
        MissingFileError: if it is not there.
        FormatError: if it is damaged, of a version that is not read, or beyond bounds.
    """
    path = inside(folder, "meta/info.json")
    if not path.is_file():
        raise MissingFileError(f"no {path}; needed the folder of a LeRobotDataset")
    info: Info = read_json(path, Info, most=2**24)
    if not _VERSIONS.fullmatch(info.codebase_version):
        raise FormatError(
            f"{folder} is a LeRobotDataset of version {shown(info.codebase_version)}; v2.0, v2.1"
            " and v3.0 are read, so convert it"
        )
    if not (isfinite(info.fps) and 0 < info.fps < 10_000 and 0 < info.chunks_size < 10**9):
        raise FormatError(
            f"{path} says {info.fps:g} frames a second and chunks of {info.chunks_size}; needed"
            " positive numbers"
        )
    if len(info.features) > MOST_FEATURES:
        raise FormatError(
            f"{path} names {len(info.features)} features; needed at most {MOST_FEATURES}"
        )
    for name, feature in info.features.items():
        for shape in (feature.shape or [], feature.source_shape or []):
            most = MOST_VALUES if feature.dtype not in ("video", "image") else 2**30
            if any(n < 0 for n in shape) or prod(shape) > most or len(shape) > 32:
                raise FormatError(
                    f"feature {shown(name)} in {path} has shape {shown(shape)}; needed at most"
                    f" {most} values"
                )
    return info


def fill(template: str, path: Path, **fields: int | str) -> str:
    """A path template of `info.json` with its fields filled in, and nothing else done.

    Python's own `format` reads attributes, indexes and widths that a template names; here a field
    is one of the given names with a width of two digits at most.

    Args:
        template: such as "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet".
        path: the file it comes from, for messages.
        fields: what may be filled in.

    Raises:
        FormatError: if it names anything else.

    Example:
        >>> fill("videos/{video_key}/{file_index:03d}.mp4", path, video_key="top", file_index=7)
        'videos/top/007.mp4'
    """
    parts: list[str] = []
    try:
        for text, name, width, conversion in string.Formatter().parse(template):
            parts.append(text)
            if name is not None:
                if name not in fields or conversion or not _WIDTH.fullmatch(width or ""):
                    raise ValueError(name)
                value = fields[name]
                if width and not isinstance(value, int):
                    raise ValueError(name)
                parts.append(format(value, width or ""))
    except ValueError:
        raise FormatError(
            f"{path} has the path template {shown(template)}; needed one of the fields"
            f" {', '.join(sorted(fields))} with a width such as 03d"
        ) from None
    return "".join(parts)


def read_tasks(folder: Path, info: Info) -> dict[int, str]:
    """Number -> text of every task.

    Raises:
        MissingFileError: if the list of tasks is not there.
        FormatError: if it is damaged.
    """
    if info.codebase_version.startswith("v2"):
        rows: list[dict[str, Any]] = list(_lines(inside(folder, "meta/tasks.jsonl")))
    else:
        rows = plain_rows(inside(folder, "meta/tasks.parquet"))
    tasks: dict[int, str] = {}
    for row in rows:
        number = row.get("task_index")
        text = row.get("task", row.get("__index_level_0__"))
        if type(number) is not int or not isinstance(text, str):
            raise FormatError(
                f"the list of tasks in {folder}/meta has the line {shown(row)}; needed a task_index"
                " and a task"
            )
        tasks[number] = text
    return tasks


def read_entries(folder: Path, info: Info, *, limit: int | None = None) -> list[Entry]:
    """Where each episode lies, in order.

    Args:
        folder: of the data set.
        info: from `read_info`.
        limit: the first so many.

    Raises:
        MissingFileError: if the list of episodes is not there.
        FormatError: if it is damaged, or names a file outside the folder.
    """
    old = info.codebase_version.startswith("v2")
    rows = _lines(inside(folder, "meta/episodes.jsonl")) if old else _table(folder)
    entries: dict[int, Entry] = {}
    for row in rows:
        if limit is not None and len(entries) >= limit:
            break
        try:
            entry = (_old_entry if old else _entry)(folder, info, row)
        except (KeyError, TypeError, ValueError) as error:
            raise FormatError(
                f"the list of episodes in {folder}/meta has a line without a usable"
                f" {shown(error)}; write it anew"
            ) from None
        if entry.index in entries:
            raise FormatError(f"{folder}/meta lists episode {entry.index} twice; write it anew")
        entries[entry.index] = entry
    return list(entries.values())


def _entry(folder: Path, info: Info, row: Mapping[str, Any]) -> Entry:
    where = folder / "meta" / "info.json"
    videos = {}
    for key in info.videos:
        name = fill(
            _video_path(info, where),
            where,
            video_key=key,
            chunk_index=_whole(row, f"videos/{key}/chunk_index"),
            file_index=_whole(row, f"videos/{key}/file_index"),
        )
        start = float(row[f"videos/{key}/from_timestamp"])
        if not (isfinite(start) and start >= 0):
            raise ValueError(f"videos/{key}/from_timestamp")
        videos[key] = (inside(folder, name), start)
    data = fill(
        info.data_path,
        where,
        chunk_index=_whole(row, "data/chunk_index"),
        file_index=_whole(row, "data/file_index"),
    )
    return _made(row, inside(folder, data), videos)


def _old_entry(folder: Path, info: Info, row: Mapping[str, Any]) -> Entry:
    where = folder / "meta" / "info.json"
    index = _whole(row, "episode_index")
    fields = {"episode_index": index, "episode_chunk": index // info.chunks_size}
    videos = {
        key: (inside(folder, fill(_video_path(info, where), where, video_key=key, **fields)), 0.0)
        for key in info.videos
    }
    return _made(row, inside(folder, fill(info.data_path, where, **fields)), videos)


def _made(row: Mapping[str, Any], data: Path, videos: Mapping[str, tuple[Path, float]]) -> Entry:
    tasks = row.get("tasks") or ()
    if isinstance(tasks, str):
        tasks = (tasks,)
    if not all(isinstance(text, str) for text in tasks):
        raise ValueError("tasks")
    known = ("episode_index", "length", "tasks", "dataset_from_index", "dataset_to_index")
    facts = {
        name: value
        for name, value in row.items()
        if name not in known
        and not name.startswith(("data/", "videos/", "meta/", "stats/"))
        and isinstance(value, str | int | float | bool)
    }
    return Entry(
        index=_whole(row, "episode_index"),
        length=_whole(row, "length"),
        tasks=tuple(tasks),
        data=data,
        videos=videos,
        facts=facts,
    )


def _video_path(info: Info, where: Path) -> str:
    if info.video_path is None:
        raise FormatError(f"{where} has video features but no video_path; give the template")
    return info.video_path


def _whole(row: Mapping[str, Any], name: str) -> int:
    value = row[name]
    if isinstance(value, bool) or int(value) != value or not 0 <= value < 2**48:
        raise ValueError(name)
    return int(value)


def _table(folder: Path) -> Iterator[dict[str, Any]]:
    place = folder / "meta" / "episodes"
    paths = sorted(place.glob("*/*.parquet")) if place.is_dir() else []
    if not paths:
        raise MissingFileError(f"no episodes/*/*.parquet in {folder / 'meta'}; restore the list")
    for path in paths:
        inside(folder, path.relative_to(folder).as_posix())
        with open_parquet(path) as file:
            names = column_names(file)
        yield from plain_rows(path, [n for n in names if not n.startswith(("stats/", "meta/"))])


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with require_file(path, "a list of one line each", most=_MOST_LINES).open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                try:
                    yield read_json(line)
                except MirrorError as error:
                    raise FormatError(f"line {number} of {path}: {error}") from None

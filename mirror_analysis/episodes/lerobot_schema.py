"""What all episodes of one LeRobotDataset share: features, labels, rate; checked before writing."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from mirror_analysis.episodes.episode import Episode, Episodes, Label
from mirror_analysis.episodes.lerobot import ACTIONS, CAMERA, STATES, STEP, TIME
from mirror_analysis.episodes.video_encoder import rate_of
from mirror_analysis.errors import FormatError, ShapeError

COUNTERS = {
    "timestamp": "float32",
    "frame_index": "int64",
    "episode_index": "int64",
    "index": "int64",
    "task_index": "int64",
}
"""Columns of every data set, and their types."""

_NAME = re.compile(r"[\w.-]{1,200}")
_LABEL_TYPES: dict[type, str] = {bool: "bool", int: "int64", float: "float64", str: "string"}


@final
@dataclass(frozen=True, kw_only=True)
class Schema:
    """What every episode has.

    Attributes:
        rate: frames per second.
        cameras: names of the views.
        numbers: feature -> (type, shape of the array per frame, as the episodes have it).
        labels: label -> type of its column.
    """

    rate: Fraction
    cameras: tuple[str, ...]
    numbers: Mapping[str, tuple[str, tuple[int, ...]]]
    labels: Mapping[str, str]

    @property
    def fps(self) -> int | float:
        """The rate as JSON has it."""
        return self.rate.numerator if self.rate.denominator == 1 else float(self.rate)

    def features(
        self, sizes: Mapping[str, tuple[int, int]], video: Mapping[str, Any] | None
    ) -> dict[str, dict[str, Any]]:
        """The `features` of `info.json`.

        Args:
            sizes: camera -> height and width.
            video: facts of the video files; None where pictures are in the Parquet files.
        """
        return _features(self, sizes, video)


def schema_of(episodes: Episodes, *, fps: float | None) -> Schema:
    """What the episodes share.

    Args:
        episodes: at least one.
        fps: frames per second; when not given that of most timestamps, as a whole number where
            it is within half a percent of one.

    Raises:
        ShapeError: if there are no episodes, they differ in their arrays, or no rate can be told.
        FormatError: if a name or a type of number cannot be written.
    """
    if not len(episodes):
        raise ShapeError("no episodes to write; needed at least one")
    first = episodes[0]
    shared = _numbers(first)
    for episode in episodes:
        if _numbers(episode) != shared or set(episode.cameras) != set(first.cameras):
            raise ShapeError(
                f"episode {episode.id} has {_words(episode)}, but {first.id} has {_words(first)};"
                " a data set needs the same of every episode"
            )
    for camera in first.cameras:
        if not _NAME.fullmatch(camera) or ".." in camera:
            raise FormatError(
                f"camera {camera!r} cannot be a folder's name; needed letters, digits, '.', '_'"
                " and '-'"
            )
    taken = {f"{CAMERA}{camera}" for camera in first.cameras} | COUNTERS.keys()
    taken |= {STATES, ACTIONS, TIME, STEP, "next.success", "next.done", "task"}
    for name, values in first.extras.items():
        if name in taken or not _NAME.fullmatch(name):
            raise FormatError(
                f"extra {name!r} cannot be a feature's name; needed letters, digits, '.', '_' and"
                f" '-', and none of {', '.join(sorted(taken))}"
            )
        if values.dtype.kind not in "biuf" or values.dtype.itemsize > 8 or not values[0].size:
            raise FormatError(
                f"extra {name!r} holds {values.dtype} of shape {list(values.shape[1:])}; needed"
                " numbers of at most 64 bits"
            )
    rate = rate_of(_rate(episodes) if fps is None else fps)
    return Schema(
        rate=rate,
        cameras=first.cameras,
        numbers=shared,
        labels=_label_types(episodes),
    )


def splits(episodes: Iterable[Episode]) -> dict[str, str]:
    """Name -> "first:last" of the `split` labels; one split for all where they are not in runs."""
    found: dict[str, list[int]] = {}
    count = 0
    for count, episode in enumerate(episodes, start=1):
        found.setdefault(str(episode.labels.get("split", "")), []).append(count - 1)
    if "" in found or any(len(v) != v[-1] - v[0] + 1 for v in found.values()):
        return {"train": f"0:{count}"}
    return {name: f"{v[0]}:{v[-1] + 1}" for name, v in found.items()}


def plain(value: Label | np.generic) -> Label:
    """A label without numpy."""
    return value.item() if isinstance(value, np.generic) else value


def _features(
    schema: Schema, sizes: Mapping[str, tuple[int, int]], video: Mapping[str, Any] | None
) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for camera in schema.cameras:
        height, width = sizes[camera]
        feature: dict[str, Any] = {
            "dtype": "image" if video is None else "video",
            "shape": [height, width, 3],
            "names": ["height", "width", "channels"],
        }
        if video is not None:
            feature["info"] = {"video.height": height, "video.width": width, **video}
        found[f"{CAMERA}{camera}"] = feature
    for name, (dtype, shape) in schema.numbers.items():
        flat = [int(np.prod(shape, dtype=np.int64))]
        found[name] = {"dtype": dtype, "shape": flat, "names": None}
        if list(shape) != flat:
            found[name]["source_shape"] = list(shape)
    for name, dtype in COUNTERS.items():
        found[name] = {"dtype": dtype, "shape": [1], "names": None}
    return found


def arrays_of(episode: Episode) -> dict[str, NDArray[np.generic]]:
    """Feature -> [time, ...] of everything but pictures and the format's own counters."""
    last = np.arange(len(episode.steps)) == len(episode.steps) - 1
    found: dict[str, NDArray[np.generic]] = {STATES: episode.states, ACTIONS: episode.actions}
    found = {name: values for name, values in found.items() if values.shape[1]}
    return {
        **found,
        **episode.extras,
        "next.done": last,
        "next.success": last & bool(episode.success),
        TIME: episode.timestamps,
        STEP: episode.steps,
    }


def _numbers(episode: Episode) -> dict[str, tuple[str, tuple[int, ...]]]:
    found = {}
    for name, values in arrays_of(episode).items():
        own = name in (TIME, STEP, "next.done", "next.success")
        found[name] = (values.dtype.name, (1,) if own else values.shape[1:])
    return found


def _words(episode: Episode) -> str:
    numbers = [
        f"{name} {dtype}{list(shape)}"
        for name, (dtype, shape) in _numbers(episode).items()
        if name not in (TIME, STEP, "next.done", "next.success")
    ]
    return ", ".join([*(f"camera {camera}" for camera in episode.cameras), *numbers]) or "nothing"


def _rate(episodes: Episodes) -> float:
    gaps = np.concatenate([np.diff(episode.timestamps) for episode in episodes])
    gap = float(np.median(gaps)) if len(gaps) else 0.0
    if gap <= 0:
        raise ShapeError("the timestamps do not tell how many frames there are a second; give fps")
    # Clocks tremble, and readers of the format expect a whole number.
    fps = 1 / gap
    return float(round(fps)) if abs(fps - round(fps)) < 0.005 * fps else fps


def _label_types(episodes: Episodes) -> dict[str, str]:
    found: dict[str, str] = {}
    for episode in episodes:
        for name, given in episode.labels.items():
            value = plain(given)
            kind = _LABEL_TYPES.get(type(value))
            if kind is None or (kind == "int64" and not -(2**63) <= int(value) < 2**63):
                raise FormatError(
                    f"label {name!r} of episode {episode.id} is {value!r}; needed a text, a number"
                    " of 64 bits, True or False"
                )
            before = found.setdefault(name, kind)
            if before != kind and {before, kind} != {"int64", "float64"}:
                raise FormatError(
                    f"label {name!r} is {before} in some episodes and {kind} in {episode.id};"
                    " needed one type"
                )
            if before != kind:
                found[name] = "float64"
    return found

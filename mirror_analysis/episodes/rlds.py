"""RLDS episodes in TFRecord shards, as TensorFlow Datasets writes them; read without TensorFlow."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from mirror_analysis.episodes.episode import Episode, Episodes, Label
from mirror_analysis.episodes.identity import identity
from mirror_analysis.episodes.selection import evenly_spaced, numbered
from mirror_analysis.episodes.stacking import stacked
from mirror_analysis.errors import DefinitionError, FormatError, MirrorError, MissingFileError
from mirror_analysis.files.jsons import read_json
from mirror_analysis.files.kinds import kind_of
from mirror_analysis.files.pictures import read_picture
from mirror_analysis.files.places import inside, shown
from mirror_analysis.files.tfrecords import example, records

SUMMARY = "RLDS episodes in TFRecord shards, such as those of Open X-Embodiment"

Values = list[bytes] | NDArray[Any]

_FEATURES = "features.json"
_HEAD, _TAIL = 12, 4  # bytes of a record before and after its contents
_WIDEST = 256  # numbers per step; wider ones are embeddings and would fill the memory
_DEEPEST = 32  # levels of features inside features
_SHARD = re.compile(r"(?P<name>.+)-(?P<split>[^-]+)\.tfrecord-(?P<shard>[0-9]+)-of-[0-9]+")
_PICTURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")
_COUNTED = ("is_first", "is_last", "is_terminal", "reward", "discount")
_STATES = ("state", "proprio", "robot_state")
_INSTRUCTIONS = (
    "steps/language_instruction",
    "steps/observation/language_instruction",
    "steps/natural_language_instruction",
    "steps/observation/natural_language_instruction",
    "episode_metadata/language_instruction",
)


def recognise(path: Path) -> bool:
    """Whether a file is a TFRecord shard, or a folder (or its newest version) holds some."""
    try:
        shards = _shards(path)
        return bool(shards) and kind_of(shards[0]) == "tfrecord"
    except MirrorError:
        return False


def read(
    path: Path, *, limit: int | None = None, frames: int | None = None, rate: float = 1.0
) -> Episodes:
    """Reads RLDS: shards of records, one of them an episode, and the `features.json` beside them.

    Where `features.json` is missing, shapes come from the number of steps and pictures from their
    first bytes. Every shard is read through once, which finds where each episode lies; its
    pictures are read again from there, alone.

    - cameras: pictures of three channels, by their names below `steps/observation/`, sorted.
    - states: `observation/state`, or `proprio` or `robot_state`; else all vectors of the
      observation in the order of their names, embeddings aside.
    - actions: `action`, or its parts in the order of their names.
    - extras: every other number of a step, up to 256 a step, such as "reward", and the parts above.
    - instruction: the first text of `language_instruction` or `natural_language_instruction`.
      It is the task, too; where there is none, the name of the data set is.
    - success: `episode_metadata/success` where it is there, else whether a reward was positive,
      else whether the last step is terminal. The label success_known is False where all of this
      says nothing, as in an excerpt of an episode.
    - timestamps: RLDS has none; steps divided by `rate`.
    - labels: split, shard and what `episode_metadata` holds.

    Args:
        path: a shard, a folder of shards, or the folder of a data set with a folder per version.
        limit: keep the first so many episodes.
        frames: keep that many evenly spaced frames of each.
        rate: steps per second, such as 5 for BridgeData V2.

    Raises:
        MissingFileError: if there is no shard.
        FormatError: if a file is not what it should be.
        DefinitionError: if the rate is not positive.

    Source:
        Ramos et al., RLDS (2021); TensorFlow Datasets.

    Example:
        >>> read(Path("bridge_dataset/1.0.0"), limit=100, rate=5)
    """
    if not rate > 0:
        raise DefinitionError(f"rate is {rate} steps per second; needed more than 0")
    shards = _shards(path)
    if not shards:
        raise MissingFileError(f"no TFRecord shard at {path}; give a shard or the folder of some")
    described = inside(shards[0].parent, _FEATURES)
    features = _features(described) if described.is_file() else {}
    found = (episode for shard in shards for episode in _episodes(shard, features, frames, rate))
    return Episodes(islice(found, limit))


@final
@dataclass(frozen=True)
class _Feature:
    """What `features.json` says of one key: kind "tensor", "picture", "text" or "other"."""

    kind: str
    shape: tuple[int, ...] | None = None
    truth: bool = False


@final
@dataclass(frozen=True)
class _Pictures:
    """Reads the pictures of one episode from its place in a shard."""

    shard: Path
    offset: int
    size: int
    sha256: str
    keys: tuple[tuple[str, str], ...]
    steps: tuple[int, ...]

    def __call__(self, camera: str) -> NDArray[np.uint8]:
        coded = example(self._record())[dict(self.keys)[camera]]
        pictures = (read_picture(coded[step]) for step in self.steps)
        where = f"of {shown(camera)} in a record of {self.shard}"
        return stacked(pictures, count=len(self.steps), where=where)

    def _record(self) -> bytes:
        try:
            with self.shard.open("rb") as file:
                file.seek(self.offset + _HEAD)
                record = file.read(self.size)
        except OSError as error:
            raise MissingFileError(
                f"{self.shard} cannot be read any more ({error.strerror}); restore it"
            ) from None
        if hashlib.sha256(record).hexdigest() != self.sha256:
            raise FormatError(f"{self.shard} changed while it was in use; read the episodes again")
        return record


def _shards(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path] if path.is_file() else []
    shards = sorted(
        (file for file in path.iterdir() if ".tfrecord" in file.name and file.is_file()),
        key=lambda file: numbered(file.name),
    )
    if shards:
        return [inside(path, shard.name) for shard in shards]
    versions = [each for each in path.iterdir() if re.fullmatch(r"[0-9]+(\.[0-9]+)*", each.name)]
    newest = sorted(versions, key=lambda version: numbered(version.name))[-1:]
    return [shard for version in newest if version.is_dir() for shard in _shards(version)]


def _features(file: Path) -> dict[str, _Feature]:
    try:
        return dict(_flat(read_json(file, type=dict), "", 0))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FormatError(
            f"{file} does not describe features ({type(error).__name__}: {shown(error)});"
            " needed the file that TensorFlow Datasets wrote"
        ) from None


def _flat(node: Mapping[str, Any], name: str, depth: int) -> Iterator[tuple[str, _Feature]]:
    if depth > _DEEPEST:
        raise ValueError(f"more than {_DEEPEST} levels")
    if "featuresDict" in node:
        for key, child in node["featuresDict"]["features"].items():
            yield from _flat(child, f"{name}/{key}" if name else key, depth + 1)
    elif "sequence" in node and name == "steps":
        yield from _flat(node["sequence"]["feature"], name, depth + 1)
    elif "image" in node:
        sizes = node["image"]["shape"].get("dimensions", [])
        colour = [int(size) for size in sizes][2:] == [3]
        kind = "picture" if colour and node["image"].get("dtype") == "uint8" else "other"
        yield name, _Feature(kind)
    elif "tensor" in node:
        about = node["tensor"]
        shape = tuple(int(size) for size in about["shape"].get("dimensions", []))
        plain = about.get("encoding", "none") == "none" and about["dtype"] != "string"
        fixed = plain and min(shape, default=1) >= 0
        kind = "tensor" if fixed else "text" if about["dtype"] == "string" else "other"
        yield name, _Feature(kind, shape, about["dtype"] == "bool")
    else:
        yield name, _Feature("text" if "text" in node else "other")


def _episodes(
    shard: Path, features: Mapping[str, _Feature], frames: int | None, rate: float
) -> Iterator[Episode]:
    match = _SHARD.fullmatch(shard.name)
    name, split = (match["name"], match["split"]) if match else (shard.name, "")
    prefix = f"{name}-{split}-{match['shard']}" if match else name
    offset = 0
    for position, record in enumerate(records(shard)):
        where = f"record {position} of {shard}"
        values = example(record)
        sorted_out = _sort(values, features, where)
        chosen = evenly_spaced(sorted_out.count, frames)
        sha256 = hashlib.sha256(record).hexdigest()
        instruction = _instruction(values)
        success, known = _success(values, sorted_out)
        labels: dict[str, Label] = {"shard": shard.name, "success_known": known}
        if split:
            labels["split"] = split
        yield Episode(
            id=f"{prefix}/{position}",
            task=instruction or name,
            instruction=instruction,
            success=success,
            states=sorted_out.states()[chosen],
            actions=sorted_out.actions()[chosen],
            timestamps=chosen / rate,
            steps=chosen,
            length=sorted_out.count,
            cameras=tuple(sorted_out.cameras),
            loader=_Pictures(
                shard,
                offset,
                len(record),
                sha256,
                tuple(sorted_out.cameras.items()),
                tuple(chosen.tolist()),
            ),
            digest=identity(sha256, str(rate), arrays={"steps": chosen}),
            labels=labels | _metadata(values, features),
            extras={key: each[chosen] for key, each in sorted_out.extras().items()},
        )
        offset += _HEAD + len(record) + _TAIL


@final
@dataclass(frozen=True)
class _Steps:
    """The steps of one record: numbers by key, [step, ...], and key of each camera."""

    count: int
    numbers: Mapping[str, NDArray[Any]]
    cameras: Mapping[str, str]

    def actions(self) -> NDArray[np.float32]:
        parts = [key for key in sorted(self.numbers) if key.startswith("steps/action/")]
        return self._joined(["steps/action"] if "steps/action" in self.numbers else parts)

    def states(self) -> NDArray[np.float32]:
        seen = [key for key in sorted(self.numbers) if key.startswith("steps/observation/")]
        named = [key for s in _STATES if (key := f"steps/observation/{s}") in seen][:1]
        return self._joined(named or [key for key in seen if "embedding" not in key])

    def extras(self) -> dict[str, NDArray[Any]]:
        named: dict[str, NDArray[Any]] = {}
        for key, values in sorted(self.numbers.items()):
            if key == "steps/action":
                continue
            name = key.removeprefix("steps/")
            names = (name.removeprefix("observation/"), name, key)
            named[next(each for each in names if each not in named)] = values
        return named

    def _joined(self, keys: list[str]) -> NDArray[np.float32]:
        none = np.zeros((self.count, 0), np.float32)
        flat = [self.numbers[key].reshape(self.count, -1).astype(np.float32) for key in keys]
        return np.concatenate([none, *flat], axis=1)


def _sort(values: Mapping[str, Values], features: Mapping[str, _Feature], where: str) -> _Steps:
    """Tells numbers from pictures, and gives every array its shape."""
    stepwise = {key: value for key, value in values.items() if key.startswith("steps/")}
    lengths = [len(stepwise[key]) for name in _COUNTED if (key := f"steps/{name}") in stepwise]
    lengths += [len(value) for value in stepwise.values() if isinstance(value, list)]
    if not lengths or not lengths[0]:
        raise FormatError(f"{where} has no steps; needed an RLDS episode with keys 'steps/...'")
    count = lengths[0]
    numbers: dict[str, NDArray[Any]] = {}
    cameras: dict[str, str] = {}
    for key in sorted(stepwise, key=numbered):
        value = stepwise[key]
        feature = features.get(key)
        if isinstance(value, list):
            coded = len(value) == count and all(each.startswith(_PICTURES) for each in value)
            if feature.kind == "picture" if feature else coded:
                if len(value) != count:
                    raise FormatError(
                        f"{shown(key)} in {where} has {len(value)} of {count} pictures"
                    )
                name = key.removeprefix("steps/").removeprefix("observation/")
                cameras[name] = key
        elif feature is None or feature.kind == "tensor":
            if len(value) % count or not len(value):
                if feature is None:
                    continue
                raise FormatError(
                    f"{shown(key)} in {where} has {len(value)} numbers for {count} steps"
                )
            if len(value) // count > _WIDEST:
                continue
            shape = feature.shape if feature else None
            if shape is None:
                shape = () if len(value) == count else (len(value) // count,)
            if int(np.prod(shape)) != len(value) // count:
                raise FormatError(
                    f"{shown(key)} in {where} has {len(value) // count} numbers a step;"
                    f" {_FEATURES} says {list(shape)}"
                )
            shaped = value.reshape(count, *shape)
            numbers[key] = shaped.astype(np.bool_) if feature and feature.truth else shaped
    return _Steps(count, numbers, cameras)


def _instruction(values: Mapping[str, Values]) -> str:
    for key in _INSTRUCTIONS:
        said = values.get(key)
        if isinstance(said, list) and said and said[0]:
            return said[0].decode("utf-8", "replace").strip()
    return ""


def _success(values: Mapping[str, Values], steps: _Steps) -> tuple[bool, bool]:
    """Whether the episode succeeded, and whether anything says so."""
    stated = values.get("episode_metadata/success")
    if isinstance(stated, np.ndarray) and len(stated) == 1:
        return bool(stated[0] > 0), True
    if (reward := steps.numbers.get("steps/reward")) is not None and (reward != 0).any():
        return bool((reward > 0).any()), True
    ends = [steps.numbers.get(f"steps/{name}") for name in ("is_last", "is_terminal")]
    done = [bool(end[-1].any()) for end in ends if end is not None]
    terminal = ends[1] is not None and bool(ends[1][-1].any())
    return terminal, any(done)


def _metadata(values: Mapping[str, Values], features: Mapping[str, _Feature]) -> dict[str, Label]:
    labels: dict[str, Label] = {}
    for key in sorted(values):
        value = values[key]
        name = key.removeprefix("episode_metadata/")
        if name == key or len(value) != 1:
            continue
        if isinstance(value, list):
            labels[name] = value[0].decode("utf-8", "replace")
        elif (feature := features.get(key)) and feature.truth:
            labels[name] = bool(value[0])
        else:
            labels[name] = value[0].item()
    return labels

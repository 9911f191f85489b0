"""Demonstrations in HDF5 files of robomimic, MimicGen, RoboCasa and LIBERO."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from mirror_analysis.episodes.episode import Episode, Episodes, Label
from mirror_analysis.episodes.identity import identity
from mirror_analysis.episodes.precision import single
from mirror_analysis.episodes.selection import evenly_spaced, numbered
from mirror_analysis.errors import FormatError, MirrorError, MissingFileError, StreamError
from mirror_analysis.files.digests import content_digest
from mirror_analysis.files.hdf5 import open_hdf5
from mirror_analysis.files.jsons import read_json
from mirror_analysis.files.kinds import kind_of
from mirror_analysis.files.places import inside, shown

SUMMARY = "HDF5 demonstrations of robomimic, MimicGen, RoboCasa and LIBERO"

_MOST_NUMBERS = 2**28  # bytes of one array of numbers
_MOST_PICTURES = 2**31  # bytes of the pictures of one camera of one episode
_ENDINGS = (".hdf5", ".h5", ".hdf")
_NOT_EXTRAS = ("actions", "states")


def recognise(path: Path) -> bool:
    """Whether an HDF5 file holds `data/demo_<i>`, or the first such file of a folder does.

    A file that is HDF5 but cannot be opened counts, so that reading it says why.
    """
    try:
        files = _files(path)[:1]
        if not files or kind_of(files[0]) != "hdf5":
            return False
    except MirrorError:
        return False
    try:
        with _opened(files[0]) as file:
            return "data" in file and any(name.startswith("demo") for name in file["data"])
    except MirrorError:
        return True


def read(path: Path, *, limit: int | None = None, frames: int | None = None) -> Episodes:
    """Reads an HDF5 file of demonstrations, or a folder of them such as a LIBERO suite.

    - cameras: the pictures in `obs`, under their names, such as "agentview_image" (robomimic) or
      "agentview_rgb" (LIBERO). LIBERO stores them upside down and says so
      (`macros_image_convention`: opengl); they are turned, the first row is the top one.
      Pictures of distance are no cameras; see `depth`.
    - states: the vectors in `obs`, joined in the alphabetical order of their names.
    - extras: each of these vectors by its name; rewards and dones; `simulator_states`, the state
      of the simulator; whatever else a demonstration holds a vector of at each step.
    - timestamps: step / `control_freq` of `env_args`; where there is none, one second a step.
    - task and instruction: of LIBERO the name of the file without `_demo`, and
      `language_instruction` of `problem_info`, or the name as LIBERO reads it; of RoboCasa
      `lang` of `ep_meta`; else `env_name`, which is no sentence.
    - success: demonstrations are successes, unless their rewards are 0 or 1 and never 1.
    - labels: file, demo, `mask_<filter key>` for every filter key; split, where there are
      the filter keys train or valid.

    Args:
        path: the file or folder.
        limit: keep the first so many episodes, demo_9 before demo_10.
        frames: keep that many evenly spaced frames of each.

    Raises:
        MissingFileError: if there is no such file.
        FormatError: if a file is not what it should be or holds links to other files.
        MissingDependencyError: if h5py is not installed.

    Source:
        Mandlekar et al., robomimic (2021); Liu et al., LIBERO (2023).

    Example:
        >>> read(Path("lift/ph/image.hdf5"), limit=20, frames=16)
    """
    files = _files(path)
    if not files:
        raise MissingFileError(f"no HDF5 file at {path}; give a file or a folder of .hdf5 files")
    episodes: list[Episode] = []
    for file in files:
        left = None if limit is None else limit - len(episodes)
        episodes += _read_file(file, left, frames)
    return Episodes(episodes)


def depth(episode: Episode, camera: str) -> NDArray[np.float32]:
    """Pictures of distance of an episode, as stored.

    robomimic stores metres. LIBERO stores the depth buffer of the renderer, in [0, 1].

    Args:
        episode: as given by `read`.
        camera: name in `obs`, such as "agentview_depth".

    Returns:
        [time, height, width].

    Raises:
        StreamError: if the episode is not from such a file, or has no pictures of distance there.
    """
    pictures = episode.loader
    if not isinstance(pictures, _Pictures):
        raise StreamError(f"episode {episode.id} was not read from robomimic HDF5; no depth here")
    with _opened(pictures.file) as file:
        found = file["data"][pictures.demo]["obs"]
        there = [name for name in found if _is_depth(found[name])]
        if camera not in there:
            raise StreamError(
                f"episode {episode.id} has no pictures of distance '{camera}'"
                f" (there are: {', '.join(there) or 'none'})"
            )
        values = _values(found[camera], np.array(pictures.steps, np.int64), _MOST_PICTURES)
    values = single(values.reshape(values.shape[:3]))
    return values[:, ::-1] if pictures.turned else values


@final
@dataclass(frozen=True)
class _Pictures:
    """Reads the pictures of one demonstration."""

    file: Path
    demo: str
    steps: tuple[int, ...]
    turned: bool

    def __call__(self, camera: str) -> NDArray[np.uint8]:
        with _opened(self.file) as file:
            stored = file["data"][self.demo]["obs"][camera]
            pictures = _values(stored, np.array(self.steps, np.int64), _MOST_PICTURES)
        return np.ascontiguousarray(pictures[:, ::-1]) if self.turned else pictures


@final
@dataclass(frozen=True)
class _Source:
    """What a file says about all of its demonstrations."""

    file: Path
    digest: str
    task: str
    instruction: str
    rate: float
    turned: bool
    masks: Mapping[str, frozenset[str]]


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path] if path.is_file() else []
    found = [file for file in path.iterdir() if file.suffix in _ENDINGS and file.is_file()]
    return [inside(path, f.name) for f in sorted(found, key=lambda f: numbered(f.name))]


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with open_hdf5(path) as file:
            yield file
    except (AttributeError, IndexError) as error:
        # A group where an array should be, or the other way round.
        raise FormatError(
            f"{path} is not laid out as robomimic does it: {shown(error)}; needed groups"
            " data/demo_<i> with arrays in them"
        ) from None


def _read_file(path: Path, limit: int | None, frames: int | None) -> list[Episode]:
    digest = content_digest(path)
    with _opened(path) as file:
        demos = sorted(
            (name for name in file.get("data", ()) if name.startswith("demo")), key=numbered
        )
        if not demos:
            raise FormatError(f"{path} holds no demonstration; needed groups data/demo_<i>")
        source = _source(path, file, digest)
        return [_episode(source, name, file["data"][name], frames) for name in demos[:limit]]


def _source(path: Path, file: Any, digest: str) -> _Source:
    about = file["data"].attrs
    environment = _json(about.get("env_args"), f"env_args of {path}")
    problem = _json(about.get("problem_info"), f"problem_info of {path}")
    settings = environment.get("env_kwargs")
    rate = settings.get("control_freq") if isinstance(settings, dict) else None
    task = environment.get("env_name") or about.get("env_name") or path.stem
    instruction = task
    if "problem_info" in about or "bddl_file_name" in about or path.stem.endswith("_demo"):
        task = path.stem.removesuffix("_demo")
        words = problem.get("language_instruction")
        words = " ".join(words) if isinstance(words, list) else words
        instruction = words or _from_name(task)
    masks = {key: frozenset(_names(file["mask"][key])) for key in file.get("mask", ())}
    return _Source(
        file=path,
        digest=digest,
        task=_text(task),
        instruction=_text(instruction).strip(),
        rate=float(rate) if isinstance(rate, int | float) and rate > 0 else 1.0,
        turned=_text(about.get("macros_image_convention", "")) == "opengl",
        masks=masks,
    )


def _episode(source: _Source, name: str, group: Any, frames: int | None) -> Episode:
    for key in ("actions", "states", "rewards"):
        if key in group and not _is_vector(group[key]):
            raise FormatError(
                f"'{key}' of {name} in {source.file} is no array of numbers; needed a row per step"
            )
    count = len(group["actions"])
    steps = evenly_spaced(count, frames)
    seen = group.get("obs", {})
    vectors = {
        key: _values(seen[key], steps, _MOST_NUMBERS, count)
        for key in sorted(seen)
        if _is_vector(seen[key])
    }
    recorded = {
        key: _values(group[key], steps, _MOST_NUMBERS, count)
        for key in sorted(group)
        if key not in _NOT_EXTRAS and _is_vector(group[key])
    }
    if "states" in group:
        recorded["simulator_states"] = _values(group["states"], steps, _MOST_NUMBERS, count)
    actions = _values(group["actions"], steps, _MOST_NUMBERS, count)

    cameras = [key for key in sorted(seen) if _is_camera(seen[key])]
    for camera in cameras:
        _require_rows(seen[camera], count)

    none = np.zeros((len(steps), 0), np.float32)
    flat = [single(each.reshape(len(steps), -1)) for each in vectors.values()]
    states = np.concatenate([none, *flat], axis=1)
    extras = vectors | recorded
    masks = {f"mask_{key}": name in demos for key, demos in source.masks.items()}
    split = [key for key in ("train", "valid") if masks.get(f"mask_{key}")]
    labels: dict[str, Label] = {"file": source.file.name, "demo": name, **masks}
    if split:
        labels["split"] = split[0]
    meta = _json(group.attrs.get("ep_meta"), f"ep_meta of {name} in {source.file}")
    return Episode(
        id=f"{source.file.stem}/{name}",
        task=source.task,
        instruction=_text(meta.get("lang") or source.instruction),
        success=_success(group, count),
        states=states,
        actions=single(actions.reshape(len(steps), -1)),
        timestamps=steps / source.rate,
        steps=steps,
        length=count,
        cameras=tuple(cameras),
        loader=_Pictures(source.file, name, tuple(steps.tolist()), source.turned),
        digest=identity(source.digest, name, arrays={**extras, "steps": steps, "actions": actions}),
        labels=labels,
        extras=extras,
    )


def _success(group: Any, count: int) -> bool:
    if "rewards" not in group:
        return True
    rewards = _values(group["rewards"], np.arange(count), _MOST_NUMBERS, count)
    sparse = bool(np.isin(rewards, (0, 1)).all())
    return bool((rewards == 1).any()) if sparse else True


def _is_array(node: Any, kinds: str, axes: tuple[int, ...]) -> bool:
    return hasattr(node, "shape") and node.dtype.kind in kinds and len(node.shape) in axes


def _is_vector(node: Any) -> bool:
    return _is_array(node, "biuf", (1, 2))


def _is_camera(node: Any) -> bool:
    return _is_array(node, "u", (4,)) and node.dtype.itemsize == 1 and node.shape[3] == 3


def _is_depth(node: Any) -> bool:
    return _is_array(node, "f", (3, 4)) and (len(node.shape) == 3 or node.shape[3] == 1)


def _values(
    stored: Any, steps: NDArray[np.int64], most: int, count: int | None = None
) -> NDArray[Any]:
    """Some rows of an array, once it is known to be small enough and to have all the rows."""
    if count is not None:
        _require_rows(stored, count)
    rows, size = stored.shape[0], stored.dtype.itemsize
    # A piece of a file is unpacked as a whole, however few of its rows are wanted.
    piece = int(np.prod(stored.chunks or (0,), dtype=np.float64))
    needed = size * max(piece, len(steps) * int(np.prod(stored.shape[1:], dtype=np.float64)))
    if needed > most:
        raise FormatError(
            f"{stored.name} of {stored.file.filename} would take {needed / 2**30:.1f} GiB;"
            f" at most {most / 2**30:g} are read at once, so ask for fewer frames"
        )
    every = len(steps) == rows
    values: NDArray[Any] = np.asarray(stored[()] if every else stored[steps])
    return values


def _require_rows(stored: Any, count: int) -> None:
    if stored.shape[0] != count:
        raise FormatError(
            f"{stored.name} of {stored.file.filename} has {stored.shape[0]} rows, but there are"
            f" {count} actions; needed one per action"
        )


def _names(stored: Any) -> list[str]:
    if stored.size > 10**6:
        raise FormatError(
            f"{stored.name} of {stored.file.filename} names {stored.size} demonstrations;"
            " needed at most a million"
        )
    return [_text(name) for name in np.asarray(stored[()]).reshape(-1).tolist()]


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _json(value: object, what: str) -> dict[str, Any]:
    if not isinstance(value, str | bytes):
        return {}
    try:
        return read_json(value if isinstance(value, bytes) else value.encode(), type=dict)
    except FormatError as error:
        raise FormatError(f"{what} cannot be read: {error}") from None


def _from_name(task: str) -> str:
    """LIBERO's rule: of KITCHEN_SCENE3_turn_on_the_stove what follows the scene."""
    scene = re.match(r"[A-Z].*?SCENE(10|[0-9])_", task)
    return (task[scene.end() :] if scene else task).replace("_", " ")

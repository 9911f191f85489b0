"""RLBench demonstrations, and the folders of PerAct and ARP that are made of them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import final

import numpy as np
from numpy.typing import NDArray

from mirror_analysis.episodes.episode import Episode, Episodes, Label
from mirror_analysis.episodes.identity import identity
from mirror_analysis.episodes.precision import single
from mirror_analysis.episodes.selection import evenly_spaced, numbered
from mirror_analysis.episodes.stacking import stacked
from mirror_analysis.errors import FormatError, MirrorError, MissingFileError, StreamError
from mirror_analysis.files.digests import content_digest
from mirror_analysis.files.inert import Record
from mirror_analysis.files.pickles import read_pickle
from mirror_analysis.files.pictures import read_picture
from mirror_analysis.files.places import inside, require_file, shown

SUMMARY = "RLBench demonstrations, and the folders of PerAct and ARP"

_DEMO = "low_dim_obs.pkl"
_DESCRIPTIONS = "variation_descriptions.pkl"
_VARIATION = "variation_number.pkl"
_CLASSES = ("rlbench.demo.Demo", "rlbench.backend.observation.Observation")

_SECONDS = 0.05  # of the simulator, from one observation to the next
_STATES = ("joint_positions", "gripper_open", "gripper_pose", "gripper_joint_positions")
_MORE = (
    "joint_velocities",
    "joint_forces",
    "gripper_matrix",
    "gripper_touch_forces",
    "task_low_dim_state",
    "ignore_collisions",
)
_VIEWS = ("front", "left_shoulder", "right_shoulder", "overhead", "wrist")
_DEPTH_LEVELS = 2**24 - 1

_DEEPEST = 5  # folders from the given one down to an episode: split/task/variation/episodes/episode
_LOOKED_AT = 1000  # folders seen before a path counts as something else
_PICTURES_HASHED = 8  # of each camera
_STILL = 0.1  # rad/s: slower than this in every joint is a stop
_PAUSE = 4  # observations after a stop in which there is no other


def recognise(path: Path) -> bool:
    """Whether a folder holds RLBench episodes: one with `low_dim_obs.pkl`, 5 levels down at most.

    Args:
        path: a folder of splits, tasks, variations or episodes, or one episode.
    """
    try:
        return any(found for _, found in islice(_walk(path), _LOOKED_AT))
    except MirrorError:
        return False


def read(path: Path, *, limit: int | None = None, frames: int | None = None) -> Episodes:
    """Reads RLBench demonstrations: `<task>/variation<N>/episodes/episode<K>` and PerAct's variant.

    The variant, which ARP trains on, has `all_variations` in place of `variation<N>` and the
    description inside the episode. Where pictures of some observations only were kept, such as
    the key frames, these are the frames of the episode; `steps` are the true ones.

    - cameras: the folders `*_rgb`, under their names, such as "front_rgb". For depth see `depth`.
    - states: joint_positions (7, rad), gripper_open (1), gripper_pose (7: xyz in metres, then the
      quaternion xyzw), gripper_joint_positions (2), in this order, without those not recorded.
    - actions: a recording has none. As its users do, the pose and opening of the gripper at the
      next observation (7 + 1), its own at the last one. The extra `keyframe_action` has those at
      the next key frame, the target of PerAct and ARP; key frames are where the gripper opens or
      closes, where the arm stops, and the end (James and Davison, 2022).
    - extras: every field above and the other ones by name, and those of `misc`, such as
      "front_camera_extrinsics".
    - timestamps: 0.05 s a step, the simulator's.
    - labels: variation, description_0 and so on; the first description is the instruction.
    - success: a demonstration was kept because it succeeded.

    Args:
        path: a folder of tasks, of variations, of episodes, or one episode.
        limit: keep the first so many episodes, variation2 before variation10.
        frames: keep that many evenly spaced frames of each.

    Raises:
        MissingFileError: if there is no episode.
        FormatError: if a file is not what it should be, or lies outside the folder.

    Source:
        James et al., RLBench (2020); Shridhar et al., PerAct (2022).

    Example:
        >>> read(Path("rlbench/open_drawer"), limit=100, frames=8)
    """
    walked = _walk(path) if path.is_dir() else iter(())
    folders = (folder for folder, found in walked if found)
    episodes = Episodes([_episode(path, folder, frames) for folder in islice(folders, limit)])
    if not episodes and limit != 0:
        raise MissingFileError(
            f"no RLBench episode below {path}; give a folder of tasks, variations or episodes,"
            f" each episode with its {_DEMO}"
        )
    return episodes


def depth(episode: Episode, camera: str) -> NDArray[np.float32]:
    """How far away things are, from the depth pictures of an RLBench episode.

    A picture holds 24 bits a pixel, red the highest; metres = near + d (far - near), with
    d = value / (2^24 - 1) and the near and far planes of the camera at that observation.

    Args:
        episode: as given by `read`.
        camera: name of a folder of depth pictures, such as "front_depth".

    Returns:
        [time, height, width] metres.

    Raises:
        StreamError: if the episode is not from RLBench, or the camera's planes were not recorded.
        FormatError: if a picture is missing or not what it should be.
    """
    pictures = episode.loader
    if not isinstance(pictures, _Pictures):
        raise StreamError(f"episode {episode.id} was not read from RLBench; it has no depth here")
    view = camera.removesuffix("_depth")
    planes = [f"{view}_camera_near", f"{view}_camera_far"]
    if not all(plane in episode.extras for plane in planes):
        raise StreamError(
            f"episode {episode.id} lacks {' or '.join(planes)}, which turn depth into metres"
        )
    near, far = (episode.extras[p].astype(np.float64).reshape(-1, 1, 1) for p in planes)
    coded = pictures(f"{view}_depth").astype(np.int64)
    parts = (coded @ np.array([65536, 256, 1])) / _DEPTH_LEVELS
    return single(near + parts * (far - near))


@final
@dataclass(frozen=True)
class _Pictures:
    """Reads the pictures of one episode."""

    folder: Path
    steps: tuple[int, ...]

    def __call__(self, camera: str) -> NDArray[np.uint8]:
        files = (inside(self.folder, f"{camera}/{step}.png") for step in self.steps)
        where = f"in {self.folder / camera}"
        return stacked(map(read_picture, files), count=len(self.steps), where=where)


def _walk(path: Path) -> Iterator[tuple[Path, bool]]:
    """Folders, and whether each is an episode; a link that leaves the path is refused."""
    for name, below, files in os.walk(path, onerror=_refuse, followlinks=True):
        folder = Path(name)
        found = _DEMO in files
        yield folder, found
        deep = len(folder.relative_to(path).parts) >= _DEEPEST
        below[:] = [] if found or deep else sorted(below, key=numbered)
        below[:] = [child for child in below if not child.startswith(".")]
        for child in below:
            if (folder / child).is_symlink():
                inside(path, str((folder / child).relative_to(path)))


def _refuse(error: OSError) -> None:
    raise FormatError(
        f"{error.filename} cannot be listed ({error.strerror}); needed a folder that may be read"
    )


def _episode(path: Path, folder: Path, frames: int | None) -> Episode:
    split, task, variation, name = _names(path, folder)
    demo = inside(folder, _DEMO)
    observations = _observations(demo)
    recorded = _recorded(demo, observations)
    cameras = _cameras(folder, len(observations))
    steps = _steps(folder, cameras, len(observations))
    steps = steps[evenly_spaced(len(steps), frames)]

    states = _joined([recorded[field] for field in _STATES if field in recorded], len(observations))
    actions = np.zeros((len(observations), 0), np.float32)
    if "gripper_pose" in recorded and "gripper_open" in recorded:
        hand = _joined([recorded["gripper_pose"], recorded["gripper_open"]], len(observations))
        actions = hand[np.minimum(np.arange(len(hand)) + 1, len(hand) - 1)]
        if "joint_velocities" in recorded:
            ends = key_frames(recorded["gripper_open"], recorded["joint_velocities"])
            following = np.minimum(np.searchsorted(ends, np.arange(len(hand)), "right"), len(ends))
            recorded["keyframe_action"] = hand[np.append(ends, len(hand) - 1)[following]]
    extras = {field: values[steps] for field, values in recorded.items()}

    descriptions = _descriptions(folder)
    labels: dict[str, Label] = {"split": split} if split else {}
    number = _variation(folder, variation)
    if number is not None:
        labels["variation"] = number
    labels |= {f"description_{i}": text for i, text in enumerate(descriptions)}
    files = [content_digest(demo), *(_hashed(folder, *each) for each in cameras.items())]
    return Episode(
        id="/".join(part for part in (split, task, variation, name) if part),
        task=task,
        instruction=descriptions[0] if descriptions else task.replace("_", " "),
        success=True,
        states=states[steps],
        actions=actions[steps],
        timestamps=steps.astype(np.float64) * _SECONDS,
        steps=steps,
        length=len(observations),
        cameras=tuple(cameras),
        loader=_Pictures(folder, tuple(steps.tolist())),
        digest=identity(*files, arrays={"steps": steps, "states": states, "actions": actions}),
        labels=labels,
        extras=extras,
    )


def _names(path: Path, folder: Path) -> tuple[str, str, str, str]:
    """Split, task, variation and name of an episode; the first or third may be empty."""
    whole = folder.resolve()
    if whole.parent.name != "episodes":
        return "", whole.parent.name, "", whole.name
    variation, task = whole.parents[1], whole.parents[2]
    above = folder.relative_to(path).parts[:-4]
    return "/".join(above), task.name, variation.name, whole.name


def _observations(file: Path) -> list[Record]:
    demo = read_pickle(file, records=_CLASSES)
    found = demo.fields.get("_observations") if isinstance(demo, Record) else demo
    if not isinstance(found, list) or not found:
        raise FormatError(f"{file} holds no list of observations; needed an RLBench Demo")
    wrong = [type(each).__name__ for each in found if not isinstance(each, Record)]
    if wrong:
        raise FormatError(f"{file} holds {wrong[0]} among the observations; needed an RLBench Demo")
    return found


def _recorded(file: Path, observations: list[Record]) -> dict[str, NDArray[np.generic]]:
    """Fields that every observation has, name -> [observation, ...]."""
    rows = []
    for observation in observations:
        misc = observation.fields.get("misc")
        named = {str(k): v for k, v in misc.items()} if isinstance(misc, dict) else {}
        rows.append(named | {name: observation.fields.get(name) for name in (*_STATES, *_MORE)})
    recorded: dict[str, NDArray[np.generic]] = {}
    for name in rows[0]:
        if not all(_is_number(row.get(name)) for row in rows):
            continue
        values = [np.asarray(row[name]) for row in rows]
        if len({each.shape for each in values}) > 1:
            raise FormatError(
                f"{shown(name)} changes its shape within {file}; needed one for all observations"
            )
        recorded[name] = np.stack(values)
    return recorded


def _is_number(value: object) -> bool:
    kind = isinstance(value, bool | int | float | np.generic | np.ndarray)
    return kind and np.asarray(value).dtype.kind in "biuf"


def _joined(parts: list[NDArray[np.generic]], count: int) -> NDArray[np.float32]:
    flat = [single(part.reshape(count, -1)) for part in parts]
    return np.concatenate([np.zeros((count, 0), np.float32), *flat], axis=1)


def key_frames(opened: NDArray[np.generic], velocities: NDArray[np.generic]) -> NDArray[np.int64]:
    """Observations an RLBench demonstration is summed up by.

    The gripper opens or closes, the arm stands still between two such moments, or the
    demonstration ends. Of two at the very end only the last counts.

    Args:
        opened: [time] opening of the gripper.
        velocities: [time, joint] rad/s.

    Returns:
        [key frame] increasing positions, the last one len(opened) - 1.

    Source:
        James and Davison, Q-attention (2022), in the form PerAct uses.

    Example:
        >>> key_frames(np.array([1, 1, 0, 0, 0]), np.ones((5, 7)))
        array([2, 4])
    """
    last = len(opened) - 1
    moves: NDArray[np.bool_] = np.any(np.abs(velocities.astype(np.float64)) > _STILL, axis=1)
    found: list[int] = []
    rest = 0
    for i in range(len(opened)):
        # Before the start the published rule looks at the end, as negative positions do.
        steady = i < last - 1 and (
            opened[i] == opened[i + 1] == opened[i - 1] and opened[i - 2] == opened[i - 1]
        )
        stopped = bool(rest <= 0 and steady and not moves[i])
        rest = _PAUSE if stopped else rest - 1
        if i and (stopped or i == last or opened[i] != opened[i - 1]):
            found.append(i)
    if len(found) > 1 and found[-1] - 1 == found[-2]:
        del found[-2]
    return np.array(found, np.int64)


def _cameras(folder: Path, count: int) -> dict[str, list[int]]:
    """Camera -> observations with a picture; a folder without pictures is no camera."""
    named = [child.name.removesuffix("_rgb") for child in folder.glob("*_rgb") if child.is_dir()]
    known = [view for view in _VIEWS if view in named]
    cameras = {}
    for view in (*known, *sorted(set(named) - set(known))):
        pictures = inside(folder, f"{view}_rgb")
        matches = (re.fullmatch(r"(0|[1-9][0-9]{0,8})\.png", name) for name in os.listdir(pictures))
        steps = sorted(int(match[1]) for match in matches if match)
        if steps and steps[-1] >= count:
            raise FormatError(
                f"{pictures} has a picture {steps[-1]}.png, but the episode {count} observations;"
                " restore the files of one recording"
            )
        if steps:
            cameras[f"{view}_rgb"] = steps
    return cameras


def _steps(folder: Path, cameras: dict[str, list[int]], count: int) -> NDArray[np.int64]:
    seen = set(range(count)).intersection(*cameras.values())
    if not seen:
        raise FormatError(
            f"no observation of {folder} has a picture of every camera"
            f" ({', '.join(cameras)}); restore the pictures"
        )
    return np.array(sorted(seen), np.int64)


def _hashed(folder: Path, camera: str, steps: list[int]) -> str:
    """Sizes of all pictures of a camera and the bytes of a few, evenly spaced."""
    files = [inside(folder, f"{camera}/{step}.png") for step in steps]
    few = [files[i] for i in evenly_spaced(len(files), _PICTURES_HASHED)]
    sizes = [f"{file.name} {require_file(file, 'a picture').stat().st_size}" for file in files]
    return identity(camera, *sizes, *(content_digest(file) for file in few))


def _descriptions(folder: Path) -> list[str]:
    for place in (folder, folder.resolve().parents[1]):
        file = place / _DESCRIPTIONS
        if file.is_file():
            texts = read_pickle(inside(place, _DESCRIPTIONS))
            if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
                raise FormatError(f"{file} holds no list of texts; needed the descriptions")
            return texts
    return []


def _variation(folder: Path, name: str) -> int | None:
    file = folder / _VARIATION
    if file.is_file():
        number = read_pickle(inside(folder, _VARIATION))
        if not isinstance(number, int | np.integer) or isinstance(number, bool):
            raise FormatError(
                f"{file} holds {type(number).__name__}; needed the variation's number"
            )
        return int(number)
    match = re.fullmatch(r"variation([0-9]{1,9})", name)
    return int(match[1]) if match else None

"""Pickled trajectories, such as the demonstrations of DAPG and the experts of cs285."""

from __future__ import annotations

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
from mirror_analysis.episodes.precision import single
from mirror_analysis.episodes.selection import evenly_spaced
from mirror_analysis.errors import DefinitionError, FormatError, MirrorError
from mirror_analysis.files.digests import content_digest
from mirror_analysis.files.kinds import kind_of
from mirror_analysis.files.pickles import read_pickle
from mirror_analysis.files.places import require_file

SUMMARY = "pickled trajectories, such as the demonstrations of DAPG and of cs285"

_OBSERVATIONS = ("observations", "observation", "obs")
_ACTIONS = ("actions", "action", "acts")
_SUCCESSES = ("success", "goal_achieved", "is_success")

_WINDOW = 2**20  # bytes looked at together
_OVERLAP = 64  # more than a key and its length take
_FEW = 4  # numbers of a setting that become labels, such as the place of a door


def recognise(path: Path) -> bool:
    """Whether a pickle holds the keys of trajectories; its bytes are searched, nothing is built."""
    try:
        if not path.is_file() or kind_of(path) != "pickle":
            return False
    except MirrorError:
        return False
    wanted = [_pickled(_OBSERVATIONS), _pickled(_ACTIONS)]
    kept = b""
    with path.open("rb") as file:
        while wanted and (block := file.read(_WINDOW)):
            kept = kept[-_OVERLAP:] + block
            wanted = [pattern for pattern in wanted if not pattern.search(kept)]
    return not wanted


def read(
    path: Path, *, limit: int | None = None, frames: int | None = None, rate: float = 1.0
) -> Episodes:
    """Reads a pickle of trajectories: a list of dictionaries of arrays, one row per step.

    Nothing in the pickle is run: numpy arrays and plain containers are built, all else is refused.

    - states: `observations`, `observation` or `obs`; a last row after the last action is left out.
    - actions: `actions`, `action` or `acts`.
    - cameras: arrays of uint8 [step, height, width, 3], such as "image_obs", under their names.
    - extras: every other array with a row per step, but what follows a step (`next_...`).
    - timestamps: there are none; steps divided by `rate`.
    - task and instruction: the name of the file, `_` read as a space in the instruction.
    - success: `success`, `goal_achieved` or `is_success`, of the trajectory or in `env_infos`,
      was reached; demonstrations that do not say count as successes.
    - labels: position in the file, and settings of up to 4 numbers in `init_state_dict`.

    Args:
        path: the pickle.
        limit: keep the first so many trajectories.
        frames: keep that many evenly spaced steps of each.
        rate: steps per second.

    Raises:
        MissingFileError: if there is no such file.
        FormatError: if it is damaged, holds anything but arrays, or no trajectories.
        DefinitionError: if the rate is not positive.

    Source:
        Rajeswaran et al., DAPG (2018), for the form.

    Example:
        >>> read(Path("adroit_door_demos.pickle"))[0].states.shape
        (300, 39)
    """
    if not rate > 0:
        raise DefinitionError(f"rate is {rate} steps per second; needed more than 0")
    digest = content_digest(require_file(path, "a pickle of trajectories"))
    found = enumerate(islice(_trajectories(path), limit))
    return Episodes(_episode(path, digest, n, each, frames, rate) for n, each in found)


@final
@dataclass(frozen=True)
class _Pictures:
    """Reads the pictures of one trajectory, which means reading the pickle again."""

    path: Path
    position: int
    steps: tuple[int, ...]

    def __call__(self, camera: str) -> NDArray[np.uint8]:
        trajectory = next(islice(_trajectories(self.path), self.position, None))
        pictures: NDArray[np.uint8] = trajectory[camera][list(self.steps)]
        return pictures


def _pickled(names: tuple[str, ...]) -> re.Pattern[bytes]:
    """Finds one of the names as a whole text of a pickle: after its length, or on a line."""
    forms = []
    for name in names:
        size, text = len(name), name.encode()
        forms += [
            b"X" + re.escape(size.to_bytes(4, "little")) + text,
            b"[\x8cU]" + re.escape(bytes([size])) + text,
            b"[VS]'?" + text + b"'?\n",
        ]
    return re.compile(b"|".join(forms))


def _trajectories(path: Path) -> Iterator[dict[str, Any]]:
    """Each trajectory as name -> value, lists of numbers made arrays."""
    found = read_pickle(path, encoding="latin1")
    if isinstance(found, Mapping):
        found = [found] if _first(found, _OBSERVATIONS) is not None else list(found.values())
    if not isinstance(found, list | tuple) or not found:
        raise FormatError(
            f"{path} holds {type(found).__name__} of {_size(found)}; needed a list of trajectories,"
            " each a dictionary with observations and actions"
        )
    for position, each in enumerate(found):
        if not isinstance(each, Mapping):
            raise FormatError(
                f"trajectory {position} of {path} is {type(each).__name__}; needed a dictionary"
                " with observations and actions"
            )
        yield {str(name): _array(value) for name, value in each.items()}


def _size(found: object) -> int:
    return len(found) if isinstance(found, list | tuple | Mapping) else 1


def _array(value: object) -> object:
    if isinstance(value, list | tuple):
        try:
            value = np.asarray(value)
        except ValueError:
            return None
    return value


def _first(trajectory: Mapping[Any, Any], names: tuple[str, ...]) -> Any:
    return next((trajectory[name] for name in names if name in trajectory), None)


def _episode(
    path: Path,
    digest: str,
    position: int,
    trajectory: dict[str, Any],
    frames: int | None,
    rate: float,
) -> Episode:
    where = f"trajectory {position} of {path}"
    actions = _rows(_first(trajectory, _ACTIONS), f"{_ACTIONS[0]} in {where}")
    seen = _rows(_first(trajectory, _OBSERVATIONS), f"{_OBSERVATIONS[0]} in {where}")
    count = len(actions)
    if len(seen) not in (count, count + 1):
        raise FormatError(
            f"{where} has {len(seen)} observations and {count} actions; needed as many, or one more"
        )
    steps = evenly_spaced(count, frames)
    arrays = {
        name: value
        for name, value in trajectory.items()
        if name not in (*_OBSERVATIONS, *_ACTIONS)
        and not name.startswith("next_")
        and isinstance(value, np.ndarray)
        and value.dtype.kind in "biuf"
        and value.shape[:1] == (count,)
    }
    cameras = [name for name in sorted(arrays) if _is_camera(arrays[name])]
    extras = {name: value[steps] for name, value in arrays.items() if name not in cameras}
    labels: dict[str, Label] = {"position": position, **_settings(trajectory)}
    states = single(seen.reshape(len(seen), -1)[steps])
    chosen = single(actions.reshape(count, -1)[steps])
    return Episode(
        id=f"{path.stem}/{position}",
        task=path.stem,
        instruction=path.stem.replace("_", " "),
        success=_success(trajectory),
        states=states,
        actions=chosen,
        timestamps=steps / rate,
        steps=steps,
        length=count,
        cameras=tuple(cameras),
        loader=_Pictures(path, position, tuple(steps.tolist())),
        digest=identity(
            digest,
            str(rate),
            arrays={**extras, "states": states, "actions": chosen, "steps": steps},
        ),
        labels=labels,
        extras=extras,
    )


def _rows(value: object, what: str) -> NDArray[Any]:
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "biuf" or not value.ndim:
        found = value.dtype if isinstance(value, np.ndarray) else type(value).__name__
        raise FormatError(f"{what} are {found}; needed an array of numbers with a row per step")
    return value


def _is_camera(value: NDArray[Any]) -> bool:
    return value.dtype == np.uint8 and value.ndim == 4 and value.shape[3] == 3


def _success(trajectory: Mapping[str, Any]) -> bool:
    told = trajectory.get("env_infos")
    for place in (trajectory, told if isinstance(told, Mapping) else {}):
        said = _first(place, _SUCCESSES)
        if said is not None:
            return bool(np.any(said))
    return True


def _settings(trajectory: Mapping[str, Any]) -> dict[str, Label]:
    settings = trajectory.get("init_state_dict")
    labels: dict[str, Label] = {}
    for name, value in settings.items() if isinstance(settings, Mapping) else ():
        numbers = value if isinstance(value, np.ndarray) and value.dtype.kind in "biuf" else None
        if numbers is not None and 1 <= numbers.size <= _FEW:
            labels |= {f"{name}_{i}": n for i, n in enumerate(numbers.reshape(-1).tolist())}
    return labels

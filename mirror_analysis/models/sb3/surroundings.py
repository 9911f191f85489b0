"""What lies beside an agent of Stable-Baselines3: statistics of its input and its training."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray

from mirror_analysis.errors import FormatError
from mirror_analysis.files.inert import Record
from mirror_analysis.files.pickles import pickle_names, read_pickle
from mirror_analysis.files.places import contents, inside, require_file
from mirror_analysis.models.sb3.networks import Normaliser

_STATISTICS = ("vecnormalize.pkl", "vec_normalize.pkl")
_CONFIGS = ("config.yml", "config.yaml")
_MOST = 64 * 2**20
# Whose objects a file of statistics may mention; none of them is made.
_OWNERS = ("stable_baselines3.", "sb3_contrib.", "gym.", "gymnasium.", "numpy.random.", "rl_zoo3.")
_STEPS = 1000  # of the time feature's wrapper, where nobody says otherwise

_NORMALIZE = re.compile(r"(?m)^[ \t-]*normalize[ \t]*(?::|\n[ \t]*-)[ \t]*(.+)$")
_TIME = re.compile(r"TimeFeatureWrapper(?P<rest>[^-]{0,200})")
_MAX_STEPS = re.compile(r"max_steps\W{1,8}(\d{1,9})")


@final
@dataclass(frozen=True, eq=False)
class Statistics:
    """Running mean and variance of what an agent saw in training (VecNormalize).

    Attributes:
        path: their file.
        mean: key of the observation, "" where there is only one -> mean.
        variance: the same for the variance.
        epsilon: added to the variance.
        limit: normalised numbers are cut there.
    """

    path: Path
    mean: Mapping[str, NDArray[np.float64]]
    variance: Mapping[str, NDArray[np.float64]]
    epsilon: float
    limit: float

    def normaliser(self, key: str, width: int) -> Normaliser | None:
        """What normalises one observation; None where it was left as it is.

        Raises:
            FormatError: if the statistics are of another width.
        """
        if key not in self.mean:
            return None
        mean, variance = self.mean[key].reshape(-1), self.variance[key].reshape(-1)
        if mean.shape != (width,) or variance.shape != (width,):
            what = f"'{key}'" if key else "the observation"
            raise FormatError(
                f"{self.path} has statistics of {mean.size} numbers where {what} has {width};"
                " needed those of the same training, so name them with the option normalise"
            )
        scale = np.sqrt(variance + self.epsilon)
        if not (np.isfinite(mean).all() and np.isfinite(scale).all() and (scale > 0).all()):
            raise FormatError(f"{self.path} holds NaN, infinity or a variance below 0; fetch it"
                              " anew")  # fmt: skip
        return Normaliser(torch.from_numpy(mean), torch.from_numpy(scale), self.limit)


def read_statistics(path: Path) -> Statistics:
    """Reads a pickle of VecNormalize as data.

    Raises:
        MissingFileError: if there is no such file.
        FormatError: if it is something else, or holds what such a file does not.
    """
    require_file(path, "statistics of VecNormalize", most=_MOST)
    names = [name for name in pickle_names(path, most=_MOST) if name.startswith(_OWNERS)]
    found = read_pickle(path, records=names, most=_MOST)
    if not isinstance(found, Record) or not found.kind.endswith(".VecNormalize"):
        raise FormatError(f"{path} holds no VecNormalize; needed the file that its save() wrote")
    fields = found.fields
    rms = fields.get("obs_rms")
    of_keys = rms if isinstance(rms, dict) else {"": rms}
    mean, variance = {}, {}
    for key, moments in of_keys.items() if fields.get("norm_obs", True) else ():
        values = moments.fields if isinstance(moments, Record) else {}
        if not all(isinstance(values.get(name), np.ndarray) for name in ("mean", "var")):
            raise FormatError(f"{path} has no mean and variance of what was seen; fetch it anew")
        mean[str(key)] = np.asarray(values["mean"], dtype=np.float64)
        variance[str(key)] = np.asarray(values["var"], dtype=np.float64)
    try:
        epsilon, limit = (float(fields.get(name, default)) for name, default in  # type: ignore[arg-type]
                          (("epsilon", 1e-8), ("clip_obs", 10.0)))  # fmt: skip
    except (TypeError, ValueError):
        epsilon, limit = math.nan, math.nan
    if not (epsilon >= 0 and limit > 0):
        raise FormatError(f"{path} has no usable epsilon and clip_obs; fetch it anew")
    return Statistics(path, mean, variance, epsilon, limit)


def find_statistics(path: Path) -> Path | None:
    """Where the statistics of an agent lie by custom; None where they do not.

    Raises:
        FormatError: if they are a link that leads out of the agent's folder.
    """
    places = [f"{path.stem}.{name}" for name in _STATISTICS]
    folders = ["", *(f"{name}/" for name in _stems(path))]
    places += [f"{folder}{name}" for folder in folders for name in _STATISTICS]
    return _first(path.parent, places)


@final
@dataclass(frozen=True)
class Training:
    """What the settings of a training beside an agent say, as text.

    Attributes:
        path: their file; None where there is none.
        normalises: whether what was seen was normalised; None where nobody says.
        max_steps: over how many steps the time that is left was added to what was seen; None
            where it was not.
    """

    path: Path | None = None
    normalises: bool | None = None
    max_steps: int | None = None


def read_training(path: Path) -> Training:
    """Looks for the settings of a training beside an agent.

    Raises:
        FormatError: if they are a link that leads out of the agent's folder.
    """
    places = [f"{path.stem}.{name}" for name in _CONFIGS]
    places += [f"{folder}{name}" for folder in ("", *(f"{n}/" for n in _stems(path)))
               for name in _CONFIGS]  # fmt: skip
    found = _first(path.parent, places)
    if found is None:
        return Training()
    text = contents(found, "settings of a training", most=2**20).decode("utf-8", "replace")
    said = _NORMALIZE.search(text)
    normalises = False if said is None else _is_yes(said.group(1))
    time = _TIME.search(text)
    steps = None
    if time is not None:
        given = _MAX_STEPS.search(time.group("rest"))
        steps = int(given.group(1)) if given else _STEPS
    return Training(found, normalises, steps)


def _first(folder: Path, places: list[str]) -> Path | None:
    return next((inside(folder, place) for place in places if (folder / place).is_file()), None)


def _is_yes(value: str) -> bool:
    """Whether `normalize: VALUE` normalises what is seen."""
    part = re.search(r"norm_obs\W{1,6}(\w+)", value)
    word = part.group(1) if part else value.strip().strip("'\"").lower()
    return word.lower() not in ("false", "no", "off", "null", "none", "0", "")


def _stems(path: Path) -> list[str]:
    """Folders beside a zip that may be its own: its name, and its environment's name in it."""
    found = [path.stem]
    for mark in ("_", "-"):
        before, _, after = path.stem.partition(mark)
        if before and after:
            found.append(after)
    return found

"""Policies that robomimic trained by behavioural cloning, from their .pth files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mirror_analysis.errors import FormatError, MirrorError
from mirror_analysis.files.archives import Archive
from mirror_analysis.files.places import shown
from mirror_analysis.files.torch_files import read_torch
from mirror_analysis.models.checkpoint import Checkpoint, Options
from mirror_analysis.models.robomimic.config import Settings, read_settings
from mirror_analysis.models.robomimic.networks import Policy
from mirror_analysis.models.robomimic.policy import Affine, RobomimicPolicy
from mirror_analysis.models.weights.fitting import fitted

SUMMARY = (
    "behavioural cloning of robomimic (.pth): perceptrons, LSTM and GRU, with or without sight"
)
OPTIONS: Mapping[str, str] = {
    "choice": "a policy that gives a distribution acts by a 'sampled' draw or does what is"
    " 'likeliest' (sampled)",
    "resize": "'yes' resizes pictures to the size the policy was trained on (no)",
    "seed": "of the draws, from 1 on (1)",
}

_MARKS = (b"algo_name", b"shape_metadata", b"env_metadata")
_START = 2**24  # bytes that are looked through
_LAYER = re.compile(r"policy\.nets\.rnn\.nets\.((?:weight|bias)_[ih]h_l)([0-9]+)")
# Modules that stand twice in the original, under two names.
_AGAIN = re.compile(
    r"nets\.(rnn\.per_step_net|encoder\.nets\.obs\.obs_nets\.\w+\.(backbone|pool))\..*"
)


def recognise(checkpoint: Checkpoint) -> str | None:
    """What it is, if it is a checkpoint of robomimic, of whatever algorithm."""
    try:
        if checkpoint.kind == "torch":
            with Archive(checkpoint.path) as archive:
                names = [name for name in archive.names if name.split("/")[1:] == ["data.pkl"]]
                start = archive.read(names[0]) if names else b""
        elif checkpoint.kind == "torch-legacy":
            with checkpoint.path.open("rb") as file:
                start = file.read(_START)
        else:
            return None
    except (MirrorError, OSError):
        return None
    return "policy of robomimic" if all(mark in start for mark in _MARKS) else None


def load(checkpoint: Checkpoint, *, name: str, options: Options) -> RobomimicPolicy:
    """Reads a policy.

    It reads "array:KEY" for each vector it was trained on and "camera:KEY" for each camera, by
    the names they have in robomimic's files of demonstrations.

    Args:
        checkpoint: the .pth file.
        name: what to call it.
        options: see OPTIONS.

    Raises:
        FormatError: if it is damaged, or of an algorithm or architecture that is not read.
        UnknownNameError: if an option has no such value.

    Example:
        >>> load(Checkpoint(Path("lift.pth")), name="lift", options=Options()).inputs
        ('array:object', 'array:robot0_eef_pos')
    """
    choice = options.choice("choice", "sampled", ("sampled", "likeliest"))
    resize = options.choice("resize", "no", ("no", "yes")) == "yes"
    seed = options.count("seed", 1)
    path = checkpoint.path
    found = read_torch(path)
    if not isinstance(found, dict):
        raise FormatError(f"{path} holds no dictionary; needed a checkpoint of robomimic")
    settings = read_settings(found, path)

    def build() -> Policy:
        return Policy(settings, likeliest=choice == "likeliest")

    policy = fitted(build, _tensors(found.get("model"), path), path=path, unused=_AGAIN)
    observed, unit = _statistics(found, settings, path)
    algo = settings.algorithm
    return RobomimicPolicy(
        policy,
        settings=settings,
        observed=observed,
        unit=unit,
        name=name,
        rebuild=build,
        seed=seed,
        resize=resize,
        facts={
            "family": "robomimic",
            "architecture": settings.architecture,
            "trained on": _environment(found),
            "normalisation": f"{', '.join(observed) or 'none'}; statistics in the file"
            if observed
            else "none of what is seen",
            "actions": ", ".join(settings.action_keys),
        },
        chosen={
            "pictures": "resized" if resize else "as they are",
            **({"choice": choice} if algo.gmm.enabled or algo.gaussian.enabled else {}),
            **({"seed": str(seed)} if policy.chances else {}),
            **({"memory": f"{algo.rnn.horizon} stored frames"} if algo.rnn.enabled else {}),
        },
    )


def _tensors(model: object, path: Path) -> dict[str, Tensor]:
    """The weights, by the names of the networks here."""
    model = model.get("nets", model) if isinstance(model, dict) else model
    if not isinstance(model, dict) or not all(isinstance(t, Tensor) for t in model.values()):
        raise FormatError(f"{path} has no weights under 'model'; needed what robomimic writes")
    return {
        _LAYER.sub(r"policy.nets.rnn.layers.\2.cell.\g<1>0", str(name)).removeprefix("policy."): t
        for name, t in model.items()
    }


def _statistics(
    found: Mapping[str, Any], settings: Settings, path: Path
) -> tuple[dict[str, Affine], Affine | None]:
    """How what is seen is scaled, and the unit of actions."""
    try:
        given = found.get("obs_normalization_stats") or {}
        observed = {
            key: _affine(given[key], shape)
            for key, shape in settings.observed.items()
            if key in given
        }
        actions = found.get("action_normalization_stats")
        if not actions:
            return observed, None
        parts = [_offset_and_scale(actions[key]) for key in settings.action_keys]
        offset, scale = (np.concatenate([part[i].reshape(-1) for part in parts]) for i in (0, 1))
        shape = (settings.actions,)
        return observed, Affine(_shaped(offset, shape), _shaped(scale, shape))
    except (KeyError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:120]
        raise FormatError(
            f"{path} has normalisation statistics that do not fit its streams ({reason}); needed"
            " what robomimic writes, so fetch it anew"
        ) from None


def _affine(entry: Mapping[str, Any], shape: tuple[int, ...]) -> Affine:
    offset, scale = _offset_and_scale(entry)
    return Affine(_shaped(offset, shape), _shaped(scale, shape))


def _offset_and_scale(entry: Mapping[str, Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation up to robomimic 0.3, offset and scale after it."""
    names = ("mean", "std") if "mean" in entry else ("offset", "scale")
    offset, scale = (np.asarray(entry[name], dtype=np.float64) for name in names)
    return offset, scale


def _shaped(values: NDArray[np.float64], shape: tuple[int, ...]) -> Tensor:
    found = torch.from_numpy(values.reshape(shape).astype(np.float32))
    if not found.isfinite().all():
        raise ValueError("not finite")
    return found


def _environment(found: Mapping[str, Any]) -> str:
    about = found.get("env_metadata")
    name = about.get("env_name") if isinstance(about, dict) else None
    return shown(name).strip("'\"") if name else "not stated"

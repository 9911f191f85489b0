"""The folder of a LeRobot policy: where it lies, what it reads and gives, its hyperparameters."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeVar, cast, final, get_args

import msgspec

from mirror_analysis.errors import FormatError, MirrorError
from mirror_analysis.files.places import inside, shown
from mirror_analysis.models.checkpoint import Checkpoint
from mirror_analysis.models.model import Input

Kind = Literal["STATE", "VISUAL", "ENV", "ACTION", "REWARD", "LANGUAGE"]
Mode = Literal["IDENTITY", "MEAN_STD", "MIN_MAX", "QUANTILES", "QUANTILE10"]

STATE, ENVIRONMENT, ACTION = "observation.state", "observation.environment_state", "action"
WEIGHTS = "model.safetensors"

_STEP = re.compile(r"[0-9]{1,12}")
_LARGEST = 8192  # pixels a side, or numbers in a vector
# What tells the policies apart in files from before there was a "type": fields of their own.
_FIELDS = {
    "act": {"chunk_size", "dim_model"},
    "diffusion": {"horizon", "down_dims"},
    "vqbet": {"n_action_pred_token", "vqvae_n_embed"},
}

T = TypeVar("T", bound=msgspec.Struct)


@final
@dataclass(frozen=True)
class Feature:
    """One stream a policy was trained on or gives.

    Attributes:
        key: LeRobot's name, such as "observation.images.top".
        kind: what it is.
        shape: of one frame; channel, height, width for a picture.
        mode: how it is normalised.
    """

    key: str
    kind: Kind
    shape: tuple[int, ...]
    mode: Mode


@final
@dataclass(frozen=True)
class PolicyFolder:
    """A LeRobot policy folder, its JSON read and checked, its weights not yet.

    Attributes:
        checkpoint: the folder that holds `config.json` and `model.safetensors`.
        kind: the type of policy, such as "act".
        config: all of `config.json`.
        inputs: what it reads, by LeRobot's name, in the order of the file.
        action: what it gives.
    """

    checkpoint: Checkpoint
    kind: str
    config: Mapping[str, Any]
    inputs: Mapping[str, Feature]
    action: Feature

    @property
    def views(self) -> tuple[Feature, ...]:
        """The pictures it reads."""
        return tuple(feature for feature in self.inputs.values() if feature.kind == "VISUAL")

    @property
    def summary(self) -> str:
        """What it is, in words."""
        reads = [f"{need.name}" + (f" [{need.width}]" if need.width else "") for need in self.needs]
        return f"LeRobot policy '{self.kind}' from {', '.join(reads)} to {self.action.shape[0]}"

    @cached_property
    def streams(self) -> dict[str, str]:
        """LeRobot's name -> name of the model's input, for what policies read."""
        found = {view.key: _camera(view.key, len(self.views)) for view in self.views}
        found |= {STATE: "states"} if STATE in self.inputs else {}
        return found | ({ENVIRONMENT: f"array:{ENVIRONMENT}"} if self.environment else {})

    @property
    def environment(self) -> Feature | None:
        """The state of the environment, where it reads one."""
        feature = self.inputs.get(ENVIRONMENT)
        return feature if feature is not None and feature.kind == "ENV" else None

    @property
    def needs(self) -> tuple[Input, ...]:
        """The streams it reads."""
        return tuple(_input(self.inputs[key], name) for key, name in self.streams.items())

    def hyperparameters(self, kind: type[T]) -> T:
        """What `config.json` says, as far as `kind` has fields for it.

        Raises:
            FormatError: if a value is of another type or out of bounds.
        """
        try:
            return msgspec.convert(dict(self.config), type=kind)
        except msgspec.ValidationError as error:
            raise FormatError(
                f"{self.checkpoint.path}/config.json does not describe a policy '{self.kind}':"
                f" {error}; fetch it anew"
            ) from None


def find(checkpoint: Checkpoint) -> PolicyFolder | None:
    """The policy folder that a path means, or None; never an error.

    Args:
        checkpoint: the folder itself, its parent, or a training run with `checkpoints/`, of
            which the last one counts.
    """
    try:
        return next(iter(_candidates(checkpoint)), None)
    except (MirrorError, OSError):
        return None


def require(checkpoint: Checkpoint) -> PolicyFolder:
    """The policy folder that a path means.

    Raises:
        FormatError: if there is none, or its `config.json` is damaged.
    """
    found = next(iter(_candidates(checkpoint)), None)
    if found is None:
        raise FormatError(
            f"{checkpoint.path} holds no LeRobot policy; needed a folder with config.json (with"
            f" input_features and output_features) and {WEIGHTS}, such as"
            " checkpoints/last/pretrained_model of a training run"
        )
    return found


def _candidates(checkpoint: Checkpoint) -> Iterable[PolicyFolder]:
    if checkpoint.kind != "folder":
        return
    names = ["", "pretrained_model", "last/pretrained_model", "checkpoints/last/pretrained_model"]
    for runs in ("", "checkpoints"):
        folder = inside(checkpoint.path, runs) if runs else checkpoint.path
        steps = [p.name for p in folder.iterdir() if _STEP.fullmatch(p.name)] if (
            folder.is_dir()) else []  # fmt: skip
        prefix = f"{runs}/" if runs else ""
        names += [f"{prefix}{step}/pretrained_model" for step in sorted(steps, key=int)[::-1]]
    for name in names:
        path = inside(checkpoint.path, name) if name else checkpoint.path
        if (path / "config.json").is_file() and (path / WEIGHTS).is_file():
            policy = _read(Checkpoint(path))
            if policy is not None:
                yield policy


def _read(checkpoint: Checkpoint) -> PolicyFolder | None:
    config = checkpoint.config
    if {"input_features", "output_features", "type"} <= config.keys():
        kind = str(config["type"])
    elif {"input_shapes", "output_shapes"} <= config.keys():
        kinds = [kind for kind, fields in _FIELDS.items() if fields <= config.keys()]
        if not kinds:
            return None
        kind, config = kinds[0], _modern(config, checkpoint)
    else:
        return None
    modes = config.get("normalization_mapping")
    modes = modes if isinstance(modes, dict) else {}
    own = config.get("_modes", {})
    features = {
        key: _feature(key, entry, own.get(key) or modes, checkpoint)
        for part in ("input_features", "output_features")
        for key, entry in _entries(config, part, checkpoint).items()
    }
    outputs = _entries(config, "output_features", checkpoint)
    action = features.get(ACTION)
    if action is None or ACTION not in outputs or len(action.shape) != 1:
        raise _fault(checkpoint, f"no output_features.{ACTION} with one axis")
    inputs = {key: f for key, f in features.items() if key not in outputs}
    return PolicyFolder(checkpoint, kind, config, inputs, action)


def _modern(config: Mapping[str, Any], checkpoint: Checkpoint) -> dict[str, Any]:
    """What lerobot up to 0.1 wrote, as later versions write it."""
    named: dict[str, Any] = {"_modes": {}}
    for part in ("input", "output"):
        entries = _entries(config, f"{part}_shapes", checkpoint)
        named[f"{part}_features"] = {
            key: {"type": _kind(key), "shape": shape} for key, shape in entries.items()
        }
        modes = config.get(f"{part}_normalization_modes") or {}
        if not isinstance(modes, dict):
            raise _fault(checkpoint, f"{part}_normalization_modes that are no object")
        for key in entries:
            named["_modes"][key] = str(modes.get(key, "identity")).upper()
    return {**config, **named}


def _kind(key: str) -> Kind:
    if key.startswith("observation.image"):
        return "VISUAL"
    kinds: dict[str, Kind] = {ENVIRONMENT: "ENV", ACTION: "ACTION"}
    return kinds.get(key, "STATE")


def _entries(config: Mapping[str, Any], part: str, checkpoint: Checkpoint) -> dict[str, Any]:
    entries = config[part]
    if not isinstance(entries, dict) or len(entries) > 64:
        raise _fault(checkpoint, f"{part} that are no object of at most 64 features")
    return entries


def _feature(
    key: str, entry: object, modes: Mapping[str, Any] | str, checkpoint: Checkpoint
) -> Feature:
    entry = entry if isinstance(entry, dict) else {}
    kind, shape = entry.get("type"), entry.get("shape")
    sized = isinstance(shape, list) and all(
        type(size) is int and 1 <= size <= _LARGEST for size in shape
    )
    if kind not in get_args(Kind) or not sized or not isinstance(shape, list) or len(shape) > 4:
        raise _fault(checkpoint, f"a feature {shown(key)} with the type {shown(kind)} and the"
                     f" shape {shown(shape)}")  # fmt: skip
    if kind == "VISUAL" and (len(shape) != 3 or shape[0] != 3):
        raise _fault(checkpoint, f"a picture {shown(key)} of shape {shape}, not 3 x height x width")
    if key in (STATE, ENVIRONMENT) and len(shape) != 1:
        raise _fault(checkpoint, f"a vector {shown(key)} of shape {shape}")
    mode = modes if isinstance(modes, str) else modes.get(str(kind), "IDENTITY")
    if mode not in get_args(Mode):
        raise _fault(checkpoint, f"a normalisation {shown(mode)} of {shown(key)}")
    return Feature(key, cast(Kind, kind), tuple(shape), cast(Mode, mode))


def _fault(checkpoint: Checkpoint, what: str) -> FormatError:
    return FormatError(
        f"{checkpoint.path}/config.json has {what}; needed what LeRobot writes, so fetch it anew"
    )


def _camera(key: str, views: int) -> str:
    """The camera "top" for "observation.images.top"; any camera for an only "observation.image"."""
    if key == "observation.image" and views == 1:
        return "camera"
    # As data sets are read: only the usual prefix is left out.
    return "camera:" + key.removeprefix("observation.images.")


def _input(feature: Feature, name: str) -> Input:
    if feature.kind == "VISUAL":
        _, height, width = feature.shape
        return Input(name, note=f"{feature.key}, {height} x {width} pixels")
    return Input(name, feature.shape[0], feature.key)

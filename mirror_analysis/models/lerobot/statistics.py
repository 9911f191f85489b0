"""Normalisation statistics of LeRobot policies, from files of their own or among the weights."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast, final, get_args

import torch
from torch import Tensor

from mirror_analysis.errors import DefinitionError, FormatError, UnknownNameError
from mirror_analysis.files.places import shown
from mirror_analysis.files.safetensors import read_safetensors
from mirror_analysis.models.lerobot.folder import ACTION, WEIGHTS, Feature, Mode, PolicyFolder
from mirror_analysis.models.lerobot.scaling import NEEDED, Scaling

PREPROCESSOR, POSTPROCESSOR = "policy_preprocessor.json", "policy_postprocessor.json"

_OLD = re.compile(r"(?:un)?normalize_(?:inputs|targets|outputs)\.")
# A data set's name stands before "buffer", where statistics are of several.
_SCOPED = re.compile(r"(?:(.+?)_)?buffer_((?:observation|action).*)")
# Steps that leave the numbers as they are.
_HARMLESS = {
    "device_processor",
    "pi0_new_line_processor",
    "rename_observations_processor",
    "smolvla_new_line_processor",
    "to_batch_processor",
    "tokenizer_processor",
}
_NORMALISING = {"normalizer_processor", "unnormalizer_processor"}

Values = Mapping[str, Mapping[str, Tensor]]
"""Folded name of a feature -> name of a statistic -> tensor."""


@final
@dataclass(frozen=True, eq=False)
class Statistics:
    """All that is known of how a policy's inputs and actions are normalised.

    Attributes:
        observed: of what it reads.
        acted: of what it gives.
        modes: LeRobot's name of a feature -> mode, where the files of the processors say another
            than `config.json`.
        renamed: the policy's name of a stream -> its name in the data it was trained on.
        source: where it was found, for people.
        epsilon: of both directions.
        added: see `Scaling`.
    """

    observed: Values
    acted: Values
    modes: Mapping[str, Mode]
    renamed: Mapping[str, str]
    source: str
    epsilon: float = 1e-8
    added: bool = False

    def scaling(self, feature: Feature, folder: PolicyFolder, *, rule: str) -> Scaling:
        """How one feature is normalised.

        Args:
            feature: which.
            folder: whose, for the words of an error.
            rule: "required", "partly" (left as it is where statistics are missing) or "off".

        Raises:
            FormatError: if statistics are missing, of another shape, or not finite.
        """
        mode = self.modes.get(feature.key, feature.mode)
        if rule == "off" or mode == "IDENTITY":
            return Scaling("IDENTITY")
        there = (self.acted if feature.key == ACTION else self.observed).get(fold(feature.key), {})
        missing = [name for name in NEEDED[mode] if name not in there]
        if missing and rule == "partly":
            return Scaling("IDENTITY")
        if missing:
            raise FormatError(
                f"{folder.checkpoint.path} has no {' and '.join(missing)} of {feature.key}, which"
                f" it normalises by {mode} (looked in {self.source}); fetch the whole checkpoint,"
                f" {PREPROCESSOR} and {POSTPROCESSOR} with it, or say normalise=partly to leave"
                " such features as they are"
            )
        low, high = (_shaped(there[name], name, feature, folder) for name in NEEDED[mode])
        return Scaling(mode, low, high, epsilon=self.epsilon, added=self.added)


def fold(key: str) -> str:
    """A feature's name as the names of buffers have it: "observation.state" without dots.

    The way back is lost, so names are compared folded: "observation.images.cam_high" came back
    as "observation.images.cam.high" when old checkpoints were converted.
    """
    return key.replace(".", "_")


def split(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Weights, and the normalisation statistics that stood among them."""
    buffers = {name: tensor for name, tensor in tensors.items() if _OLD.match(name)}
    return {name: t for name, t in tensors.items() if name not in buffers}, buffers


def is_statistic(name: str) -> bool:
    """Whether a tensor of `model.safetensors` is no weight but a statistic."""
    return _OLD.match(name) is not None


def read_statistics(
    folder: PolicyFolder, buffers: Mapping[str, Tensor], *, dataset: str = "", strange: str
) -> Statistics:
    """The statistics of a policy, in the new style where its folder has that, else in the old.

    Args:
        folder: the policy's.
        buffers: statistics that stood among the weights.
        dataset: whose count, where there are several.
        strange: "refuse" or "ignore" for processing steps that are not known.

    Raises:
        FormatError: if files are damaged or missing, or there is a step that is not known.
        DefinitionError: if there are statistics of several data sets and none is chosen.
        UnknownNameError: if `dataset` has none.
    """
    path = folder.checkpoint.path
    if not folder.checkpoint.has(PREPROCESSOR):
        parts: dict[bool, dict[str, Tensor]] = {False: {}, True: {}}
        for name, tensor in buffers.items():
            parts[not name.startswith("normalize_inputs.")][name.partition(".")[2]] = tensor
        source = WEIGHTS if buffers else "its files"
        observed, acted = (_of(part, dataset, path) for part in (parts[False], parts[True]))
        return Statistics(observed, acted, {}, {}, source, added=True)
    before = list(_steps(folder, PREPROCESSOR, strange))
    after = (
        list(_steps(folder, POSTPROCESSOR, strange))
        if folder.checkpoint.has(POSTPROCESSOR)
        else before
    )
    modes: dict[str, Mode] = {}
    for steps, features in ((before, [*folder.inputs.values()]), (after, [folder.action])):
        for step in steps:
            modes |= _modes(step.config, features, folder)
    states = [{k: t for step in steps for k, t in step.state.items()} for steps in (before, after)]
    observed, acted = (_of(state, dataset, path) for state in states)
    epsilons = [step.config["eps"] for step in before if "eps" in step.config]
    epsilon = epsilons[0] if epsilons else 1e-8
    if not isinstance(epsilon, float) or not 0 <= epsilon <= 1:
        raise FormatError(f"{path}/{PREPROCESSOR} has the eps {shown(epsilon)}; needed 0 to 1")
    renamed = {
        str(new): str(old)
        for step in before
        for old, new in _mapping(step.config.get("rename_map")).items()
    }
    return Statistics(observed, acted, modes, renamed, PREPROCESSOR, epsilon)


@final
@dataclass(frozen=True, eq=False)
class _Step:
    config: Mapping[str, Any]
    state: Mapping[str, Tensor]


def _steps(folder: PolicyFolder, name: str, strange: str) -> Iterator[_Step]:
    """The steps of a processor that matter: what is renamed, what is normalised."""
    path = folder.checkpoint.path
    steps = folder.checkpoint.json(name).get("steps")
    if not isinstance(steps, list):
        raise FormatError(f"{path}/{name} has no list of steps; fetch it anew")
    for step in map(_mapping, steps):
        kind = step.get("registry_name") or step.get("class") or "without a name"
        if kind not in _HARMLESS | _NORMALISING and strange != "ignore":
            raise FormatError(
                f"{path}/{name} has the step {shown(kind)}, which is not known here; the policy"
                " may see other numbers than it was trained on, so give it the streams as that"
                " step leaves them and say processors=ignore"
            )
        config, file = _mapping(step.get("config")), step.get("state_file")
        state: dict[str, Tensor] = {}
        if kind in _NORMALISING and isinstance(file, str):
            state, _ = read_safetensors(folder.checkpoint.file(file))
        if kind in _NORMALISING or kind == "rename_observations_processor":
            yield _Step(config, state)


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _modes(
    config: Mapping[str, Any], features: Sequence[Feature], folder: PolicyFolder
) -> dict[str, Mode]:
    """What a step says of each feature, in place of the policy's own config."""
    if "norm_map" not in config:
        return {}
    rules, only = _mapping(config["norm_map"]), config.get("normalize_observation_keys")
    found: dict[str, Mode] = {}
    for feature in features:
        mode = rules.get(feature.kind, "IDENTITY")
        if mode not in get_args(Mode):
            raise FormatError(
                f"{folder.checkpoint.path} normalises {feature.key} by {shown(mode)}; known are"
                f" {', '.join(NEEDED)}"
            )
        if isinstance(only, list) and feature.key != ACTION and feature.key not in only:
            mode = "IDENTITY"
        found[feature.key] = cast(Mode, mode)
    return found


def _of(tensors: Mapping[str, Tensor], dataset: str, path: object) -> Values:
    """The statistics of one data set: feature -> statistic -> tensor."""
    scoped: dict[str, dict[str, dict[str, Tensor]]] = {}
    for name, tensor in tensors.items():
        key, _, statistic = name.rpartition(".")
        match = _SCOPED.fullmatch(fold(key))
        scope, feature = (match[1] or "", match[2]) if match else ("", fold(key))
        scoped.setdefault(scope, {}).setdefault(feature, {})[statistic] = tensor
    named: Collection[str] = [scope for scope in scoped if scope]
    if not named:
        return scoped.get("", {})
    if dataset not in named and len(named) == 1 and not dataset:
        dataset = next(iter(named))
    if dataset not in named:
        if not dataset:
            raise DefinitionError(
                f"{path} has normalisation statistics of several data sets"
                f" ({', '.join(sorted(named))}); say whose count with dataset=NAME"
            )
        raise UnknownNameError(f"data set with statistics in {path}", dataset, named)
    return {**scoped.get("", {}), **scoped[dataset]}


def _shaped(tensor: Tensor, name: str, feature: Feature, folder: PolicyFolder) -> Tensor:
    wanted = (feature.shape[0], 1, 1) if feature.kind == "VISUAL" else feature.shape
    where = f"{folder.checkpoint.path}: {name} of {feature.key}"
    if tensor.numel() != wanted[0]:
        raise FormatError(f"{where} has the shape {tuple(tensor.shape)}; needed {wanted}")
    found = tensor.to(torch.float32).reshape(wanted)
    if not found.isfinite().all():
        raise FormatError(
            f"{where} is not finite, so it was never filled in; needed the statistics of the data"
            " it was trained on"
        )
    return found

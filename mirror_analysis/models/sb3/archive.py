"""A Stable-Baselines3 zip as values: nothing in it is unpickled."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from torch import Tensor

from mirror_analysis.errors import FormatError
from mirror_analysis.files.archives import Archive
from mirror_analysis.files.jsons import read_json
from mirror_analysis.files.pickles import pickle_names
from mirror_analysis.files.torch_files import read_torch

MOST_SETTINGS = 64 * 2**20
"""Bytes of the settings; those of an agent with a large buffer of last observations are large."""

# What only this algorithm keeps among its settings; the first that fits counts.
_TRACES = (
    ("ARS", "n_delta"),
    ("TQC", "top_quantiles_to_drop_per_net"),
    ("TRPO", "cg_max_steps"),
    ("PPO", "n_epochs"),
    ("TD3", "policy_delay"),
    ("QR-DQN", "n_quantiles"),
    ("DQN", "exploration_initial_eps"),
    ("SAC", "target_entropy"),
    ("A2C", "gae_lambda"),
)
_ACTIVATION = re.compile(r"torch\.nn\.modules\.activation[. ](\w+)")


@final
@dataclass(frozen=True, eq=False)
class Agent:
    """What a zip says of itself, and its weights.

    Attributes:
        name: whose it is, for the words of errors.
        algorithm: such as "PPO".
        settings: the plain settings of the algorithm.
        policy: the readable settings of its policy (`policy_kwargs`).
        activation: class of the activation the policy was made with; "" where it is not said.
        sees: readable fields of the observation space.
        does: readable fields of the action space.
        version: of Stable-Baselines3; "" where it is not said.
        tensors: name -> weight.
    """

    name: str
    algorithm: str
    settings: Mapping[str, Any]
    policy: Mapping[str, Any]
    activation: str
    sees: Mapping[str, Any]
    does: Mapping[str, Any]
    version: str
    tensors: Mapping[str, Tensor]


def read_settings(path: Path) -> dict[str, Any]:
    """The settings of an agent, its pickled ones as their readable first level only.

    Raises:
        FormatError: if it is no such zip.
    """
    with Archive(path) as archive:
        return dict(read_json(archive.read("data", most=MOST_SETTINGS), dict[str, Any]))


def read_agent(path: Path) -> Agent:
    """Reads an agent of Stable-Baselines3 or sb3-contrib.

    Args:
        path: the zip.

    Raises:
        FormatError: if it is not such a zip, damaged, or of an unknown algorithm.
    """
    settings = read_settings(path)
    with Archive(path) as archive:
        tensors = read_torch(archive.read("policy.pth"))
        version = ""
        if "_stable_baselines3_version" in archive:
            raw = archive.read("_stable_baselines3_version", most=200)
            version = raw.decode("ascii", "replace").strip()
    if not isinstance(tensors, Mapping) or not all(
        isinstance(k, str) and isinstance(v, Tensor) for k, v in tensors.items()
    ):
        raise FormatError(f"policy.pth of {path} does not hold tensors by name; fetch the zip anew")
    policy = _readable(settings, "policy_kwargs")
    return Agent(
        name=path.name,
        algorithm=algorithm(settings),
        settings=settings,
        policy=policy,
        activation=_activation(policy, settings),
        sees=_readable(settings, "observation_space"),
        does=_readable(settings, "action_space"),
        version=version,
        tensors={name: tensor.float() for name, tensor in tensors.items()},
    )


def algorithm(settings: Mapping[str, Any]) -> str:
    """The algorithm that made an agent, by the settings only it has; "" for an unknown one."""
    found = next((name for name, trace in _TRACES if trace in settings), "")
    module = str(_readable(settings, "policy_class").get("__module__", ""))
    if found == "PPO" and "maskable" in module:
        return "MaskablePPO"
    if found == "PPO" and "recurrent" in module:
        return "RecurrentPPO"
    if found == "TD3" and settings["policy_delay"] == 1 and settings.get("target_noise_clip") == 0:
        return "DDPG"
    return found


def _readable(settings: Mapping[str, Any], field: str) -> Mapping[str, Any]:
    found = settings.get(field)
    return found if isinstance(found, Mapping) else {}


def _activation(policy: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """The class of the activation, from the words of the settings or the names in their pickle."""
    said = _ACTIVATION.search(str(policy.get("activation_fn", ""))[:1000])
    if said:
        return said.group(1)
    if ":serialized:" not in policy:
        return ""
    try:
        names = pickle_names(base64.b64decode(str(policy[":serialized:"]), validate=True))
    except (ValueError, FormatError):  # nothing is known then, and the default is said
        return ""
    found = [match.group(1) for name in names if (match := _ACTIVATION.search(name))]
    return found[0] if found else ""

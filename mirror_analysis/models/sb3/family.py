"""Agents of Stable-Baselines3 and sb3-contrib, from their zip files, without unpickling."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from mirror_analysis.errors import FormatError, MirrorError, UnknownNameError
from mirror_analysis.files.kinds import kind_of
from mirror_analysis.models.checkpoint import Checkpoint, Options
from mirror_analysis.models.sb3.architecture import (
    ACTOR_CRITIC,
    ALGORITHMS,
    build,
    quantiles,
    wires,
)
from mirror_analysis.models.sb3.archive import Agent, algorithm, read_agent, read_settings
from mirror_analysis.models.sb3.policy import AgentPolicy, Wire
from mirror_analysis.models.sb3.spaces import Done, actions
from mirror_analysis.models.sb3.surroundings import (
    Statistics,
    Training,
    find_statistics,
    read_statistics,
    read_training,
)

SUMMARY = "zips of Stable-Baselines3 and sb3-contrib: PPO, A2C, TRPO, ARS, SAC, TD3, DDPG, TQC, DQN"
OPTIONS: Mapping[str, str] = {
    "activation": "class of the hidden layers' activation, such as Tanh; what the zip says",
    "critic": "whether the critic's layers count, too: yes or no; no",
    "normalise": "file of VecNormalize statistics, or none; the one beside the zip",
    "time_feature": "steps after which no time is left, where the agent sees the time, or none;"
    " what the settings of the training beside the zip say",
}

_MOST_ZIPS = 100  # of a folder that are looked at
_ACTIVATIONS = {
    name: getattr(nn, name)
    for name in ("ELU", "GELU", "LeakyReLU", "Mish", "ReLU", "ReLU6", "SELU", "SiLU", "Sigmoid",
                 "Softplus", "Tanh")
}  # fmt: skip


def recognise(checkpoint: Checkpoint) -> str | None:
    """What it is, if it is an agent's zip, or a folder with such zips."""
    zips = _zips(checkpoint)
    if len(zips) > 1:
        return f"{len(zips)} agents of Stable-Baselines3"
    try:
        settings = read_settings(zips[0]) if zips else None
    except FormatError:
        return None
    if settings is None:
        return None
    return f"{algorithm(settings) or 'unknown'} agent of Stable-Baselines3"


def load(checkpoint: Checkpoint, *, name: str, options: Options) -> AgentPolicy:
    """Reads an agent.

    Args:
        checkpoint: the zip, or a folder that holds one.
        name: what to call it.
        options: those of `OPTIONS`.

    Raises:
        FormatError: if there is not one zip, it is damaged, of an algorithm or architecture that is
            not read, or was trained on normalised input whose statistics are not there.
        MissingFileError: if named statistics are not there.
        UnknownNameError: if an activation is not known.
        DefinitionError: if a value of an option is of another kind.
    """
    zips = _zips(checkpoint)
    if len(zips) != 1:
        found = ", ".join(path.name for path in zips) or "none"
        raise FormatError(
            f"{checkpoint.path} holds {len(zips)} agents of Stable-Baselines3 ({found}); name one"
        )
    path = zips[0]
    agent = read_agent(path)
    if agent.algorithm not in ALGORITHMS:
        raise FormatError(
            f"{agent.name} is an agent of {agent.algorithm or 'an unknown algorithm'}; read are"
            f" {', '.join(ALGORITHMS)}, so export its policy to TorchScript or ONNX"
        )
    beside = read_training(path)
    done = actions(agent.does, agent.name)
    activation, source = _activation(agent, options)
    statistics, normalisation = _statistics(path, beside, options)
    made = wires(agent, max_steps=_time_steps(beside, options))
    with torch.random.fork_rng(devices=[]):  # layers are drawn before they get their weights
        network, squashed = build(
            agent,
            made,
            done=done,
            statistics=statistics,
            activation=activation,
            critic=options.choice("critic", "no", ("no", "yes")) == "yes",
        )
    orthogonal = str(agent.policy.get("ortho_init", "True")) == "True"
    # The statistics themselves are buffers of the network, so they count among its weights.
    settings = {
        "activation": activation.__name__,
        "normalisation": "none" if statistics is None else "VecNormalize",
    }
    settings |= {f"{w.need.name} time": f"1 - step / {w.max_steps}" for w in made if w.max_steps}
    settings |= {f"{w.need.name} pictures": _pictures(w) for w in made if w.stack}
    facts = {
        "family": "sb3",
        "algorithm": agent.algorithm,
        "activation": source,
        "normalisation": normalisation,
        "actions": _acts(done, squashed),
        "stable-baselines3": agent.version or "not said",
    }
    if agent.algorithm == "MaskablePPO":
        facts["actions"] += "; none is masked"
    facts |= {k: v for k, v in settings.items() if k not in facts}
    facts |= {"training": str(beside.path.name)} if beside.path else {}
    return AgentPolicy(
        network.eval(),
        name=name,
        wires=made,
        done=done,
        squashed=squashed,
        quantiles=quantiles(agent, done),
        orthogonal=agent.algorithm in ACTOR_CRITIC and orthogonal,
        facts=facts,
        settings=settings,
    )


def _zips(checkpoint: Checkpoint) -> list[Path]:
    """The agents' zips: the file itself, or those of a folder."""
    if checkpoint.kind != "folder":
        return [checkpoint.path] if checkpoint.kind == "sb3" else []
    found = sorted(checkpoint.path.glob("*.zip"))[:_MOST_ZIPS]
    return [path for path in found if path.is_file() and _is_agent(checkpoint, path.name)]


def _is_agent(checkpoint: Checkpoint, name: str) -> bool:
    try:
        return kind_of(checkpoint.file(name)) == "sb3"
    except MirrorError:  # a link that leads out of the folder
        return False


def _activation(agent: Agent, options: Options) -> tuple[type[nn.Module], str]:
    """The activation and where it is known from."""
    default = "Tanh" if agent.algorithm in ACTOR_CRITIC else "ReLU"
    name = options.text("activation") or agent.activation or default
    if name not in _ACTIVATIONS:
        raise UnknownNameError("activation", name, _ACTIVATIONS)
    if options.text("activation"):
        words = f"{name}, as the option says"
    elif agent.activation:
        words = f"{name}, as the zip says"
    else:
        words = f"{name}, the default of {agent.algorithm}; the zip says nothing else"
    return _ACTIVATIONS[name], words


def _statistics(path: Path, beside: Training, options: Options) -> tuple[Statistics | None, str]:
    given = options.text("normalise")
    if given == "none":
        return None, "none, as the option says"
    found = Path(given) if given else find_statistics(path)
    if found is not None:
        statistics = read_statistics(found)
        if statistics.mean:
            return statistics, f"VecNormalize, {found.name}"
        return None, f"none of what is seen, says {found.name}"
    if beside.normalises:
        config = beside.path.name if beside.path else ""
        raise FormatError(
            f"{path.name} was trained on normalised input, says {config}, but its statistics are"
            f" not beside it; put {path.stem}.vecnormalize.pkl or vecnormalize.pkl there, or name"
            " them with the option normalise=PATH"
        )
    if beside.normalises is None:
        return None, "none found; if it was trained with VecNormalize, name its statistics with"\
            " normalise=PATH"  # fmt: skip
    return None, f"none, says {beside.path.name if beside.path else ''}"


def _time_steps(beside: Training, options: Options) -> int | None:
    if options.text("time_feature") == "none":
        return None
    if "time_feature" in options.values:
        return options.count("time_feature", 1)
    return beside.max_steps


def _pictures(wire: Wire) -> str:
    words = "grey, " if wire.grey else ""
    return f"{wire.need.note}, {words}area interpolation, bytes x {wire.scale:.6g}"


def _acts(done: Done, squashed: bool) -> str:
    if done.kind != "box":
        return f"{done.kind} of {list(done.choices) or done.width}"
    ends = f"[{done.low.min():g}, {done.high.max():g}]"
    return f"{done.width} numbers in {ends}, {'spread over it' if squashed else 'cut to it'}"

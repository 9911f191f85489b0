"""Which network an agent of Stable-Baselines3 is: by its algorithm and the shapes it has."""

from __future__ import annotations

from torch import nn

from mirror_analysis.errors import DefinitionError, FormatError
from mirror_analysis.models.model import Input
from mirror_analysis.models.sb3.archive import Agent
from mirror_analysis.models.sb3.networks import (
    AgentNetwork,
    Extractor,
    Head,
    check_chain,
    ending,
    hidden,
    linear,
    picture_network,
    places,
)
from mirror_analysis.models.sb3.policy import Wire
from mirror_analysis.models.sb3.spaces import Done, Seen, last_is_a_share, observations
from mirror_analysis.models.sb3.surroundings import Statistics

ACTOR_CRITIC = ("PPO", "A2C", "TRPO", "MaskablePPO")
SQUASHING = ("SAC", "TQC", "TD3", "DDPG")
ALGORITHMS = (*ACTOR_CRITIC, *SQUASHING, "ARS", "DQN", "QR-DQN")

_EYES = {
    "SAC": "actor.features_extractor.",
    "TQC": "actor.features_extractor.",
    "TD3": "actor.features_extractor.",
    "DDPG": "actor.features_extractor.",
    "DQN": "q_net.features_extractor.",
    "QR-DQN": "quantile_net.features_extractor.",
}
# Where the actor is one sequence, action included.
_SEQUENCES = {
    "ARS": "action_net.",
    "TD3": "actor.mu.",
    "DDPG": "actor.mu.",
    "DQN": "q_net.q_net.",
    "QR-DQN": "quantile_net.quantile_net.",
}


def wires(agent: Agent, *, max_steps: int | None) -> list[Wire]:
    """How what the agent sees is made from streams.

    Args:
        agent: the agent.
        max_steps: over how many steps the time that is left runs out; None where it is not seen.

    Raises:
        FormatError: if the agent sees something that is not read.
    """
    found = observations(agent.sees, agent.name)
    prefix = _eyes_prefix(agent)
    pictures = [seen for seen in found if _is_picture(agent, prefix, seen)]
    scale = 1.0 if str(agent.policy.get("normalize_images", "True")) == "False" else 1 / 255
    made = []
    for seen in found:
        if seen in pictures:
            made.append(_picture_wire(seen, alone=len(pictures) == 1, scale=scale))
            continue
        main = seen.key in ("", "observation")
        own = seen.width if not seen.choices else 1
        timed = max_steps if main and not seen.choices else None
        note = "a choice" if seen.choices else ""
        if main and timed is None and own > 1 and last_is_a_share(agent.sees):
            note = (
                "the last looks like the time that is left, which option time_feature=1000 adds to"
                f" states of {own - 1}"
            )
        stream = "states" if main else f"array:{seen.key}"
        made.append(Wire(seen, Input(stream, own - (timed is not None), note), timed))
    return made


def build(
    agent: Agent,
    made: list[Wire],
    *,
    done: Done,
    statistics: Statistics | None,
    activation: type[nn.Module],
    critic: bool,
) -> tuple[AgentNetwork, bool]:
    """The network with its weights, and whether its raw action is in [-1, 1].

    Args:
        agent: the agent.
        made: how what it sees is made, by `wires`.
        done: its actions.
        statistics: what normalises what it sees; None for nothing.
        activation: of the hidden layers.
        critic: whether the critic is wanted, too.

    Raises:
        FormatError: if weights are missing or do not fit together.
        DefinitionError: if a critic is wanted where there is none.
    """
    eyes, width = _eyes(agent, made, _eyes_prefix(agent), statistics)
    shared = _shared(agent, activation)
    if shared is not None:
        width = check_chain(shared, width, agent.name)
    layers, last, squash = _actor(agent, activation, done)
    actor = Head(layers | {"action": ending(last, *squash)})
    check_chain(actor, width, agent.name)
    needed = sum(done.choices) * quantiles(agent, done) if done.choices else done.width
    if last.out_features != needed:
        raise FormatError(
            f"{agent.name} gives {last.out_features} numbers where its actions need {needed}; the"
            " file is damaged"
        )
    if not critic:
        return AgentNetwork(eyes, actor, shared=shared), bool(squash)
    judges_action = agent.algorithm in SQUASHING
    judge, prefix = _critic(agent, activation)
    judge_eyes = None
    if any(name.startswith(prefix) for name in agent.tensors):
        judge_eyes, width = _eyes(agent, made, prefix, statistics)
    check_chain(judge, width + (last.out_features if judges_action else 0), agent.name)
    network = AgentNetwork(
        eyes,
        actor,
        shared=shared,
        critic=judge,
        critic_eyes=judge_eyes,
        judges_action=judges_action,
    )
    return network, bool(squash)


def quantiles(agent: Agent, done: Done) -> int:
    """How many values it gives for each action; 1 for all but QR-DQN."""
    numbers = places(agent.tensors, _SEQUENCES["QR-DQN"])
    if agent.algorithm != "QR-DQN" or not numbers:
        return 1
    given = len(agent.tensors[f"{_SEQUENCES['QR-DQN']}{numbers[-1]}.weight"])
    return max(given // max(sum(done.choices), 1), 1)


def _actor(
    agent: Agent, activation: type[nn.Module], done: Done
) -> tuple[dict[str, nn.Module], nn.Linear, list[nn.Module]]:
    """Hidden layers, the last one, and what follows it."""
    t = agent.tensors
    if agent.algorithm in ACTOR_CRITIC:
        squashed = str(agent.policy.get("squash_output", "False")) == "True"
        layers = hidden(t, "mlp_extractor.policy_net.", activation, "hidden")
        return layers, linear(t, "action_net"), [nn.Tanh()] if squashed else []
    if agent.algorithm in _SEQUENCES:
        sequence = _SEQUENCES[agent.algorithm]
        layers = hidden(t, sequence, activation, "hidden", but_last=True)
        numbers = places(t, sequence)
        # The linear policy of early versions is a layer, not a sequence of one.
        last = linear(t, f"{sequence}{numbers[-1]}" if numbers else sequence[:-1])
        squashed = agent.algorithm in SQUASHING
        if agent.algorithm == "ARS" and done.kind == "box":
            default = str(bool(layers))  # its linear policy is not squashed, the other one is
            squashed = str(agent.policy.get("squash_output", default)) == "True"
        return layers, last, [nn.Tanh()] if squashed else []
    layers = hidden(t, "actor.latent_pi.", activation, "hidden")
    if "actor.mu.0.weight" in t:  # state-dependent exploration cuts the mean
        limit = _number(agent, "clip_mean", 2.0)
        return layers, linear(t, "actor.mu.0"), [nn.Hardtanh(-limit, limit), nn.Tanh()]
    return layers, linear(t, "actor.mu"), [nn.Tanh()]


def _shared(agent: Agent, activation: type[nn.Module]) -> Head | None:
    """Layers that actor and critic share, as early versions had them."""
    layers = hidden(agent.tensors, "mlp_extractor.shared_net.", activation, "shared")
    return Head(layers) if layers else None


def _critic(agent: Agent, activation: type[nn.Module]) -> tuple[Head, str]:
    """The critic, and the name its own convolutions would have."""
    t = agent.tensors
    if agent.algorithm in ACTOR_CRITIC:
        layers = hidden(t, "mlp_extractor.value_net.", activation, "value")
        return Head(layers | {"value": ending(linear(t, "value_net"))}), "vf_features_extractor."
    numbers = places(t, "critic.qf0.")
    if not numbers:
        raise DefinitionError(
            f"option critic is yes but {agent.name}, of {agent.algorithm}, has no critic; leave it"
            " out"
        )
    layers = hidden(t, "critic.qf0.", activation, "value", but_last=True)
    last = ending(linear(t, f"critic.qf0.{numbers[-1]}"))
    return Head(layers | {"value": last}), "critic.features_extractor."


def _eyes(
    agent: Agent, made: list[Wire], prefix: str, statistics: Statistics | None
) -> tuple[Extractor, int]:
    """What joins the observations, and how many numbers come out."""
    parts: dict[str, nn.Module] = {}
    width = 0
    foreign = next((name for name in agent.tensors if name.startswith(prefix)), None)
    if foreign is not None and not any(wire.stack for wire in made):
        raise FormatError(
            f"{agent.name} has a features extractor of its own ({foreign}); needed the published"
            " NatureCNN or CombinedExtractor, so export the policy to TorchScript or ONNX"
        )
    for wire in made:
        seen = wire.seen
        if wire.stack:
            network, given = picture_network(agent.tensors, _part(prefix, seen), seen.shape)
            parts[seen.key] = network
            width += given
            continue
        own = None if statistics is None else statistics.normaliser(seen.key, seen.width)
        parts[seen.key] = own or nn.Identity()
        width += seen.width
    return Extractor(parts), width


def _picture_wire(seen: Seen, *, alone: bool, scale: float) -> Wire:
    channels, height, width = seen.shape
    grey = channels % 3 != 0
    stack = channels if grey else channels // 3
    note = f"{height} x {width}{' grey' if grey else ''}, {stack} at once"
    name = "camera" if alone else f"camera:{seen.key}"
    return Wire(seen, Input(name, None, note), None, stack, grey, scale)


def _eyes_prefix(agent: Agent) -> str:
    own = "pi_features_extractor."
    if agent.algorithm in ACTOR_CRITIC and any(name.startswith(own) for name in agent.tensors):
        return own
    return _EYES.get(agent.algorithm, "features_extractor.")


def _is_picture(agent: Agent, prefix: str, seen: Seen) -> bool:
    there = f"{_part(prefix, seen)}cnn.0.weight" in agent.tensors
    if there and len(seen.shape) != 3:
        raise FormatError(
            f"{agent.name} has convolutions for an observation of shape {list(seen.shape)}; needed"
            " [channel, height, width]"
        )
    return there


def _part(prefix: str, seen: Seen) -> str:
    return f"{prefix}extractors.{seen.key}." if seen.key else prefix


def _number(agent: Agent, field: str, default: float) -> float:
    try:
        return float(str(agent.policy.get(field, default)))
    except ValueError:
        return default

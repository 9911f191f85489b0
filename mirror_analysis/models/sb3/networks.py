"""The networks of Stable-Baselines3 agents, built from the names and shapes of their weights."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import final

import torch
from torch import Tensor, nn

from mirror_analysis.errors import FormatError

# The published picture network (Mnih et al., 2015): kernel and stride of its convolutions.
_CONVOLUTIONS = {0: (8, 4), 2: (4, 2), 4: (3, 1)}

Tensors = Mapping[str, Tensor]


@final
class Normaliser(nn.Module):
    """Running mean and variance of what was seen in training, clipped; no weights.

    Args:
        mean: [number].
        scale: [number] standard deviation, made safe to divide by.
        limit: what is larger after it is cut.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, mean: Tensor, scale: Tensor, limit: float) -> None:
        super().__init__()
        self.register_buffer("mean", mean.float())
        self.register_buffer("scale", scale.float())
        self.limit = limit

    def forward(self, x: Tensor) -> Tensor:
        """[row, number] -> [row, number]."""
        return ((x - self.mean) / self.scale).clamp(-self.limit, self.limit)


@final
class Extractor(nn.Module):
    """Joins everything that is seen into one vector, pictures through convolutions.

    Args:
        parts: key -> (what prepares it, "" where it is one vector already); in the order in which
            the vectors are joined.
    """

    def __init__(self, parts: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.keys = tuple(parts)
        self.parts = nn.ModuleList(parts.values())

    def forward(self, seen: Mapping[str, Tensor]) -> Tensor:
        """Key -> [row, ...] to [row, feature]."""
        found = [part(seen[key]) for key, part in zip(self.keys, self.parts, strict=True)]
        return torch.cat(found, dim=1)


@final
class Head(nn.Module):
    """A multilayer perceptron: hidden layers, then a linear one with what follows it.

    Args:
        layers: name -> module, in forward order.
    """

    def __init__(self, layers: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleDict(layers)

    def forward(self, x: Tensor) -> Tensor:
        """[row, feature] -> [row, output]."""
        for layer in self.layers.values():
            x = layer(x)
        return x


@final
class AgentNetwork(nn.Module):
    """An actor, and with it the critic where it is wanted.

    Args:
        eyes: for the actor.
        shared: hidden layers before actor and critic part; None where there are none.
        actor: gives the raw action or the value of each action.
        critic: judges; None where it is not wanted.
        critic_eyes: for the critic where it has its own.
        judges_action: whether the critic sees the action, too.
    """

    def __init__(
        self,
        eyes: Extractor,
        actor: Head,
        *,
        shared: Head | None = None,
        critic: Head | None = None,
        critic_eyes: Extractor | None = None,
        judges_action: bool = False,
    ) -> None:
        super().__init__()
        self.eyes, self.shared, self.actor = eyes, shared, actor
        self.critic, self.critic_eyes = critic, critic_eyes
        self.judges_action = judges_action

    def forward(self, seen: Mapping[str, Tensor]) -> Tensor:
        """The raw action [row, number]; the critic runs for its layers."""
        x = self.eyes(seen)
        if self.shared is not None:
            x = self.shared(x)
        action: Tensor = self.actor(x)
        if self.critic is not None:
            if self.critic_eyes is not None:
                x = self.critic_eyes(seen)
            self.critic(torch.cat([x, action], dim=1) if self.judges_action else x)
        return action

    def taps(self) -> dict[str, nn.Module]:
        """Layer name -> module, in forward order."""
        found = _picture_layers(self.eyes, "")
        for head in (self.shared, self.actor):
            found |= dict(head.layers.items()) if head is not None else {}
        if self.critic is not None:
            found |= _picture_layers(self.critic_eyes, "value_") if self.critic_eyes else {}
            found |= dict(self.critic.layers.items())
        return found

    def redrawn(self, seed: int, *, orthogonal: bool) -> AgentNetwork:
        """The same network before training.

        Args:
            seed: of the draw.
            orthogonal: whether weights start orthogonal, with gain sqrt(2), .01 for the action
                and 1 for the value, and biases at 0, as for PPO and A2C; else as torch does it.
        """
        twin = deepcopy(self)
        linear = [m for m in twin.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
        last = {id(twin.actor.layers["action"][0]): 0.01}  # type: ignore[index]
        if twin.critic is not None:
            last[id(twin.critic.layers["value"][0])] = 1.0  # type: ignore[index]
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(seed)
            for module in linear:
                device = module.weight.device
                module.to("cpu").reset_parameters()
                if orthogonal:
                    nn.init.orthogonal_(module.weight, gain=last.get(id(module), 2**0.5))
                    if module.bias is not None:
                        module.bias.zero_()
                module.to(device)
        return twin


def picture_network(tensors: Tensors, prefix: str, shape: tuple[int, ...]) -> tuple[Head, int]:
    """The convolutions under a name, as "conv1" to "conv3" and "features".

    Args:
        tensors: name -> weight.
        prefix: of their names.
        shape: (channel, height, width) of a picture.

    Returns:
        The network, and how many numbers it gives.

    Raises:
        FormatError: if they are not the published ones, or do not fit the picture.
    """
    layers: dict[str, nn.Module] = {}
    channels, *sides = shape
    for i, (place, (kernel, stride)) in enumerate(_CONVOLUTIONS.items()):
        weight = _tensor(tensors, f"{prefix}cnn.{place}.weight")
        if tuple(weight.shape[1:]) != (channels, kernel, kernel):
            raise FormatError(
                f"{prefix}cnn.{place} has weights {list(weight.shape)}; needed the published"
                f" convolution of {channels} channels with kernels of {kernel} x {kernel}"
            )
        convolution = nn.Conv2d(channels, weight.shape[0], kernel, stride)
        _fill(convolution, tensors, f"{prefix}cnn.{place}")
        layers[f"conv{i + 1}"] = nn.Sequential(convolution, nn.ReLU())
        channels, sides = weight.shape[0], [(side - kernel) // stride + 1 for side in sides]
    last = linear(tensors, f"{prefix}linear.0")
    if last.in_features != channels * sides[0] * sides[1]:
        raise FormatError(
            f"{prefix}linear.0 takes {last.in_features} numbers where the convolutions give"
            f" {channels} x {sides[0]} x {sides[1]}; the file is damaged"
        )
    features = nn.Sequential(nn.Flatten(), last, nn.ReLU())
    return Head(layers | {"features": features}), last.out_features


def places(tensors: Tensors, prefix: str) -> list[int]:
    """Numbers of the linear layers of a sequence, in order."""
    pattern = re.compile(re.escape(prefix) + r"(\d{1,4})\.weight")
    return sorted(int(m.group(1)) for name in tensors if (m := pattern.fullmatch(name)))


def hidden(
    tensors: Tensors, prefix: str, activation: type[nn.Module], name: str, *, but_last: bool = False
) -> dict[str, nn.Module]:
    """The hidden layers of a sequence, "<name>1" and so on, each with its activation."""
    found = places(tensors, prefix)
    found = found[:-1] if but_last else found
    return {
        f"{name}{i + 1}": nn.Sequential(linear(tensors, f"{prefix}{place}"), activation())
        for i, place in enumerate(found)
    }


def linear(tensors: Tensors, name: str) -> nn.Linear:
    """A linear layer with its weights.

    Raises:
        FormatError: if they are not there, or not those of a linear layer.
    """
    weight = _tensor(tensors, f"{name}.weight")
    if weight.ndim != 2:
        raise FormatError(
            f"{name}.weight has shape {list(weight.shape)}; needed [output, input], so fetch the"
            " file anew"
        )
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=f"{name}.bias" in tensors)
    _fill(layer, tensors, name)
    return layer


def check_chain(head: Head, width: int, name: str) -> int:
    """Makes sure that each linear layer takes what the one before it gives.

    Returns:
        How many numbers come out.

    Raises:
        FormatError: if one does not.
    """
    for layer in (m for m in head.modules() if isinstance(m, nn.Linear)):
        if layer.in_features != width:
            raise FormatError(
                f"a layer of {name} takes {layer.in_features} numbers where {width} come; the file"
                " is damaged or of another architecture"
            )
        width = layer.out_features
    return width


def ending(layer: nn.Linear, *after: nn.Module) -> nn.Sequential:
    """The last layer of a head, with what follows it."""
    return nn.Sequential(layer, *after)


def widths(taps: Mapping[str, nn.Module]) -> dict[str, int]:
    """Layer name -> channels."""
    found = {}
    for name, module in taps.items():
        layers: Sequence[nn.Module] = list(module.modules())
        last = [m for m in layers if isinstance(m, nn.Linear | nn.Conv2d)][-1]
        found[name] = last.weight.shape[0]
    return found


def _picture_layers(eyes: Extractor, prefix: str) -> dict[str, nn.Module]:
    """The layers of its convolutions; with the name of the view where there are several."""
    networks = {k: p for k, p in zip(eyes.keys, eyes.parts, strict=True) if isinstance(p, Head)}
    return {
        f"{prefix}{f'{key}_' if len(networks) > 1 else ''}{name}": layer
        for key, network in networks.items()
        for name, layer in network.layers.items()
    }


def _tensor(tensors: Tensors, name: str) -> Tensor:
    if name not in tensors:
        raise FormatError(f"there is no weight '{name}'; the file is cut or of another version")
    return tensors[name]


def _fill(layer: nn.Linear | nn.Conv2d, tensors: Tensors, name: str) -> None:
    bias = tensors.get(f"{name}.bias")
    if bias is not None and tuple(bias.shape) != (layer.weight.shape[0],):
        raise FormatError(
            f"{name}.bias has shape {list(bias.shape)}; needed [{layer.weight.shape[0]}]"
        )
    with torch.no_grad():
        layer.weight.copy_(_tensor(tensors, f"{name}.weight"))
        if bias is not None and layer.bias is not None:
            layer.bias.copy_(bias)

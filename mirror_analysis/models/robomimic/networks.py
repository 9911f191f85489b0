"""Networks of robomimic's behavioural cloning, under its parameter names.

Mandlekar et al., "What Matters in Learning from Offline Human Demonstrations for Robot
Manipulation", 2021. Observations are joined to one vector, a recurrent network may follow, then
hidden layers, then the action or the parameters of its distribution.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from mirror_analysis.models.model import LayerInfo
from mirror_analysis.models.robomimic.config import Recurrence, Settings
from mirror_analysis.models.robomimic.pictures import PictureEncoder
from mirror_analysis.models.structure.discovery import Structure

_FRAME = "episode*time channel"
_LIMIT = 9.0  # of the mean of a Gaussian, before tanh
_CERTAIN = 1e-4  # standard deviation of a mixture when it acts


@final
class Observed(nn.Module):
    """All that is seen at one moment, joined to a vector."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.keys = list(settings.observed)
        encoders = {key: PictureEncoder(view) for key, view in settings.views.items()}
        self.obs_nets = nn.ModuleDict(encoders)
        plain = sum(math.prod(s) for k, s in settings.observed.items() if k not in encoders)
        self.width = plain + sum(encoder.width for encoder in encoders.values())

    def forward(self, seen: Mapping[str, Tensor]) -> Tensor:
        """[row, channel] from key -> [row, ...]."""
        parts = [
            self.obs_nets[key](seen[key]) if key in self.obs_nets else seen[key].flatten(1)
            for key in self.keys
        ]
        return torch.cat(parts, -1)


@final
class Encoder(nn.Module):
    """Groups of observations, of which there is one."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        seen = Observed(settings)
        self.nets = nn.ModuleDict({"obs": seen})
        self.width = seen.width

    def forward(self, seen: Mapping[str, Tensor]) -> Tensor:
        """[row, channel]."""
        return self.nets["obs"](seen)

    def views(self) -> Iterator[tuple[str, PictureEncoder]]:
        """Key and encoder of each camera."""
        for key, view in self.get_submodule("nets.obs.obs_nets").named_children():
            if isinstance(view, PictureEncoder):
                yield key, view


State = tuple[Tensor, Tensor] | Tensor


@final
class Unrolled(nn.Module):
    """One recurrent layer over time, which forgets everything every so many steps.

    Args:
        inner: numbers that come in.
        rnn: its sizes.
    """

    def __init__(self, inner: int, rnn: Recurrence) -> None:
        super().__init__()
        kind = nn.LSTM if rnn.rnn_type == "LSTM" else nn.GRU
        bias = bool(rnn.kwargs.get("bias", True))
        self.cell = kind(inner, rnn.hidden_dim, batch_first=True, bias=bias)
        self.horizon = rnn.horizon

    def forward(self, x: Float[Tensor, "episode time channel"]) -> Tensor:
        """[episode, time, channel]."""
        episodes, time = x.shape[:2]
        after = -time % self.horizon
        folded = F.pad(x, (0, 0, 0, after)).reshape(-1, min(self.horizon, time + after), x.shape[2])
        y: Tensor = self.cell(folded)[0]
        return y.reshape(episodes, time + after, -1)[:, :time]

    def step(self, x: Tensor, state: State | None) -> tuple[Tensor, State]:
        """One moment, [environment, channel], and what is remembered of it."""
        y, state = self.cell(x[:, None], state)
        return y[:, 0], state


@final
class Recurrent(nn.Module):
    """Recurrent layers on top of each other."""

    def __init__(self, inner: int, rnn: Recurrence) -> None:
        super().__init__()
        widths = [inner] + [rnn.hidden_dim] * (rnn.num_layers - 1)
        self.unrolled = [Unrolled(width, rnn) for width in widths]
        self.layers = nn.ModuleList(self.unrolled)
        self.horizon, self.open = rnn.horizon, rnn.open_loop

    def forward(self, x: Tensor) -> Tensor:
        """[episode, time, channel]."""
        if self.open:  # what was seen when it last forgot
            time = torch.arange(x.shape[1], device=x.device)
            x = x[:, time - time % self.horizon]
        for layer in self.layers:
            x = layer(x)
        return x

    def step(self, x: Tensor, states: list[State] | None) -> tuple[Tensor, list[State]]:
        """One moment; `states` is None when it has just forgotten."""
        new = []
        for i, layer in enumerate(self.unrolled):
            x, state = layer.step(x, None if states is None else states[i])
            new.append(state)
        return x, new


@final
class Hidden(nn.Module):
    """Linear layers with rectifiers after them."""

    def __init__(self, inner: int, widths: list[int]) -> None:
        super().__init__()
        sizes = zip([inner, *widths], widths, strict=False)
        self._model = nn.Sequential(
            *(part for size in sizes for part in (nn.Linear(*size), nn.ReLU()))
        )

    def forward(self, x: Tensor) -> Tensor:
        """[..., channel]."""
        return self._model(x)

    @property
    def activations(self) -> list[nn.Module]:
        """After each layer."""
        return list(self._model)[1::2]


@final
class Outputs(nn.Module):
    """A linear layer for each of some outputs."""

    def __init__(self, inner: int, widths: Mapping[str, int]) -> None:
        super().__init__()
        self.nets = nn.ModuleDict({name: nn.Linear(inner, n) for name, n in widths.items()})

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Name -> [..., number]."""
        return {name: net(x) for name, net in self.nets.items()}


class Parts(NamedTuple):
    """What a policy is made of; what it lacks is None."""

    encoder: Encoder
    rnn: Recurrent | None
    hidden: Hidden | None
    outputs: Outputs


@final
class Policy(nn.Module):
    """From what is seen to the action, normalised as in training.

    Args:
        settings: what kind of policy it is.
        likeliest: whether the likeliest action counts, not one drawn from the distribution.
    """

    def __init__(self, settings: Settings, *, likeliest: bool) -> None:
        super().__init__()
        algo = settings.algorithm
        self.algo, self.actions, self.likeliest = algo, settings.actions, likeliest
        encoder = Encoder(settings)
        rnn = Recurrent(encoder.width, algo.rnn) if algo.rnn.enabled else None
        width = algo.rnn.hidden_dim if algo.rnn.enabled else encoder.width
        hidden = Hidden(width, algo.actor_layer_dims) if algo.actor_layer_dims else None
        width = [width, *algo.actor_layer_dims][-1]
        modes = algo.gmm.num_modes
        outputs = {"action": self.actions}
        if algo.gaussian.enabled:
            outputs = {"mean": self.actions, "scale": self.actions}
        elif algo.gmm.enabled:
            outputs = dict.fromkeys(("mean", "scale"), modes * self.actions) | {"logits": modes}
        self.parts = Parts(encoder, rnn, hidden, Outputs(width, outputs))
        names = zip(("encoder", "rnn", "mlp", "decoder"), self.parts, strict=True)
        self.nets = nn.ModuleDict({name: part for name, part in names if part is not None})
        self.output = nn.Identity()  # the action, as a layer

    @property
    def chances(self) -> int:
        """Random numbers a moment takes: one in [0, 1), then normal ones."""
        return 0 if self.certain else 1 + self.actions

    @property
    def certain(self) -> bool:
        """Whether nothing is left to chance; a Gaussian acts by its mean, if so trained."""
        gaussian = self.algo.gaussian
        drawn = not gaussian.low_noise_eval if gaussian.enabled else self.algo.gmm.enabled
        return self.likeliest or not drawn

    def forward(
        self, seen: Mapping[str, Tensor], chance: Tensor, *, episodes: int
    ) -> Float[Tensor, "row action"]:
        """Actions of all moments of some episodes, the moments of each one after the other.

        Args:
            seen: key -> [row, ...].
            chance: [row, number] random numbers, as many as `chances`.
            episodes: how many they are.
        """
        x = self.parts.encoder(seen)
        if self.parts.rnn is not None:
            x = self.parts.rnn(x.reshape(episodes, -1, x.shape[1]))
            chance = chance.reshape(*x.shape[:2], chance.shape[1])
        action: Tensor = self.output(self._chosen(self._head(x), chance))
        return action.reshape(-1, self.actions)

    def step(
        self, seen: Mapping[str, Tensor], chance: Tensor, states: list[State] | None
    ) -> tuple[Tensor, list[State] | None]:
        """The action of this moment, and what is remembered; see `forward`."""
        x = self.parts.encoder(seen)
        if self.parts.rnn is not None:
            x, states = self.parts.rnn.step(x, states)
        return self._chosen(self._head(x), chance), states

    def structure(self) -> Structure:
        """Backbones, what is seen, recurrent and hidden layers, parameters, action."""
        entries = list(self._entries())
        return Structure(
            tuple(info for info, _ in entries), {info.name: module for info, module in entries}
        )

    def _head(self, x: Tensor) -> dict[str, Tensor]:
        said: dict[str, Tensor] = self.parts.outputs(
            x if self.parts.hidden is None else self.parts.hidden(x)
        )
        return said

    def _chosen(self, said: Mapping[str, Tensor], chance: Tensor) -> Tensor:
        if "action" in said:
            return said["action"].tanh()
        mean, scale = said["mean"], said["scale"]
        if self.algo.gaussian.enabled:
            mean = mean.clamp(-_LIMIT, _LIMIT).tanh()
            return mean if self.certain else mean + self._spread(scale) * chance[..., 1:]
        shape = (self.algo.gmm.num_modes, self.actions)
        mean, scale = (x.reshape(*x.shape[:-1], *shape) for x in (mean.tanh(), scale))
        share = said["logits"].softmax(-1)
        if self.likeliest:
            which = share.argmax(-1)
        else:
            which = (share.cumsum(-1) <= chance[..., :1]).sum(-1).clamp(max=shape[0] - 1)
        at = which[..., None, None].expand(*which.shape, 1, shape[1])
        chosen = mean.gather(-2, at).squeeze(-2)
        if self.likeliest:
            return chosen
        return chosen + self._spread(scale).gather(-2, at).squeeze(-2) * chance[..., 1:]

    def _spread(self, scale: Tensor) -> Tensor:
        """Standard deviations when it acts."""
        gaussian, how = self.algo.gaussian.enabled, self.algo.gaussian
        settings = how if gaussian else self.algo.gmm
        if not gaussian and self.algo.gmm.low_noise_eval:
            return torch.full_like(scale, _CERTAIN)
        if gaussian and how.fixed_std:
            scale = torch.full_like(scale, how.init_std)
        elif settings.std_activation == "exp":
            scale = scale.exp()
        elif settings.std_activation == "softplus":
            scale = F.softplus(scale) * (how.init_std / math.log(2) if gaussian else 1.0)
        return scale.clamp(how.min_std, 7.5) if gaussian else scale + self.algo.gmm.min_std

    def _entries(self) -> Iterator[tuple[LayerInfo, nn.Module]]:
        encoder, rnn, hidden, outputs = self.parts
        axes = _FRAME if rnn is None else "episode time channel"
        for key, view in encoder.views():
            yield from view.layers(key)
        yield LayerInfo("observation", encoder.width, _FRAME, "all that is seen"), encoder
        for i, layer in enumerate(rnn.layers if rnn is not None else (), start=1):
            kind, width = self.algo.rnn.rnn_type, self.algo.rnn.hidden_dim
            yield LayerInfo(f"recurrent{i}", width, axes, kind), layer
        activations = hidden.activations if hidden is not None else []
        for i, part in enumerate(activations, start=1):
            width = self.algo.actor_layer_dims[i - 1]
            yield LayerInfo(f"hidden{i}", width, axes, "perceptron"), part
        for name, net in outputs.nets.named_children():
            if name in ("mean", "logits") and isinstance(net, nn.Linear):
                yield LayerInfo(name, net.out_features, axes, "parameters of actions"), net
        yield LayerInfo("action", self.actions, axes, "action"), self.output

"""Policies that are one multilayer perceptron in a pickle: mjrl (DAPG) and cs285 experts."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mirror_analysis.errors import FormatError
from mirror_analysis.files.inert import Named, Record
from mirror_analysis.files.pickles import read_pickle
from mirror_analysis.files.places import require_file
from mirror_analysis.models.acting import VectorPolicy
from mirror_analysis.models.checkpoint import Checkpoint, Options
from mirror_analysis.models.model import Input

SUMMARY = "pickled perceptrons: policies of mjrl (DAPG) and experts of Berkeley's cs285"
OPTIONS: Mapping[str, str] = {}

_MLP = "mjrl.policies.gaussian_mlp.MLP"
_RECORDS = (
    _MLP,
    "mjrl.utils.fc_network.FCNetwork",
    "builtins.getattr",  # of the name of the activation; not called
    "torch._C._VariableFunctions",
    "torch._C._VariableFunctionsClass",
    "torch.nn.backends.thnn._get_thnn_function_backend",
    "torch.nn.modules.container.ModuleList",
    "torch.nn.modules.linear.Linear",
)
_ACTIVATIONS = {"tanh": nn.Tanh, "relu": nn.ReLU, "lrelu": nn.LeakyReLU}
_MOST = 256 * 2**20
_START = 4096  # bytes that tell what a pickle is


@final
@dataclass(frozen=True, eq=False)
class _Parts:
    """A perceptron as its file has it: x -> ((x - shift) / scale) -> ... -> * gain + offset."""

    weights: Sequence[Tensor]  # [output, input]
    biases: Sequence[Tensor]
    shift: Tensor
    scale: Tensor
    gain: Tensor
    offset: Tensor
    activation: str


@final
class Perceptron(nn.Module):
    """Scaled input, hidden layers, a linear one and its scale.

    Args:
        parts: weights and scales.
    """

    shift: Tensor
    scale: Tensor
    gain: Tensor
    offset: Tensor

    def __init__(self, parts: _Parts) -> None:
        super().__init__()
        for name in ("shift", "scale", "gain", "offset"):
            self.register_buffer(name, getattr(parts, name).float())
        layers = [_layer(w, b) for w, b in zip(parts.weights, parts.biases, strict=True)]
        activation = _ACTIVATIONS[parts.activation]
        self.hidden = nn.ModuleDict(
            {f"hidden{i}": nn.Sequential(layer, activation())
             for i, layer in enumerate(layers[:-1], start=1)}
        )  # fmt: skip
        self.last = layers[-1]
        self.action = nn.Identity()  # the scaled output, as a layer

    def forward(self, x: Tensor) -> Tensor:
        """[row, state] -> [row, action]."""
        x = (x - self.shift) / self.scale
        for layer in self.hidden.values():
            x = layer(x)
        action: Tensor = self.action(self.last(x) * self.gain + self.offset)
        return action

    def taps(self) -> dict[str, nn.Module]:
        """Layer name -> module."""
        return {**self.hidden, "action": self.action}

    def drawn_anew(self) -> Perceptron:
        """The same perceptron with the weights torch starts from; it keeps its scales."""
        twin = deepcopy(self)
        for module in twin.modules():
            if isinstance(module, nn.Linear):
                module.reset_parameters()
        return twin


def recognise(checkpoint: Checkpoint) -> str | None:
    """What it is, if it is a pickle of one of the two."""
    if checkpoint.kind != "pickle":
        return None
    with checkpoint.path.open("rb") as file:
        start = file.read(_START)
    if b"mjrl.policies.gaussian_mlp" in start:
        return "perceptron of mjrl"
    if b"GaussianPolicy" in start and (b"obsnorm" in start or b"AffineLayer" in start):
        return "perceptron of cs285"
    return None


def load(checkpoint: Checkpoint, *, name: str, options: Options) -> VectorPolicy:
    """Reads a perceptron.

    Args:
        checkpoint: the pickle.
        name: what to call it.
        options: none that matters here.

    Raises:
        FormatError: if it is of neither kind, or damaged.
    """
    path = checkpoint.path
    require_file(path, "a pickled perceptron", most=_MOST)
    found = read_pickle(path, records=_RECORDS, encoding="latin1", most=_MOST)
    try:
        if isinstance(found, Record) and found.kind == _MLP:
            parts, family = _mjrl(found), "mjrl"
        else:
            parts, family = _cs285(found), "cs285"
        _check(parts)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        reason = " ".join(str(error).split())[:120]
        raise FormatError(
            f"{path} is no perceptron of mjrl or cs285, or damaged ({reason}); fetch it anew"
        ) from None
    with torch.random.fork_rng(devices=[]):  # layers are drawn before they get their weights
        module = Perceptron(parts).eval()

    def rebuild() -> tuple[nn.Module, Mapping[str, nn.Module]]:
        twin = module.drawn_anew()
        return twin, twin.taps()

    sizes = [len(w) for w in parts.weights]
    taps = module.taps()
    return VectorPolicy(
        module,
        name=name,
        need=Input("states", parts.weights[0].shape[1]),
        taps=taps,
        widths=dict(zip(taps, sizes, strict=True)),
        rebuild=rebuild,
        facts={
            "family": family,
            "activation": f"{parts.activation}, as the file says",
            "normalisation": "in the file",
            "architecture": "-".join(str(n) for n in [parts.weights[0].shape[1], *sizes]),
        },
    )


def _mjrl(policy: Record) -> _Parts:
    network = _fields(policy.fields["model"])
    layers = [
        _fields(layer)["_parameters"]
        for _, layer in sorted(
            _fields(network["_modules"]["fc_layers"])["_modules"].items(), key=lambda x: int(x[0])
        )
    ]
    chosen = network["nonlinearity"]
    if not isinstance(chosen, Record) or chosen.kind != "builtins.getattr":
        raise ValueError("its activation is not named")
    return _Parts(
        [_tensor(layer["weight"]) for layer in layers],
        [_tensor(layer["bias"]) for layer in layers],
        _tensor(network["in_shift"]),
        _tensor(network["in_scale"]) + 1e-8,
        _tensor(network["out_scale"]),
        _tensor(network["out_shift"]),
        _activation(chosen.arguments[1]),
    )


def _cs285(found: Any) -> _Parts:
    policy = found["GaussianPolicy"]
    moments = policy["obsnorm"]["Standardizer"]
    mean, square = (_array(moments[key]).reshape(-1) for key in ("mean_1_D", "meansq_1_D"))
    hidden = policy["hidden"]["FeedforwardNet"]
    names = sorted(hidden, key=lambda name: int(re.sub(r"\D", "", name)))
    layers = [hidden[name]["AffineLayer"] for name in names]
    layers.append(policy["out"]["AffineLayer"])
    out = _array(layers[-1]["b"]).size
    return _Parts(
        [torch.from_numpy(_array(layer["W"]).T.copy()) for layer in layers],
        [torch.from_numpy(_array(layer["b"]).reshape(-1)) for layer in layers],
        torch.from_numpy(mean),
        torch.from_numpy(np.sqrt(np.maximum(square - mean**2, 0.0)) + 1e-6),
        torch.ones(out),
        torch.zeros(out),
        _activation(found["nonlin_type"]),
    )


def _check(parts: _Parts) -> None:
    width = parts.shift.numel()
    for weight, bias in zip(parts.weights, parts.biases, strict=True):
        if weight.ndim != 2 or weight.shape[1] != width or bias.shape != weight.shape[:1]:
            raise ValueError(
                f"a layer has weights {list(weight.shape)} where {width} numbers come in"
            )
        width = len(weight)
    tensors = [*parts.weights, *parts.biases, parts.shift, parts.scale, parts.gain, parts.offset]
    if not all(tensor.isfinite().all() for tensor in tensors):
        raise ValueError("it holds NaN or infinity")
    if parts.scale.shape != parts.shift.shape or {parts.gain.numel(), parts.offset.numel()} != {
        width
    }:
        raise ValueError("its scales do not fit its layers")


def _fields(record: Any) -> dict[str, Any]:
    if not isinstance(record, Record):
        raise TypeError("a part of it is missing")
    return record.fields


def _tensor(value: Any) -> Tensor:
    if not isinstance(value, Tensor):
        raise TypeError("a weight is not a tensor")
    return value.detach().double()


def _array(value: Any) -> NDArray[np.float64]:
    if not isinstance(value, np.ndarray):
        raise TypeError("a weight is not an array")
    return value.astype(np.float64)


def _activation(name: Any) -> str:
    if isinstance(name, Named) or name not in _ACTIVATIONS:
        raise ValueError(f"its activation is {name}; read are {', '.join(_ACTIVATIONS)}")
    return str(name)


def _layer(weight: Tensor, bias: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
    return layer

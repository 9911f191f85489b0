"""Finds the layers of a network nobody described: by its structure, never by names or paths."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mirror_analysis.errors import HookError
from mirror_analysis.models.model import LayerInfo, require_calls
from mirror_analysis.models.recording.hooks import first_tensor, unwrap
from mirror_analysis.models.structure.layouts import Shape, axes_of
from mirror_analysis.models.structure.naming import layer_names
from mirror_analysis.models.structure.stacks import beside, stacks


@dataclass(frozen=True, eq=False)
class Structure:
    """What was found.

    Attributes:
        layers: in forward order.
        taps: layer name -> module.
    """

    layers: tuple[LayerInfo, ...]
    taps: Mapping[str, nn.Module]

    def moved(self, old: nn.Module, new: nn.Module) -> Structure:
        """The same layers of another network of the same architecture, such as its twin.

        Args:
            old: the network whose layers these are.
            new: the other one.
        """
        paths = {id(module): path for path, module in old.named_modules()}
        taps = {name: new.get_submodule(paths[id(tap)]) for name, tap in self.taps.items()}
        return Structure(self.layers, taps)


def discover(
    module: nn.Module,
    run: Callable[[int, int], object],
    *,
    calls: str = "last",
    prefix: int = 0,
    episodes: int = 2,
    time: int = 3,
    inner: nn.Module | None = None,
    clip: int = 0,
) -> Structure:
    """The blocks of a network, its stem before them, and the norms and heads after them.

    Blocks are the items of rows of modules of one class: "block0", or "stage2.block1" where the
    rows stand in stages. Where several rows run, such as an encoder and a predictor, each is named
    after its place: "encoder.block0", "predictor.block0". What has weights and stands beside
    the blocks is named as its attribute, but "norm", "pooler" and "head" after the blocks. A
    network without rows gives each module of its sequences. Layers that do not run, or whose output
    has no axis of episodes, are left out.

    The network is run on two small inputs of different sizes, so that the axes of every output
    are known from which of its sizes changed. Only sizes are looked at, so a network of the same
    architecture on the "meta" device will do, at no cost; `moved` takes what was found to the
    network itself.

    Args:
        module: the network, in evaluation mode.
        run: runs it once over made-up input of (episodes, time); its result does not matter. It
            is called with (episodes, time) and (episodes + 1, 1). For a network of clips of a
            fixed length it leaves the time out of account.
        calls: rule for layers that run several times.
        prefix: leading tokens that stand for no place.
        episodes: of the first made-up input.
        time: frames of it, 2 or more.
        inner: where to look for blocks, when not in the whole network.
        clip: frames the network folds into its batch however many there are; 0 for all.

    Raises:
        HookError: if no layer gives anything that has episodes.

    Example:
        >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)).eval()
        >>> found = discover(net, lambda e, t: net(torch.zeros(e * t, 4)))
        >>> [(layer.name, layer.axes, layer.width) for layer in found.layers]
        [('0', 'episode*time channel', 8), ('2', 'episode*time channel', 2)]
    """
    root = unwrap(inner if inner is not None else module)
    found = stacks(root)
    rest = beside(root, found)
    blocks = {path: block for stack in found for path, block in stack.modules.items()}
    seen = _observe({**blocks, **rest}, run, ((episodes, time), (episodes + 1, 1)))
    layers = _described({**blocks, **rest}, seen, calls, clip)
    names = layer_names(found, rest, list(layers))
    counts = {layer.tokens for path, layer in layers.items() if path in blocks} - {0}
    infos = [layer.named(names[path], prefix, counts) for path, layer in layers.items()]
    taps = {names[path]: layer.module for path, layer in layers.items()}
    return Structure(tuple(infos), taps)


def laid_out(
    taps: Mapping[str, nn.Module],
    run: Callable[[int, int], object],
    *,
    calls: str = "last",
    prefix: int = 0,
    episodes: int = 2,
    time: int = 3,
    clip: int = 0,
) -> Structure:
    """Axes and widths of layers that are known by name, in forward order.

    Args:
        taps: layer name -> module.
        run: as for `discover`, as are the others.
        calls: rule for layers that run several times.
        prefix: leading tokens of every layer that has tokens.
        episodes: of the first made-up input.
        time: frames of it, 2 or more.
        clip: frames the network folds into its batch however many there are; 0 for all.

    Raises:
        HookError: if no layer gives anything that has episodes.
    """
    seen = _observe(taps, run, ((episodes, time), (episodes + 1, 1)))
    layers = _described(taps, seen, calls, clip)
    counts = {layer.tokens for layer in layers.values()} - {0}
    infos = [layer.named(name, prefix, counts) for name, layer in layers.items()]
    return Structure(tuple(infos), {name: layer.module for name, layer in layers.items()})


def evenly_spaced(frames: int, wanted: int) -> list[int]:
    """Positions of `wanted` frames spread over `frames`, the first and last among them.

    Repeats frames where there are fewer than wanted.

    Example:
        >>> evenly_spaced(10, 4)
        [0, 3, 6, 9]
    """
    if wanted == 1:
        return [frames // 2]
    return [round(i * (frames - 1) / (wanted - 1)) for i in range(wanted)]


def first_output(output: object) -> Tensor | None:
    """The tensor a whole network gives: its pooled output where it names one, else its first.

    Returns:
        Of an output with named parts the logits, else what is pooled, else the first tensor of
        two or more axes; None where there is none.
    """
    for name in ("logits", "pooler_output", "image_embeds"):
        part = output.get(name) if isinstance(output, Mapping) else getattr(output, name, None)
        if isinstance(part, Tensor):
            return part
    return first_tensor(output)


@dataclass(frozen=True, eq=False)
class _Seen:
    inputs: tuple[tuple[int, int], tuple[int, int]]
    shapes: tuple[dict[str, list[Shape]], dict[str, list[Shape]]]
    order: dict[str, int]


@dataclass(frozen=True, eq=False)
class _Layer:
    module: nn.Module
    axes: str
    width: int
    tokens: int
    calls: str
    frames: int

    def named(self, name: str, prefix: int, counts: set[int]) -> LayerInfo:
        """The layer as it is declared.

        A stem before the class token is put in has other counts of tokens than the blocks have;
        and where these differ among one another, a class token leaves a square of places.
        """
        places = self.tokens - prefix
        square = places > 0 and math.isqrt(places) ** 2 == places
        leading = prefix if self.tokens in counts and (len(counts) == 1 or square) else 0
        kind = type(self.module).__name__
        return LayerInfo(name, self.width, self.axes, kind, self.calls, leading, self.frames)


def _observe(
    modules: Mapping[str, nn.Module],
    run: Callable[[int, int], object],
    inputs: tuple[tuple[int, int], tuple[int, int]],
) -> _Seen:
    """Shapes of every call of every module in two runs, and the order of their first calls."""
    shapes: tuple[dict[str, list[Shape]], dict[str, list[Shape]]] = ({}, {})
    order: dict[str, int] = {}

    def hook(path: str, into: dict[str, list[Shape]]) -> Callable[[nn.Module, Any, Any], None]:
        def note(module: nn.Module, given: Any, output: Any) -> None:
            tensor = output if isinstance(output, Tensor) else first_tensor(output)
            shape = () if tensor is None or not tensor.is_floating_point() else tuple(tensor.shape)
            into.setdefault(path, []).append(shape)
            order.setdefault(path, len(order))

        return note

    for (episodes, time), into in zip(inputs, shapes, strict=True):
        with ExitStack() as stack, torch.no_grad():
            if "torch._dynamo" in sys.modules:
                stack.enter_context(torch.compiler.set_stance("force_eager"))
            for path, module in modules.items():
                handle = unwrap(module).register_forward_hook(hook(path, into))
                stack.callback(handle.remove)
            run(episodes, time)
    return _Seen(inputs, shapes, order)


def _described(
    modules: Mapping[str, nn.Module], seen: _Seen, calls: str, clip: int
) -> dict[str, _Layer]:
    """The layers that give something with episodes, in forward order."""
    paths = sorted((path for path in modules if path in seen.order), key=seen.order.__getitem__)
    either = {
        path: [_layer(path, modules[path], seen, calls, clip, last) for last in (False, True)]
        for path in paths
    }
    # A cube of equal sides is laid out as the maps are that can be told.
    sure = [
        a.axes for a, b in either.values() if a and b and a.axes == b.axes and "height" in a.axes
    ]
    last = 2 * sum(axes.endswith("channel") for axes in sure) > len(sure)
    layers = {path: layer for path, both in either.items() if (layer := both[last]) is not None}
    if not layers:
        gave = ", ".join(f"{path} {seen.shapes[0].get(path, ['-'])[-1]}" for path in paths[:4])
        raise HookError(
            f"no layer gives a tensor of episodes by channels ({gave or 'none ran'}); give a"
            " network whose modules are called as module(x) and whose batch has its own axis"
        )
    return layers


def _layer(
    path: str, module: nn.Module, seen: _Seen, calls: str, clip: int, channels_last: bool
) -> _Layer | None:
    first, second = (shapes.get(path, []) for shapes in seen.shapes)
    if not first or not second:
        return None
    rule = calls if max(len(first), len(second)) > 1 else "only"
    shapes = (first[_call(rule, path, len(first))], second[_call(rule, path, len(second))])
    leaves = list(module.modules())
    widths = {p.numel() for p in module.parameters() if p.ndim == 1}
    widths |= {m.out_features for m in leaves if isinstance(m, nn.Linear)}
    widths |= {m.out_channels for m in leaves if isinstance(m, nn.Conv1d | nn.Conv2d | nn.Conv3d)}
    axes = axes_of(shapes, seen.inputs, clip=clip, widths=widths, channels_last=channels_last)
    if axes is None:
        return None
    words, shape = axes.split(), shapes[0]
    tokens = shape[words.index("token")] if "token" in words else 0
    frames = clip if "episode*time" in words else 0
    return _Layer(module, axes, shape[words.index("channel")], tokens, rule, frames)


def _call(rule: str, path: str, count: int) -> int:
    word, _, step = require_calls(rule).partition(" ")
    if step and int(step) > count:
        raise HookError(
            f"layer '{path}' ran {count} times in the forward pass but '{rule}' was asked for;"
            " ask for an earlier step"
        )
    return int(step) - 1 if step else 0 if word == "first" else count - 1

"""Records the layers of a running network: plain forward hooks that pool inside the hook."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

from mirror_analysis.errors import HookError, UnknownNameError
from mirror_analysis.models.model import LayerInfo
from mirror_analysis.models.recording.pooling import Pooling, pool


class Recording:
    """What the layers gave during one forward pass, pooled as it came."""

    def __init__(self, layers: Mapping[str, LayerInfo]) -> None:
        self._layers = layers
        self._sums: dict[str, Tensor] = {}
        self._calls: dict[str, int] = {}

    def add(self, name: str, pooled: Callable[[], Tensor]) -> None:
        """Takes one call of a layer in, by the layer's rule for repeated calls."""
        rule = self._layers[name].calls
        count = self._calls[name] = self._calls.get(name, 0) + 1
        word, _, step = rule.partition(" ")
        if word == "last" or count == int(step or 1):
            self._sums[name] = pooled()
        elif rule == "only":
            raise HookError(
                f"layer '{name}' ran {count} times in one forward pass; declare which call counts"
                " with calls='first', 'last', 'mean' or 'step K'"
            )
        elif rule == "mean":
            self._sums[name] += pooled()

    def features(self) -> dict[str, Tensor]:
        """Layer -> [episode, feature] float32 on the CPU, in the order the layers were given.

        Raises:
            HookError: if a layer did not run.
        """
        silent = [name for name in self._layers if name not in self._sums]
        if silent and silent[0] in self._calls:
            raise HookError(
                f"layer '{silent[0]}' ran {self._calls[silent[0]]} times in the forward pass but"
                f" '{self._layers[silent[0]].calls}' was asked for; ask for an earlier step"
            )
        if silent:
            ran = ", ".join(self._sums) or "none"
            raise HookError(
                f"layer '{silent[0]}' did not run in the forward pass (ran: {ran}); tap a module"
                " that is called as module(x), not through forward() or another method"
            )
        return {
            name: self._sums[name] / self._calls[name] if info.calls == "mean" else self._sums[name]
            for name, info in self._layers.items()
        }


@contextmanager
def record(
    taps: Mapping[str, torch.nn.Module],
    layers: Iterable[LayerInfo],
    *,
    pooling: Pooling,
    episodes: int,
    time: int,
) -> Iterator[Recording]:
    """Records one forward pass made inside the block; the hooks are gone after it.

    Args:
        taps: layer name -> module whose output is that layer.
        layers: the layers to record.
        pooling: how each output becomes one vector per episode.
        episodes: episodes in the batch.
        time: frames of each episode.

    Yields:
        The recording; read its `features()` after the pass.

    Raises:
        UnknownNameError: if a layer has no tap.
        HookError: from inside the pass, if a layer gives something other than it declares.

    Example:
        >>> with record(model.taps(), model.layers(), pooling=Pooling(), episodes=4, time=16) as r:
        ...     model.forward_batch(batch)
        >>> r.features()["conv3"].shape
        torch.Size([4, 64])
    """
    infos = {info.name: info for info in layers}
    for name in infos:
        if name not in taps:
            raise UnknownNameError("tap", name, taps)
    with hooked(
        {name: taps[name] for name in infos},
        infos,
        lambda tensor, info: pool(tensor, info, pooling, episodes=episodes, time=time),
        otherwise="tap another module",
    ) as recording:
        yield recording


@contextmanager
def hooked(
    modules: Mapping[str, torch.nn.Module],
    layers: Mapping[str, LayerInfo],
    keep: Callable[[Tensor, LayerInfo], Tensor],
    *,
    otherwise: str,
) -> Iterator[Recording]:
    """Keeps something of each layer's output in a forward pass made inside the block.

    Args:
        modules: layer name -> module whose output is that layer.
        layers: layer name -> what it declares.
        keep: what is kept of a layer's first tensor.
        otherwise: what to do where an output holds no tensor, for the words of the error.

    Raises:
        HookError: from inside the pass, if a layer gives something other than it declares.
    """
    recording = Recording(layers)
    with ExitStack() as stack:
        # Compiled code does not see hooks that are newer than itself. Where dynamo was never
        # imported nothing is compiled, and importing it for this would take seconds.
        if "torch._dynamo" in sys.modules:
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        for name, info in layers.items():
            hook = _hook(recording, info, keep, otherwise)
            stack.callback(unwrap(modules[name]).register_forward_hook(hook).remove)
        yield recording


def _hook(
    recording: Recording, info: LayerInfo, keep: Callable[[Tensor, LayerInfo], Tensor],
    otherwise: str,
) -> Callable[[torch.nn.Module, Any, Any], None]:  # fmt: skip
    def hook(module: torch.nn.Module, inputs: Any, output: Any) -> None:
        def kept() -> Tensor:
            tensor = first_tensor(output)
            if tensor is None:
                raise HookError(
                    f"layer '{info.name}' ({type(module).__name__}) gave a"
                    f" {type(output).__name__} without a floating-point tensor of two or more"
                    f" axes; {otherwise}"
                )
            return keep(tensor, info)

        recording.add(info.name, kept)

    return hook


def unwrap(module: torch.nn.Module) -> torch.nn.Module:
    """The module inside `torch.compile`, `DataParallel` and `DistributedDataParallel`."""
    wrappers = (torch.nn.DataParallel, torch.nn.parallel.DistributedDataParallel)
    while True:
        inner = getattr(module, "_orig_mod", None)
        if isinstance(module, wrappers):
            inner = module.module
        if not isinstance(inner, torch.nn.Module):
            return module
        module = inner


def first_tensor(output: Any) -> Tensor | None:
    """The first floating-point tensor of two or more axes in a layer's output.

    Args:
        output: a tensor, or tuples, lists, mappings and dataclasses of them, searched in order.

    Returns:
        None where there is none.
    """
    if isinstance(output, Tensor):
        return output if output.is_floating_point() and output.ndim >= 2 else None
    parts: Iterable[Any] = ()
    if isinstance(output, Mapping):
        parts = output.values()
    elif isinstance(output, tuple | list):
        parts = output
    elif dataclasses.is_dataclass(output) and not isinstance(output, type):
        parts = (getattr(output, field.name) for field in dataclasses.fields(output))
    return next((found for part in parts if (found := first_tensor(part)) is not None), None)

"""How a layer's output becomes one vector per episode, or one per frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor

from mirror_analysis.errors import HookError, ShapeError, UnknownNameError
from mirror_analysis.models.model import LayerInfo

Time = Literal["mean", "last", "steps"]
Space = Literal["mean", "grid2", "grid4", "cls", "patches"]

_TIMES: tuple[Time, ...] = ("mean", "last", "steps")

# Space -> cells a side of a map that are kept apart.
_SPACES: dict[str, int] = {"mean": 1, "grid2": 2, "grid4": 4, "cls": 1, "patches": 1}


@dataclass(frozen=True)
class Pooling:
    """A rule for time and a rule for space, written "time" or "time/space", as in "mean/cls".

    Attributes:
        time: "mean" over all frames, or the "last" frame; layers without a time axis are kept.
            "steps" keeps every frame as a row of its own, and needs a vector for each.
        space: "mean" over height and width or tokens; "grid2" and "grid4" average inside at
            most 2 x 2 or 4 x 4 cells of a map and keep where things are; "cls" takes the first
            token and "patches" the mean of those after the prefix, and both are "mean" where
            there are no tokens; layers without space are kept.
    """

    time: Time = "mean"
    space: Space = "mean"

    @classmethod
    def parse(cls, text: str) -> Pooling:
        """Reads "mean", "last", "steps", "mean/grid4" and the like.

        Raises:
            UnknownNameError: if it is none of them.
        """
        time, _, space = text.partition("/")
        space = space or "mean"
        if time not in _TIMES or space not in _SPACES or text.endswith("/"):
            known = [str(cls(t, cast(Space, s))) for t in _TIMES for s in _SPACES]
            raise UnknownNameError("pooling", text, known)
        return cls(time, cast(Space, space))

    def __str__(self) -> str:
        return self.time if self.space == "mean" else f"{self.time}/{self.space}"


def has_steps(info: LayerInfo) -> bool:
    """Whether a layer gives a vector for every frame, as "steps" needs it.

    False where it gives one for the whole episode, or sees only some of its frames.
    """
    return not info.frames and bool({"time", "episode*time"} & set(info.axes.split()))


def pool(output: Tensor, info: LayerInfo, pooling: Pooling, *, episodes: int, time: int) -> Tensor:
    """One vector per episode, or per frame, as a new float32 tensor on the CPU.

    Args:
        output: what the layer gave, laid out as `info.axes` says.
        info: the layer.
        pooling: the rule.
        episodes: episodes in the batch.
        time: frames of each episode.

    Returns:
        [episode, feature] float32, for "steps" [episode * time, feature], time running fastest;
        holds no part of `output` alive.

    Raises:
        HookError: if the output does not have the declared axes and sizes.
        ShapeError: if a grid is asked of tokens, which have no height and width, the class
            token of a layer that has none, or steps of one without a vector for every frame.
    """
    axes, stored, time = info.axes.split(), time, info.frames or time
    _check(output, axes, info, episodes=episodes, time=time)
    x, axes = by_episode(output.detach(), axes, episodes=episodes, time=time)
    if "time" in axes and pooling.time == "last":
        x = x.select(axes.index("time"), -1)
        axes.remove("time")
    rows = episodes
    if pooling.time == "steps":
        x, axes = _steps(x, axes, info, time=stored)
        rows = episodes * time
    cells = _SPACES[pooling.space]
    if cells > 1 and "token" in axes:
        raise ShapeError(
            f"layer '{info.name}' gives tokens without height and width, so '{pooling}' cannot"
            " pool it; use space 'mean' or leave the layer out"
        )
    if "token" in axes and pooling.space in ("cls", "patches"):
        x = tokens(x, axes.index("token"), info, pooling)
    kept = ("episode", "channel") if cells == 1 else ("episode", "channel", "height", "width")
    pooled = [i for i, axis in enumerate(axes) if axis not in kept]
    precision = torch.float64 if x.dtype == torch.float64 else torch.float32
    x = x.mean(dim=pooled, dtype=precision) if pooled else x.to(precision)
    left = [axis for axis in axes if axis in kept]
    x = x.permute([left.index(axis) for axis in kept if axis in left])
    if x.ndim == 4:
        height, width = (min(cells, size) for size in x.shape[2:])
        x = torch.nn.functional.adaptive_avg_pool2d(x, (height, width))
    # A copy always: a view would keep the whole activation alive, and a later in-place
    # operation of the network would change it.
    result = torch.empty((rows, x[0].numel()), dtype=torch.float32)
    return result.copy_(x.flatten(1))


def _steps(x: Tensor, axes: list[str], info: LayerInfo, *, time: int) -> tuple[Tensor, list[str]]:
    """Every frame in the place of an episode."""
    given = x.shape[axes.index("time")] if "time" in axes else 1
    if not has_steps(info) or given != time:
        raise ShapeError(
            f"layer '{info.name}' ({info.axes}) gives {given} vectors for an episode of {time}"
            " frames, so it has no 'steps'; leave the layer out or use 'mean'"
        )
    x = x.movedim(axes.index("time"), 1).flatten(0, 1)
    return x, [axis for axis in axes if axis != "time"]


def by_episode(x: Tensor, axes: list[str], *, episodes: int, time: int) -> tuple[Tensor, list[str]]:
    """The output with episodes as its first axis, time as its second where the two were one."""
    first = next(i for i, axis in enumerate(axes) if axis.startswith("episode"))
    axes = [axes[first], *axes[:first], *axes[first + 1 :]]
    x = x.movedim(first, 0)
    if axes[0] == "episode*time":
        return x.reshape(episodes, time, *x.shape[1:]), ["episode", "time", *axes[1:]]
    return x, axes


def tokens(x: Tensor, axis: int, info: LayerInfo, pooling: Pooling) -> Tensor:
    """The class token or those after the prefix, as the pooling asks.

    Raises:
        ShapeError: if the class token is asked for and there is none.
    """
    if pooling.space == "cls" and not info.prefix:
        raise ShapeError(
            f"layer '{info.name}' has no class token; '{pooling}' needs one, so use space 'mean'"
        )
    start, length = (0, 1) if pooling.space == "cls" else (info.prefix, x.shape[axis] - info.prefix)
    return x.narrow(axis, start, length)


def _check(output: Tensor, axes: list[str], info: LayerInfo, *, episodes: int, time: int) -> None:
    shape = tuple(output.shape)
    if len(shape) != len(axes):
        raise HookError(
            f"layer '{info.name}' gave shape {shape} but declares the axes '{info.axes}';"
            " declare the axes it has"
        )
    folded = "episode*time" in axes
    rows = episodes * time if folded else episodes
    batch = "episode*time" if folded else "episode"
    if (given := shape[axes.index(batch)]) != rows:
        raise HookError(
            f"layer '{info.name}' gave {given} rows for {episodes} episodes of {time} frames;"
            f" '{batch}' needs {rows}"
        )
    channels = shape[axes.index("channel")]
    if channels != info.width:
        raise HookError(
            f"layer '{info.name}' gave {channels} channels (shape {shape}) but declares"
            f" {info.width}; declare the width and axes it has"
        )
    if 0 in shape:
        raise HookError(f"layer '{info.name}' gave the empty shape {shape}; needed values to pool")

"""One forward pass whose layer keeps its gradients, for training on representations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from mirror_analysis.errors import DefinitionError, HookError, ShapeError, UnknownNameError
from mirror_analysis.models.model import EpisodeLike, LayerInfo, Model
from mirror_analysis.models.recording.hooks import hooked
from mirror_analysis.models.recording.pooling import Pooling, by_episode, tokens
from mirror_analysis.models.structure.discovery import evenly_spaced
from mirror_analysis.models.watching import Watching

_MEAN = Pooling()


@dataclass(frozen=True, eq=False)
class Live:
    """What one layer gave for a batch of episodes; differentiable.

    Attributes:
        representation: one vector per episode, pooled as `extract` pools it.
        moments: the layer at every place in time; None where it has no axis of time.
        places: [place] position of the last frame that each moment has seen, among those given.
        output: the model's own output, [episode, ...]; None where it has none.
    """

    representation: Float[Tensor, "episode feature"]
    moments: Float[Tensor, "episode place feature"] | None
    places: NDArray[np.int64]
    output: Tensor | None


def require_trainable(model: Model) -> None:
    """Makes sure that a model has weights that a gradient can reach.

    Raises:
        DefinitionError: if it has none.
    """
    if not any(p.is_floating_point() for p in model.module.parameters()):
        family = model.facts.get("family", type(model).__name__)
        raise DefinitionError(
            f"{model.name} ({family}) cannot be trained: its engine has no gradients; give the"
            " checkpoint it was exported from, as safetensors or torch weights"
        )


def run_live(
    model: Model, episodes: Sequence[EpisodeLike], *, layer: str, pooling: Pooling = _MEAN
) -> Live:
    """Runs a model once over whole episodes and keeps one layer with its gradients.

    The model runs as it is: its training flags, its device, and whatever autocast is around the
    call. In evaluation mode the representation is what `extract` gives for the same frames, up
    to rounding.

    Args:
        model: what runs.
        episodes: all with the same number of frames.
        layer: name of the layer.
        pooling: how the representation is pooled: time "mean" or "last"; space "mean", "cls" or
            "patches".

    Raises:
        UnknownNameError: if the model has no such layer.
        DefinitionError: if the model cannot be trained.
        HookError: if the layer does not run, is not what it declares, or has no gradients.
        ShapeError: if the pooling does not fit.

    Example:
        >>> live = run_live(model, episodes, layer="block11")
        >>> live.representation.square().mean().backward()
    """
    require_trainable(model)
    infos = {info.name: info for info in model.layers()}
    if layer not in infos:
        raise UnknownNameError(f"layer of {model.name}", layer, infos)
    info, frames = infos[layer], len(episodes[0].steps)
    with hooked(
        {layer: model.taps()[layer]},
        {layer: info},
        lambda tensor, _: _over_space(tensor, info, pooling, episodes=len(episodes), frames=frames),
        otherwise="train on another layer",
    ) as recording:
        output = model.forward_batch(episodes)
    kept = recording.features()[layer]
    cut = kept.is_inference() or (not kept.requires_grad and _all_trained(model))
    if cut and torch.is_grad_enabled():
        raise HookError(
            f"layer '{layer}' of {model.name} has no gradients: no weight comes before it, or what"
            " it gives is chosen, or made under no_grad or inference_mode; train on another layer"
        )
    if not {"time", "episode*time"} & set(info.axes.split()):
        return Live(kept, None, np.zeros(0, dtype=np.int64), output)
    representation = kept[:, -1] if pooling.time == "last" else kept.mean(dim=1)
    return Live(representation, kept, _places(model, info, frames, kept.shape[1]), output)


def _all_trained(model: Model) -> bool:
    return all(p.requires_grad for p in model.module.parameters() if p.is_floating_point())


def _over_space(
    output: Tensor, info: LayerInfo, pooling: Pooling, *, episodes: int, frames: int
) -> Tensor:
    """[episode, place, feature], or [episode, feature] without time; its graph is kept."""
    axes, time = info.axes.split(), info.frames or frames
    expected = {
        "episode*time": episodes * time,
        "episode": episodes,
        "channel": info.width,
    }
    wrong = [axis for axis, size in zip(axes, output.shape, strict=False)
             if size == 0 or size != expected.get(axis, size)]  # fmt: skip
    if output.ndim != len(axes) or wrong:
        raise HookError(
            f"layer '{info.name}' gave the shape {tuple(output.shape)} for {episodes} episodes of"
            f" {time} frames but declares '{info.axes}' of width {info.width}; declare what it is"
        )
    if pooling.time == "steps" or pooling.space not in ("mean", "cls", "patches"):
        raise ShapeError(
            f"'{pooling}' gives no single vector of the width of layer '{info.name}'; needed time"
            " mean or last, and space mean, cls or patches"
        )
    x, axes = by_episode(output, axes, episodes=episodes, time=time)
    if "token" in axes and pooling.space != "mean":
        x = tokens(x, axes.index("token"), info, pooling)
    order = [axes.index(axis) for axis in ("episode", "time", "channel") if axis in axes]
    rest = [i for i in range(x.ndim) if i not in order]
    x = x.permute(*order, *rest).flatten(len(order)) if rest else x.permute(*order)
    precision = torch.float64 if x.dtype == torch.float64 else torch.float32
    # Without an axis to average a copy is made: the network may change its output in place.
    pooled = x.mean(dim=-1, dtype=precision) if rest else x.to(precision, copy=True)
    return pooled


def _places(model: Model, info: LayerInfo, frames: int, count: int) -> NDArray[np.int64]:
    """Position of the last frame that each of `count` moments has seen."""
    clip = model.clip if isinstance(model, Watching) else info.frames
    seen = np.array(evenly_spaced(frames, clip) if clip else range(frames), dtype=np.int64)
    ends = -(-np.arange(1, count + 1) * len(seen) // count) - 1
    return seen[ends]

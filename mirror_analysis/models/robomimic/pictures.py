"""How robomimic's policies see: from a picture to a vector, under its parameter names."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mirror_analysis.models.lerobot.resnet import resnet
from mirror_analysis.models.lerobot.vision import STAGES, Watched
from mirror_analysis.models.model import LayerInfo
from mirror_analysis.models.robomimic.config import View

_FRAME = "episode*time channel"
_MAP = "episode*time channel height width"
_SHALLOW = ("convolution1", "convolution2", "convolution3", "convolution4")


@final
class Placed(nn.Conv2d):
    """A convolution whose input has two more channels: row and column of each pixel, 0 to 1."""

    def forward(self, input: Tensor) -> Tensor:
        """[row, channel, height, width]."""
        rows, _, height, width = input.shape
        y = torch.arange(height, device=input.device) / height
        x = torch.arange(width, device=input.device) / width
        places = torch.stack([y[:, None].expand(height, width), x.expand(height, width)])
        return super().forward(torch.cat([input, places.expand(rows, -1, -1, -1)], 1))


@final
class Backbone(nn.Module):
    """Convolutions in a row, as `nets`."""

    def __init__(self, parts: list[nn.Module]) -> None:
        super().__init__()
        self.nets = nn.Sequential(*parts)


@final
class Keypoints(nn.Module):
    """Where in the picture each of some features is, as a mean of places.

    Finn et al., "Deep Spatial Autoencoders for Visuomotor Learning", 2016.
    """

    temperature: Tensor
    pos_x: Tensor
    pos_y: Tensor

    def __init__(self, channels: int, height: int, width: int, points: int | None) -> None:
        super().__init__()
        self.nets = None if points is None else nn.Conv2d(channels, points, 1)
        self.register_buffer("temperature", torch.ones(1))
        x = torch.linspace(-1, 1, width, dtype=torch.float64).float()
        y = torch.linspace(-1, 1, height, dtype=torch.float64).float()
        self.register_buffer("pos_x", x.expand(height, width).reshape(1, -1).contiguous())
        self.register_buffer("pos_y", y[:, None].expand(height, width).reshape(1, -1).contiguous())

    def forward(self, x: Tensor) -> Tensor:
        """[row, point, 2]: column and row, -1 to 1, from [row, channel, height, width]."""
        x = x if self.nets is None else self.nets(x)
        share = (x.flatten(2) / self.temperature).softmax(-1)
        return torch.stack([(self.pos_x * share).sum(-1), (self.pos_y * share).sum(-1)], -1)


@final
class Mean(nn.Module):
    """The mean over height and width."""

    def forward(self, x: Tensor) -> Tensor:
        """[row, channel]."""
        return x.flatten(2).mean(2)


@final
class PictureEncoder(nn.Module):
    """From a picture to a vector.

    Args:
        view: how.
    """

    def __init__(self, view: View) -> None:
        super().__init__()
        height, breadth = view.crop or view.shape[1:]
        self.crop = view.crop
        parts, self.widths = _backbone(view)
        divisor = 32 if view.backbone == "ResNet18Conv" else 2
        height, breadth = (math.ceil(side / divisor) for side in (height, breadth))
        channels = next(reversed(self.widths.values()))
        nets: list[nn.Module] = [Backbone(parts)]
        flat = channels * height * breadth
        if view.pool == "SpatialSoftmax":
            nets.append(Keypoints(channels, height, breadth, view.points))
            flat = 2 * (view.points or channels)
        elif view.pool == "SpatialMeanPool":
            nets.append(Mean())
            flat = channels
        nets.append(nn.Flatten())
        self.width = view.width or flat
        self.pooled = view.pool is not None and view.width is not None
        if view.width is not None:
            nets.append(nn.Linear(flat, view.width))
        self.nets = nn.Sequential(*nets)
        self.widths |= {"pooled": flat} if self.pooled else {}
        self.widths["image"] = self.width
        self.watched = Watched(list(self.widths))

    def forward(self, x: Float[Tensor, "row 3 height width"]) -> Float[Tensor, "row channel"]:
        """The vector, from numbers 0 to 1."""
        return self.watched(x, self._stages)

    def layers(self, key: str) -> Iterator[tuple[LayerInfo, nn.Module]]:
        """Its layers, named after the camera."""
        for name, module in self.watched.named_children():
            axes = _FRAME if name in ("pooled", "image") else _MAP
            kind = "image features" if axes == _FRAME else "stage of the backbone"
            yield LayerInfo(f"{key}.{name}", self.widths[name], axes, kind), module

    def _stages(self, x: Tensor) -> Iterator[tuple[str, Tensor]]:
        if self.crop:
            top, left = (
                (side - cut) // 2 for side, cut in zip(x.shape[2:], self.crop, strict=True)
            )
            x = x[..., top : top + self.crop[0], left : left + self.crop[1]]
        backbone = list(self.nets.get_submodule("0.nets").children())
        stages = [name for name in self.widths if name not in ("pooled", "image")]
        # A stage of a ResNet is a part of its own; a shallow convolution has its activation after.
        for i, part in enumerate(backbone):
            x = part(x)
            if stages[0] == STAGES[0]:
                if i >= len(backbone) - len(STAGES):
                    yield stages[i - len(backbone)], x
            elif i % 2 or i == len(backbone) - 1:
                yield stages[i // 2], x
        for part in list(self.nets)[1:]:
            if isinstance(part, nn.Linear) and self.pooled:
                yield "pooled", x
            x = part(x)
        yield "image", x.relu()


def _backbone(view: View) -> tuple[list[nn.Module], dict[str, int]]:
    if view.backbone == "ResNet18Conv":
        parts, width = resnet("resnet18", norm=nn.BatchNorm2d)
        if view.coordinates:
            parts["conv1"] = Placed(5, 64, 7, stride=2, padding=3, bias=False)
        widths = {name: width >> (3 - i) for i, name in enumerate(STAGES)}
        return list(parts.values()), widths
    inner = (3, 64, 32, 32)
    outer = (64, 32, 32, 32)
    kernels = (7, 1, 3, 3)
    shallow: list[nn.Module] = []
    for i, (before, after, kernel) in enumerate(zip(inner, outer, kernels, strict=True)):
        stride = 1 if i else 2
        shallow += [nn.Conv2d(before, after, kernel, stride=stride, padding=kernel // 2), nn.ReLU()]
    return shallow[:-1], dict(zip(_SHALLOW, outer, strict=True))

"""How LeRobot policies see: backbones over each camera, and points where features are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from mirror_analysis.errors import FormatError
from mirror_analysis.models.lerobot.network import MAP, VECTOR
from mirror_analysis.models.lerobot.resnet import group_norm, resnet
from mirror_analysis.models.model import LayerInfo

STAGES = ("layer1", "layer2", "layer3", "layer4")
# Pixels that go through a backbone at once: its first convolution takes 64 bytes for each.
_PIXELS = 2**22


@final
class Watched(nn.Module):
    """What a backbone that several cameras may share gave for one of them, to be hooked.

    The stages of a backbone run once per camera and in parts when there are many frames; every
    child of this module is called once, with all frames of its camera.
    """

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        for name in names:
            self.add_module(name, nn.Identity())

    def forward(
        self,
        pictures: Tensor,
        stages: Callable[[Tensor], Iterator[tuple[str, Tensor]]],
        *,
        resize: tuple[int, int] | None = None,
    ) -> Tensor:
        """Runs the stages over pictures, part by part.

        Args:
            pictures: [frame, 3, height, width].
            stages: pictures -> name and output of one stage after the other.
            resize: (height, width) that the stages resize pictures to; None where they do not.

        Returns:
            The output of the last stage, of all frames.
        """
        sizes = [pictures.shape[-2:], *([resize] if resize else [])]
        rows = max(1, _PIXELS // max(height * width for height, width in sizes))
        parts: dict[str, list[Tensor]] = {}
        name = ""
        for part in torch.split(pictures, rows):
            for name, output in stages(part):
                # What nobody listens to is not kept; the last stage is what is asked for.
                if self.get_submodule(name)._forward_hooks or name == self.last:
                    parts.setdefault(name, []).append(output)
        for name, outputs in parts.items():
            whole = self.get_submodule(name)(torch.cat(outputs))
        return whole

    @property
    def last(self) -> str:
        """Name of the last stage."""
        return next(reversed(self._modules))

    def layers(
        self, camera: str, widths: Mapping[str, int], axes: Mapping[str, str]
    ) -> Iterator[tuple[LayerInfo, nn.Module]]:
        """Its layers, named after the camera where there are several."""
        for name, module in self.named_children():
            kind = "stage of the backbone" if name in STAGES else "image features"
            prefix = "backbone." if name in STAGES else ""
            label = f"{prefix}{camera}.{name}" if camera and prefix else f"{prefix}{name}"
            label = f"{name}.{camera}" if camera and not prefix else label
            yield LayerInfo(label, widths[name], axes[name], kind), module


@final
class Keypoints(nn.Module):
    """Where in the picture each of some learned features is, as a mean of places.

    Finn et al., "Deep Spatial Autoencoders for Visuomotor Learning", 2016.
    """

    pos_grid: Tensor

    def __init__(self, channels: int, height: int, width: int, points: int) -> None:
        super().__init__()
        self.nets = nn.Conv2d(channels, points, 1)
        y, x = torch.meshgrid(
            torch.linspace(-1, 1, height, dtype=torch.float64),
            torch.linspace(-1, 1, width, dtype=torch.float64),
            indexing="ij",
        )
        self.register_buffer("pos_grid", torch.stack([x.flatten(), y.flatten()], 1).float())

    def forward(
        self, x: Float[Tensor, "frame channel height width"]
    ) -> Float[Tensor, "frame point 2"]:
        """Column and row of each point, -1 to 1."""
        return self.nets(x).flatten(2).softmax(dim=-1) @ self.pos_grid


@final
class PictureEncoder(nn.Module):
    """From a picture to a vector by way of keypoints, as in Diffusion Policy and VQ-BeT.

    Args:
        size: (height, width) of the pictures.
        backbone: name of a ResNet.
        grouped: whether it has group norms in the place of batch norms.
        points: keypoints.
        resize: (height, width) pictures are resized to first; None for not.
        crop: (height, width) cut from the centre after that; None for not.

    Raises:
        FormatError: if the crop does not fit.
    """

    def __init__(
        self,
        size: tuple[int, int],
        *,
        backbone: str,
        grouped: bool,
        points: int,
        resize: tuple[int, int] | None,
        crop: tuple[int, int] | None,
    ) -> None:
        super().__init__()
        self.resize, self.crop = resize, crop
        size = resize or size
        if crop and (crop[0] > size[0] or crop[1] > size[1]):
            raise FormatError(
                f"a crop of {crop[0]} x {crop[1]} is larger than the pictures of {size[0]} x"
                f" {size[1]} it is cut from; the config of this policy is damaged"
            )
        parts, width = resnet(backbone, norm=group_norm if grouped else nn.BatchNorm2d)
        self.backbone = nn.Sequential(*parts.values())
        height, breadth = (_reduced(side) for side in crop or size)
        self.pool = Keypoints(width, height, breadth, points)
        self.out = nn.Linear(2 * points, 2 * points)
        self.width = 2 * points
        widths = {"keypoints": self.width, "image": self.width}
        self.widths = widths | {name: width >> (3 - i) for i, name in enumerate(STAGES)}

    def stages(self, x: Tensor) -> Iterator[tuple[str, Tensor]]:
        """The stages of the backbone, keypoints and the vector of the picture, one by one."""
        if self.resize:
            x = F.interpolate(x, self.resize, mode="bilinear", antialias=True)
        x = _centre(x, self.crop) if self.crop else x
        for i, part in enumerate(self.backbone):
            x = part(x)
            if i >= len(self.backbone) - len(STAGES):
                yield STAGES[i - len(self.backbone)], x
        points = self.pool(x).flatten(1)
        yield "keypoints", points
        yield "image", self.out(points).relu()


def watched_encoder() -> Watched:
    """Where the layers of a `PictureEncoder` are hooked."""
    return Watched([*STAGES, "keypoints", "image"])


def encoder_axes() -> dict[str, str]:
    """Axes of the layers of a `PictureEncoder`."""
    return dict.fromkeys(STAGES, MAP) | {"keypoints": VECTOR, "image": VECTOR}


def _centre(x: Tensor, crop: tuple[int, int]) -> Tensor:
    top, left = (round((side - cut) / 2) for side, cut in zip(x.shape[-2:], crop, strict=True))
    return x[..., top : top + crop[0], left : left + crop[1]]


def _reduced(side: int) -> int:
    """Height or width of the last stage: five times halved, rounded up."""
    return -(-side // 32)

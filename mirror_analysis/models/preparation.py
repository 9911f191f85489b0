"""What a model wants done to pictures before it sees them, in torch and PIL."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Filter = Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"]
Engine = Literal["pil", "torch"]

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """From pictures as cameras give them to the numbers a network takes.

    In this order: resize, centre crop, scale, normalise; or scaled first where `early`.

    Attributes:
        shortest: pixels the shorter side is resized to, the other in proportion; None for not.
        size: (height, width) it is resized to whatever its proportions; None for not.
        crop: (height, width) cut from the centre after that, padded with black where the picture
            is smaller; None for not.
        filter: how the resizing interpolates; always with antialiasing.
        engine: what resizes: "pil", or "torch" where the published processor does it with
            tensors; they round differently, by 1 of 255 here and there.
        early: whether torch scales pictures before it resizes them, so that nothing is rounded.
        scale: what a byte is multiplied by.
        offset: what is added after that.
        mean: subtracted per channel, after scale and offset.
        std: divided by per channel.
    """

    shortest: int | None = None
    size: tuple[int, int] | None = None
    crop: tuple[int, int] | None = None
    filter: Filter = "bilinear"
    engine: Engine = "pil"
    early: bool = False
    scale: float = 1 / 255
    offset: float = 0.0
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    @property
    def pixels(self) -> tuple[int, int] | None:
        """(height, width) of what comes out, where it does not depend on the picture."""
        return self.crop or self.size

    def __call__(self, frames: NDArray[np.uint8]) -> Tensor:
        """Prepares pictures.

        Args:
            frames: [time, height, width, 3] RGB.

        Returns:
            [time, 3, height, width] float32 on the CPU.
        """
        if self.engine == "torch":
            x = torch.from_numpy(np.array(frames)).permute(0, 3, 1, 2).contiguous()
            x = x * self.scale + self.offset if self.early else x
            x = _cropped(_interpolated(x, self), self)
        else:
            resized = np.stack([_resized(frame, self) for frame in frames])
            x = _cropped(torch.from_numpy(resized).permute(0, 3, 1, 2), self)
        x = x.to(torch.float32) if self.early else x.to(torch.float32) * self.scale + self.offset
        mean, std = torch.tensor(self.mean), torch.tensor(self.std)
        return ((x - mean.view(-1, 1, 1)) / std.view(-1, 1, 1)).contiguous()

    def __str__(self) -> str:
        return msgspec.json.encode(
            {k: v for k, v in asdict(self).items() if v is not None}
        ).decode()

    @classmethod
    def from_processor(cls, config: Mapping[str, Any], *, defaults: Preparation) -> Preparation:
        """What a `preprocessor_config.json` of transformers says, with its family's defaults.

        Args:
            config: the file, or the part of a `processor_config.json` for pictures or videos.
            defaults: what the family does where the file is silent. They also say what a size
                that is one number means: the shorter side, or both sides.

        Raises:
            FormatError: if the file says something that cannot be done.

        Example:
            >>> config = {"size": {"shortest_edge": 256}, "crop_size": 224, "resample": 3}
            >>> Preparation.from_processor(config, defaults=Preparation(shortest=224)).crop
            (224, 224)
        """
        from mirror_analysis.models.transformers.processors import read_processor

        return cls(**{**asdict(defaults), **read_processor(config, defaults)})


def _target(height: int, width: int, how: Preparation) -> tuple[int, int] | None:
    if how.shortest is None:
        return how.size
    longest = int(how.shortest * max(height, width) / min(height, width))
    return (how.shortest, longest) if height <= width else (longest, how.shortest)


def _resized(frame: NDArray[np.uint8], how: Preparation) -> NDArray[np.uint8]:
    from PIL import Image

    target = _target(frame.shape[0], frame.shape[1], how)
    if target is None or target == frame.shape[:2]:
        return frame
    filter_ = getattr(Image.Resampling, how.filter.upper())
    return np.asarray(Image.fromarray(frame).resize((target[1], target[0]), filter_))


def _interpolated(x: Tensor, how: Preparation) -> Tensor:
    height, width = x.shape[2:]
    target = _target(height, width, how)
    if target is None or target == (height, width):
        return x
    smooth = how.filter in ("bilinear", "bicubic")
    return torch.nn.functional.interpolate(
        x, target, mode=how.filter, antialias=smooth, align_corners=False if smooth else None
    )


def _cropped(x: Tensor, how: Preparation) -> Tensor:
    if how.crop is None:
        return x
    height, width = how.crop
    rows, columns = max(height - x.shape[2], 0), max(width - x.shape[3], 0)
    if rows or columns:
        # What is left over of an odd margin goes before the picture in PIL's way, after in torch's.
        odd = 1 if how.engine == "pil" else 0
        top, left = (rows + odd) // 2, (columns + odd) // 2
        x = torch.nn.functional.pad(x, (left, columns - left, top, rows - top))
    top, left = (x.shape[2] - height) // 2, (x.shape[3] - width) // 2
    return x[:, :, top : top + height, left : left + width]

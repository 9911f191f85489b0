"""Pictures prepared as the transforms of torchvision, timm, open_clip and OpenCV prepare them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mirror_analysis.models.images.bilinear import four_pixels
from mirror_analysis.models.preparation import Preparation
from mirror_analysis.models.structure.discovery import evenly_spaced

Sampling = Literal["all", "even", "stride"]


@dataclass(frozen=True, kw_only=True)
class Transforms(Preparation):
    """A preparation that crops and pads as torchvision does, and can do what only some ask for.

    An odd margin is halved to the even number, where the processors of transformers halve it
    downwards; and a picture smaller than the crop is padded more on the right and below.

    Attributes:
        cover: (height, width) that a picture is resized to cover, in proportion.
        within: (height, width) that it is resized to lie within, in proportion.
        fill: red, green and blue (0 to 255) of what is padded.
        antialias: False for the plain bilinear interpolation of OpenCV, which takes four pixels
            however much a picture shrinks.
        frames: how many frames are taken, where `sampling` is not "all".
        sampling: which frames are: "even" for evenly spaced ones, first and last among them;
            "stride" for the first ones of every (time // frames)-th, evenly spaced ones where
            there are fewer than `frames`.
    """

    cover: tuple[int, int] | None = None
    within: tuple[int, int] | None = None
    fill: tuple[int, int, int] = (0, 0, 0)
    antialias: bool = True
    frames: int = 0
    sampling: Sampling = "all"

    def __call__(self, frames: NDArray[np.uint8]) -> Tensor:
        """Prepares pictures.

        Args:
            frames: [time, height, width, 3] RGB.

        Returns:
            [time, 3, height, width] float32 on the CPU.
        """
        chosen = frames[self._positions(len(frames))]
        resized = np.stack([self._resized(frame) for frame in chosen])
        x = self._cropped(torch.from_numpy(resized).permute(0, 3, 1, 2))
        x = x.to(torch.float32) * self.scale + self.offset
        mean, std = torch.tensor(self.mean), torch.tensor(self.std)
        return ((x - mean.view(-1, 1, 1)) / std.view(-1, 1, 1)).contiguous()

    def _positions(self, time: int) -> list[int]:
        if self.sampling == "all":
            return list(range(time))
        if self.sampling == "even" or time < self.frames:
            return evenly_spaced(time, self.frames)
        step = time // self.frames
        return [i * step for i in range(self.frames)]

    def _target(self, height: int, width: int) -> tuple[int, int] | None:
        if self.shortest is not None:
            longest = int(self.shortest * max(height, width) / min(height, width))
            return (self.shortest, longest) if height <= width else (longest, self.shortest)
        if self.cover is not None:
            ratio = min(height / self.cover[0], width / self.cover[1])
        elif self.within is not None:
            ratio = max(height / self.within[0], width / self.within[1])
        else:
            return self.size
        return max(round(height / ratio), 1), max(round(width / ratio), 1)

    def _resized(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        from PIL import Image

        target = self._target(frame.shape[0], frame.shape[1])
        if target is None or target == frame.shape[:2]:
            return frame
        if not self.antialias:
            return four_pixels(frame, target)
        filter_ = getattr(Image.Resampling, self.filter.upper())
        return np.asarray(Image.fromarray(frame).resize((target[1], target[0]), filter_))

    def _cropped(self, x: Tensor) -> Tensor:
        if self.crop is None:
            return x
        height, width = self.crop
        rows, columns = max(height - x.shape[2], 0), max(width - x.shape[3], 0)
        if rows or columns:
            time, _, high, wide = x.shape
            filled = torch.tensor(self.fill, dtype=x.dtype).view(1, 3, 1, 1)
            padded = filled.repeat(time, 1, high + rows, wide + columns)
            top, left = rows // 2, columns // 2
            padded[:, :, top : top + high, left : left + wide] = x
            x = padded
        top, left = round((x.shape[2] - height) / 2), round((x.shape[3] - width) / 2)
        return x[:, :, top : top + height, left : left + width]

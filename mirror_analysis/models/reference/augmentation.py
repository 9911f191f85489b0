"""Random appearance of training episodes: colour, exposure, position and noise."""

from __future__ import annotations

import msgspec
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from mirror_analysis.models.reference.networks import normalise


class Augmentation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How far the appearance of a training episode is moved.

    Attributes:
        gain: range of the random factor per colour channel.
        offset: range of the random grey level added per colour channel, in 0 to 255.
        shift: largest random displacement in pixels.
        noise: standard deviation of pixel noise after normalisation.
    """

    gain: tuple[float, float] = (0.5, 1.5)
    offset: tuple[float, float] = (-45.0, 45.0)
    shift: int = 5
    noise: float = 0.05


def augment(
    frames: UInt8[Tensor, "episode frame height width 3"],
    amount: Augmentation,
    generator: torch.Generator,
) -> Float[Tensor, "episode frame 3 height width"]:
    """Normalised frames under one random gain, offset and shift per episode.

    Args:
        frames: grey levels, on any device.
        amount: ranges of the draws.
        generator: of the draws, on the CPU.
    """
    count = len(frames)
    device = frames.device

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(shape, generator=generator).to(device)

    down = torch.randint(-amount.shift, amount.shift + 1, (count, 1), generator=generator)
    right = torch.randint(-amount.shift, amount.shift + 1, (count, 1), generator=generator)
    moved = torch.empty_like(frames)
    for i, (d, r) in enumerate(zip(down.flatten().tolist(), right.flatten().tolist(), strict=True)):
        _move(frames[i], -d, -r, out=moved[i])
    gain = uniform(*amount.gain, count, 1, 1, 1, 3)
    offset = uniform(*amount.offset, count, 1, 1, 1, 3)
    # Updated in place: a batch of pictures does not fit the caches, so every pass costs.
    picture = normalise(moved.float().mul_(gain).add_(offset).clamp_(0.0, 255.0))
    if amount.noise:
        # Drawn in the layout of the memory, channels last.
        noise = torch.randn(moved.shape, generator=generator).mul_(amount.noise)
        picture = picture.add_(noise.to(device).movedim(-1, -3))
    return picture


def _move(frames: Tensor, down: int, right: int, *, out: Tensor) -> None:
    """Pictures moved by whole pixels; what is uncovered repeats the nearest row or column."""
    height, width = frames.shape[1:3]
    # Further out there is nothing but the last row or column.
    down = max(1 - height, min(height - 1, down))
    right = max(1 - width, min(width - 1, right))
    rows, columns = height - abs(down), width - abs(right)
    top, left = max(down, 0), max(right, 0)
    out[:, top : top + rows, left : left + columns] = frames[
        :, top - down : top - down + rows, left - right : left - right + columns
    ]
    out[:, :top] = out[:, top : top + 1]
    out[:, top + rows :] = out[:, top + rows - 1 : top + rows]
    out[:, :, :left] = out[:, :, left : left + 1]
    out[:, :, left + columns :] = out[:, :, left + columns - 1 : left + columns]

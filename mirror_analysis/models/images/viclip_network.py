"""The watching half of ViCLIP (Wang et al., 2023, InternVid), as published, nothing masked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

HEAD = 64  # channels of an attention head in both published sizes
_NEEDED = {
    "conv1.weight": 5,
    "class_embedding": 1,
    "positional_embedding": 2,
    "temporal_positional_embedding": 3,
    "proj": 2,
}


@final
@dataclass(frozen=True)
class ViclipSize:
    """What decides the shapes of a network; the published ones are B/16 and L/14.

    Attributes:
        width: channels of a token (768, 1024).
        depth: blocks (12, 24).
        patch: pixels a side of what becomes a token (16, 14).
        grid: tokens a side of a picture (14, 16).
        frames: of a clip (8).
        out: channels of the embedding (512, 768).
    """

    width: int
    depth: int
    patch: int
    grid: int
    frames: int
    out: int

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> ViclipSize | None:
        """The size whose shapes weights have; None where they are no ViCLIP's."""
        if any(name not in tensors or tensors[name].ndim != axes for name, axes in _NEEDED.items()):
            return None
        width, colours, time, patch, _ = tensors["conv1.weight"].shape
        places, _ = tensors["positional_embedding"].shape
        _, frames, _ = tensors["temporal_positional_embedding"].shape
        blocks = {name.split(".")[2] for name in tensors if name.startswith("transformer.resblocks")
                  and name.count(".") >= 3}  # fmt: skip
        grid = round(max(places - 1, 0) ** 0.5)
        if (colours, time) != (3, 1) or grid * grid + 1 != places or width % HEAD or not blocks:
            return None
        return cls(width, len(blocks), patch, grid, frames, tensors["proj"].shape[1])


class _QuickGelu(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class _Block(nn.Module):
    """Attention over all tokens of a clip, then a perceptron; [token, episode, channel]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(width, width // HEAD)
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mlp = nn.Sequential()
        self.mlp.add_module("c_fc", nn.Linear(width, 4 * width))
        self.mlp.add_module("gelu", _QuickGelu())
        self.mlp.add_module("c_proj", nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False)[0]
        x = x + self.mlp(self.ln_2(x))
        return x


class _Blocks(nn.Module):
    def __init__(self, size: ViclipSize) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(_Block(size.width) for _ in range(size.depth))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.resblocks:
            x = block(x)
        return x


@final
class ViclipVision(nn.Module):
    """From clips to embeddings; parameters are named as in `vision_encoder` of the published files.

    Args:
        size: of the network.
    """

    def __init__(self, size: ViclipSize) -> None:
        super().__init__()
        scale = size.width**-0.5
        patch = (1, size.patch, size.patch)
        self.conv1 = nn.Conv3d(3, size.width, patch, patch, bias=False)
        self.class_embedding = nn.Parameter(scale * torch.randn(size.width))
        places = size.grid**2 + 1
        self.positional_embedding = nn.Parameter(scale * torch.randn(places, size.width))
        self.temporal_positional_embedding = nn.Parameter(torch.zeros(1, size.frames, size.width))
        self.ln_pre, self.ln_post = nn.LayerNorm(size.width), nn.LayerNorm(size.width)
        self.transformer = _Blocks(size)
        # The published constructor leaves it unset; CLIP, which it starts from, draws it so.
        self.proj = nn.Parameter(scale * torch.randn(size.width, size.out))
        self.embedding = nn.Identity()  # the projected class token, as a layer

    def forward(self, clips: Tensor) -> Tensor:
        """Embeds clips.

        Args:
            clips: [episode, 3, time, height, width], prepared.

        Returns:
            [episode, channel].
        """
        x = self.conv1(clips).permute(0, 2, 3, 4, 1).flatten(2, 3)  # episode time place channel
        x = x + self.positional_embedding[1:]
        x = x.transpose(1, 2) + self._times(x.shape[1])  # episode place time channel
        first = (self.class_embedding + self.positional_embedding[0]).expand(len(x), 1, -1)
        x = self.ln_pre(torch.cat([first, x.flatten(1, 2)], dim=1))
        x = self.ln_post(self.transformer(x.transpose(0, 1)))
        embedding: Tensor = self.embedding(x[0] @ self.proj)
        return embedding

    def _times(self, frames: int) -> Tensor:
        """[time or 1, channel]: for one frame the mean, as published."""
        known = self.temporal_positional_embedding[0]
        return known.mean(0, keepdim=True) if frames == 1 else known


def fitted_times(known: Tensor, frames: int) -> Tensor:
    """Positions in time for another number of frames than a network was trained with.

    Fewer frames take the first positions, as published; for more frames they are interpolated.

    Args:
        known: [1, time, channel].
        frames: wanted; for a single one all stay, since the network takes their mean.
    """
    if frames == 1 or frames == known.shape[1]:
        return known
    if frames < known.shape[1]:
        return known[:, :frames].clone()
    longer = torch.nn.functional.interpolate(known.transpose(1, 2), frames, mode="linear")
    return longer.transpose(1, 2).contiguous()

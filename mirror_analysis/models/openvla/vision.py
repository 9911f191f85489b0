"""Vision transformers as OpenVLA looks with them, under timm's parameter names.

Dosovitskiy et al., 2021; with registers and scaled branches, Oquab et al., "DINOv2", 2024.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_EPSILON = 1e-6


@final
@dataclass(frozen=True)
class TransformerSizes:
    """How large it is.

    Attributes:
        width: numbers in a token.
        layers: blocks in the file; the last of them is not run.
        heads: of attention.
        hidden: width of the hidden layers.
        patch: pixels a side of a patch.
        places: tokens that have a place.
        classes: whether there is a class token.
        registers: tokens that stand for nothing.
        scaled: whether what blocks add is scaled.
    """

    width: int
    layers: int
    heads: int
    hidden: int
    patch: int
    places: int
    classes: bool
    registers: int
    scaled: bool

    @classmethod
    def measured(cls, there: Mapping[str, tuple[int, ...]], prefix: str) -> TransformerSizes:
        """From the shapes of its tensors.

        Args:
            there: name -> shape.
            prefix: what its names begin with, up to a dot.

        Raises:
            KeyError: if a tensor is missing.
            ValueError: if one has another number of axes.
        """
        width, _, patch, _ = there[f"{prefix}.patch_embed.proj.weight"]
        _, places, _ = there[f"{prefix}.pos_embed"]
        start = f"{prefix}.blocks."
        blocks = {n.removeprefix(start).partition(".")[0] for n in there if n.startswith(start)}
        return cls(
            width=width,
            layers=len(blocks),
            heads=16 if width == 1152 else max(1, width // 64),
            hidden=there[f"{prefix}.blocks.0.mlp.fc1.weight"][0],
            patch=patch,
            places=places,
            classes=f"{prefix}.cls_token" in there,
            registers=there.get(f"{prefix}.reg_token", (1, 0, width))[1],
            scaled=f"{prefix}.blocks.0.ls1.scale_factor" in there,
        )


@final
class Scale(nn.Module):
    """A factor for each channel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale_factor = nn.Parameter(torch.full((width,), 1e-5))

    def forward(self, x: Tensor) -> Tensor:
        """[row, token, channel]."""
        return x * self.scale_factor


@final
class Attention(nn.Module):
    """Attention with queries, keys and values in one projection."""

    def __init__(self, sizes: TransformerSizes) -> None:
        super().__init__()
        self.heads = sizes.heads
        self.qkv = nn.Linear(sizes.width, 3 * sizes.width)
        self.proj = nn.Linear(sizes.width, sizes.width)

    def forward(self, x: Tensor) -> Tensor:
        """[row, token, channel]."""
        rows, tokens, width = x.shape
        parts = self.qkv(x).reshape(rows, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        found = F.scaled_dot_product_attention(*parts.unbind(0))
        y: Tensor = self.proj(found.transpose(1, 2).reshape(rows, tokens, width))
        return y


@final
class Hidden(nn.Module):
    """A hidden layer."""

    def __init__(self, sizes: TransformerSizes) -> None:
        super().__init__()
        self.fc1 = nn.Linear(sizes.width, sizes.hidden)
        self.fc2 = nn.Linear(sizes.hidden, sizes.width)

    def forward(self, x: Tensor) -> Tensor:
        """[row, token, channel]."""
        found: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return found


@final
class Block(nn.Module):
    """Attention and a hidden layer."""

    def __init__(self, sizes: TransformerSizes) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(sizes.width, eps=_EPSILON)
        self.norm2 = nn.LayerNorm(sizes.width, eps=_EPSILON)
        self.attn, self.mlp = Attention(sizes), Hidden(sizes)
        self.ls1 = Scale(sizes.width) if sizes.scaled else nn.Identity()
        self.ls2 = Scale(sizes.width) if sizes.scaled else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """[row, token, channel]."""
        x = x + self.ls1(self.attn(self.norm1(x)))
        found: Tensor = x + self.ls2(self.mlp(self.norm2(x)))
        return found


@final
class VisionTransformer(nn.Module):
    """Tokens of patches after the last block but one, which is where OpenVLA takes them."""

    def __init__(self, sizes: TransformerSizes) -> None:
        super().__init__()
        self.sizes = sizes
        patches = nn.Conv2d(3, sizes.width, sizes.patch, stride=sizes.patch)
        self.patch_embed = nn.ModuleDict({"proj": patches})
        self.pos_embed = nn.Parameter(torch.empty(1, sizes.places, sizes.width))
        nn.init.normal_(self.pos_embed, std=0.02)
        self.cls_token = _tokens(int(sizes.classes), sizes.width)
        self.reg_token = _tokens(sizes.registers, sizes.width)
        self.blocks = nn.ModuleList([Block(sizes) for _ in range(sizes.layers - 1)])
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def stages(self, pictures: Tensor) -> Iterator[Tensor]:
        """The patches after each block, [row, patch, channel].

        Args:
            pictures: [row, 3, height, width], normalised.
        """
        x = self.patch_embed["proj"](pictures).flatten(2).transpose(1, 2)
        count = x.shape[1]
        # Places count for patches alone, or for those and the class token.
        x = x + self.pos_embed if self.sizes.places == count else x
        named = [token for token in (self.cls_token, self.reg_token) if token is not None]
        x = torch.cat([*(token.expand(len(x), -1, -1) for token in named), x], 1)
        x = x if self.sizes.places == count else x + self.pos_embed
        for block in self.blocks:
            x = block(x)
            yield x[:, -count:]


def _tokens(count: int, width: int) -> nn.Parameter | None:
    if not count:
        return None
    return nn.Parameter(nn.init.normal_(torch.empty(1, count, width), std=1e-6))

"""The multi-view transformer of ARP and RVT-2, under ARP's parameter names.

Goyal et al., "RVT-2", 2024; Zhang et al., "Autoregressive Action Sequence Learning for Robotic
Manipulation", 2024. Patches of every view attend to their own view first, then to those of all
views and to the words of the instruction.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from mirror_analysis.models.model import LayerInfo
from mirror_analysis.models.recording.telling import Telling
from mirror_analysis.models.structure.discovery import Structure

VIEWS = ("top", "left", "front")
_HEAD = 64  # numbers in a head
_GROUPS = 4  # of norms
_SLOPE = 0.02  # of leaky rectifiers
_AT_ONCE = 8  # frames


@final
@dataclass(frozen=True)
class ArpSizes:
    """How large it is.

    Attributes:
        channels: of a view as it is rendered: place, colour and depth.
        patch: pixels a side of a patch.
        side: patches a side of a view.
        visual: numbers a patch has at first.
        state: numbers of the state.
        words: tokens of an instruction.
        word: numbers in a token.
        width: of the transformer.
        heads: of attention.
        layers: blocks.
        fixed: whether places are told to patches alone, not to words.
    """

    channels: int
    patch: int
    side: int
    visual: int
    state: int
    words: int
    word: int
    width: int
    heads: int
    layers: int
    fixed: bool

    @property
    def pixels(self) -> int:
        """Of a side of a view."""
        return self.patch * self.side

    @classmethod
    def measured(cls, there: Mapping[str, tuple[int, ...]], *, words: int) -> ArpSizes:
        """From the shapes of its tensors.

        Args:
            there: name -> shape.
            words: tokens of an instruction.

        Raises:
            KeyError: if a tensor is missing.
            ValueError: if shapes cannot be.
        """
        visual, channels, patch, _ = there["patchify.conv2d.weight"]
        _, places, _ = there["pos_encoding"]
        inner, width = there["layers.0.0.fn.to_q.weight"]
        layers = len({name.split(".")[1] for name in there if name.startswith("layers.")})
        side = math.isqrt(places // len(VIEWS))
        fixed = side**2 * len(VIEWS) == places
        if not fixed:
            side = math.isqrt(max(places - words, 0) // len(VIEWS))
        found = cls(
            channels=channels - 3,
            patch=patch,
            side=side,
            visual=visual,
            state=there["proprio_preprocess.linear.weight"][1],
            words=words,
            word=there["lang_preprocess.linear.weight"][1],
            width=width,
            heads=inner // _HEAD,
            layers=layers,
            fixed=fixed,
        )
        rest = places - side**2 * len(VIEWS)
        if rest not in (0, words) or inner % _HEAD or layers % 2 or channels < 4 or side < 1:
            raise ValueError(f"{places} places, {layers} blocks, {inner} numbers of heads")
        return found


@final
class Dense(nn.Module):
    """A linear layer, with a norm of groups and a leaky rectifier or without."""

    def __init__(self, inner: int, outer: int, *, active: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(inner, outer)
        self.norm = nn.GroupNorm(_GROUPS, outer) if active else None
        if active:
            nn.init.kaiming_uniform_(self.linear.weight, a=_SLOPE, nonlinearity="leaky_relu")
        else:
            nn.init.xavier_uniform_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        """[row, channel], or [..., channel] without a norm."""
        x = self.linear(x)
        return x if self.norm is None else F.leaky_relu(self.norm(x), _SLOPE)


@final
class Patches(nn.Module):
    """A convolution of patches, a norm of groups and a leaky rectifier."""

    def __init__(self, channels: int, visual: int, patch: int) -> None:
        super().__init__()
        self.conv2d = nn.Conv2d(channels, visual, patch, stride=patch)
        self.norm = nn.GroupNorm(_GROUPS, visual)
        nn.init.kaiming_uniform_(self.conv2d.weight, a=_SLOPE, nonlinearity="leaky_relu")
        if self.conv2d.bias is not None:
            nn.init.zeros_(self.conv2d.bias)

    def forward(self, x: Tensor) -> Tensor:
        """[row, channel, height, width]."""
        return F.leaky_relu(self.norm(self.conv2d(x)), _SLOPE)


@final
class Attention(nn.Module):
    """Attention of all tokens to all."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(width, heads * _HEAD, bias=False)
        self.to_kv = nn.Linear(width, 2 * heads * _HEAD, bias=False)
        self.to_out = nn.Linear(heads * _HEAD, width)

    def forward(self, x: Tensor) -> Tensor:
        """[row, token, channel]."""
        parts = (self.to_q(x), *self.to_kv(x).chunk(2, -1))
        split = (p.reshape(*x.shape[:2], self.heads, _HEAD).transpose(1, 2) for p in parts)
        found: Tensor = self.to_out(
            F.scaled_dot_product_attention(*split).transpose(1, 2).flatten(2)
        )
        return found


@final
class Gate(nn.Module):
    """The first half of the channels, weighed by the second."""

    def forward(self, x: Tensor) -> Tensor:
        """[..., channel]."""
        values, gates = x.chunk(2, -1)
        return values * F.gelu(gates)


@final
class Hidden(nn.Module):
    """A gated hidden layer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(width, 8 * width), Gate(), nn.Linear(4 * width, width)
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """[row, token, channel]."""
        found: Tensor = self.net(x)
        return found


@final
class Normed(nn.Module):
    """A norm, then a part of a block."""

    def __init__(self, width: int, part: nn.Module) -> None:
        super().__init__()
        self.fn, self.norm = part, nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """[row, token, channel]."""
        found: Tensor = self.fn(self.norm(x))
        return found


class _Block(NamedTuple):
    attention: Normed
    hidden: Normed


@final
class MultiViewTransformer(nn.Module):
    """From rendered views to a map of each, as one of ARP's two looks at a scene.

    Layers are the means of the tokens of all views, those of words left out.
    """

    def __init__(self, sizes: ArpSizes) -> None:
        super().__init__()
        self.sizes = sizes
        width, double = sizes.width, 2 * sizes.visual
        self.proprio_preprocess = Dense(sizes.state, sizes.visual, active=True)
        self.patchify = Patches(sizes.channels + 3, sizes.visual, sizes.patch)
        self.lang_preprocess = Dense(sizes.word, double, active=True)
        places = len(VIEWS) * sizes.side**2 + (0 if sizes.fixed else sizes.words)
        self.pos_encoding = nn.Parameter(torch.randn(1, places, double))
        self.fc_bef_attn = Dense(double, width, active=False)
        self.fc_aft_attn = Dense(width, double, active=False)
        self.blocks = [
            _Block(Normed(width, Attention(width, sizes.heads)), Normed(width, Hidden(width)))
            for _ in range(sizes.layers)
        ]
        self.layers = nn.ModuleList([nn.ModuleList(block) for block in self.blocks])
        self.names = self._names()
        self.told = nn.ModuleList([nn.Identity() for _ in self.names])

    def forward(
        self,
        views: Float[Tensor, "row view channel height width"],
        state: Float[Tensor, "row number"],
        words: Float[Tensor, "row word code"],
    ) -> Float[Tensor, "row view map y x"]:
        """A map of each view.

        Args:
            views: as they are rendered; where each pixel is, is added here.
            state: of the robot.
            words: of the instruction.
        """
        telling = Telling(dict(zip(self.names, self.told, strict=True)))
        maps = []
        for start in range(0, len(views), _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            telling.begin()
            maps.append(self._seen(views[part], state[part], words[part], telling))
        telling.end()
        return torch.cat(maps)

    def structure(self) -> Structure:
        """Patches, blocks inside views, blocks over all views, maps."""
        infos = [
            LayerInfo(name, width, "episode*time channel", "mean of its tokens")
            for name, width in self.names.items()
        ]
        return Structure(tuple(infos), dict(zip(self.names, self.told, strict=True)))

    def _names(self) -> dict[str, int]:
        half, width = self.sizes.layers // 2, self.sizes.width
        found = {"patches": self.sizes.visual}
        found |= {f"view.block{i}": width for i in range(half)}
        found |= {f"joint.block{i}": width for i in range(half)}
        return found | {"map": 2 * self.sizes.visual}

    def _seen(self, views: Tensor, state: Tensor, words: Tensor, tell: Telling) -> Tensor:
        rows, count = views.shape[:2]
        x = torch.cat([views, self._pixels(views)], 2).flatten(0, 1)
        x = self.patchify(x).flatten(2).transpose(1, 2).reshape(rows, -1, self.sizes.visual)
        tell("patches", x.mean(1))
        felt = self.proprio_preprocess(state)[:, None].expand_as(x)
        x = torch.cat([x, felt], 2)
        told = self.lang_preprocess(words.flatten(0, 1)).reshape(rows, words.shape[1], -1)
        if self.sizes.fixed:
            x = torch.cat([told, x + self.pos_encoding], 1)
        else:
            x = torch.cat([told, x], 1) + self.pos_encoding
        x = self.fc_bef_attn(x)
        told, x = x[:, : words.shape[1]], x[:, words.shape[1] :]
        half = self.sizes.layers // 2
        x = x.reshape(rows * count, -1, x.shape[2])
        for i, block in enumerate(self.blocks[:half]):
            x = x + block.attention(x)
            x = x + block.hidden(x)
            tell(f"view.block{i}", x.reshape(rows, -1, x.shape[2]).mean(1))
        x = torch.cat([told, x.reshape(rows, -1, x.shape[2])], 1)
        for i, block in enumerate(self.blocks[half:]):
            x = x + block.attention(x)
            x = x + block.hidden(x)
            tell(f"joint.block{i}", x[:, words.shape[1] :].mean(1))
        x = self.fc_aft_attn(x[:, words.shape[1] :])
        tell("map", x.mean(1))
        side = self.sizes.side
        return x.reshape(rows, count, side, side, -1).permute(0, 1, 4, 2, 3)

    def _pixels(self, views: Tensor) -> Tensor:
        """Which view, row and column each pixel is of, -1 to 1, [row, view, 3, height, width]."""
        rows, count, _, height, width = views.shape
        sizes = (count, height, width)
        at = (torch.linspace(-1, 1, size, device=views.device) for size in sizes)
        return torch.stack(torch.meshgrid(*at, indexing="ij"), 1).expand(rows, -1, -1, -1, -1)

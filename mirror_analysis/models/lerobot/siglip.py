"""SigLIP's picture encoder, under its parameter names in transformers.

Zhai et al., "Sigmoid Loss for Language Image Pre-Training", 2023.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

_EPSILON = 1e-6


@final
@dataclass(frozen=True)
class SiglipSizes:
    """How large it is.

    Attributes:
        width: numbers in a token.
        layers: blocks.
        heads: of attention.
        hidden: width of the hidden layers.
        patch: pixels a side of a patch.
        side: places a side that are known.
    """

    width: int
    layers: int
    heads: int
    hidden: int
    patch: int
    side: int


@final
class Attention(nn.Module):
    """Attention with biases."""

    def __init__(self, sizes: SiglipSizes) -> None:
        super().__init__()
        self.heads = sizes.heads
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (
            nn.Linear(sizes.width, sizes.width) for _ in range(4)
        )

    def forward(self, x: Tensor) -> Tensor:
        """[row, token, channel]."""
        queries, keys, values = (
            project(x).reshape(*x.shape[:2], self.heads, -1).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        found = F.scaled_dot_product_attention(queries, keys, values)
        y: Tensor = self.out_proj(found.transpose(1, 2).flatten(2))
        return y


@final
class Hidden(nn.Module):
    """A hidden layer."""

    def __init__(self, sizes: SiglipSizes) -> None:
        super().__init__()
        self.fc1 = nn.Linear(sizes.width, sizes.hidden)
        self.fc2 = nn.Linear(sizes.hidden, sizes.width)

    def forward(self, x: Tensor) -> Tensor:
        """[row, token, channel]."""
        found: Tensor = self.fc2(F.gelu(self.fc1(x), approximate="tanh"))
        return found


@final
class Block(nn.Module):
    """Attention and a hidden layer."""

    def __init__(self, sizes: SiglipSizes) -> None:
        super().__init__()
        self.self_attn, self.mlp = Attention(sizes), Hidden(sizes)
        self.layer_norm1 = nn.LayerNorm(sizes.width, eps=_EPSILON)
        self.layer_norm2 = nn.LayerNorm(sizes.width, eps=_EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        """[row, token, channel]."""
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))


@final
class Siglip(nn.Module):
    """Tokens of patches."""

    def __init__(self, sizes: SiglipSizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.embeddings = nn.ModuleDict(
            {
                "patch_embedding": nn.Conv2d(3, sizes.width, sizes.patch, stride=sizes.patch),
                "position_embedding": nn.Embedding(sizes.side**2, sizes.width),
            }
        )
        blocks = [Block(sizes) for _ in range(sizes.layers)]
        self.encoder = nn.ModuleDict({"layers": nn.ModuleList(blocks)})
        self.blocks = blocks
        self.post_layernorm = nn.LayerNorm(sizes.width, eps=_EPSILON)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                nn.init.normal_(module.weight, std=0.02)

    def stages(self, pictures: Float[Tensor, "row 3 height width"]) -> Iterator[tuple[str, Tensor]]:
        """The tokens after each block and after the norm, [row, token, channel].

        Args:
            pictures: from -1 to 1.
        """
        patches = self.embeddings["patch_embedding"](pictures)
        rows, columns = (self._places(n, pictures.device) for n in patches.shape[2:])
        places = (rows[:, None] * self.sizes.side + columns).flatten()
        x = patches.flatten(2).transpose(1, 2) + self.embeddings["position_embedding"](places)
        for i, block in enumerate(self.blocks):
            x = block(x)
            yield f"block{i}", x
        yield "norm", self.post_layernorm(x)

    def _places(self, count: int, device: torch.device) -> Tensor:
        """The known place of each of so many patches in a row."""
        side = self.sizes.side
        if count == side:
            return torch.arange(side, device=device)
        edges = torch.arange(1 / side, 1.0, 1 / side, device=device)
        at = torch.arange(count, dtype=torch.float32, device=device) * (1.0 / count)
        return torch.bucketize(at.clamp(max=1.0 - 1e-6), edges, right=True)

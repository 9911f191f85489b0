"""The causal transformer of VQ-BeT, after minGPT, under its parameter names."""

from __future__ import annotations

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


@final
class CausalAttention(nn.Module):
    """Attention of each token to itself and those before it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.c_attn, self.c_proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.heads = heads

    def forward(self, x: Tensor) -> Tensor:
        """[row, token, channel]."""
        parts = self.c_attn(x).chunk(3, dim=-1)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        found = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        projected: Tensor = self.c_proj(found.transpose(1, 2).flatten(2))
        return projected


@final
class Block(nn.Module):
    """Attention and two linear layers, each on what a norm gives, added to what came in."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.ln_1, self.attn = nn.LayerNorm(width), CausalAttention(width, heads)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        """[row, token, channel]."""
        x = x + self.attn(self.ln_1(x))
        found: Tensor = x + self.mlp(self.ln_2(x))
        return found


@final
class GPT(nn.Module):
    """From a sequence of vectors to a vector for each of them."""

    def __init__(
        self, inner: int, outer: int, *, width: int, heads: int, blocks: int, longest: int
    ) -> None:
        super().__init__()
        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Linear(inner, width),
                "wpe": nn.Embedding(longest, width),
                "h": nn.ModuleList([Block(width, heads) for _ in range(blocks)]),
                "ln_f": nn.LayerNorm(width),
            }
        )
        self.lm_head = nn.Linear(width, outer, bias=False)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        for name, parameter in self.named_parameters():
            if name.endswith("c_proj.weight"):
                nn.init.normal_(parameter, std=0.02 / (2 * blocks) ** 0.5)

    def forward(self, x: Float[Tensor, "row token inner"]) -> Float[Tensor, "row token outer"]:
        """Each token sees itself and those before it."""
        parts = self.transformer
        x = parts["wte"](x) + parts["wpe"](torch.arange(x.shape[1], device=x.device))
        for block in parts["h"].children():
            x = block(x)
        found: Tensor = self.lm_head(parts["ln_f"](x))
        return found

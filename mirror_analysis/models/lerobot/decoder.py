"""Blocks of the language models that policies are built on: Llama's and Gemma's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

KeysAndValues = tuple[Tensor, Tensor]

_WAVELENGTH = 10_000.0


@final
@dataclass(frozen=True)
class DecoderSizes:
    """How large a stack of blocks is, and of which kind.

    Attributes:
        width: numbers in a token.
        layers: blocks.
        heads: of the queries.
        groups: of keys and values, each shared by as many heads.
        head: numbers in a head.
        hidden: width of the gated layers.
        epsilon: of the norms.
        kind: "llama" or "gemma"; the latter's norms scale by one more than their weight, and its
            gates are of another shape.
    """

    width: int
    layers: int
    heads: int
    groups: int
    head: int
    hidden: int
    epsilon: float
    kind: Literal["llama", "gemma"]


@final
class RootMeanSquare(nn.Module):
    """Norm by the root of the mean square (Zhang and Sennrich, 2019)."""

    def __init__(self, width: int, *, epsilon: float, kind: Literal["llama", "gemma"]) -> None:
        super().__init__()
        self.epsilon, self.shift = epsilon, 1.0 if kind == "gemma" else 0.0
        self.weight = nn.Parameter(torch.full((width,), 1.0 - self.shift))

    def forward(self, x: Tensor) -> Tensor:
        """[..., channel]."""
        scaled = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.epsilon)
        return scaled * (self.shift + self.weight)


@final
class Attention(nn.Module):
    """Projections of attention; `inner` is what keys and values are made from."""

    def __init__(self, sizes: DecoderSizes, inner: int) -> None:
        super().__init__()
        across, shared = sizes.heads * sizes.head, sizes.groups * sizes.head
        self.q_proj = nn.Linear(sizes.width, across, bias=False)
        self.k_proj = nn.Linear(inner, shared, bias=False)
        self.v_proj = nn.Linear(inner, shared, bias=False)
        self.o_proj = nn.Linear(across, sizes.width, bias=False)


@final
class Gated(nn.Module):
    """A gated hidden layer (Shazeer, 2020)."""

    def __init__(self, sizes: DecoderSizes) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(sizes.width, sizes.hidden, bias=False)
        self.up_proj = nn.Linear(sizes.width, sizes.hidden, bias=False)
        self.down_proj = nn.Linear(sizes.hidden, sizes.width, bias=False)
        self.gemma = sizes.kind == "gemma"

    def forward(self, x: Tensor) -> Tensor:
        """[..., channel]."""
        gate = self.gate_proj(x)
        gate = F.gelu(gate, approximate="tanh") if self.gemma else F.silu(gate)
        found: Tensor = self.down_proj(gate * self.up_proj(x))
        return found


@final
class Block(nn.Module):
    """Attention and a gated layer, under the parameter names of Llama and Gemma.

    Args:
        sizes: of the stack.
        crossed: numbers in what keys and values are made from, where they are another stack's
            keys and values; None where they are made from the tokens themselves.
    """

    def __init__(self, sizes: DecoderSizes, *, crossed: int | None = None) -> None:
        super().__init__()
        self.sizes, self.crossed = sizes, crossed is not None
        self.self_attn = Attention(sizes, sizes.width if crossed is None else crossed)
        self.mlp = Gated(sizes)
        norms = (
            RootMeanSquare(sizes.width, epsilon=sizes.epsilon, kind=sizes.kind) for _ in range(2)
        )
        self.input_layernorm, self.post_attention_layernorm = norms

    def forward(
        self,
        x: Float[Tensor, "row token channel"],
        *,
        places: Int[Tensor, "row token"],
        sees: Bool[Tensor, "row token seen"],
        past: KeysAndValues | None = None,
    ) -> tuple[Tensor, KeysAndValues]:
        """Tokens, and their keys and values.

        Args:
            x: tokens.
            places: of each.
            sees: which tokens each one sees, those of the past first.
            past: keys and values of other tokens, [row, token, group, number].
        """
        attention, y = self.self_attn, self.input_layernorm(x)
        queries = turned(self._split(attention.q_proj(y)), places)
        if self.crossed and past is not None:
            keys, values = (
                self._split(project(part.flatten(2)))
                for project, part in zip((attention.k_proj, attention.v_proj), past, strict=True)
            )
        else:
            keys = turned(self._split(attention.k_proj(y)), places)
            values = self._split(attention.v_proj(y))
            if past is not None:
                keys, values = (
                    torch.cat(both, 1) for both in zip(past, (keys, values), strict=True)
                )
        many = self.sizes.heads // self.sizes.groups
        found = F.scaled_dot_product_attention(
            queries.transpose(1, 2),
            keys.repeat_interleave(many, 2).transpose(1, 2),
            values.repeat_interleave(many, 2).transpose(1, 2),
            attn_mask=sees[:, None],
        )
        x = x + attention.o_proj(found.transpose(1, 2).flatten(2))
        return x + self.mlp(self.post_attention_layernorm(x)), (keys, values)

    def _split(self, x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:2], -1, self.sizes.head)


@final
class Decoder(nn.Module):
    """Blocks on top of each other, under the names `layers`, `norm` and `embed_tokens`.

    Args:
        sizes: of the blocks.
        vocabulary: tokens that have an embedding; 0 for none.
        normed: whether there is a norm after the blocks.
        crossed: block -> see `Block`, for those that are crossed.
    """

    def __init__(
        self,
        sizes: DecoderSizes,
        *,
        vocabulary: int = 0,
        normed: bool = True,
        crossed: dict[int, int] | None = None,
    ) -> None:
        super().__init__()
        self.sizes = sizes
        self.blocks = [
            Block(sizes, crossed=(crossed or {}).get(i)) for i in range(sizes.layers)
        ]  # fmt: skip
        self.layers = nn.ModuleList(self.blocks)
        self.embed_tokens = nn.Embedding(vocabulary, sizes.width) if vocabulary else None
        self.norm: nn.Module | None = None
        if normed:
            self.norm = RootMeanSquare(sizes.width, epsilon=sizes.epsilon, kind=sizes.kind)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)

    def words(self, tokens: Int[Tensor, "*row"]) -> Tensor:
        """Embeddings of tokens, [..., channel]."""
        assert self.embed_tokens is not None
        found: Tensor = self.embed_tokens(tokens)
        return found


def turned(
    x: Float[Tensor, "row token head number"], places: Int[Tensor, "row token"]
) -> Float[Tensor, "row token head number"]:
    """Rotary places (Su et al., 2021): pairs of numbers half a head apart are turned."""
    half = x.shape[-1] // 2
    share = torch.arange(half, dtype=torch.float32, device=x.device) * (2.0 / x.shape[-1])
    angle = (places[..., None].float() / _WAVELENGTH**share)[:, :, None]
    sine, cosine = angle.sin(), angle.cos()
    first, second = x[..., :half], x[..., half:]
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], -1)

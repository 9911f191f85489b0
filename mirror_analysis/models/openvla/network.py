"""OpenVLA's network: two picture encoders, a projector, Llama, and tokens that are actions.

Kim et al., "OpenVLA: An Open-Source Vision-Language-Action Model", 2024.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from mirror_analysis.models.lerobot.decoder import Decoder, DecoderSizes, KeysAndValues
from mirror_analysis.models.model import LayerInfo
from mirror_analysis.models.openvla.vision import TransformerSizes, VisionTransformer
from mirror_analysis.models.recording.telling import Telling
from mirror_analysis.models.structure.discovery import Structure

_AT_ONCE = 2**13  # tokens that go through the language model at once
_VECTOR = "episode*time channel"


@final
@dataclass(frozen=True)
class OpenVLASizes:
    """How large its parts are.

    Attributes:
        vision: of each picture encoder.
        projector: widths of the projector's layers, after what goes in.
        language: of the language model.
        vocabulary: tokens it knows.
        words: of those the ones before padding; actions are the last of these.
        bins: edges of the bins of a number of an action.
        actions: numbers of an action.
    """

    vision: tuple[TransformerSizes, ...]
    projector: tuple[int, ...]
    language: DecoderSizes
    vocabulary: int
    words: int
    bins: int
    actions: int


@final
class Projector(nn.Module):
    """From patches to tokens of the language model."""

    def __init__(self, inner: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.steps = []
        for i, width in enumerate(widths, start=1):
            step = nn.Linear(inner, width)
            self.add_module(f"fc{i}", step)
            self.steps.append(step)
            inner = width

    def forward(self, x: Tensor) -> Tensor:
        """[row, patch, channel]."""
        for i, step in enumerate(self.steps):
            x = step(F.gelu(x) if i else x)
        return x


@final
class OpenVLANetwork(nn.Module):
    """From pictures and words to actions between -1 and 1.

    Layers are the means of their tokens. Those of the language model run once for each number of
    the action: first over everything that is seen and asked, then over the token before.
    """

    def __init__(self, sizes: OpenVLASizes) -> None:
        super().__init__()
        self.sizes = sizes
        names = ("featurizer", "fused_featurizer")[: len(sizes.vision)]
        self.eyes = [VisionTransformer(one) for one in sizes.vision]
        self.vision_backbone = nn.ModuleDict(dict(zip(names, self.eyes, strict=True)))
        self.projector = Projector(sum(one.width for one in sizes.vision), sizes.projector)
        decoder = Decoder(sizes.language, vocabulary=sizes.vocabulary)
        head = nn.Linear(sizes.language.width, sizes.vocabulary, bias=False)
        nn.init.normal_(head.weight, std=0.02)
        self.language_model = nn.ModuleDict({"model": decoder, "lm_head": head})
        self.speaking = (decoder, head)
        self.layers = self._layers()
        self.told = nn.ModuleList([nn.Identity() for _ in self.layers])

    def forward(
        self,
        pictures: Sequence[Float[Tensor, "row 3 height width"]],
        words: Int[Tensor, "row token"],
        there: Tensor,
    ) -> Float[Tensor, "row action"]:
        """What to do, each number the middle of a bin.

        Args:
            pictures: of each picture encoder.
            words: tokens, the first of them the one that begins a text.
            there: which of the tokens are there, [row, token].
        """
        patches = sum((p.shape[2] // self.sizes.vision[0].patch) ** 2 for p in pictures[:1])
        size = max(1, _AT_ONCE // (patches + words.shape[1]))
        telling = Telling(dict(zip(self.layers, self.told, strict=True)))
        actions = []
        for start in range(0, len(words), size):
            part = slice(start, start + size)
            telling.begin()
            seen = self._image([p[part] for p in pictures], telling)
            actions.append(self._said(seen, words[part], there[part], telling))
        telling.end()
        return torch.cat(actions)

    def structure(self, *, calls: str) -> Structure:
        """Blocks of the picture encoders, the projector, blocks of Llama, the action."""
        infos = [
            LayerInfo(
                name,
                width,
                _VECTOR,
                "mean of its tokens" if name != "action" else "action",
                calls=calls if name.startswith("language") else "only",
            )
            for name, width in self.layers.items()
        ]
        return Structure(tuple(infos), dict(zip(self.layers, self.told, strict=True)))

    def _layers(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for name, one in zip(("vision", "fused"), self.sizes.vision, strict=False):
            found |= {f"{name}.block{i}": one.width for i in range(one.layers - 1)}
        language = self.sizes.language
        found["image"] = language.width
        found |= {f"language.block{i}": language.width for i in range(language.layers)}
        return found | {"language.norm": language.width, "action": self.sizes.actions}

    def _image(self, pictures: Sequence[Tensor], tell: Telling) -> Tensor:
        seen = []
        for name, eye, picture in zip(("vision", "fused"), self.eyes, pictures, strict=False):
            x = picture
            for i, x in enumerate(eye.stages(picture)):
                tell(f"{name}.block{i}", x.mean(1))
            seen.append(x)
        image: Tensor = self.projector(torch.cat(seen, 2))
        tell("image", image.mean(1))
        return image

    def _said(self, image: Tensor, words: Tensor, there: Tensor, tell: Telling) -> Tensor:
        """Tokens one after the other, the likeliest each time, as numbers."""
        decoder, head = self.speaking
        told = decoder.words(words)
        x = torch.cat([told[:, :1], image, told[:, 1:]], 1)
        there = F.pad(there.bool(), (image.shape[1], 0), value=True)
        count = x.shape[1]
        order = torch.arange(count, device=x.device)
        sees = (order[None, :] <= order[:, None]) & there[:, None]
        # What is not there would see nothing, which has no softmax; nobody sees it.
        sees = sees | ~there[:, :, None]
        share = there[..., None] / there.sum(1)[:, None, None]
        places = there.long().cumsum(1) - 1
        kept: list[KeysAndValues | None] = [None] * self.sizes.language.layers
        last = there.sum(1) - 1
        tokens = []
        for _ in range(self.sizes.actions):
            x = self._read(x, places, sees, kept, share, tell)
            logits = head(x.gather(1, last[:, None, None].expand(-1, 1, x.shape[2]))[:, 0])
            token = logits.argmax(-1)
            tokens.append(token)
            places = there.sum(1, keepdim=True)
            there = F.pad(there, (0, 1), value=True)
            x, sees = decoder.words(token)[:, None], there[:, None]
            share, last = x.new_ones(len(x), 1, 1), torch.zeros_like(last)
        action = self._numbers(torch.stack(tokens, 1))
        tell("action", action)
        return action

    def _read(
        self,
        x: Tensor,
        places: Tensor,
        sees: Tensor,
        kept: list[KeysAndValues | None],
        share: Tensor,
        tell: Telling,
    ) -> Tensor:
        decoder, _ = self.speaking
        for i, block in enumerate(decoder.blocks):
            x, kept[i] = block(x, places=places, sees=sees, past=kept[i])
            tell(f"language.block{i}", (x * share).sum(1))
        assert decoder.norm is not None
        x = decoder.norm(x)
        tell("language.norm", (x * share).sum(1))
        return x

    def _numbers(self, tokens: Tensor) -> Tensor:
        """Middles of the bins that tokens stand for, the last word for the first bin."""
        edges = torch.linspace(-1, 1, self.sizes.bins, dtype=torch.float64, device=tokens.device)
        middles = ((edges[:-1] + edges[1:]) / 2).float()
        return middles[(self.sizes.words - tokens - 1).clamp(0, len(middles) - 1)]

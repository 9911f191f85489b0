"""Policies in which an expert, reading a language model, takes noise out of actions.

Black et al., "pi0: A Vision-Language-Action Flow Model for General Robot Control", 2024, and Shukor
et al., "SmolVLA", 2025. Pictures and words go through the language model once; its keys and values
are what the expert attends to in every step of Euler's method from noise to actions.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from mirror_analysis.models.lerobot.decoder import Decoder, DecoderSizes, KeysAndValues
from mirror_analysis.models.lerobot.folder import STATE
from mirror_analysis.models.lerobot.network import VECTOR, Network, generator
from mirror_analysis.models.lerobot.siglip import Siglip, SiglipSizes
from mirror_analysis.models.model import LayerInfo
from mirror_analysis.models.recording.telling import Telling
from mirror_analysis.models.structure.discovery import Structure

TOKENS_OF_WORDS, THERE = "language.tokens", "language.mask"
"""Under which a network is given the instruction: its tokens, and which of them are there."""

_AT_ONCE = 2**14  # tokens that go through the language model at once


@dataclass(frozen=True)
class FlowSizes:
    """How large the parts of a policy are.

    Attributes:
        vision: of the picture encoder.
        merged: patches a side that become one token of the language model.
        biased: whether the map to the language model has a bias.
        language: of the language model.
        vocabulary: its tokens.
        expert: of the expert.
        crossed: of its blocks those that only attend to the language model.
        states: numbers of the state, padded.
        actions: numbers of an action, padded.
    """

    vision: SiglipSizes
    merged: int
    biased: bool
    language: DecoderSizes
    vocabulary: int
    expert: DecoderSizes
    crossed: tuple[int, ...]
    states: int
    actions: int


@dataclass(frozen=True)
class FlowPlan:
    """How actions are made.

    Attributes:
        chunk: actions that are planned.
        executed: of them those that are taken.
        steps: of Euler's method.
        periods: shortest and longest of the waves that tell the time.
        action: numbers of an action that count.
    """

    chunk: int
    executed: int
    steps: int
    periods: tuple[float, float]
    action: int


class Flow(Network):
    """What SmolVLA and pi0 have in common.

    Every layer is the mean of its tokens, padding left out. Many frames go through the network in
    parts, and layers are told of all of them at the end, those of the expert once for each step.

    Args:
        sizes: of its parts.
        plan: how actions are made.
        views: LeRobot's name of each camera -> its name in layers, "" for an only one.
        state: numbers of the state.
        into: in which decoder the state is put.
    """

    def __init__(
        self,
        sizes: FlowSizes,
        plan: FlowPlan,
        *,
        views: Mapping[str, str],
        state: int,
        into: Literal["language", "expert"],
    ) -> None:
        super().__init__()
        self.sizes, self.plan, self.views, self.state = sizes, plan, views, state
        self.executed = plan.executed
        language, expert = sizes.language, sizes.expert
        self.vision = Siglip(sizes.vision)
        merged = sizes.vision.width * sizes.merged**2
        self.projector = nn.Linear(merged, language.width, bias=sizes.biased)
        self.language = Decoder(language, vocabulary=sizes.vocabulary, normed=False)
        crossed = dict.fromkeys(sizes.crossed, language.groups * language.head)
        self.expert = Decoder(expert, crossed=crossed)
        self.state_proj = nn.Linear(
            sizes.states, (language if into == "language" else expert).width
        )
        self.action_in_proj = nn.Linear(sizes.actions, expert.width)
        self.action_time_mlp_in = nn.Linear(2 * expert.width, expert.width)
        self.action_time_mlp_out = nn.Linear(expert.width, expert.width)
        self.action_out_proj = nn.Linear(expert.width, sizes.actions)
        self.layers = dict(self._layers())
        self.told = nn.ModuleList([nn.Identity() for _ in self.layers])

    @abstractmethod
    def prepared(self, pictures: Tensor) -> Tensor:
        """Pictures [row, 3, height, width] from 0 to 1 as the picture encoder takes them."""

    @abstractmethod
    def prefix(
        self, images: Sequence[Tensor], words: Tensor, there: Tensor, state: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens for the language model, which of them are there, and the block of each.

        A token sees the tokens of its own block and of those before.

        Args:
            images: of each camera, [row, token, channel].
            words: embeddings, [row, token, channel].
            there: which words there are.
            state: [row, channel], of whichever decoder it goes in.
        """

    @abstractmethod
    def suffix(self, actions: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens for the expert, actions last, and the block of each [token]."""

    @abstractmethod
    def attends(self, block: int) -> Literal["past", "all"] | None:
        """What the expert does at a block of the language model; None for nothing."""

    def forward(
        self,
        seen: Mapping[str, Tensor],
        past: Int[Tensor, "row history"],
        chance: Tensor | None,
    ) -> Float[Tensor, "row step action"]:
        """A chunk of actions; every row looks at the frame of the same number."""
        assert chance is not None
        tokens = (self.sizes.vision.side // self.sizes.merged) ** 2 * max(len(self.views), 1)
        size = max(1, _AT_ONCE // (tokens + seen[TOKENS_OF_WORDS].shape[1]))
        telling = Telling(dict(zip(self.layers, self.told, strict=True)))
        plans = []
        for start in range(0, len(past), size):
            part = slice(start, start + size)
            telling.begin()
            plans.append(self._run({k: x[part] for k, x in seen.items()}, chance[part], telling))
        telling.end()
        return torch.cat(plans)

    def chance(self, seed: int) -> Tensor:
        """The noise that actions are made of, [step, action]."""
        shape = (self.plan.chunk, self.sizes.actions)
        return torch.randn(shape, generator=generator(seed))

    def structure(self, *, calls: str) -> Structure:
        """Blocks of the picture encoder, the language model and the expert, and actions."""
        repeated = ("expert", "velocity")
        infos = [
            LayerInfo(
                name,
                width,
                VECTOR,
                "mean of its tokens",
                calls=calls if name.startswith(repeated) else "only",
            )
            for name, width in self.layers.items()
        ]
        return Structure(tuple(infos), dict(zip(self.layers, self.told, strict=True)))

    def _layers(self) -> list[tuple[str, int]]:
        sizes, found = self.sizes, []
        for label in self.views.values():
            place = f"vision.{label}" if label else "vision"
            names = [f"block{i}" for i in range(sizes.vision.layers)] + ["norm"]
            found += [(f"{place}.{name}", sizes.vision.width) for name in names]
            found.append((f"image.{label}" if label else "image", sizes.language.width))
        found.append(("state", self.state_proj.out_features))
        found += [
            (f"language.block{i}", sizes.language.width) for i in range(sizes.language.layers)
        ]
        found += [(f"expert.block{i}", sizes.expert.width) for i in range(sizes.expert.layers)]
        found += [("expert.norm", sizes.expert.width), ("velocity", sizes.actions)]
        return [*found, ("action", self.plan.action)]

    def _run(self, seen: Mapping[str, Tensor], noise: Tensor, tell: Telling) -> Tensor:
        images = [self._image(seen[key], label, tell) for key, label in self.views.items()]
        given = seen[STATE] if STATE in seen else noise.new_zeros(len(noise), self.state)
        state = self.state_proj(F.pad(given, (0, self.sizes.states - given.shape[1])))
        tell("state", state)
        words = self.language.words(seen[TOKENS_OF_WORDS])
        words = words * math.sqrt(words.shape[-1])
        x, there, blocks = self.prefix(images, words, seen[THERE].bool(), state)
        kept = self._read(x, there, blocks, tell)
        actions = noise
        for step in range(self.plan.steps):
            time = 1.0 - step / self.plan.steps
            actions = actions - self._velocity(actions, time, state, there, kept, tell) / (
                self.plan.steps
            )
        actions = actions[..., : self.plan.action]
        tell("action", actions.mean(1))
        return actions

    def _image(self, pictures: Tensor, label: str, tell: Telling) -> Tensor:
        place = f"vision.{label}" if label else "vision"
        x = pictures
        for name, x in self.vision.stages(self.prepared(pictures)):
            tell(f"{place}.{name}", x.mean(1))
        side, many = math.isqrt(x.shape[1]), self.sizes.merged
        rows = side // many
        x = x.reshape(len(x), rows, many, rows, many, -1).transpose(2, 3)
        image: Tensor = self.projector(x.reshape(len(x), rows * rows, -1))
        tell(f"image.{label}" if label else "image", image.mean(1))
        return image

    def _read(
        self,
        x: Float[Tensor, "row token channel"],
        there: Bool[Tensor, "row token"],
        blocks: Int[Tensor, " token"],
        tell: Telling,
    ) -> list[KeysAndValues]:
        """Keys and values of every block of the language model."""
        sees = (blocks[None, :] <= blocks[:, None]) & there[:, None]
        # What is not there would see nothing, which has no softmax; nobody sees it.
        sees = sees | ~there[:, :, None]
        places = there.long().cumsum(1) - 1
        share = there[..., None] / there.sum(1)[:, None, None]
        kept = []
        for i, block in enumerate(self.language.blocks):
            x, past = block(x, places=places, sees=sees)
            tell(f"language.block{i}", (x * share).sum(1))
            kept.append(past)
        return kept

    def _velocity(
        self,
        actions: Tensor,
        time: float,
        state: Tensor,
        there: Tensor,
        kept: Sequence[KeysAndValues],
        tell: Telling,
    ) -> Tensor:
        """The direction from actions to noise, [row, step, action]."""
        y = self.action_in_proj(actions)
        now = _waves(time, self.sizes.expert.width, self.plan.periods).to(y)
        y = self.action_time_mlp_in(torch.cat([y, now.expand_as(y)], -1))
        x, blocks = self.suffix(self.action_time_mlp_out(F.silu(y)), state)
        rows, count = x.shape[:2]
        before = there[:, None].expand(rows, count, -1)
        own = (blocks[None, :] <= blocks[:, None]).expand(rows, -1, -1)
        order = torch.arange(count, device=x.device).expand(rows, -1)
        places = there.sum(1, keepdim=True) + order
        done = 0
        for i, past in enumerate(kept):
            what = self.attends(i)
            if what is None:
                continue
            block = self.expert.blocks[done]
            if what == "past":
                x, _ = block(x, places=order, sees=before, past=past)
            else:
                x, _ = block(x, places=places, sees=torch.cat([before, own], 2), past=past)
            tell(f"expert.block{done}", x[:, -self.plan.chunk :].mean(1))
            done += 1
        assert self.expert.norm is not None
        x = self.expert.norm(x)[:, -self.plan.chunk :]
        tell("expert.norm", x.mean(1))
        velocity: Tensor = self.action_out_proj(x)
        tell("velocity", velocity.mean(1))
        return velocity


def _waves(time: float, width: int, periods: tuple[float, float]) -> Tensor:
    """Sines and cosines of a time from 0 to 1, [channel]."""
    share = torch.linspace(0.0, 1.0, width // 2, dtype=torch.float64)
    period = periods[0] * (periods[1] / periods[0]) ** share
    # The time is rounded as where it was a tensor of single precision.
    angle = 2 * math.pi / period * torch.tensor(time, dtype=torch.float32).double()
    return torch.cat([angle.sin(), angle.cos()])

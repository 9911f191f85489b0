"""Behaviour cloning by diffusion: the noise in noisy actions is predicted from the features."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mirror_analysis.alignment.joint.objectives.cloning import (
    ACTIONS,
    CloningHead,
    Target,
    mean_where,
)
from mirror_analysis.alignment.joint.objectives.drawing import drawn
from mirror_analysis.alignment.joint.objectives.objective import Objective, Shown
from mirror_analysis.episodes.episode import Episodes
from mirror_analysis.errors import DefinitionError

_OFFSET = 0.008  # of the cosine schedule (Nichol and Dhariwal, 2021, section 3.2)
_LARGEST = 0.999  # beta, so that the last step can be undone
_CODE = 32  # numbers that say how much noise there is


@final
@dataclass(frozen=True, kw_only=True)
class Diffusion(Objective):
    """Squared error of predicted noise (Ho et al., 2020, eq. 14), conditioned on the layer.

    Noisy actions are sqrt(kept_t) a + sqrt(1 - kept_t) noise at a step t drawn uniformly, a in
    units of the actions' standard deviation, kept_t by the cosine schedule.

    Attributes:
        target: which actions.
        steps: of the schedule.
        width: of the denoiser's hidden layers.
        depth: number of its hidden layers.

    Raises:
        DefinitionError: if a number is below 1.

    Example:
        >>> Diffusion(target=Target(horizon=8), steps=50)
    """

    target: Target = ACTIONS
    steps: int = 100
    width: int = 256
    depth: int = 3

    def __post_init__(self) -> None:
        if min(self.steps, self.width, self.depth) < 1:
            raise DefinitionError(
                f"diffusion of {self.steps} steps, width {self.width} and depth {self.depth};"
                " needed 1 or more of each"
            )

    def head(self, width: int, episodes: Episodes, *, seed: int) -> DiffusionHead:
        """A small denoiser."""
        return DiffusionHead(self, width, episodes, seed)


def cosine_kept(steps: int) -> Float[Tensor, " step"]:
    """Share of the signal's variance that is left after each step, falling from nearly 1.

    f(t) / f(0) with f(t) = cos^2((t / steps + 0.008) / 1.008 * pi / 2) (Nichol and Dhariwal, 2021,
    eq. 17), where no step takes more than .999 of what there was.
    """
    at = (torch.arange(steps + 1, dtype=torch.float64) / steps + _OFFSET) / (1 + _OFFSET)
    share = torch.cos(at * math.pi / 2) ** 2
    beta = (1 - share[1:] / share[:-1]).clamp(max=_LARGEST)
    return torch.cumprod(1 - beta, dim=0).float()


@final
class Denoiser(nn.Module):
    """Noisy actions, how noisy they are, and features, to the noise in them.

    Args:
        actions: numbers that are denoised together.
        features: numbers they are conditioned on.
        width: of the hidden layers.
        depth: number of hidden layers.
    """

    def __init__(self, actions: int, features: int, *, width: int, depth: int) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.LayerNorm(features), nn.Linear(features, width))
        self.actions = nn.Linear(actions, width)
        self.amount = nn.Linear(_CODE, width)
        self.hidden = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.SiLU())
            for _ in range(depth)
        )
        self.noise = nn.Linear(width, actions)

    def forward(
        self,
        noisy: Float[Tensor, "*batch action"],
        time: Float[Tensor, "*batch"],
        features: Float[Tensor, "*batch feature"],
    ) -> Float[Tensor, "*batch action"]:
        """The noise; time is the share of the steps, in [0, 1]."""
        rate = torch.exp(torch.linspace(0.0, math.log(1000.0), _CODE // 2, device=noisy.device))
        angle = time[..., None] * rate
        code = torch.cat([angle.sin(), angle.cos()], dim=-1)
        x = self.features(features) + self.actions(noisy) + self.amount(code)
        for layer in self.hidden:
            x = x + layer(x)
        found: Tensor = self.noise(x)
        return found


@final
class DiffusionHead(CloningHead):
    """See `Diffusion`."""

    kept: Tensor

    def __init__(self, given: Diffusion, width: int, episodes: Episodes, seed: int) -> None:
        super().__init__(given.target, episodes)
        self.given = given
        numbers = given.target.horizon * self.scale.width
        self.denoiser = drawn(
            lambda: Denoiser(numbers, width, width=given.width, depth=given.depth), seed
        )
        self.register_buffer("kept", cosine_kept(given.steps))

    def forward(self, shown: Shown, generator: torch.Generator) -> Float[Tensor, ""]:
        """Mean squared error of the noise over the actions that count."""
        target, there = self.targets(shown)
        time = torch.randint(self.given.steps, target.shape[:2], generator=generator)
        noise = torch.randn(target.shape, generator=generator).to(shown.device)
        time = time.to(shown.device)
        noisy = self.noisy(target, time, noise)
        predicted = self.predicted(noisy, time, shown.moments())
        return mean_where((predicted.float() - noise).square(), there)

    def noisy(
        self,
        actions: Float[Tensor, "*batch step action"],
        time: Int[Tensor, "*batch"],
        noise: Float[Tensor, "*batch step action"],
    ) -> Float[Tensor, "*batch step action"]:
        """Actions, in the unit that is learned, with the noise of a step of the schedule."""
        kept = self.kept[time][..., None, None]
        return kept.sqrt() * actions + (1 - kept).sqrt() * noise

    def predicted(
        self,
        noisy: Float[Tensor, "*batch step action"],
        time: Int[Tensor, "*batch"],
        features: Float[Tensor, "*batch feature"],
    ) -> Float[Tensor, "*batch step action"]:
        """The noise in noisy actions, as the denoiser sees it."""
        share = time.float() / self.given.steps
        found: Tensor = self.denoiser(noisy.flatten(-2), share, features)
        return found.reshape(noisy.shape)

    def act(
        self, features: Float[Tensor, "*batch feature"], generator: torch.Generator
    ) -> Float[Tensor, "*batch step action"]:
        """Actions drawn step by step from noise (Ho et al., 2020, algorithm 2).

        They are cut to the range of the actions that were trained on.
        """
        shape = (*features.shape[:-1], self.target.horizon, self.scale.width)
        device = features.device
        low, high = self.scale(self.scale.low), self.scale(self.scale.high)
        x = torch.randn(shape, generator=generator).to(device)
        for step in reversed(range(self.given.steps)):
            time = torch.full(shape[:-2], step, device=device)
            kept = self.kept[step]
            before = self.kept[step - 1] if step else torch.ones_like(kept)
            alpha = kept / before
            noise = self.predicted(x, time, features)
            clean = (x - (1 - kept).sqrt() * noise) / kept.sqrt()
            clean = torch.minimum(torch.maximum(clean, low), high)
            mean = before.sqrt() * (1 - alpha) / (1 - kept) * clean
            mean = mean + alpha.sqrt() * (1 - before) / (1 - kept) * x
            spread = ((1 - before) / (1 - kept) * (1 - alpha)).sqrt()
            fresh = torch.randn(shape, generator=generator).to(device) if step else x
            x = mean + spread * fresh if step else mean
        return self.scale.inverse(x)

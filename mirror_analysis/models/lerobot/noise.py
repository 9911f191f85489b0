"""How noise is taken out of a sample step by step: DDPM and DDIM.

Ho et al., "Denoising Diffusion Probabilistic Models", 2020, and Song et al., "Denoising Diffusion
Implicit Models", 2021, with the time steps and rounding of the schedulers of diffusers, which
LeRobot's policies are trained and run with.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, final

import torch
from torch import Tensor

Kind = Literal["DDPM", "DDIM"]
Betas = Literal["linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid"]
Predicted = Literal["epsilon", "sample"]


@final
@dataclass(frozen=True)
class Schedule:
    """The amounts of noise, and a step from more to less of it.

    Attributes:
        kind: DDPM adds new noise at every step, DDIM none.
        trained: steps the network was trained with.
        steps: steps that are taken, evenly spaced.
        betas: how the variance of the noise grows.
        beta_start: its first value, for all but squaredcos_cap_v2.
        beta_end: its last.
        predicted: what the network gives: the noise, or the sample without noise.
        clip: bound of the sample without noise; None for none.
    """

    kind: Kind
    trained: int
    steps: int
    betas: Betas
    beta_start: float
    beta_end: float
    predicted: Predicted
    clip: float | None

    @cached_property
    def times(self) -> list[int]:
        """The time steps, from most noise to none."""
        ratio = self.trained // self.steps
        return [i * ratio for i in range(self.steps)][::-1]

    @cached_property
    def kept(self) -> Tensor:
        """[time] share of the signal's variance that is left, the product of 1 - beta."""
        return torch.cumprod(1.0 - _betas(self), dim=0)

    @property
    def draws(self) -> int:
        """Samples of noise that one run takes, the one it begins with among them."""
        return self.steps if self.kind == "DDPM" else 1

    def step(self, output: Tensor, sample: Tensor, time: int, noise: Tensor | None) -> Tensor:
        """A sample with less noise.

        Args:
            output: what the network gave.
            sample: what it was given.
            time: the time step it was given.
            noise: new noise, for DDPM; unused at time 0.
        """
        before = time - self.trained // self.steps
        kept = self.kept[time]
        kept_before = self.kept[before] if before >= 0 else torch.tensor(1.0)
        left, left_before = 1 - kept, 1 - kept_before
        clean = output
        if self.predicted == "epsilon":
            clean = (sample - left**0.5 * output) / kept**0.5
        if self.clip is not None:
            clean = clean.clamp(-self.clip, self.clip)
        if self.kind == "DDIM":
            if self.predicted == "epsilon":
                found = output
            else:
                found = (sample - kept**0.5 * output) / left**0.5
            return kept_before**0.5 * clean + left_before**0.5 * found
        alpha = kept / kept_before
        mean = (kept_before**0.5 * (1 - alpha)) / left * clean
        mean = mean + alpha**0.5 * left_before / left * sample
        if time == 0 or noise is None:
            return mean
        variance = (left_before / left * (1 - alpha)).clamp(min=1e-20)
        return mean + variance**0.5 * noise


def _betas(how: Schedule) -> Tensor:
    if how.betas == "squaredcos_cap_v2":
        at = [_cosine(i / how.trained) for i in range(how.trained + 1)]
        pairs = zip(at[1:], at[:-1], strict=True)
        return torch.tensor([min(1 - after / before, 0.999) for after, before in pairs])
    if how.betas == "sigmoid":
        at_ = torch.linspace(-6, 6, how.trained).sigmoid()
        return at_ * (how.beta_end - how.beta_start) + how.beta_start
    if how.betas == "scaled_linear":
        return torch.linspace(how.beta_start**0.5, how.beta_end**0.5, how.trained) ** 2
    return torch.linspace(how.beta_start, how.beta_end, how.trained)


def _cosine(share: float) -> float:
    return math.cos((share + 0.008) / 1.008 * math.pi / 2) ** 2

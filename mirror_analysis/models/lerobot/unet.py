"""The U-Net over time that Diffusion Policy takes noise out of action sequences with.

Chi et al., "Diffusion Policy: Visuomotor Policy Learning via Action Diffusion", 2023; conditioned
by FiLM (Perez et al., 2018).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mirror_analysis.models.model import LayerInfo

_AXES = "episode*time channel token"


@final
class TimeWaves(nn.Module):
    """Sines and cosines of the denoising step."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, time: Int[Tensor, " row"]) -> Float[Tensor, "row channel"]:
        """Half of the channels are sines, half cosines, from fast to slow."""
        half = self.width // 2
        rates = torch.arange(half, device=time.device) * -(math.log(10000) / (half - 1))
        angles = time[:, None] * rates.exp()
        return torch.cat([angles.sin(), angles.cos()], dim=-1)


@final
class Convolved(nn.Module):
    """A convolution over time, group norm and Mish."""

    def __init__(self, inner: int, outer: int, *, kernel: int, groups: int) -> None:
        super().__init__()
        convolution = nn.Conv1d(inner, outer, kernel, padding=kernel // 2)
        self.block = nn.Sequential(convolution, nn.GroupNorm(groups, outer), nn.Mish())

    def forward(self, x: Tensor) -> Tensor:
        """[row, channel, time]."""
        found: Tensor = self.block(x)
        return found


@final
class Conditioned(nn.Module):
    """A residual block whose channels are shifted, and scaled, by a condition."""

    def __init__(
        self, inner: int, outer: int, *, condition: int, kernel: int, groups: int, scaled: bool
    ) -> None:
        super().__init__()
        self.conv1 = Convolved(inner, outer, kernel=kernel, groups=groups)
        self.cond_encoder = nn.Sequential(
            nn.Mish(), nn.Linear(condition, 2 * outer if scaled else outer)
        )
        self.conv2 = Convolved(outer, outer, kernel=kernel, groups=groups)
        self.residual_conv = nn.Conv1d(inner, outer, 1) if inner != outer else nn.Identity()
        self.scaled, self.width = scaled, outer

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """[row, channel, time] and [row, condition]."""
        y = self.conv1(x)
        change = self.cond_encoder(condition)[..., None]
        if self.scaled:
            scale, shift = change.chunk(2, dim=1)
            y = scale * y + shift
        else:
            y = y + change
        found: Tensor = self.conv2(y) + self.residual_conv(x)
        return found


@final
class UNet(nn.Module):
    """From a noisy action sequence to the noise in it.

    Args:
        actions: numbers in an action.
        condition: numbers in what was seen.
        widths: channels at each resolution, from fine to coarse.
        kernel: size of the convolutions over time.
        groups: of the group norms.
        waves: numbers in the encoding of the denoising step.
        scaled: whether the condition also scales.
    """

    def __init__(
        self,
        actions: int,
        *,
        condition: int,
        widths: Sequence[int],
        kernel: int,
        groups: int,
        waves: int,
        scaled: bool,
    ) -> None:
        super().__init__()

        def block(inner: int, outer: int) -> Conditioned:
            return Conditioned(
                inner,
                outer,
                condition=waves + condition,
                kernel=kernel,
                groups=groups,
                scaled=scaled,
            )

        self.diffusion_step_encoder = nn.Sequential(
            TimeWaves(waves), nn.Linear(waves, waves * 4), nn.Mish(), nn.Linear(waves * 4, waves)
        )
        pairs = list(zip([actions, *widths], widths, strict=False))
        self.down_modules, self.up_modules = nn.ModuleList(), nn.ModuleList()
        for inner, outer in pairs:
            last = len(self.down_modules) == len(pairs) - 1
            smaller = nn.Identity() if last else nn.Conv1d(outer, outer, 3, 2, 1)
            self.down_modules.append(
                nn.ModuleList([block(inner, outer), block(outer, outer), smaller])
            )
        self.mid_modules = nn.ModuleList([block(widths[-1], widths[-1]) for _ in range(2)])
        for outer, inner in pairs[:0:-1]:
            larger = nn.ConvTranspose1d(outer, outer, 4, 2, 1)
            self.up_modules.append(
                nn.ModuleList([block(2 * inner, outer), block(outer, outer), larger])
            )
        self.final_conv = nn.Sequential(
            Convolved(widths[0], widths[0], kernel=kernel, groups=8),
            nn.Conv1d(widths[0], actions, 1),
        )

    def forward(
        self,
        x: Float[Tensor, "row step action"],
        time: Int[Tensor, " row"],
        condition: Float[Tensor, "row condition"],
    ) -> Float[Tensor, "row step action"]:
        """What the network was trained to predict: the noise, or the sequence without it."""
        condition = torch.cat([self.diffusion_step_encoder(time), condition], dim=-1)
        x, skipped = x.transpose(1, 2), []
        for level in self.down_modules.children():
            first, second, smaller = level.children()
            x = second(first(x, condition), condition)
            skipped.append(x)
            x = smaller(x)
        for middle in self.mid_modules:
            x = middle(x, condition)
        for level in self.up_modules.children():
            first, second, larger = level.children()
            x = torch.cat([x, skipped.pop()], dim=1)
            x = larger(second(first(x, condition), condition))
        return self.final_conv(x).transpose(1, 2)

    def layers(self, calls: str) -> Iterator[tuple[LayerInfo, nn.Module]]:
        """Its blocks, a token for each time step of the sequence, and what it predicts."""
        for part in ("down", "mid", "up"):
            for i, group in enumerate(self.get_submodule(f"{part}_modules").children()):
                blocks = [group] if part == "mid" else list(group.children())[:2]
                for j, block in enumerate(blocks):
                    name = f"unet.{part}{i}" + ("" if part == "mid" else f".block{j}")
                    width = int(block.width)  # type: ignore[arg-type]
                    yield LayerInfo(name, width, _AXES, "block of the U-Net", calls), block
        width = int(self.final_conv[1].out_channels)  # type: ignore[arg-type]
        yield LayerInfo("unet.output", width, _AXES, "predicted noise", calls), self.final_conv

"""The networks of the reference pair, small enough to train on a laptop.

Both see 64 x 64 pictures through a trunk of the same shape (not the same weights). Weights are
float32 and under 2 MB each.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

PICTURE = 64  # pixels a side
TRUNK = {"conv1": 16, "conv2": 32, "conv3": 64, "conv4": 64}  # layer -> channels
_WIDTH = 128


def _trunk() -> nn.ModuleDict:
    """Four strided convolutions, 64 -> 4 pixels a side."""
    layers, before = {}, 3
    for name, channels in TRUNK.items():
        kernel = 5 if name == "conv1" else 3
        convolution = nn.Conv2d(before, channels, kernel, stride=2, padding=kernel // 2)
        layers[name] = nn.Sequential(convolution, nn.ReLU())
        before = channels
    return nn.ModuleDict(layers)


def _flatten() -> nn.Sequential:
    side = PICTURE // 2 ** len(TRUNK)
    return nn.Sequential(nn.Flatten(), nn.Linear(TRUNK["conv4"] * side * side, _WIDTH), nn.ReLU())


def normalise(
    frames: Shaped[Tensor, "*batch height width 3"],
) -> Float[Tensor, "*batch 3 height width"]:
    """Grey levels 0 to 255 as the networks want them: channels first, about zero mean."""
    return frames.movedim(-1, -3).float().div(255.0).sub(0.45).div(0.25)


def time_code(time: Float[Tensor, "batch frame"]) -> Float[Tensor, "batch frame code"]:
    """Sines and cosines of the share of the episode that has passed, in [0, 1]."""
    half = _WIDTH // 2
    rate = torch.exp(torch.arange(half, device=time.device) * (-math.log(1000.0) / half))
    angle = time[..., None] * rate * 100.0
    return torch.cat([angle.sin(), angle.cos()], dim=-1)


class ObservationNetwork(nn.Module):
    """Watches an episode and says which instruction it carries out.

    Frame by frame trunk, one transformer layer over the frames, mean, one hidden layer.
    """

    def __init__(self, instructions: int) -> None:
        super().__init__()
        self.trunk = _trunk()
        self.frame = _flatten()
        self.temporal = nn.TransformerEncoderLayer(
            _WIDTH, 4, 2 * _WIDTH, dropout=0.1, batch_first=True, norm_first=True
        )
        self.penultimate = nn.Sequential(nn.LayerNorm(_WIDTH), nn.Linear(_WIDTH, _WIDTH), nn.ReLU())
        self.instruction = nn.Linear(_WIDTH, instructions)

    def forward(
        self,
        frames: Float[Tensor, "batch frame 3 height width"],
        time: Float[Tensor, "batch frame"],
    ) -> Float[Tensor, "batch instruction"]:
        """Logits of the instruction, from normalised frames and their time in [0, 1]."""
        return self.instruction(self.embed(frames, time))

    def embed(
        self,
        frames: Float[Tensor, "batch frame 3 height width"],
        time: Float[Tensor, "batch frame"],
    ) -> Float[Tensor, "batch 128"]:
        """The layer `penultimate`: the whole episode as one vector."""
        h = frames.flatten(0, 1)
        for block in self.trunk.values():
            h = block(h)
        h = self.frame(h).unflatten(0, frames.shape[:2])
        h = self.temporal(h + time_code(time))
        return self.penultimate(h.mean(dim=1))


class ExecutionNetwork(nn.Module):
    """Sees one picture and feels its hand, and gives the next action.

    The proprioception joins after the visual trunk, so that layers up to `vision` know only
    pixels.
    """

    proprioception_mean: Tensor
    proprioception_scale: Tensor

    def __init__(self, actions: int = 4, proprioception: int = 8) -> None:
        super().__init__()
        self.trunk = _trunk()
        self.vision = _flatten()
        hidden = 256
        self.hidden1 = nn.Sequential(nn.Linear(_WIDTH + proprioception, hidden), nn.ReLU())
        self.hidden2 = nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU())
        self.hidden3 = nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU())
        self.action = nn.Linear(hidden, actions)
        self.register_buffer("proprioception_mean", torch.zeros(proprioception))
        self.register_buffer("proprioception_scale", torch.ones(proprioception))

    def forward(
        self,
        frames: Float[Tensor, "batch 3 height width"],
        proprioception: Float[Tensor, "batch 8"],
    ) -> Float[Tensor, "batch action"]:
        """The next action, from one normalised frame and the raw proprioception (metres)."""
        return self.decide(self.see(frames), proprioception)

    def see(self, frames: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch 128"]:
        """The layer `vision`: what the picture says, before anything is felt."""
        h = frames
        for block in self.trunk.values():
            h = block(h)
        return self.vision(h)

    def decide(
        self, seen: Float[Tensor, "batch 128"], proprioception: Float[Tensor, "batch 8"]
    ) -> Float[Tensor, "batch action"]:
        """The next action, from what `see` gives and the raw proprioception (metres)."""
        felt = (proprioception - self.proprioception_mean) / self.proprioception_scale
        h = torch.cat([seen, felt.clamp(-5.0, 5.0)], dim=-1)
        return self.action(self.hidden3(self.hidden2(self.hidden1(h))))

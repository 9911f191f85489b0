"""Small networks of one architecture, trained from several seeds on handwritten digits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

_TRAINED = 1200  # pictures the networks see; the other 597 are for measuring
_LAYERS, _HALVED = (32, 32, 64, 64, 64, 64), (1, 3)  # channels; layers that halve height and width


@dataclass(frozen=True, eq=False)
class Network:
    """What a trained network makes of the digits.

    Attributes:
        layers: of each layer its float32 [picture, feature], in forward order.
        pooled: the same averaged over space, [picture, channel].
        accuracy: share of the unseen pictures that it names right.
    """

    layers: tuple[NDArray[np.float32], ...]
    pooled: tuple[NDArray[np.float32], ...]
    accuracy: float


def digits() -> tuple[NDArray[np.float32], NDArray[np.int64], int]:
    """Pictures [picture, 8, 8] of mean 0 and spread 1, their digits, and how many are to learn."""
    from sklearn.datasets import load_digits

    data = load_digits()
    pictures = np.asarray(data.images, dtype=np.float32)
    return (pictures - pictures.mean()) / pictures.std(), data.target.astype(np.int64), _TRAINED


def train(seed: int, *, epochs: int) -> Network:
    """A convolutional network of six layers, batch-normalised, with two poolings.

    Args:
        seed: of weights and order.
        epochs: passes over the pictures.
    """
    import torch
    from torch import nn

    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(seed)
    pictures, labels, learnt = digits()
    x, y = torch.from_numpy(pictures)[:, None], torch.from_numpy(labels)
    blocks, last = [], 1
    for number, channels in enumerate(_LAYERS):
        block = [
            nn.Conv2d(last, channels, 3, padding=1),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.AvgPool2d(2) if number in _HALVED else nn.Identity(),
        ]
        blocks.append(nn.Sequential(*block))
        last = channels
    head = nn.Linear(last, 10)
    _initialise([*blocks, head], generator)
    parameters = [p for part in (*blocks, head) for p in part.parameters()]
    optimiser = torch.optim.Adam(parameters, 1e-3)
    for _ in range(epochs):
        for batch in torch.split(torch.randperm(learnt, generator=generator), 64):
            optimiser.zero_grad()
            scores = head(_forward(blocks, x[batch])[-1].mean(dim=(2, 3)))
            torch.autograd.backward(nn.functional.cross_entropy(scores, y[batch]))
            optimiser.step()
    for part in blocks:
        part.eval()
    with torch.no_grad():
        seen = _forward(blocks, x)
        right = head(seen[-1].mean(dim=(2, 3))).argmax(dim=1) == y
    return Network(
        layers=tuple(h.flatten(1).numpy() for h in seen),
        pooled=tuple(h.mean(dim=(2, 3)).numpy() for h in seen),
        accuracy=float(right[learnt:].double().mean()),
    )


def _forward(blocks: list[torch.nn.Sequential], x: torch.Tensor) -> list[torch.Tensor]:
    out = []
    for block in blocks:
        x = block(x)
        out.append(x)
    return out


def _initialise(parts: list[torch.nn.Module], generator: torch.Generator) -> None:
    """The usual uniform weights, but from a generator of our own: no global seed is touched."""
    import torch

    for part in parts:
        for weights in part.parameters():
            if weights.ndim > 1:
                bound = weights[0].numel() ** -0.5
                torch.nn.init.uniform_(weights, -bound, bound, generator=generator)

"""New weights for a network whose files do not say how it was initialised."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def redrawn(tensors: Mapping[str, Tensor], seed: int) -> dict[str, Tensor]:
    """Weights as before training, as well as can be told from the trained ones.

    Every floating-point tensor of two or more axes is drawn anew from a normal distribution with
    its own mean and variance, so that no direction that was learned is left but the scale of every
    layer is; tensors of one axis (biases, norms, running statistics) and of other types stay.

    Args:
        tensors: name -> trained tensor.
        seed: of the draw; every tensor has a stream of its own, by its place in name order.

    Returns:
        Name -> tensor of the same shape, type and device.
    """
    found = {}
    for i, (name, tensor) in enumerate(sorted(tensors.items())):
        if not tensor.is_floating_point() or tensor.ndim < 2 or tensor.numel() < 2:
            found[name] = tensor.clone()
            continue
        g = torch.Generator().manual_seed(1_000_003 * seed + i)
        values = torch.randn(tensor.shape, generator=g, dtype=torch.float32)
        wide = tensor.detach().to("cpu", torch.float32)
        drawn = wide.mean() + wide.std() * values
        found[name] = drawn.to(tensor.device, tensor.dtype)
    return found

"""New weights for stored graphs, of which nobody says what the weights are."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from mirror_analysis.models.weights.redrawing import redrawn


def is_weight(shape: Sequence[int], takers: Collection[str], *, weighted: Collection[str],
              scaling: Collection[str]) -> bool:  # fmt: skip
    """Whether a constant of a graph is a weight, and no normalisation of an input.

    Args:
        shape: of the constant.
        takers: names of the operations it reaches.
        weighted: of them, those that multiply by weights.
        scaling: of them, those that only shift and scale.

    Returns:
        True for constants of two or more axes that a weighted operation takes, or that have two
        axes longer than 1 and no scaling operation takes.
    """
    if len(shape) < 2:
        return False
    if any(taker in weighted for taker in takers):
        return True
    return sum(size > 1 for size in shape) >= 2 and not any(taker in scaling for taker in takers)


def redrawn_arrays(arrays: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """New values for weights, as `redrawing.redrawn` draws them, bytes rounded and clipped.

    Args:
        arrays: name -> numpy array of two or more axes, floating-point or int8 or uint8.
        seed: of the draw.
    """
    wide = {name: torch.from_numpy(values.astype(np.float32)) for name, values in arrays.items()}
    found = {}
    for name, tensor in redrawn(wide, seed).items():
        values, dtype = tensor.numpy(), arrays[name].dtype
        if dtype.kind in "iu":
            bounds = np.iinfo(dtype)
            values = np.clip(np.round(values), bounds.min, bounds.max)
        found[name] = values.astype(dtype)
    return found

"""The data of every row, from seeds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Array = NDArray[Any]


def pair(n: int, d: int = 768, e: int = 512, *, latent: int = 64, seed: int = 0) -> list[Floats]:
    """Two representations [sample, feature] that share a latent of 64 dimensions."""
    g = np.random.default_rng(seed)
    z = g.standard_normal((n, latent))
    a = g.standard_normal((latent, d)) / latent**0.5
    b = g.standard_normal((latent, e)) / latent**0.5
    x, y = z @ a + g.standard_normal((n, d)), z @ b + g.standard_normal((n, e))
    return [x.astype(np.float32), y.astype(np.float32)]


def stacks(
    n: int, layers: int = 12, d: int = 768, e: int = 512, *, latent: int = 64, seed: int = 1
) -> list[Floats]:
    """Two networks' layers [layer, sample, feature]: mixed anew at each layer, noise added."""
    g = np.random.default_rng(seed)
    z = g.standard_normal((n, latent))

    def stack(width: int) -> Floats:
        h = z @ (g.standard_normal((latent, width)) / latent**0.5) + g.standard_normal((n, width))
        out = np.empty((layers, n, width), np.float32)
        for layer in range(layers):
            mixing = g.standard_normal((width, width)) / width**0.5
            h = 0.7 * h + 0.5 * (h @ mixing) + 0.3 * g.standard_normal((n, width))
            out[layer] = h
        return out

    return [stack(d), stack(e)]


def trajectories(count: int, steps: int = 100, size: int = 7, *, seed: int = 0) -> Array:
    """Smooth random walks, float64 [trajectory, step, coordinate]."""
    g = np.random.default_rng(seed)
    return g.standard_normal((count, steps, size)).cumsum(axis=1) / steps**0.5


def written(folder: Path, arrays: dict[str, Array]) -> dict[str, Path]:
    """Each array as a .npy file of its name in `folder`."""
    paths = {}
    for name, array in arrays.items():
        paths[name] = folder / f"{name}.npy"
        np.save(paths[name], array)
    return paths

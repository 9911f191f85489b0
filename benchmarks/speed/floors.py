"""The matrix products that nobody can do without, in float32 and nothing else."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

_BLOCK = 1024


def grams(*, x_layers: np.ndarray, y_layers: np.ndarray) -> Callable[[], list[list[float]]]:
    """One Gram matrix a layer, and the product of all Grams of x with all of y."""
    sides = [torch.from_numpy(s) for s in (x_layers, y_layers)]

    def work() -> list[list[float]]:
        made = []
        for side in sides:
            out = torch.empty(len(side), side.shape[1], side.shape[1])
            for layer, gram in zip(side, out, strict=True):
                torch.matmul(layer, layer.T, out=gram)
            made.append(out.reshape(len(side), -1))
        return (made[0] @ made[1].T).tolist()

    return work


def cosines(*, x: np.ndarray, y: np.ndarray) -> Callable[[], float]:
    """Every sample with every sample of its side, in blocks of rows that are not kept."""
    sides = [torch.from_numpy(s) for s in (x, y)]

    def work() -> float:
        n = len(sides[0])
        out = torch.empty(_BLOCK, n)
        for side in sides:
            for start in range(0, n, _BLOCK):
                rows = side[start : start + _BLOCK]
                torch.matmul(rows, side.T, out=out[: len(rows)])
        return float(out[0, 0])

    return work


def moments(*, x: np.ndarray, y: np.ndarray, rows: int, chunk: int) -> Callable[[], float]:
    """X'X, Y'Y and X'Y added up over the chunks of one pass, `rows` rows in all."""
    a, b = torch.from_numpy(x), torch.from_numpy(y)

    def work() -> float:
        own_x = torch.zeros(a.shape[1], a.shape[1])
        own_y = torch.zeros(b.shape[1], b.shape[1])
        cross = torch.zeros(a.shape[1], b.shape[1])
        for part in chunks(len(a), rows, chunk):
            own_x.addmm_(a[part].T, a[part])
            own_y.addmm_(b[part].T, b[part])
            cross.addmm_(a[part].T, b[part])
        return float(cross[0, 0] + own_x[0, 0] + own_y[0, 0])

    return work


def chunks(held: int, rows: int, chunk: int) -> list[slice]:
    """Slices of an array of `held` rows, gone through again and again until `rows` are read."""
    held -= held % min(chunk, held)
    size = min(chunk, held)
    starts = [start % held for start in range(0, rows, size)]
    sizes = [min(size, rows - k * size) for k in range(len(starts))]
    return [slice(s, s + n) for s, n in zip(starts, sizes, strict=True)]

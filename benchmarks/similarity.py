"""Time of the layer grid, as a ratio to what its matrix products alone take, and in seconds.

Run with `python benchmarks/similarity.py`. Ratios compare two timings of the same run, so they
hold on a busy machine; the best of three is taken on both sides.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable

import numpy as np
import torch

from mirror_analysis.similarity import DEFAULT
from mirror_analysis.similarity.grid import grid


def layers(n: int, widths: list[int], seed: int, shared: int = 64) -> dict[str, np.ndarray]:
    z = np.random.default_rng(0).standard_normal((n, shared))
    g = np.random.default_rng(seed)
    return {
        f"layer{i}": (
            z @ g.standard_normal((shared, width)) / shared**0.5 + g.standard_normal((n, width))
        ).astype(np.float32)
        for i, width in enumerate(widths)
    }


def best_of(repeats: int, work: Callable[[], object]) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def floor_of_products(x: dict[str, np.ndarray], y: dict[str, np.ndarray]) -> None:
    """The products a grid of CKA cannot do without: one Gram per layer, one of all Grams."""
    grams = []
    for side in (x, y):
        rows = [torch.from_numpy(v).double() for v in side.values()]
        grams.append(torch.stack([r @ r.T for r in rows]).reshape(len(rows), -1))
    grams[0] @ grams[1].T


def cka_grid(repeats: int) -> dict[str, float]:
    x, y = layers(2000, [768] * 12, 1), layers(2000, [512] * 12, 2)
    floor = best_of(repeats, lambda: floor_of_products(x, y))
    ours = best_of(repeats, lambda: grid(x, y, measures=["linear_cka"], draws=0, folds=0))
    return {"floor_s": floor, "grid_s": ours, "ratio": ours / floor}


def default_grid(repeats: int) -> dict[str, float]:
    widths = [16, 32, 64, 64, 128, 128, 256]
    x, y = layers(288, widths, 1, 24), layers(288, widths, 2, 24)
    out = {}
    for name in DEFAULT:
        for part, settings in {
            "values": {"draws": 0, "folds": 0},
            "null": {"folds": 0},
            "folds": {"draws": 0},
        }.items():
            out[f"{name}_{part}_s"] = best_of(
                repeats,
                lambda name=name, settings=settings: grid(x, y, measures=[name], **settings),
            )
    out["all_s"] = best_of(repeats, lambda: grid(x, y))
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats
    found = {
        "threads": torch.get_num_threads(),
        "cka_12x12_n2000_768x512": cka_grid(repeats),
        "default_7x7_n288_999_draws_32_folds": default_grid(repeats),
    }
    sys.stdout.write(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()

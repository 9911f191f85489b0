"""Time and memory of neighbour measures, beside the matrix products they cannot do without.

Run with `python benchmarks/neighbors.py`. The floor is both N x N products in float32, by blocks,
in the same run; the peer is the published algorithm (masks of all pairs). Memory is what the peak
resident size of a fresh process rises by while the measure runs, its input and imports before.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from mirror_analysis.similarity.measures import Layer, Measure
from mirror_analysis.similarity.neighbors.aligned import CKNNA, cknna
from mirror_analysis.similarity.neighbors.sets import MutualKNN, mutual_knn

K = 10
FUNCTIONS = {"mutual_knn": mutual_knn, "cknna": cknna}


def pair(n: int, d: int = 768, e: int = 512, shared: int = 64) -> tuple[Tensor, Tensor]:
    g = np.random.default_rng(0)
    z = g.standard_normal((n, shared))
    a = g.standard_normal((shared, d)) / shared**0.5
    b = g.standard_normal((shared, e)) / shared**0.5
    x = (z @ a + g.standard_normal((n, d))).astype(np.float32)
    y = (z @ b + g.standard_normal((n, e))).astype(np.float32)
    return torch.from_numpy(x), torch.from_numpy(y)


def best_of(repeats: int, work: Callable[[], object]) -> dict[str, float]:
    """Least wall and processor seconds."""
    wall, processor = [], []
    for _ in range(repeats):
        start = time.perf_counter(), time.process_time()
        work()
        wall.append(time.perf_counter() - start[0])
        processor.append(time.process_time() - start[1])
    return {"wall_s": min(wall), "cpu_s": min(processor)}


def products(x: Tensor, y: Tensor, block: int = 1024) -> None:
    for z in (x, y):
        for start in range(0, len(z), block):
            torch.matmul(z[start : start + block], z.T)


def published_mutual_knn(x: Tensor, y: Tensor) -> float:
    """Masks of all pairs, sorted rows, as published."""
    masks = []
    for z in (x, y):
        unit = z / z.norm(dim=1, keepdim=True)
        near = (unit @ unit.T).fill_diagonal_(-1e8).argsort(dim=1, descending=True)[:, :K]
        masks.append(torch.zeros(len(z), len(z)).scatter_(1, near, 1.0))
    return float((masks[0] * masks[1]).sum(dim=1).div(K).mean())


def published_cknna(x: Tensor, y: Tensor) -> float:
    """Masked kernels of all pairs, three times, as published."""
    kernels = [u @ u.T for u in (z / z.norm(dim=1, keepdim=True) for z in (x, y))]

    def mask(kernel: Tensor) -> Tensor:
        near = kernel.clone().fill_diagonal_(-torch.inf).topk(K, dim=1).indices
        return torch.zeros_like(kernel).scatter_(1, near, 1.0)

    def alignment(a: Tensor, b: Tensor) -> Tensor:
        n, both = len(a), mask(a) * mask(b)
        a, b = a * both, b * both
        middle = a.sum() * b.sum() / ((n - 1) * (n - 2))
        return (a * b.T).sum() + middle - 2 * (a @ b).sum() / (n - 2)

    own = alignment(kernels[0], kernels[0]) * alignment(kernels[1], kernels[1])
    return float(alignment(*kernels) / own.sqrt())


def extra_memory(name: str, n: int) -> float:
    """Megabytes, in a process of its own."""
    command = [sys.executable, __file__, "--memory-of", name, "--rows", str(n)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def print_memory(name: str, n: int) -> None:
    warm = pair(600)
    x, y = pair(n)
    FUNCTIONS[name](*warm)
    # The peak of making the input must not hide that of the measure.
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    with open("/proc/self/status") as file:
        before = next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))
    FUNCTIONS[name](x, y)
    with open("/proc/self/status") as file:
        peak = next(int(line.split()[1]) for line in file if line.startswith("VmHWM"))
    sys.stdout.write(f"{(peak - before) / 1024:.1f}\n")


def two_arrays(n: int, peer_rows: int, repeats: int) -> dict[str, object]:
    x, y = pair(n)
    small = x[:peer_rows], y[:peer_rows]
    floor = best_of(repeats, lambda: products(x, y))
    out: dict[str, object] = {"rows": n, "floor": floor}
    peers = {"mutual_knn": published_mutual_knn, "cknna": published_cknna}
    for name, function in FUNCTIONS.items():
        ours = best_of(repeats, lambda function=function: function(x, y))
        peer = best_of(1, lambda name=name: peers[name](*small))
        again = best_of(1, lambda function=function: function(*small))
        out[name] = {
            **ours,
            "ratio_to_floor_cpu": ours["cpu_s"] / floor["cpu_s"],
            "ratio_to_floor_wall": ours["wall_s"] / floor["wall_s"],
            "extra_mb": extra_memory(name, n),
            f"published_at_{peer_rows}_over_ours_cpu": peer["cpu_s"] / again["cpu_s"],
        }
    return out


def whole_grid(n: int, layers: int, draws: int, folds: int) -> dict[str, object]:
    """Seconds for all layers by all layers."""
    g = np.random.default_rng(1)
    z = g.standard_normal((n, 64))

    def side(width: int) -> list[Layer]:
        rows = [z @ g.standard_normal((64, width)) / 8 for _ in range(layers)]
        values = [torch.tensor(r + g.standard_normal(r.shape), dtype=torch.float32) for r in rows]
        return [Layer("layer", v) for v in values]

    x, y = side(768), side(512)
    orders = torch.from_numpy(np.stack([g.permutation(n) for _ in range(draws)]))
    fold = torch.from_numpy(g.permutation(n) % folds)
    out: dict[str, object] = {"rows": n, "layers": layers, "draws": draws, "folds": folds}
    measures: list[Measure] = [MutualKNN(), CKNNA()]
    for m in measures:
        out[m.name] = of_measure(m, x, y, orders, fold)
    return out


def of_measure(
    m: Measure, x: list[Layer], y: list[Layer], orders: Tensor, fold: Tensor
) -> dict[str, object]:
    """Seconds of each part; the second measure finds the neighbours of the first."""
    prepare = best_of(1, lambda: [m.prepare(layer) for layer in (*x, *y)])
    first, second = [m.prepare(layer) for layer in x], [m.prepare(layer) for layer in y]
    return {
        "prepare": prepare,
        "values": best_of(1, lambda: m.values(first, second)),
        "null": best_of(1, lambda: m.null(first, second, orders)),
        "leave_out": best_of(1, lambda: m.leave_out(first, second, fold)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10000)
    parser.add_argument("--peer-rows", type=int, default=5000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--grid-rows", type=int, default=2000)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--draws", type=int, default=999)
    parser.add_argument("--memory-of", choices=sorted(FUNCTIONS))
    chosen = parser.parse_args()
    torch.set_num_threads(2)
    if chosen.memory_of:
        print_memory(chosen.memory_of, chosen.rows)
        return
    found = {
        "threads": torch.get_num_threads(),
        "two_arrays_768x512": two_arrays(chosen.rows, chosen.peer_rows, chosen.repeats),
        "grid_768x512": whole_grid(chosen.grid_rows, chosen.layers, chosen.draws, 32),
    }
    sys.stdout.write(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()

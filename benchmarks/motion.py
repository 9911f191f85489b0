"""Time of the warping distances of all pairs of trajectories, beside other packages.

Run with `python -m benchmarks.motion`. dtaidistance (compiled C) and tslearn (numba) are timed in
the same run where they can be imported, each with the same local cost as ours in its row, and
must give the same numbers. Seconds are those of the clock, the best of the repeats; `cpu_s` are
those of this process, which a busy machine does not change.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec

import numpy as np
import torch
from numpy.typing import NDArray

from mirror_analysis.similarity.motion.alignment import POSE, Block, dtw_distances

Floats = NDArray[np.float64]
SQUARED = (Block("all columns", slice(None), "squared", unit="mixed"),)


def trajectories(count: int, steps: int, width: int) -> Floats:
    g = np.random.default_rng(0)
    return g.standard_normal((count, steps, width)).cumsum(axis=1) / steps**0.5


def best_of(repeats: int, work: Callable[[], Floats]) -> tuple[dict[str, float], Floats]:
    seconds, busy = [], []
    for _ in range(repeats):
        start, cpu = time.perf_counter(), time.process_time()
        value = work()
        seconds.append(time.perf_counter() - start)
        busy.append(time.process_time() - cpu)
    return {"s": min(seconds), "cpu_s": min(busy)}, value


def dtaidistance(x: Floats, inner: str, band: int | None) -> Callable[[], Floats]:
    from dtaidistance import dtw_ndim

    series = list(x)
    options = {} if band is None else {"window": band + 1}

    def work() -> Floats:
        compact = dtw_ndim.distance_matrix_fast(
            series, inner_dist=inner, compact=True, parallel=True, **options
        )
        return np.asarray(compact)

    return work


def tslearn(x: Floats, threads: int) -> Callable[[], Floats]:
    from tslearn.metrics import cdist_dtw

    upper = np.triu_indices(len(x), 1)
    cdist_dtw(x[:2])  # compiles
    return lambda: cdist_dtw(x, n_jobs=threads)[upper]


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000, help="trajectories")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args(arguments)
    # OpenMP reads it when the peer is loaded.
    os.environ["OMP_NUM_THREADS"] = str(given.threads)
    x = trajectories(given.count, given.steps, 7)
    upper = np.triu_indices(len(x), 1)
    sides = dict(threads=given.threads, step_pattern="symmetric1")

    def ours(**options: object) -> Callable[[], Floats]:
        settings = sides | options
        dtw_distances(x[:2], **settings)  # compiles
        return lambda: dtw_distances(x, **settings).numpy()[upper]

    rows: dict[str, tuple[Callable[[], Floats], dict[str, Callable[[], Callable[[], Floats]]]]] = {
        "Euclidean, symmetric1": (
            ours(),
            {"dtaidistance": lambda: dtaidistance(x, "euclidean", None)},
        ),
        "squared Euclidean, symmetric1, root of the sum": (
            lambda: np.sqrt(ours(blocks=SQUARED)()),
            {
                "dtaidistance": lambda: dtaidistance(x, "squared euclidean", None),
                "tslearn": lambda: tslearn(x, given.threads),
            },
        ),
        "Euclidean, symmetric1, band 10": (
            ours(band=10),
            {"dtaidistance": lambda: dtaidistance(x, "euclidean", 10)},
        ),
        "Euclidean, symmetric2": (ours(step_pattern="symmetric2"), {}),
        "position, SO(3) angle and gripper, symmetric2": (
            ours(step_pattern="symmetric2", blocks=POSE),
            {},
        ),
    }
    out = {}
    for name, (work, peers) in rows.items():
        times, value = best_of(given.repeats, work)
        row: dict[str, object] = {"ours": times}
        for peer, make in peers.items():
            if find_spec(peer) is None:
                row[peer] = "not installed"
                continue
            theirs, other = best_of(given.repeats, make())
            row[peer] = theirs | {
                "ratio": theirs["s"] / times["s"],
                "cpu_ratio": theirs["cpu_s"] / times["cpu_s"],
                "largest_difference": float(np.abs(other - value).max()),
            }
        out[name] = row
    machine = {"cpus": os.cpu_count(), "load": os.getloadavg()[0], "torch": torch.__version__}
    work_done = {"trajectories": given.count, "steps": given.steps, "columns": 7}
    result = {"work": work_done, "threads": given.threads, "machine": machine, "rows": out}
    sys.stdout.write(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])

"""Times one piece of work in a process of its own, in this interpreter or in that of the peers.

Reads requests from standard input, one JSON object a line, and answers each with one. Needs
nothing but numpy, so that it runs wherever a peer does.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Work = Callable[[], Any]

# Enough for every measure to be defined, and for all that is imported or compiled on first use.
_WARM_ROWS, _WARM_LAYERS = 64, 2


def load(path: str) -> np.ndarray:
    """The array at `path`."""
    return np.load(path)


def first(array: np.ndarray, name: str) -> np.ndarray:
    """A small part of an array: the first rows, of the first layers where there are layers."""
    if name.endswith("_layers"):
        return array[:_WARM_LAYERS, :_WARM_ROWS]
    return array[:_WARM_ROWS]


def made(request: dict[str, Any]) -> Work:
    """What `request` asks for, on its data, after having been run once on a small part of it."""
    module, _, attribute = request["make"].partition(":")
    make = getattr(importlib.import_module(module), attribute)
    arrays = {name: load(path) for name, path in request["arrays"].items()}
    small = {name: first(array, name) for name, array in arrays.items()}
    make(**small, **request["settings"] | request["warm"])()
    return make(**arrays, **request["settings"])


def resident_mb() -> tuple[float, float]:
    """Resident memory now, and the most since the mark was reset, in MB (10^6 bytes)."""
    found = {}
    for line in Path("/proc/self/status").read_text().splitlines():
        key, _, rest = line.partition(":")
        if key in ("VmRSS", "VmHWM"):
            found[key] = int(rest.split()[0]) * 1024 / 1e6
    return found["VmRSS"], found["VmHWM"]


def reset_mark() -> bool:
    """Gives freed memory back and starts the high-water mark anew; False where that cannot be."""
    gc.collect()
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def timed(work: Work, budget: float, most: int) -> dict[str, Any]:
    """Runs `work` until `budget` seconds or `most` times, at least once.

    Returns:
        wall: seconds of each repeat by the clock.
        cpu: processor seconds of each, over all threads.
        peak_mb: most memory held beyond what was held before, None where that cannot be known.
        value: what the last repeat gave, as nested lists.
    """
    walls: list[float] = []
    cpus: list[float] = []
    peak: float | None = None
    value = None
    while not walls or (sum(walls) < budget and len(walls) < most):
        value = None
        known = reset_mark()
        before = resident_mb()[0] if known else 0.0
        cpu, wall = time.process_time(), time.perf_counter()
        value = work()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
        if known:
            peak = max(peak or 0.0, resident_mb()[1] - before)
    kept = np.asarray(value).tolist()
    # While the others take their turns this process should hold its data and no more.
    del value
    reset_mark()
    return {"wall": walls, "cpu": cpus, "peak_mb": peak, "value": kept}


def answer(request: dict[str, Any], work: Work | None) -> tuple[dict[str, Any], Work | None]:
    """The reply to a request, and the work that is ready."""
    if "make" in request:
        if request.get("threads"):
            importlib.import_module("torch").set_num_threads(request["threads"])
        return {"ready": True, "version": _version(request.get("package", ""))}, made(request)
    assert work is not None
    return timed(work, request["budget"], request["most"]), work


def _version(package: str) -> str:
    from importlib.metadata import version

    return version(package) if package else ""


def main() -> None:
    """Answers until standard input ends."""
    # What a peer prints goes to standard error; standard output is for answers alone.
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    warnings.simplefilter("ignore")
    # The folder above this one's, so that `benchmarks` is found by either interpreter.
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    work: Work | None = None
    for line in sys.stdin:
        try:
            reply, work = answer(json.loads(line), work)
        except ImportError as error:
            reply = {"skipped": f"not there: {error}"}
        except MemoryError:
            reply = {"skipped": "out of memory"}
        except Exception as error:
            reply = {"skipped": f"{type(error).__name__}: {error}"}
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


if __name__ == "__main__":
    main()

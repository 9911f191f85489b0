"""Speed and memory of the contrastive alignment, beside matrix products and a plain loop.

    python -m benchmarks.training [--quick] [--only ROW ...] [--out DIR]

The floor of `epoch` is the matrix products that a textbook update cannot do without, in float32,
into arrays that are there already, and nothing else: two embeddings (batch x features x width), the
logits (batch x batch x width), the gradients of both embeddings (twice that again) and of both
weights (features x batch x width). It counts no recomputation, no exponential, no normalisation,
no optimiser and no drawing of batches. What rows on CUDA count is said in `speed/cuda.py`; where
there is no such device they are marked as not measured. Rows that are not run again keep their
date, so an interrupted run is finished by running what is missing with --only.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from benchmarks.speed import cuda, data, record
from benchmarks.speed.process import Side
from benchmarks.speed.record import Check, Row
from benchmarks.speed.running import Aim, Plan, run

REFERENCE = Path(__file__).resolve().parent.parent / "reports" / "reference" / "benchmarks"
QUICK = Path("out") / "benchmarks"
_PAIR, _LAYERS = ("x", "y"), ("x_layers", "y_layers")
_FITS = "benchmarks.speed.fits:"


@dataclass(frozen=True)
class Sizes:
    """How much work the rows are.

    Attributes:
        pairs, batch: of the epoch; features: of x and of y; width: of the shared space.
        large: batch of the memory row.
        layers, rows, steps: of the grid on the CPU.
        gpu_batch, gpu_layers, gpu_rows, gpu_alone: of the rows on CUDA; alone: layer pairs that
            are fitted one by one, whose time is scaled to all.
    """

    pairs: int = 20_000
    batch: int = 4096
    features: tuple[int, int] = (768, 512)
    width: int = 1024
    large: int = 16_384
    layers: int = 4
    rows: int = 5000
    steps: int = 20
    gpu_batch: int = 65_536
    gpu_layers: int = 12
    gpu_rows: int = 50_000
    gpu_alone: int = 6


QUICK_SIZES = Sizes(2000, 512, (192, 128), 256, 2048, 3, 800, 10, 4096, 2, 2000, 2)
TINY = Sizes(96, 32, (12, 8), 16, 64, 2, 96, 4, 64, 2, 96, 1)


# -- rows -----------------------------------------------------------------------------------------


def epoch(sizes: Sizes) -> Plan:
    """One pass over the pairs."""
    updates = -(-sizes.pairs // sizes.batch)
    settings = {"width": sizes.width, "batch": sizes.batch, "updates": updates}
    d, e = sizes.features
    return Plan(
        name="epoch",
        work=f"{updates} updates of {sizes.batch} of N = {sizes.pairs} pairs, {d} and {e} features"
        f" to {sizes.width}, on the CPU",
        arrays=lambda: dict(zip(_PAIR, data.pair(sizes.pairs, d, e), strict=True)),
        sides=[
            Side("matrix products", "floor", _FITS + "products", settings, arrays=_PAIR),
            Side("ours, align", "ours", _FITS + "aligned", settings, arrays=_PAIR),
            Side("ours, updates alone", "ours", _FITS + "updated", {**settings, "plain": False},
                 arrays=_PAIR, like="ours, align"),
            Side("plain loop", "published", _FITS + "updated", {**settings, "plain": True},
                 arrays=_PAIR, like="ours, align", note="builds the logits, as in CLIP's code"),
        ],
        aims=[
            Aim("align / matrix products", ("ours, align",), ("matrix products",), bound=1.5),
            Aim("plain loop / align", ("plain loop",), ("ours, align",), "at least", 2),
            Aim("updates alone / matrix products", ("ours, updates alone",), ("matrix products",)),
            Aim("plain loop / updates alone", ("plain loop",), ("ours, updates alone",),
                "at least"),
        ],
    )  # fmt: skip


def memory(sizes: Sizes) -> Plan:
    """Most memory of one update of a large batch; judged as a ratio once it ran."""
    settings = {"width": sizes.width, "batch": sizes.large, "updates": 1}
    d, e = sizes.features
    return Plan(
        name="memory",
        work=f"one update of {sizes.large} pairs, {d} and {e} features to {sizes.width}, on the"
        " CPU: most memory beyond the data",
        arrays=lambda: dict(zip(_PAIR, data.pair(sizes.large, d, e), strict=True)),
        sides=[
            Side(name, kind, _FITS + "updated", {**settings, "plain": plain}, arrays=_PAIR,
                 like="ours, one update")
            for name, kind, plain in (("ours, one update", "ours", False),
                                      ("plain loop", "published", True))
        ],
        aims=[],
    )  # fmt: skip


def layer_grid(sizes: Sizes) -> Plan:
    """All layer pairs in batches and one by one."""
    settings = {"width": sizes.width, "steps": sizes.steps}
    d, e = sizes.features
    count = sizes.layers**2
    return Plan(
        name="grid",
        work=f"alignments of {sizes.layers} x {sizes.layers} layer pairs of {sizes.rows} pairs, {d}"
        f" and {e} features to {sizes.width}, {sizes.steps} updates of 128, on the CPU",
        arrays=lambda: dict(
            zip(_LAYERS, data.stacks(sizes.rows, sizes.layers, d, e), strict=True)
        ),
        sides=[
            Side("ours, one call", "ours", _FITS + "grid", {**settings, "together": True},
                 arrays=_LAYERS),
            Side("ours, one by one", "ours", _FITS + "grid", {**settings, "together": False},
                 arrays=_LAYERS, like="ours, one call", note=f"{count} calls of align"),
        ],
        aims=[Aim("one call / one by one", ("ours, one call",), ("ours, one by one",))],
    )  # fmt: skip


ROWS: dict[str, Callable[[Sizes], Plan]] = {"epoch": epoch, "memory": memory, "grid": layer_grid}


def gpu_loss(sizes: Sizes) -> cuda.CudaPlan:
    """The loss alone."""
    most = 3000.0 if sizes == Sizes() else None
    return cuda.loss(batch=sizes.gpu_batch, width=sizes.width, most=most)


def gpu_grid(sizes: Sizes) -> cuda.CudaPlan:
    """Every layer pair."""
    return cuda.layers(
        count=sizes.gpu_layers,
        rows=sizes.gpu_rows,
        features=sizes.features,
        width=sizes.width,
        alone=sizes.gpu_alone,
    )


GPU: dict[str, Callable[[Sizes], cuda.CudaPlan]] = {"gpu loss": gpu_loss, "gpu grid": gpu_grid}


def with_memory(row: Row) -> Row:
    """The row of the memory, judged by the ratio of the two peaks."""
    peaks = {t.name: t.peak_mb for t in row.timings if t.turns}
    ours, plain = peaks.get("ours, one update"), peaks.get("plain loop")
    known = ours is not None and plain
    missing = "" if known else "; ".join(t.skipped for t in row.timings if t.skipped)
    check = Check(
        "peak memory, ours / plain loop", "x", "at most", 0.1,
        ours / plain if known else None, None,  # type: ignore[operator]
        missing or ("" if known else "peak memory cannot be read on this system"),
    )  # fmt: skip
    return msgspec.structs.replace(row, checks=[check])


def say(text: str) -> None:
    """To standard error, at once."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def main() -> None:
    """Runs what is asked for and writes it."""
    from benchmarks.similarity import write

    known = [*ROWS, *GPU]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=known, default=known, metavar="ROW",
                        help=f"out of {', '.join(known)}")  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="small sizes, one round, a minute")
    parser.add_argument("--out", type=Path, help="folder; the reference, or out/ when quick")
    parser.add_argument("--threads", type=int, default=2, help="of every process")
    parser.add_argument("--rounds", type=int, help="turns of every side; 3, or 1 when quick")
    parser.add_argument("--limit", type=float, help="seconds one side may take; 900, or 120")
    asked = parser.parse_args()
    rounds = asked.rounds or (1 if asked.quick else 3)
    limit = asked.limit or (120.0 if asked.quick else 900.0)
    sizes = QUICK_SIZES if asked.quick else Sizes()
    on = record.machine(asked.threads)
    stem = (asked.out or (QUICK if asked.quick else REFERENCE)) / f"training-{record.slug(on)}"
    path = stem.with_name(stem.name + ".json")
    for name in asked.only:
        old = record.read(path) if path.exists() else None
        if name in GPU:
            row = cuda.run(GPU[name](sizes), quick=asked.quick)
        else:
            row = run(ROWS[name](sizes), threads=asked.threads, rounds=rounds, limit=limit,
                      quick=asked.quick, say=say)  # fmt: skip
            row = with_memory(row) if name == "memory" else row
        # After every row, so that an interruption costs one row.
        write(record.merged(old, [row], None, on), stem)
    sys.stdout.write(f"{path}\n")


if __name__ == "__main__":
    main()

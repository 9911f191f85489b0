"""How time grows with samples, layers and features: one of them changes, the others stay."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from benchmarks.speed import data
from benchmarks.speed.process import Side, Worker
from benchmarks.speed.record import Along, Growth, Point
from mirror_analysis.provenance import record

_LAYERS = ("x_layers", "y_layers")
# A curve ends where a point took this long; the next would take several times as long.
_LONGEST = 20.0


@dataclass(frozen=True)
class Curves:
    """What grows, and what stays where it is.

    Attributes:
        samples, layers, features: sizes on the axis, growing.
        fixed: samples, layers and features where they do not grow.
    """

    samples: Sequence[int] = (250, 500, 1000, 2000, 4000)
    layers: Sequence[int] = (1, 2, 4, 8, 16)
    features: Sequence[int] = (32, 64, 128, 256, 512, 1024)
    fixed: tuple[int, int, int] = (1000, 4, 256)


QUICK = Curves((125, 250, 500), (1, 2, 4), (32, 64, 128), (250, 2, 64))
TINY = Curves((48, 64), (), (), (48, 1, 8))


def sides() -> list[Side]:
    """The matrix products, CKA values of pytorch-cka and ours, defaults with p and interval."""
    from mirror_analysis.similarity import DEFAULT

    ours = [
        Side(name, "ours", "benchmarks.speed.ours:grid", {"measures": [name]}, arrays=_LAYERS)
        for name in DEFAULT
    ]
    values = Side(
        "linear_cka, values",
        "ours",
        "benchmarks.speed.ours:grid",
        {"measures": ["linear_cka"], "settings": {"draws": 0, "folds": 0}},
        arrays=_LAYERS,
    )
    floor = Side("matrix products", "floor", "benchmarks.speed.floors:grams", arrays=_LAYERS)
    peer = Side("pytorch-cka", "peer", "benchmarks.speed.peers:pytorch_cka", arrays=_LAYERS)
    return [floor, peer, values, *ours]


def grown(
    curves: Curves,
    *,
    threads: int,
    limit: float,
    quick: bool = False,
    say: Callable[[str], None] = print,
    chosen: Sequence[Side] | None = None,
) -> Growth:
    """Every side at every size, both networks alike in layers and features."""
    points: list[Point] = []
    axes: dict[Along, Sequence[int]] = {
        "samples": curves.samples,
        "layers": curves.layers,
        "features": curves.features,
    }
    with ExitStack() as open_:
        workers = [
            (side, open_.enter_context(closing(Worker(side.kind, threads=threads, limit=limit))))
            for side in (sides() if chosen is None else chosen)
        ]
        for number, (along, ladder) in enumerate(axes.items()):
            ended: set[str] = set()
            for size in ladder:
                n, layers, features = (
                    size if i == number else kept for i, kept in enumerate(curves.fixed)
                )
                stacks = data.stacks(n, layers, features, features)
                with tempfile.TemporaryDirectory() as folder:
                    held = data.written(Path(folder), dict(zip(_LAYERS, stacks, strict=True)))
                    for side, worker in workers:
                        if side.name in ended or worker.skipped:
                            continue
                        worker.load(side, held)
                        got = worker.run(budget=0.5, most=3)
                        if not got:
                            continue
                        wall = min(got["wall"])
                        points.append(
                            Point(along, size, side.name, wall, min(got["cpu"]), got["peak_mb"])
                        )
                        say(f"growth: {along} {size}: {side.name}: {wall:.3g} s")
                        if wall > _LONGEST:
                            ended.add(side.name)
    made = record(device="cpu", seeds={}, inputs={}, seconds=0)
    names = ("samples", "layers", "features")
    fixed = dict(zip(names, curves.fixed, strict=True))
    return Growth(made.created, made.commit, made.dirty, quick, fixed, points)

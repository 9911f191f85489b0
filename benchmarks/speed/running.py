"""Runs the sides of a row in turns and judges them by the row's aims."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from benchmarks.speed.data import Array, written
from benchmarks.speed.process import Side, Worker
from benchmarks.speed.record import Check, Row, Sense, Timing, Turn, plain
from mirror_analysis.provenance import record

Say = Callable[[str], None]

# Short work is repeated within a turn; what took long once is not run again.
_BUDGET, _MOST, _LONG = 1.0, 5, 20.0


@dataclass(frozen=True)
class Aim:
    """A ratio of two sums of times, or an amount of memory.

    Attributes:
        what: in words.
        of: sides whose times are added up above the line.
        to: below the line; none for memory.
        sense: whether the bound is a most or a least.
        bound: the number aimed at, None to report only.
        measured: "time", or "memory" for the peak of `of` less that of `to`.
        times: what the ratio is multiplied by.
    """

    what: str
    of: tuple[str, ...]
    to: tuple[str, ...] = ()
    sense: Sense = "at most"
    bound: float | None = None
    measured: Literal["time", "memory"] = "time"
    times: float = 1.0


@dataclass(frozen=True)
class Plan:
    """A row before it ran: what is computed, on what, by whom, and what is aimed at.

    Attributes:
        name: for `--only`.
        work: what is computed, in words, with its sizes.
        arrays: makes the data.
        sides: in the order they take turns.
        aims: what is made of their times.
    """

    name: str
    work: str
    arrays: Callable[[], dict[str, Array]]
    sides: Sequence[Side]
    aims: Sequence[Aim] = field(default=())


def run(
    plan: Plan, *, threads: int, rounds: int, limit: float, quick: bool = False, say: Say = print
) -> Row:
    """The row, measured.

    Every side runs in a process of its own. In each round all take turns, so that a busy machine
    slows all alike; a side that took long is not run a second time unless it is ours or the floor.

    Args:
        plan: the row.
        threads: compute threads of every process.
        rounds: turns of each side.
        limit: seconds that one side may take.
        quick: recorded with the row.
        say: told of every turn.
    """
    start = time.perf_counter()
    turns: dict[str, list[Turn]] = {s.name: [] for s in plan.sides}
    peaks: dict[str, float | None] = {s.name: None for s in plan.sides}
    values: dict[str, list[float]] = {s.name: [] for s in plan.sides}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as open_:
        arrays = written(Path(folder), plan.arrays())
        workers = {}
        for side in plan.sides:
            worker = Worker(side.kind, threads=threads, limit=limit)
            workers[side.name] = open_.enter_context(closing(worker))
            worker.load(side, arrays)
        for number in range(rounds):
            for side in plan.sides:
                done, worker = turns[side.name], workers[side.name]
                again = side.kind in ("floor", "ours") or not done or done[0].wall < _LONG
                if worker.skipped or not again:
                    continue
                load = os.getloadavg()[0]
                got = worker.run(budget=_BUDGET, most=_MOST)
                if not got:
                    continue
                done.append(Turn(min(got["wall"]), min(got["cpu"]), round(load, 2)))
                # Caches of the first turn are still held in the later ones.
                peaks[side.name] = max(
                    (p for p in (peaks[side.name], got["peak_mb"]) if p is not None), default=None
                )
                values[side.name] = plain(got["value"])[1]
                say(f"{plan.name}: round {number + 1}: {side.name}: {done[-1].wall:.3g} s")
        timings = [
            _timing(s, workers[s.name], turns[s.name], peaks[s.name], values) for s in plan.sides
        ]
    made = record(device="cpu", seeds={}, inputs={}, seconds=0)
    return Row(
        name=plan.name,
        work=plan.work,
        quick=quick,
        created=made.created,
        commit=made.commit,
        dirty=made.dirty,
        seconds=round(time.perf_counter() - start, 1),
        timings=timings,
        checks=[judged(a, timings) for a in plan.aims],
    )


def _timing(
    side: Side,
    worker: Worker,
    turns: list[Turn],
    peak: float | None,
    values: dict[str, list[float]],
) -> Timing:
    found, ours = values[side.name], values.get(side.like, [])
    off = None
    if found and len(found) <= len(ours):
        off = float(np.abs(np.subtract(found, ours[: len(found)])).max())
    return Timing(
        name=side.name,
        kind=side.kind,
        version=worker.version,
        note=side.note,
        scale=side.scale,
        turns=turns,
        peak_mb=None if peak is None else round(peak, 1),
        value=float(np.mean(found)) if found and side.kind != "floor" else None,
        off=off,
        skipped=worker.skipped if not turns else "",
    )


def judged(aim: Aim, timings: Sequence[Timing]) -> Check:
    """An aim beside what was measured."""
    by_name = {t.name: t for t in timings}
    missing = [
        f"{name}: {by_name[name].skipped if name in by_name else 'no such side'}"
        for name in (*aim.of, *aim.to)
        if name not in by_name or not by_name[name].turns
    ]
    measured = cpu = None
    if not missing and aim.measured == "memory":
        peaks = [[by_name[n].peak_mb for n in names] for names in (aim.of, aim.to)]
        if all(p is not None for side in peaks for p in side):
            measured = sum(p or 0 for p in peaks[0]) - sum(p or 0 for p in peaks[1])
        else:
            missing = ["peak memory cannot be read on this system"]
    elif not missing:
        of, to = ([by_name[n] for n in names] for names in (aim.of, aim.to))
        measured = aim.times * sum(t.wall for t in of) / sum(t.wall for t in to)
        cpu = aim.times * sum(t.cpu for t in of) / sum(t.cpu for t in to)
    return Check(
        what=aim.what,
        unit="x" if aim.measured == "time" else "MB",
        sense=aim.sense,
        aim=aim.bound,
        measured=measured,
        cpu=cpu,
        missing="; ".join(missing),
    )

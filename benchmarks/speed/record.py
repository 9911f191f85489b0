"""What was measured, as it goes to disk."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

import msgspec

Sense = Literal["at most", "at least"]
Along = Literal["samples", "layers", "features"]


class Turn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The best repeat of one turn, before scaling.

    Attributes:
        wall: seconds by the clock; cpu: processor seconds over all threads.
        load: load average of the machine over the last minute when the turn began.
    """

    wall: float
    cpu: float
    load: float


class Timing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One side of a row.

    Attributes:
        name, kind, version, note: what ran; see `process.Side`.
        scale: what the time measured is multiplied by.
        turns: in the order they ran, empty where it was skipped.
        peak_mb: most memory held beyond data and libraries, None where not known.
        value: what it computed: a number, or the mean of what it computed.
        off: largest distance of its values from ours, None where nothing is compared.
        skipped: why there is no time.
    """

    name: str
    kind: str
    version: str
    note: str
    scale: float
    turns: list[Turn]
    peak_mb: float | None
    value: float | None
    off: float | None
    skipped: str

    @property
    def wall(self) -> float:
        """Least seconds by the clock, scaled."""
        return min(t.wall for t in self.turns) * self.scale

    @property
    def cpu(self) -> float:
        """Least processor seconds, scaled."""
        return min(t.cpu for t in self.turns) * self.scale


class Check(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One aim and what came out.

    Attributes:
        what: the ratio or amount in words.
        unit: "x" for a ratio of times, "MB" for memory.
        sense: whether the aim is a most or a least; aim: the number, None where none was set.
        measured: by the clock; cpu: by processor seconds, None for memory.
        missing: why nothing was measured.
    """

    what: str
    unit: Literal["x", "MB"]
    sense: Sense
    aim: float | None
    measured: float | None
    cpu: float | None
    missing: str

    @property
    def met(self) -> bool | None:
        """Whether the aim was met by the clock; None where nothing was aimed at or measured."""
        return None if self.measured is None else self.meets(self.measured)

    def meets(self, amount: float) -> bool | None:
        """Whether this amount would meet the aim; None where nothing was aimed at."""
        if self.aim is None:
            return None
        return amount <= self.aim if self.sense == "at most" else amount >= self.aim


class Row(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One row of the table.

    Attributes:
        name: for `--only`; work: what is computed, on what.
        quick: whether the sizes are those of `--quick`.
        created: ISO 8601, UTC; commit, dirty: of the source tree; seconds: the row took.
        timings, checks: what came out.
    """

    name: str
    work: str
    quick: bool
    created: str
    commit: str
    dirty: bool
    seconds: float
    timings: list[Timing]
    checks: list[Check]


class Point(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One point of a growth curve: the best of its repeats."""

    along: Along
    size: int
    name: str
    wall: float
    cpu: float
    peak_mb: float | None


class Growth(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Growth curves; `fixed` says what the sizes are that do not grow."""

    created: str
    commit: str
    dirty: bool
    quick: bool
    fixed: dict[str, int]
    points: list[Point]


class Machine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What it ran on."""

    processor: str
    cores: int
    memory_gb: float
    system: str
    threads: int
    python: str
    packages: dict[str, str]
    blas: str


class Benchmarks(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything measured on one machine."""

    machine: Machine
    rows: list[Row]
    growth: Growth | None = None


def machine(threads: int) -> Machine:
    """This machine."""
    import platform

    import torch

    from mirror_analysis.provenance import available_threads, record

    said = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*:\s*(.+)", said.read_text()) if said.exists() else []
    memory = Path("/proc/meminfo")
    total = re.search(r"MemTotal:\s*(\d+)", memory.read_text()) if memory.exists() else None
    made = record(device="cpu", seeds={}, inputs={}, seconds=0)
    kept = ("torch", "numpy", "scipy", "scikit-learn")
    blas = re.search(r"BLAS_INFO=(\w+)", torch.__config__.show())
    return Machine(
        processor=names[0].strip() if names else platform.processor() or platform.machine(),
        cores=available_threads(),
        memory_gb=round(int(total[1]) * 1024 / 1e9, 1) if total else 0.0,
        system=f"{platform.system()} {platform.machine()}",
        threads=threads,
        python=made.python,
        packages={k: v for k, v in made.packages.items() if k in kept},
        blas=blas[1] if blas else "",
    )


def slug(found: Machine) -> str:
    """A file name that tells machines apart, such as `intel-xeon-processor-2-threads`."""
    plain = re.sub(r"\(R\)|\(TM\)|@.*|CPU", "", found.processor)
    words = re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-")
    return f"{words}-{found.threads}-threads"


def read(path: Path) -> Benchmarks:
    """What `write` wrote."""
    return msgspec.json.decode(path.read_bytes(), type=Benchmarks)


def write(found: Benchmarks, path: Path) -> None:
    """As JSON that reads well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=1) + b"\n")


def merged(
    old: Benchmarks | None, rows: list[Row], growth: Growth | None, on: Machine
) -> Benchmarks:
    """New rows in the place of old ones of the same name; the rest stays with its own date."""
    kept = {} if old is None else {r.name: r for r in old.rows}
    kept |= {r.name: r for r in rows}
    return Benchmarks(on, list(kept.values()), growth or (old.growth if old else None))


def plain(value: Any) -> tuple[float | None, list[float]]:
    """The mean of a number or nested lists of numbers, and all of them flat."""
    if value is None:
        return None, []
    import numpy as np

    flat = np.asarray(value, dtype=np.float64).reshape(-1)
    return (float(flat.mean()) if len(flat) else None), flat.tolist()

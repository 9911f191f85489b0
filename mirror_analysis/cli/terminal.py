"""What a command shows: data on stdout, progress on stderr, a fault as one line."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from mirror_analysis.errors import MirrorError

_PAUSE = 10.0  # seconds between two lines of a log

Report = Callable[[str, int, int], None]
"""Called with (stage in words, done, total)."""


@contextmanager
def progress() -> Iterator[Report]:
    """A bar per stage on stderr, with time passed and time left; plain lines where not a screen."""
    if not sys.stderr.isatty():
        yield _Lines()
        return
    bars = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
    tasks: dict[str, TaskID] = {}

    def report(stage: str, done: int, total: int) -> None:
        if stage not in tasks:
            tasks[stage] = bars.add_task(stage, total=total)
        bars.update(tasks[stage], completed=done, total=total)

    with bars:
        yield report


class _Lines:
    """For logs: a stage's first and last line, and one in ten seconds between, with time left."""

    def __init__(self) -> None:
        self._begun: dict[str, tuple[float, int]] = {}
        self._said = 0.0

    def __call__(self, stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        if stage in self._begun and done < total and now - self._said < _PAUSE:
            return
        start, before = self._begun.setdefault(stage, (now, done))
        self._said = now
        passed = now - start
        left = ""
        if before < done < total:
            left = f", about {passed / (done - before) * (total - done):.0f} s left"
        print(f"{stage}: {done}/{total}, {passed:.0f} s{left}", file=sys.stderr, flush=True)


@contextmanager
def faults() -> Iterator[None]:
    """Turns a fault of the user's into one line on stderr and exit code 1."""
    try:
        yield
    except MirrorError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(1) from None
    except OSError as error:
        where = f"{error.filename}: " if error.filename is not None else ""
        print(
            f"error: {where}{error.strerror or error}; name a place that can be read and written",
            file=sys.stderr,
        )
        raise SystemExit(1) from None
    except (KeyboardInterrupt, SystemExit) as end:
        # Typer turns the first into the second.
        if isinstance(end, SystemExit) and end.code != 130:
            raise
        print("stopped; the same command goes on from here", file=sys.stderr)
        raise SystemExit(130) from None


def emit(data: object, *, as_json: bool, text: str) -> None:
    """Prints the data as JSON, or the text."""
    if as_json:
        import msgspec

        text = msgspec.json.format(msgspec.json.encode(data), indent=1).decode()
    print(text)


def table(rows: list[dict[str, object]], columns: list[str]) -> str:
    """Rows as aligned columns; numbers with three decimals, absent values as a dash."""
    cells = [columns] + [[_cell(row.get(name)) for name in columns] for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    )


def _cell(value: object) -> str:
    if value is None or value == "":
        return "–"
    return f"{value:.3f}" if isinstance(value, float) else plain(str(value))


def plain(text: str) -> str:
    """Words out of files as one line that moves no cursor: what does not print is spelled out."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)

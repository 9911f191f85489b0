"""Speed of similarity, its nulls and intervals, beside matrix products and other packages.

    python -m benchmarks.similarity [--quick] [--only ROW ...] [--out DIR]

`make peers` installs what is compared with into .venv-peers; what is missing is said, not made
up. Writes MACHINE.json, MACHINE.md and figures; rows that are not run again keep their own date.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.speed import growth as curves
from benchmarks.speed import record, rows
from benchmarks.speed.running import run

REFERENCE = Path(__file__).resolve().parent.parent / "reports" / "reference" / "benchmarks"
QUICK = Path("out") / "benchmarks"


def say(text: str) -> None:
    """To standard error, at once."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def main() -> None:
    """Runs what is asked for and writes it."""
    known = [*rows.ROWS, "growth"]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=known, default=known, metavar="ROW",
                        help=f"out of {', '.join(known)}")  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="small sizes, one round, minutes")
    parser.add_argument("--out", type=Path, help="folder; the reference, or out/ when quick")
    parser.add_argument("--threads", type=int, default=2, help="of every process")
    parser.add_argument("--rounds", type=int, help="turns of every side; 3, or 1 when quick")
    parser.add_argument("--limit", type=float, help="seconds one side may take; 900, or 120")
    asked = parser.parse_args()
    rounds = asked.rounds or (1 if asked.quick else 3)
    limit = asked.limit or (120.0 if asked.quick else 900.0)
    sizes = rows.QUICK if asked.quick else rows.Sizes()

    on = record.machine(asked.threads)
    stem = (asked.out or (QUICK if asked.quick else REFERENCE)) / record.slug(on)
    path = stem.with_name(stem.name + ".json")
    for name in asked.only:
        old = record.read(path) if path.exists() else None
        made, growth = [], None
        if name == "growth":
            size = curves.QUICK if asked.quick else curves.Curves()
            growth = curves.grown(
                size, threads=asked.threads, limit=limit, quick=asked.quick, say=say
            )
        else:
            plan = rows.ROWS[name](sizes, asked.threads)
            made = [
                run(plan, threads=asked.threads, rounds=rounds, limit=limit, quick=asked.quick,
                    say=say)
            ]  # fmt: skip
        # After every row, so that an interruption costs one row.
        write(record.merged(old, made, growth, on), stem)
    sys.stdout.write(f"{path}\n")


def write(found: record.Benchmarks, stem: Path) -> None:
    """Results, page and figures whose names begin with that of `stem`."""
    from benchmarks.speed.figures import drawn
    from benchmarks.speed.tables import document

    record.write(found, stem.with_name(stem.name + ".json"))
    page = document(found, drawn(found, stem))
    stem.with_name(stem.name + ".md").write_text(page)


if __name__ == "__main__":
    main()

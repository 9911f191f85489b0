"""Reads damaged files by the thousand: `make fuzz`, or `FUZZ=200 make fuzz` for fewer.

Every mutant is decided by the format and its number, so it can be made again:
`python -m scripts.fuzz --only "torch" --numbers 17,18`.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from hostile.reading import Reader

from mirror_analysis.files.tfrecords import masked
from scripts.fuzz.formats import FORMATS, Format
from scripts.fuzz.mutating import framed_anew, mutated

PATIENCE = 150.0  # seconds one file may take; a graph may be tried for 120
RENEWED = 2000  # files after which a new reader is started
KEPT = 5  # mutants of one fault
OUTCOMES = ("refused", "read", "crashed", "killed")


def mutant(name: str, number: int, sound: Path, target: Path) -> tuple[Path, str]:
    """Writes a copy of a sound folder with one file damaged; which file, and how it is called."""
    chance = random.Random(f"{name}:{number}")
    files = sorted(path for path in sound.rglob("*") if path.is_file())
    victim = chance.choice(files)
    for path in files:
        copy = target / path.relative_to(sound)
        copy.parent.mkdir(parents=True, exist_ok=True)
        if path != victim:
            os.link(path, copy)
    data = victim.read_bytes()
    if "tfrecord" in victim.name and chance.random() < 0.8:
        data = framed_anew(data, chance, masked)
    else:
        data = mutated(data, chance, chance.choice(files).read_bytes())
    place = target / victim.relative_to(sound)
    place.write_bytes(data)
    return place, str(victim.relative_to(sound))


def fault_of(report: dict[str, Any]) -> str:
    """What tells one fault from another: the kind, and the last place of the package."""
    places = [line.strip() for line in report["trace"].splitlines() if "File " in line]
    own = [place for place in places if "mirror_analysis" in place] or places
    return f"{report['kind']} {own[-1] if own else report['trace'][-200:]} {report['seen'][:1]}"


class Campaign:
    """The mutants of one format: how many were read, and what became of them."""

    def __init__(self, name: str, out: Path, *, anew: bool) -> None:
        self.name = name
        self.folder = out / name.replace(" ", "-")
        self.state = self.folder / "progress.json"
        self.counts: dict[str, Any] = dict.fromkeys([*OUTCOMES, "files", "peak"], 0)
        self.counts |= {"seconds": 0.0, "faults": {}}
        if anew:
            shutil.rmtree(self.folder, ignore_errors=True)
        if self.state.is_file():
            self.counts = json.loads(self.state.read_text())
        self.folder.mkdir(parents=True, exist_ok=True)

    def run(self, form: Format, numbers: range | list[int], reader: Reader) -> None:
        """Reads the mutants of these numbers."""
        if not numbers:
            return
        scratch = Path(tempfile.mkdtemp(prefix="fuzz-"))
        sound = scratch / "sound"
        sound.mkdir()
        inner = form.make(sound).relative_to(sound)
        said = time.monotonic()
        try:
            for count, number in enumerate(numbers):
                if count and count % RENEWED == 0:
                    reader.close()
                self._one(form, number, sound, inner, scratch / f"m{number}", reader)
                if time.monotonic() - said > 10:
                    said = time.monotonic()
                    self._save()
                    print(f"{self.name}: {self.line()}", file=sys.stderr, flush=True)
        finally:
            self._save()
            shutil.rmtree(scratch, ignore_errors=True)

    def _one(
        self, form: Format, number: int, sound: Path, inner: Path, target: Path, reader: Reader
    ) -> None:
        place, _ = mutant(self.name, number, sound, target)
        report = reader.read(
            {"id": str(number), "entry": form.entry, "path": str(target / inner),
             "folder": str(target)}
        )  # fmt: skip
        self.counts["seconds"] += report["seconds"]
        if report["seen"]:
            report |= {"outcome": "crashed", "kind": "side effect"}
        if report["outcome"] == "refused" and not report["words"].isprintable():
            report |= {"outcome": "crashed", "kind": "words that are no line of text"}
        self.counts["files"] += 1
        self.counts[report["outcome"]] += 1
        self.counts["peak"] = max(self.counts["peak"], report["grown"])
        if report["outcome"] in ("crashed", "killed"):
            self._keep(report, number, place, target)
        shutil.rmtree(target)

    def _keep(self, report: dict[str, Any], number: int, place: Path, target: Path) -> None:
        fault = fault_of(report)
        numbers = self.counts["faults"].setdefault(fault, [])
        numbers.append(number)
        if len(numbers) <= KEPT:
            kept = self.folder / str(number)
            kept.mkdir(exist_ok=True)
            shutil.copyfile(place, kept / place.name)
            report["file"] = str(place.relative_to(target))
            (kept / "report.json").write_text(json.dumps(report, indent=1))
            print(f"{self.name} {number}: {fault}", file=sys.stderr, flush=True)

    def _save(self) -> None:
        self.state.write_text(json.dumps(self.counts))

    def line(self) -> str:
        """The row of the table."""
        c = self.counts
        speed = c["files"] / c["seconds"] if c["seconds"] else 0.0
        cells = [c["files"], *(c[outcome] for outcome in OUTCOMES), c["peak"] // 2**20]
        return " | ".join([*map(str, cells), f"{speed:.0f}"])


def main() -> int:
    """Runs it; 1 if a file did anything but be read or be refused in words."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=int(os.environ.get("FUZZ") or 10_000))
    parser.add_argument("--slow", type=int, help="files of slow formats; a tenth if not given")
    parser.add_argument("--only", action="append", help="names of formats, or how they begin")
    parser.add_argument("--numbers", help="these mutants alone, with commas between")
    parser.add_argument("--out", type=Path, default=Path("out/fuzz"))
    parser.add_argument("--anew", action="store_true", help="forget what was read before")
    chosen = parser.parse_args()
    names = [n for n in FORMATS if not chosen.only or n.startswith(tuple(chosen.only))]
    slow = chosen.slow if chosen.slow is not None else max(chosen.files // 10, 1)
    rows, bad = [], 0
    scratch = Path(tempfile.mkdtemp(prefix="fuzz-reader-"))
    reader = Reader(scratch, patience=PATIENCE)
    for name in names:
        campaign = Campaign(name, chosen.out, anew=chosen.anew)
        wanted = slow if FORMATS[name].slow else chosen.files
        if chosen.numbers:
            campaign.run(FORMATS[name], [int(word) for word in chosen.numbers.split(",")], reader)
        else:
            campaign.run(FORMATS[name], range(campaign.counts["files"], wanted), reader)
        rows.append(f"| {name} | {campaign.line()} |")
        bad += campaign.counts["crashed"] + campaign.counts["killed"]
        print(rows[-1], file=sys.stderr, flush=True)
    reader.close()
    shutil.rmtree(scratch, ignore_errors=True)
    print("| format | files | refused | read | crashed | killed | peak MB | files/s |")
    print("| --- " * 8 + "|")
    print("\n".join(rows))
    if bad:
        print(f"{bad} files were neither read nor refused; they are in {chosen.out}")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())

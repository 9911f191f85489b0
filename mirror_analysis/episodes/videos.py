"""Episodes from a folder of videos with a table of labels: one line of the table, one episode."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from mirror_analysis.episodes.episode import Episode, Episodes, Label
from mirror_analysis.episodes.identity import identity
from mirror_analysis.episodes.parquet import column_names, open_parquet, plain_rows
from mirror_analysis.episodes.pictures import Sources, VideoSpan
from mirror_analysis.episodes.selection import evenly_spaced
from mirror_analysis.episodes.video import frame_times
from mirror_analysis.errors import FormatError, MirrorError, MissingFileError
from mirror_analysis.files.digests import content_digest
from mirror_analysis.files.jsons import read_json
from mirror_analysis.files.places import contents, inside, shown

SUMMARY = "a folder of videos with a table of labels"

CAMERA = "video"
"""Name of the view in the column `file`."""
MOST_ROWS = 1_000_000

_SUFFIXES = (".csv", ".jsonl", ".parquet", ".tsv")
_MOST_BYTES = 256 * 2**20
_HEAD = 64 * 2**10  # bytes in which the names of the columns are looked for
_WORDS = {"true": True, "yes": True, "false": False, "no": False}
_INSTANT = 1e-6  # seconds; times of pictures are fractions that decimals only come close to
_TAKEN = ("id", "task", "instruction", "success", "start", "end")


def recognise(path: Path) -> bool:
    """Whether a path is such a table, or a folder with just one at its top."""
    try:
        return bool(_cameras(_columns(_table(path))))
    except (MirrorError, OSError):
        return False


def read(path: Path, *, limit: int | None = None, frames: int | None = None) -> Episodes:
    """Reads a table of videos; the pictures stay in their files until they are asked for.

    The table is a CSV or TSV file, JSON lines, or Parquet. Its column `file` names a video inside
    the folder; `file:NAME` does so for a view of that name, any number of them. Where they are
    there, `id`, `task`, `instruction`, `success`, and `start` and `end` in seconds mean what
    they say; every other column is a label. Without `success` an episode counts as one and
    carries the label `success_known` = False; an empty cell is no label.

    Args:
        path: the table, or the folder that holds the videos and one table.
        limit: read only the first so many lines.
        frames: keep so many evenly spaced frames of each episode; all when not given. Only these
            are decoded; steps count the frames of the video.

    Raises:
        MissingFileError: if there is no table, or a video is not there.
        FormatError: if the table or a video is damaged, or a name leads outside the folder.

    Example:
        >>> read(Path("clips"))[0].frames("video").shape
        (393, 288, 384, 3)
    """
    table = _table(path)
    rows = list(_rows(table))
    if not rows:
        raise FormatError(f"{table} has no lines; needed one for each video")
    cameras = _cameras(list(rows[0]))
    if not cameras:
        raise FormatError(f"{table} has no column 'file'; needed the name of each video")
    digest = cache(content_digest)
    episodes = []
    for number, row in enumerate(rows[:limit], start=1):
        try:
            names = [str(row.get(column, "")) for column in cameras.values()]
            files = {c: inside(table.parent, n) for c, n in zip(cameras, names, strict=True)}
            parts = [digest(file) for file in files.values()]
            episodes.append(_episode(row, files, names[0], parts, frames))
        except (FormatError, MissingFileError) as error:
            raise type(error)(f"line {number} of {table}: {error}") from None
    return Episodes(episodes)


def _episode(
    row: Mapping[str, Any],
    files: Mapping[str, Path],
    name: str,
    parts: list[str],
    frames: int | None,
) -> Episode:
    spans: dict[str, VideoSpan] = {}
    shown_at, kept = np.zeros(0), np.zeros(0, dtype=np.int64)
    first, last = _seconds(row, "start", 0.0), _seconds(row, "end", np.inf)
    for camera, file in files.items():
        times = frame_times(file)
        times -= (begin := times[0])
        times = times[(times >= first - _INSTANT) & (times < last - _INSTANT)]
        if not len(times):
            raise FormatError(f"{file} has no pictures between {first:g} and {last:g} seconds")
        if not spans:
            shown_at = times
        kept = evenly_spaced(len(shown_at), frames)
        spans[camera] = VideoSpan(file, float(begin), shown_at[kept], None)
    timestamps = (shown_at - shown_at[0])[kept]
    text = str(row.get("instruction") or row.get("task") or "")
    task = str(row.get("task") or text)
    labels: dict[str, Label] = {
        key: value
        for key, value in row.items()
        if key not in _TAKEN and not _is_file(key) and isinstance(value, str | int | float | bool)
    }
    success = row.get("success")
    if success is None:
        success, labels["success_known"] = True, False
    if success not in (True, False):
        raise FormatError(f"success is {shown(success)}; needed true or false")
    empty = np.empty((len(kept), 0), dtype=np.float32)
    name = str(row.get("id") or name)
    arrays = {"steps": kept, "timestamps": timestamps}
    return Episode(
        id=name,
        task=task,
        instruction=text,
        success=bool(success),
        states=empty,
        actions=empty,
        timestamps=timestamps,
        steps=kept,
        length=len(shown_at),
        cameras=tuple(spans),
        loader=Sources(spans),
        digest=identity(name, task, text, str(bool(success)), *parts, arrays=arrays),
        labels=labels,
    )


def _seconds(row: Mapping[str, Any], name: str, default: float) -> float:
    value = row.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        raise FormatError(f"{name} is {shown(value)}; needed seconds since the video began")
    return float(value)


def _is_file(column: str) -> bool:
    return column == "file" or column.startswith("file:")


def _cameras(columns: list[str]) -> dict[str, str]:
    return {c.removeprefix("file").removeprefix(":") or CAMERA: c for c in columns if _is_file(c)}


def _table(path: Path) -> Path:
    if path.is_file():
        return path
    found = sorted(p for p in path.glob("*") if p.suffix in _SUFFIXES and p.is_file())
    if len(found) != 1:
        there = ", ".join(p.name for p in found) or "none"
        raise MissingFileError(
            f"needed one table ({', '.join(_SUFFIXES)}) in {path} with a column 'file'; there are:"
            f" {there}; give the path of one"
        )
    return inside(path, found[0].name)


def _kind(table: Path) -> str:
    with table.open("rb") as file:
        head = file.read(_HEAD).removeprefix(b"\xef\xbb\xbf").lstrip()
    if head.startswith(b"PAR1"):
        return "parquet"
    if head.startswith(b"{"):
        return "lines"
    return "tabs" if b"\t" in head.partition(b"\n")[0] else "commas"


def _columns(table: Path) -> list[str]:
    """Names of the columns, from the first line."""
    if _kind(table) == "parquet":
        with open_parquet(table, most=_MOST_BYTES) as file:
            return column_names(file)
    with table.open("rb") as file:
        line = file.readline(_HEAD)
    if _kind(table) == "lines":
        first: dict[str, Any] = read_json(line)
        return list(first)
    return list(next(_read_text(table, line), []))


def _rows(table: Path) -> Iterator[dict[str, Any]]:
    kind = _kind(table)
    if kind == "parquet":
        with open_parquet(table, most=_MOST_BYTES) as file:
            names = column_names(file)
        yield from plain_rows(table, names)
        return
    data = contents(table, "a table of labels", most=_MOST_BYTES)
    if data.count(b"\n") > MOST_ROWS:
        raise FormatError(f"{table} has more than {MOST_ROWS} lines; divide it")
    if kind == "lines":
        for line in data.splitlines():
            if line.strip():
                yield read_json(line)
        return
    lines = list(_read_text(table, data))
    header, body = lines[0] if lines else [], lines[1:]
    if len(set(header)) < len(header):
        raise FormatError(f"{table} names a column twice: {shown(', '.join(header))}")
    for number, cells in enumerate(body, start=2):
        if len(cells) != len(header):
            raise FormatError(
                f"line {number} of {table} has {len(cells)} cells; needed {len(header)}, as in the"
                " first line"
            )
    typed = {
        name: list(column) if _is_file(name) or name == "id" else _typed(column)
        for name, column in zip(header, zip(*body, strict=True), strict=bool(body))
    }
    for number in range(len(body)):
        yield {name: values[number] for name, values in typed.items()}


def _read_text(table: Path, data: bytes) -> Iterator[list[str]]:
    delimiter = "\t" if _kind(table) == "tabs" else ","
    try:
        text = data.decode("utf-8-sig")
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        yield from (cells for cells in reader if cells)
    except (csv.Error, UnicodeDecodeError) as error:
        raise FormatError(f"{table} is not a table of text: {shown(error)}; mend it") from None


def _typed(cells: tuple[str, ...]) -> list[Label | None]:
    """The cells of a column as the narrowest type that holds them all; None where empty."""
    filled = [cell for cell in cells if cell.strip()]
    for kind in (_word, _whole, _real):
        try:
            values = {cell: kind(cell) for cell in filled}
        except ValueError:
            continue
        return [values.get(cell) for cell in cells]
    return [cell if cell.strip() else None for cell in cells]


def _word(cell: str) -> bool:
    if cell.strip().lower() not in _WORDS:
        raise ValueError(cell)
    return _WORDS[cell.strip().lower()]


def _whole(cell: str) -> int:
    # int() itself takes 2024_01 for a number.
    if not re.fullmatch(r"[+-]?[0-9]{1,18}", cell.strip()):
        raise ValueError(cell)
    return int(cell)


def _real(cell: str) -> float:
    if not re.fullmatch(r"[+-]?[0-9.]+(e[+-]?[0-9]+)?", cell.strip().lower()):
        raise ValueError(cell)
    return float(cell)

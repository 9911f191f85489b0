"""The tables of an mp4 file, looked at before a decoder makes room for what they claim."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from mirror_analysis.errors import FormatError

MOST_SAMPLES = 8_000_000
"""Pictures and pieces of sound in one file, counted once for every cut in its edit lists."""
MOST_BOXES = 100_000
"""Parts of one file; a fragmented file of a day at two seconds each has fewer."""

_FIRST = {b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"styp"}
_NESTED = {b"moov", b"trak", b"edts", b"mdia", b"minf", b"stbl", b"moof", b"traf"}


def check_boxes(path: Path) -> None:
    """Makes sure that an mp4 or mov file claims no more samples than it can hold.

    Where samples are of equal size the table of their sizes is 12 bytes long whatever count it
    claims, and the decoder keeps 64 bytes for each: a file of 600 KB that claims 2^26 of them
    takes 4 GB to open. Files of other kinds pass.

    Args:
        path: the file.

    Raises:
        FormatError: if a count is larger than the file or than what is read.
    """
    size = path.stat().st_size
    samples = boxes = edits = 0
    with path.open("rb") as file:
        if file.read(8)[4:] not in _FIRST:
            return
        for kind, body in _boxes(file, size):
            boxes += 1
            if kind in (b"stsz", b"stz2"):
                samples += _number(body, 8)
            elif kind == b"trun":
                samples += _number(body, 4)
            elif kind == b"elst":
                edits = max(edits, _number(body, 4))
            if boxes > MOST_BOXES:
                raise FormatError(f"{path} has more than {MOST_BOXES} boxes; convert it to mp4")
    if samples > size or samples * max(edits, 1) > MOST_SAMPLES:
        raise FormatError(
            f"{path} claims {samples} samples in {size} bytes and {edits} cuts; needed at most one"
            f" sample a byte and {MOST_SAMPLES} over all cuts, so divide it or take out its sound"
        )


def _number(body: bytes, at: int) -> int:
    return int.from_bytes(body[at : at + 4], "big")


def _boxes(file: BinaryIO, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Kind and first 16 bytes of each box that holds no others."""
    stack = [(0, size)]
    while stack:
        at, end = stack.pop()
        if at + 8 > end:
            continue
        file.seek(at)
        length, kind = struct.unpack(">I4s", file.read(8).ljust(8, b"\0"))
        head = 8
        if length == 1:
            length, head = int.from_bytes(file.read(8), "big"), 16
        elif length == 0:
            length = end - at
        stop = min(at + max(length, head), end)
        stack.append((stop, end))
        if kind in _NESTED:
            stack.append((at + head, stop))
        else:
            yield kind, file.read(16)

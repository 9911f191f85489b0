"""What the end of a Parquet file says of its columns, read without pyarrow.

pyarrow ends the whole process, rather than raising, when it is asked for the facts of a column
whose statistics are damaged (`RowGroupMetaData.column`), so they are looked at here. The layout is
that of Thrift's compact protocol and of parquet.thrift, field by number.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

from mirror_analysis.errors import FormatError

MOST_FOOTER = 128 * 2**20
"""Bytes of a footer."""

_DEEPEST = 12
_TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _STRUCT = 1, 2, 3, 7, 8, 9, 10, 12
_NUMBERS = (4, 5, 6)
_INT32: Final = 1
_INT64: Final = 2
_TEXTS = (6, 7)  # BYTE_ARRAY, FIXED_LEN_BYTE_ARRAY


@final
@dataclass(frozen=True)
class Chunk:
    """One column in one group of rows.

    Attributes:
        path: names from the outermost, with dots between.
        is_text: whether its values are bytes of any length.
        values: how many there are, those inside lists counted one by one.
        unpacked: bytes after decompression.
        bounds: least and largest value, where it is an integer and they are told.
    """

    path: str
    is_text: bool
    values: int
    unpacked: int
    bounds: tuple[int, int] | None


def read_footer(path: Path) -> list[list[Chunk]]:
    """The columns of every group of rows.

    Args:
        path: a Parquet file.

    Raises:
        FormatError: if its footer is damaged or too long.
    """
    with path.open("rb") as file:
        end = file.seek(0, 2)
        file.seek(max(end - 8, 0))
        length = int.from_bytes(file.read(4), "little")
        if file.read(4) != b"PAR1" or length > min(end - 12, MOST_FOOTER):
            raise FormatError(
                f"{path} is not a readable Parquet file: its last bytes tell no length of at most"
                f" {MOST_FOOTER}; fetch it again"
            )
        file.seek(end - 8 - length)
        data = file.read(length)
    try:
        groups = _Reader(data).value(_STRUCT, 0).get(4, [])
        return [[_chunk(column) for column in group[1]] for group in groups]
    except (LookupError, TypeError, ValueError, AttributeError, struct.error):
        raise FormatError(
            f"{path} is not a readable Parquet file: its footer is damaged; fetch it again"
        ) from None


def _chunk(column: dict[int, Any]) -> Chunk:
    facts = column[3]
    kind, bounds = facts[1], None
    told = facts.get(12, {})
    if kind in (_INT32, _INT64) and 5 in told and 6 in told:
        bounds = (
            int.from_bytes(told[6], "little", signed=True),
            int.from_bytes(told[5], "little", signed=True),
        )
    values, unpacked = int(facts[5]), int(facts[6])
    if values < 0 or unpacked < 0:
        raise ValueError("negative")
    path = ".".join(name.decode() for name in facts[3])
    return Chunk(path, kind in _TEXTS, values, unpacked, bounds)


class _Reader:
    """Values one after the other: structs as dicts by field number, lists as lists."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def value(self, kind: int, depth: int) -> Any:
        if kind in _NUMBERS:
            number = self._varint()
            return (number >> 1) ^ -(number & 1)
        if kind == _BINARY:
            return self._take(self._varint())
        if kind == _STRUCT:
            return self._struct(depth)
        if kind in (_LIST, _SET):
            return self._list(depth)
        if kind in (_TRUE, _FALSE):
            return kind == _TRUE
        if kind == _BYTE:
            return self._take(1)
        if kind == _DOUBLE:
            return self._take(8)
        raise ValueError(kind)

    def _struct(self, depth: int) -> dict[int, Any]:
        if depth > _DEEPEST:
            raise ValueError("nested")
        found: dict[int, Any] = {}
        field = 0
        while head := self._data[self._at]:
            self._at += 1
            field = field + (head >> 4) if head >> 4 else self.value(_NUMBERS[0], depth)
            found[field] = self.value(head & 15, depth + 1)
        self._at += 1
        return found

    def _list(self, depth: int) -> list[Any]:
        if depth > _DEEPEST:
            raise ValueError("nested")
        head = self._take(1)[0]
        count, kind = head >> 4, head & 15
        if count == 15:
            count = self._varint()
        if count > len(self._data) - self._at:
            raise ValueError("longer than the footer")
        if kind in (_TRUE, _FALSE):
            return list(self._take(count))
        return [self.value(kind, depth + 1) for _ in range(count)]

    def _varint(self) -> int:
        number = shift = 0
        while True:
            byte = self._data[self._at]
            self._at += 1
            number |= (byte & 127) << shift
            if byte < 128:
                return number
            shift += 7
            if shift > 63:
                raise ValueError("longer than 64 bits")

    def _take(self, count: int) -> bytes:
        if count > len(self._data) - self._at:
            raise ValueError("longer than the footer")
        self._at += count
        return self._data[self._at - count : self._at]

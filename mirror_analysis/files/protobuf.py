"""Messages in the wire format of protocol buffers, field by field, without their packages."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

VARINT, WIDE, BYTES, NARROW = 0, 1, 2, 5


def fields(data: memoryview) -> Iterator[tuple[int, int, int | memoryview]]:
    """The fields of one message: number, wire type, and value.

    The value of a varint is a number; of any other type the bytes, not copied.

    Raises:
        ValueError: if it is no message.

    Example:
        >>> list(fields(memoryview(bytes([8, 7]))))
        [(1, 0, 7)]
    """
    at, end = 0, len(data)
    while at < end:
        tag, at = varint(data, at)
        number, wire = tag >> 3, tag & 7
        if not 0 < number < 2**29:
            raise ValueError(f"field number {number}")
        if wire == VARINT:
            value, at = varint(data, at)
            yield number, wire, value
            continue
        if wire == BYTES:
            size, at = varint(data, at)
        elif wire in (WIDE, NARROW):
            size = 8 if wire == WIDE else 4
        else:
            raise ValueError(f"wire type {wire}")
        if size > end - at:
            raise ValueError(f"a field of {size} bytes where {end - at} are left")
        yield number, wire, data[at : at + size]
        at += size


def varint(data: memoryview, at: int) -> tuple[int, int]:
    """A number of up to ten bytes, and where the next one starts.

    Raises:
        ValueError: if it does not end.
    """
    value = 0
    for place, byte in enumerate(data[at : at + 10]):
        value |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, at + place + 1
    raise ValueError("a number that does not end")


def packed_int64(data: memoryview) -> NDArray[np.int64]:
    """Numbers packed one after another, signed.

    Raises:
        ValueError: if the last does not end, or one has more than ten bytes.
    """
    codes = np.frombuffer(data, np.uint8)
    if not len(codes):
        return np.zeros(0, np.int64)
    ends = np.flatnonzero(codes < 0x80)
    starts = np.concatenate([[0], ends[:-1] + 1]) if len(ends) else ends
    if not len(ends) or ends[-1] != len(codes) - 1 or int((ends - starts).max()) >= 10:
        raise ValueError("a number that does not end")
    owner = np.repeat(np.arange(len(ends)), ends - starts + 1)
    place = (np.arange(len(codes)) - starts[owner]).astype(np.uint64)
    values = np.zeros(len(ends), np.uint64)
    np.add.at(values, owner, (codes & 0x7F).astype(np.uint64) << (place * np.uint64(7)))
    return values.view(np.int64)


def encode(number: int, data: bytes) -> bytes:
    """A field of bytes in the wire format."""
    return encode_number(number << 3 | BYTES) + encode_number(len(data)) + data


def encode_number(value: int) -> bytes:
    """A number of at most 64 bits in the wire format."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)

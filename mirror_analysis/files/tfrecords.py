"""TFRecord files and the examples in them, read without TensorFlow."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mirror_analysis.errors import FormatError
from mirror_analysis.files.bounded import BoundedFile
from mirror_analysis.files.checksums import crc32c
from mirror_analysis.files.places import reason, require_file
from mirror_analysis.files.protobuf import BYTES, NARROW, VARINT, fields, packed_int64

_MOST_FEATURES = 10_000
_MOST_VALUES = 2**20  # strings of one feature; each takes more memory than its bytes


def records(path: Path, *, most: int = 2**29, check: bool = True) -> Iterator[bytes]:
    """The records of a TFRecord file, one after another, without keeping them.

    Each is its length (8 bytes), the masked CRC-32C of the length, the data, and the masked
    CRC-32C of the data. The checksum of a length is always compared before it is believed.

    Args:
        path: the file.
        most: bytes one record may have.
        check: whether the data is compared with its checksum too.

    Raises:
        MissingFileError: if there is no such file.
        FormatError: if it is no such file, damaged, or cut off.

    Example:
        >>> sum(1 for _ in records(Path("bridge-train.tfrecord-00000-of-00001")))
        25
    """
    require_file(path, "a TFRecord file")
    with BoundedFile(path) as file:
        at = 0
        while at < file.size:
            head = file.read(12)
            length = int.from_bytes(head[:8], "little")
            if len(head) < 12 or masked(head[:8]) != int.from_bytes(head[8:], "little"):
                raise FormatError(
                    f"{path} has no whole record at byte {at}; needed a TFRecord file, so fetch it"
                    " anew"
                )
            if length > min(most, file.size - at - 16):
                raise FormatError(
                    f"{path} claims {length} bytes for the record at byte {at}; it holds"
                    f" {file.size} and the cap is {most}, so fetch it anew"
                )
            data, tail = file.read(length), file.read(4)
            if check and masked(data) != int.from_bytes(tail, "little"):
                raise FormatError(
                    f"the record at byte {at} of {path} does not match its checksum; fetch it anew"
                )
            at += 16 + length
            yield data


def masked(data: bytes) -> int:
    """CRC-32C turned by 15 bits plus a constant, as TFRecord files store it."""
    total = crc32c(data)
    return ((total >> 15 | total << 17) + 0xA282EAD8) & 0xFFFFFFFF


def example(record: bytes) -> dict[str, list[bytes] | NDArray[Any]]:
    """The features of a `tf.train.Example`: strings as a list, numbers as float32 or int64.

    Args:
        record: one of `records`.

    Raises:
        FormatError: if it is no such message.

    Example:
        >>> example(record)["steps/language_instruction"][0]
        b'put the pot on the stove'
    """
    found: dict[str, list[bytes] | NDArray[Any]] = {}
    try:
        for features in _parts(memoryview(record), 1):
            for entry in _parts(features, 1):
                name, value = b"", memoryview(b"")
                for number, _, part in fields(entry):
                    if isinstance(part, memoryview) and number == 1:
                        name = bytes(part)
                    elif isinstance(part, memoryview) and number == 2:
                        value = part
                found[name.decode("utf-8")] = _feature(value)
                if len(found) > _MOST_FEATURES:
                    raise ValueError(f"more than {_MOST_FEATURES} features")
    except (ValueError, OverflowError, MemoryError) as error:
        raise FormatError(
            f"a record of {len(record)} bytes is not a tf.train.Example: {reason(error)}; needed"
            " one, so look whether the file holds another kind"
        ) from None
    return found


def _parts(message: memoryview, wanted: int) -> Iterator[memoryview]:
    for number, wire, value in fields(message):
        if number == wanted and wire == BYTES:
            assert isinstance(value, memoryview)
            yield value


def _feature(message: memoryview) -> list[bytes] | NDArray[Any]:
    result: list[bytes] | NDArray[Any] = []
    for number, wire, part in fields(message):
        if wire != BYTES or not isinstance(part, memoryview):
            raise ValueError(f"a feature with the field {number} of wire type {wire}")
        if number == 1:
            strings: list[bytes] = []
            for value in _parts(part, 1):
                strings.append(bytes(value))
                if len(strings) > _MOST_VALUES:
                    raise ValueError(f"more than {_MOST_VALUES} strings in a feature")
            result = strings
        elif number == 2:
            result = _floats(part)
        elif number == 3:
            result = _integers(part)
    return result


def _floats(message: memoryview) -> NDArray[np.float32]:
    parts: list[NDArray[np.float32]] = []
    single = bytearray()
    for number, wire, value in fields(message):
        if number != 1 or wire not in (BYTES, NARROW) or isinstance(value, int):
            raise ValueError(f"a list of floats with the field {number} of wire type {wire}")
        if wire == NARROW:
            single += value
        else:
            parts += [np.frombuffer(single, "<f4"), np.frombuffer(value, "<f4")]
            single = bytearray()
    parts.append(np.frombuffer(single, "<f4"))
    return np.concatenate(parts).astype(np.float32)


def _integers(message: memoryview) -> NDArray[np.int64]:
    parts: list[NDArray[np.int64]] = []
    single: list[int] = []
    for number, wire, value in fields(message):
        if number != 1 or wire not in (BYTES, VARINT):
            raise ValueError(f"a list of integers with the field {number} of wire type {wire}")
        if isinstance(value, int):
            single.append(value)
        else:
            parts += [np.array(single, np.uint64).view(np.int64), packed_int64(value)]
            single = []
    parts.append(np.array(single, np.uint64).view(np.int64))
    return np.concatenate(parts)

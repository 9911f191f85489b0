"""The wire format, by its definition."""

import numpy as np
import pytest

from mirror_analysis.files.protobuf import encode, encode_number, fields, packed_int64, varint


def test_fields_are_read() -> None:
    data = b"\x08\x96\x01" + b"\x11" + b"12345678" + encode(3, b"abc") + b"\x25" + b"1234"
    read = [(n, w, v if isinstance(v, int) else bytes(v)) for n, w, v in fields(memoryview(data))]
    assert read == [(1, 0, 150), (2, 1, b"12345678"), (3, 2, b"abc"), (4, 5, b"1234")]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\x08", "does not end"),
        (b"\x08" + b"\xff" * 11, "does not end"),
        (b"\x0b", "wire type 3"),
        (b"\x0f", "wire type 7"),
        (b"\x00\x01", "field number 0"),
        (b"\x0a\x05abc", "a field of 5 bytes where 3 are left"),
        (b"\x0a" + b"\xff" * 9 + b"\x01", "a field of 18446744073709551615 bytes"),
        (b"\x09abc", "a field of 8 bytes where 3 are left"),
    ],
)
def test_damaged_messages_are_refused(data, words) -> None:
    with pytest.raises(ValueError, match=words):
        list(fields(memoryview(data)))


@pytest.mark.parametrize("numbers", [[], [0], [1, -1, 2**63 - 1, -(2**63), 127, 128, 300]])
def test_packed_numbers_come_back(numbers) -> None:
    data = b"".join(encode_number(n & 0xFFFFFFFFFFFFFFFF) for n in numbers)
    assert packed_int64(memoryview(data)).tolist() == numbers
    assert packed_int64(memoryview(data)).dtype == np.int64


@pytest.mark.parametrize("data", [b"\x80", b"\x01\x80", b"\x80" * 11 + b"\x01"])
def test_numbers_that_do_not_end_are_refused(data) -> None:
    with pytest.raises(ValueError, match="a number that does not end"):
        packed_int64(memoryview(data))
    with pytest.raises(ValueError, match="a number that does not end"):
        at = 0
        while at < len(data):
            _, at = varint(memoryview(data), at)

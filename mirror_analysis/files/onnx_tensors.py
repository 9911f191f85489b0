"""One tensor of an ONNX model: what it claims, against the bytes that are there."""

from __future__ import annotations

import math
from dataclasses import dataclass

from mirror_analysis.files.places import shown
from mirror_analysis.files.protobuf import BYTES, fields, packed_int64

_MOST_NUMBERS = 2**36
_MOST_AXES = 64
# Code -> name and bits of a number (onnx.TensorProto.DataType).
TYPES = {
    1: ("float32", 32),
    2: ("uint8", 8),
    3: ("int8", 8),
    4: ("uint16", 16),
    5: ("int16", 16),
    6: ("int32", 32),
    7: ("int64", 64),
    8: ("string", 0),
    9: ("bool", 8),
    10: ("float16", 16),
    11: ("float64", 64),
    12: ("uint32", 32),
    13: ("uint64", 64),
    14: ("complex64", 64),
    15: ("complex128", 128),
    16: ("bfloat16", 16),
    17: ("float8_e4m3fn", 8),
    18: ("float8_e4m3fnuz", 8),
    19: ("float8_e5m2", 8),
    20: ("float8_e5m2fnuz", 8),
    21: ("uint4", 4),
    22: ("int4", 4),
    23: ("float4_e2m1", 4),
    24: ("float8_e8m0", 8),
}


@dataclass(frozen=True)
class Weight:
    """A tensor of a model.

    Attributes:
        name: its name.
        type: of its numbers, such as "float32".
        shape: its sides.
        size: bytes its numbers take.
        outside: where they lie when not in the model: location, offset, length; else empty.
    """

    name: str
    type: str
    shape: tuple[int, ...]
    size: int
    outside: dict[str, str]


def read_weight(message: memoryview) -> Weight:
    """A TensorProto whose content has the size its shape needs.

    Raises:
        ValueError: if it has not.
    """
    shape: list[int] = []
    code, name, raw, typed, elsewhere = 0, "", None, 0, False
    outside: dict[str, str] = {}
    for number, wire, value in fields(message):
        if number == 1:
            shape += [value] if isinstance(value, int) else packed_int64(value).tolist()
        elif number == 2 and isinstance(value, int):
            code = value
        elif number == 14 and isinstance(value, int):
            elsewhere = value == 1
        elif number == 3:
            raise ValueError("a tensor in segments")
        elif wire == BYTES and not isinstance(value, int):
            if number == 8:
                name = bytes(value).decode("utf-8", "replace")
            elif number == 9:
                raw = len(value)
            elif number == 13:
                key, text = _pair(value)
                outside[key] = text
        if number in (4, 5, 6, 7, 10, 11):
            typed += 1
    if code not in TYPES:
        raise ValueError(f"tensor {shown(name)} has the unknown type {code}")
    kind, bits = TYPES[code]
    if len(shape) > _MOST_AXES or any(not 0 <= n < 2**63 for n in shape):
        raise ValueError(f"tensor {shown(name)} has the shape {str(shape)[:60]}")
    if math.prod(max(n, 1) for n in shape) > _MOST_NUMBERS:
        raise ValueError(f"tensor {shown(name)} has the shape {str(shape)[:60]}")
    numbers = math.prod(shape)
    size = -(-numbers * bits // 8)
    if elsewhere:
        if "location" not in outside or not bits:
            raise ValueError(f"tensor {shown(name)} is in another file that is not named")
        if not all(outside.get(k, "0").isdecimal() for k in ("offset", "length")):
            raise ValueError(f"tensor {shown(name)} is at no possible place of another file")
    elif (raw is not None and raw != size) or (raw is None and numbers and not typed):
        raise ValueError(f"tensor {shown(name)} {shape} has {raw or 0} bytes; needed {size}")
    return Weight(name, kind, tuple(shape), size, outside if elsewhere else {})


def _pair(message: memoryview) -> tuple[str, str]:
    words = {1: "", 2: ""}
    for number, wire, value in fields(message):
        if wire == BYTES and not isinstance(value, int):
            words[number] = bytes(value).decode("utf-8", "replace")
    return words[1], words[2]

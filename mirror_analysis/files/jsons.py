"""JSON of bounded size and depth."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from mirror_analysis.errors import FormatError
from mirror_analysis.files.places import contents, name_of, reason

T = TypeVar("T")

_DEEPEST = 200
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)


def read_json(source: Path | bytes, type: type[T] | Any = dict, *, most: int = 32 * 2**20) -> T:
    """JSON as a value of the given type.

    NaN and Infinity, which Python writes although JSON has no such words, are read.

    Args:
        source: a file, or its bytes.
        type: what it must hold, checked: dict, list, `dict[str, float]`, a `msgspec.Struct`.
        most: bytes it may hold.

    Raises:
        MissingFileError: if there is no such file.
        FormatError: if it is not JSON, nested deeper than 200, or of another type.

    Example:
        >>> read_json(b'{"fps": 30}')
        {'fps': 30}
    """
    data, name = contents(source, "a JSON file", most=most), name_of(source)
    try:
        data = data.removeprefix(b"\xef\xbb\xbf")
        try:
            value = msgspec.json.decode(data, type=type)
        except msgspec.ValidationError:
            raise
        except msgspec.DecodeError as error:
            if not any(word in data for word in (b"NaN", b"Infinity")):
                raise error from None
            value = msgspec.convert(json.loads(data), type)
        _check_depth(data)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise FormatError(
            f"{name} is not the JSON that is needed: {reason(error)}; write or fetch it anew"
        ) from None
    return value


def _check_depth(data: bytes) -> None:
    # Of JSON that was decoded already, so every string ends.
    if data.count(b"[") + data.count(b"{") <= _DEEPEST:
        return
    depth = 0
    for match in _TOKEN.finditer(data):
        code = match.group()
        depth += 1 if code in (b"[", b"{") else -1 if code in (b"]", b"}") else 0
        if depth > _DEEPEST:
            raise ValueError(f"nested deeper than {_DEEPEST}")

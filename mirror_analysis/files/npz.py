"""Arrays as numpy writes them, never by way of a pickle."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mirror_analysis.errors import FormatError
from mirror_analysis.files.archives import Archive
from mirror_analysis.files.element_bytes import check_elements
from mirror_analysis.files.places import contents, name_of, reason

_MAGIC = b"\x93NUMPY"
_LONGEST_HEADER = 2**16
_MOST_SIDES = 2**40
_PLAIN = re.compile(r"[<>|=]?[biufcSU]\d{1,7}")


def read_npz(
    source: Path | bytes, *, names: Collection[str] | None = None, most: int = 2**34
) -> dict[str, NDArray[Any]]:
    """The arrays of an .npz archive by name, or of an .npy file by the name "".

    Args:
        source: a file, or its bytes.
        names: of an archive, read these alone, where they are there; all when None.
        most: bytes all arrays may have together.

    Raises:
        MissingFileError: if there is no such file.
        FormatError: if it is neither, damaged, or holds Python objects.

    Example:
        >>> read_npz(Path("episode.npz"))["actions"].shape
        (150, 4)
    """
    name = name_of(source)
    if isinstance(source, bytes) or source.is_file():
        with Path(source).open("rb") if isinstance(source, Path) else _Start(source) as file:
            start = file.read(len(_MAGIC))
        if start == _MAGIC:
            return {"": _array(contents(source, "an .npy file", most=most), name)}
    with Archive(source) as archive:
        members = {member.removesuffix(".npy"): member for member in archive.names}
        if names is not None:
            members = {key: member for key, member in members.items() if key in names}
        total = sum(archive.size(member) for member in members.values())
        if total > most:
            raise FormatError(f"{name} holds {total} bytes of arrays; needed at most {most}")
        return {
            key: _array(archive.read(member), f"{member!r} of {name}")
            for key, member in members.items()
        }


class _Start:
    def __init__(self, data: bytes) -> None:
        self.data = data

    def __enter__(self) -> _Start:
        return self

    def __exit__(self, *exception: object) -> None:
        return None

    def read(self, size: int) -> bytes:
        return self.data[:size]


def _array(data: bytes, name: str) -> NDArray[Any]:
    wide = 2 if data[6:7] == b"\x01" else 4
    length = int.from_bytes(data[8 : 8 + wide], "little")
    start = 8 + wide + length
    if data[:6] != _MAGIC or data[6:7] not in (b"\x01", b"\x02", b"\x03"):
        raise FormatError(f"{name} is not an array as numpy writes it; needed an .npy member")
    if length > _LONGEST_HEADER or start > len(data):
        raise FormatError(f"{name} claims a header of {length} bytes; needed a whole .npy")
    try:
        header = ast.literal_eval(data[8 + wide : start].decode("utf-8").strip())
        kind, fortran, shape = (header[key] for key in ("descr", "fortran_order", "shape"))
        if not (isinstance(kind, str) and _PLAIN.fullmatch(kind) and isinstance(shape, tuple)):
            raise ValueError(f"type {kind!r} and shape {shape!r}; objects are not read")
        dtype = np.dtype(kind)
        if len(shape) > 32 or any(type(n) is not int or n < 0 for n in shape):
            raise ValueError(f"shape {shape!r}")
        if math.prod(max(n, 1) for n in shape) > _MOST_SIDES:
            raise ValueError(f"shape {shape!r}")
        if math.prod(shape) * dtype.itemsize != len(data) - start or not dtype.itemsize:
            raise ValueError(f"{len(data) - start} bytes for {kind} {shape!r}")
        flat = np.frombuffer(bytearray(data[start:]), dtype)
        check_elements(flat)
        return flat.reshape(shape, order="F" if fortran is True else "C")
    except (ValueError, KeyError, TypeError, SyntaxError, RecursionError, MemoryError) as error:
        raise FormatError(
            f"{name} is not a whole array of plain numbers: {reason(error)}; save it anew"
        ) from None

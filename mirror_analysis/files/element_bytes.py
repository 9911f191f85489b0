"""Bytes that are no value of their type: letters beyond Unicode, truths beyond true."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_LAST_LETTER = 0x10FFFF


def check_elements(array: NDArray[Any]) -> None:
    """Refuses an array filled from bytes with elements Python has no value for.

    Raises:
        ValueError: if there are any; numpy itself would fail when they are looked at.
    """
    if array.dtype.names is not None:
        for name in array.dtype.names:
            check_elements(array[name])
    elif array.dtype.kind == "U" and array.size:
        letters = np.ascontiguousarray(array).reshape(-1).view(np.uint32)
        if array.dtype.byteorder == ">":
            letters = letters.byteswap()
        if int(letters.max()) > _LAST_LETTER:
            raise ValueError("text with letters beyond Unicode")
    elif array.dtype.kind == "b" and array.size:
        if int(np.ascontiguousarray(array).reshape(-1).view(np.uint8).max()) > 1:
            raise ValueError("truth values other than 0 and 1")

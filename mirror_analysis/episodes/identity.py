"""The sha256 of what an episode is."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray


def identity(*facts: str, arrays: Mapping[str, NDArray[np.generic]] | None = None) -> str:
    """Sha256 of texts and arrays; another order of the texts is another identity.

    Args:
        *facts: texts, such as the digests of the files the pictures come from.
        arrays: name -> array; name, type of number, shape and values count.

    Example:
        >>> identity("demo_0", arrays={"states": states})
    """
    digest = hashlib.sha256()
    for fact in facts:
        encoded = fact.encode("utf-8", "surrogateescape")
        digest.update(f"{len(encoded)}\0".encode() + encoded)
    for name, values in sorted((arrays or {}).items()):
        digest.update(f"\0{name} {values.dtype} {values.shape}\0".encode())
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()

"""Which frames of an episode are kept, and the order of numbered names."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from mirror_analysis.errors import DefinitionError


def evenly_spaced(count: int, frames: int | None) -> NDArray[np.int64]:
    """Positions of the frames that are kept, from the first to the last.

    Args:
        count: frames there are.
        frames: how many to keep; all of them when None, or when there are no more.

    Returns:
        [kept] increasing positions in [0, count).

    Raises:
        DefinitionError: if fewer than one frame is asked for.

    Example:
        >>> evenly_spaced(10, 4)
        array([0, 3, 6, 9])
    """
    if frames is not None and frames < 1:
        raise DefinitionError(f"frames is {frames}; needed 1 or more of each episode")
    if frames is None or frames >= count:
        return np.arange(count, dtype=np.int64)
    return np.linspace(0, count - 1, frames).round().astype(np.int64)


def numbered(name: str) -> list[tuple[int, str]]:
    """Sorting key under which numbers inside names count: demo_9 before demo_10.

    Example:
        >>> sorted(["demo_10", "demo_9"], key=numbered)
        ['demo_9', 'demo_10']
    """
    words = re.split(r"([0-9]{1,18})", name)
    return [(int(w), "") if i % 2 else (-1, w) for i, w in enumerate(words)]

"""Numbers in the precision episodes are kept in."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def single(values: NDArray[Any]) -> NDArray[np.float32]:
    """The numbers as float32; those that are too large become infinite, which episodes refuse.

    Args:
        values: any shape, real numbers.

    Example:
        >>> single(np.array([1e300, 0.5]))
        array([inf, 0.5], dtype=float32)
    """
    with np.errstate(over="ignore"):
        return values.astype(np.float32)

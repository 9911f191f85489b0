"""Bilinear interpolation of bytes without antialiasing, in the fixed-point numbers of OpenCV."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_ONE = 2048  # a weight of 1


def four_pixels(picture: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """A picture of another size, each of its pixels out of the four nearest there were.

    However much a picture shrinks, what lies between is left out. Equal to `cv2.resize` with
    its default, INTER_LINEAR, to the byte.

    Args:
        picture: [height, width, channel].
        size: (height, width).

    Example:
        >>> four_pixels(np.array([[[0], [100]]], dtype=np.uint8), (1, 4))[0, :, 0]
        array([  0,  25,  75, 100], dtype=uint8)
    """
    top, bottom, upper, lower = _places(picture.shape[0], size[0])
    left, right, before, after = _places(picture.shape[1], size[1], whole_at_ends=True)
    wide = picture.astype(np.int64)
    rows = wide[:, left] * before[None, :, None] + wide[:, right] * after[None, :, None]
    rows >>= 4
    above = (rows[top] * upper[:, None, None]) >> 16
    below = (rows[bottom] * lower[:, None, None]) >> 16
    return ((above + below + 2) >> 2).astype(np.uint8)


def _places(
    given: int, wanted: int, *, whole_at_ends: bool = False
) -> tuple[NDArray[np.int64], ...]:
    """For each place wanted the two places given that it lies between, and their weights.

    Beyond the first and last place OpenCV takes that one place twice, or, from left to right,
    once with the whole weight; the sums are rounded down one by one, so that it matters.
    """
    centres = ((np.arange(wanted) + 0.5) * (given / wanted) - 0.5).astype(np.float32)
    first = np.floor(centres).astype(np.int64)
    share = centres - first.astype(np.float32)
    if whole_at_ends:
        share = np.where((first < 0) | (first >= given - 1), np.float32(0), share)
    weights = [np.rint(part * np.float32(_ONE)).astype(np.int64) for part in (1 - share, share)]
    last = given - 1
    return np.clip(first, 0, last), np.clip(first + 1, 0, last), weights[0], weights[1]

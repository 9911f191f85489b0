"""Pictures one after another, as one array of bounded size."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from mirror_analysis.errors import FormatError

_MOST = 2**31  # bytes of all pictures of one camera of one episode


def stacked(pictures: Iterable[NDArray[np.uint8]], *, count: int, where: str) -> NDArray[np.uint8]:
    """The pictures of one camera in one array; each is decoded only once there is room for all.

    Args:
        pictures: [height, width, 3] each.
        count: how many there are.
        where: what they are, for the message, such as "front_rgb of t/variation0/episode0".

    Returns:
        [time, height, width, 3].

    Raises:
        FormatError: if their sizes differ, or all of them would take more than 2 GiB.

    Example:
        >>> stacked([np.zeros((2, 3, 3), np.uint8)], count=1, where="a").shape
        (1, 2, 3, 3)
    """
    found = np.zeros((0, 0, 0, 3), np.uint8)
    for position, picture in enumerate(pictures):
        if not position:
            if count * picture.size > _MOST:
                raise FormatError(
                    f"{count} pictures {where} take {count * picture.size / 2**30:.1f} GiB;"
                    f" at most {_MOST / 2**30:g} are read at once, so ask for fewer frames"
                )
            found = np.empty((count, *picture.shape), np.uint8)
        if picture.shape != found.shape[1:]:
            raise FormatError(
                f"picture {position} {where} has shape {list(picture.shape)}, but those before it"
                f" {list(found.shape[1:])}; needed one size for all of an episode"
            )
        found[position] = picture
    return found

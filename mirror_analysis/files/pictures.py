"""Pictures, decoded only when they are not too large."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from mirror_analysis.errors import FormatError
from mirror_analysis.files.places import contents, name_of, reason

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP")


def read_picture(
    source: Path | bytes, *, most: int = 2**26, most_pixels: int = 2**26
) -> UInt8[np.ndarray, "height width 3"]:
    """A picture in red, green and blue; the first of an animation.

    PNG, JPEG, BMP, GIF and WebP are read; transparency is dropped, a palette is resolved, and
    the orientation a camera noted is not applied.

    Args:
        source: a file, or its bytes.
        most: bytes it may hold.
        most_pixels: height times width it may have, looked at before anything is decoded.

    Raises:
        MissingFileError: if there is no such file.
        FormatError: if it is no such picture, damaged, or too large.

    Example:
        >>> read_picture(Path("front_rgb/0.png")).shape
        (128, 128, 3)
    """
    from PIL import Image

    data, name = contents(source, "a picture", most=most), name_of(source)
    # Pillow raises what its decoders happen to meet, struct.error and SyntaxError among it.
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            width, height = picture.size
            if width * height <= most_pixels:
                return np.array(picture.convert("RGB"))
    except Exception as error:
        raise FormatError(
            f"{name} cannot be read as a picture: {reason(error)};"
            f" needed a whole {', '.join(FORMATS)}"
        ) from None
    raise FormatError(
        f"{name} has {width} x {height} pixels; needed at most {most_pixels}, so make it smaller"
    )

"""Pictures are decoded only when small and of a known kind."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from mirror_analysis.errors import FormatError
from mirror_analysis.files.pictures import FORMATS, read_picture

PIXELS = np.random.default_rng(0).integers(0, 256, (7, 5, 3)).astype(np.uint8)


def encoded(kind: str, pixels: np.ndarray = PIXELS, **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", FORMATS)
def test_pictures_are_read(kind, tmp_path) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    path = tmp_path / "x"
    path.write_bytes(encoded(kind, **options))
    read = read_picture(path)
    assert read.shape == (7, 5, 3) and read.dtype == np.uint8
    if kind in ("PNG", "BMP", "WEBP"):
        assert (read == PIXELS).all()
    read[0, 0] = 0


def test_grey_palette_and_alpha_become_colours() -> None:
    grey = read_picture(encoded("PNG", PIXELS[..., 0]))
    assert (grey == PIXELS[..., :1]).all()
    alpha = np.concatenate([PIXELS, PIXELS[..., :1]], axis=-1)
    assert (read_picture(encoded("PNG", alpha)) == PIXELS).all()


def png(width: int, height: int) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + head
    return (
        b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    )


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("width", [8193, 12000, 60000, 2**31 - 1])
def test_too_many_pixels_are_refused_before_they_are_decoded(width) -> None:
    idat = b"IDAT" + zlib.compress(b"\0" * 100)
    data = png(width, 8192) + struct.pack(">I", len(idat) - 4) + idat + b"\0\0\0\0"
    words = "needed at most 67108864, so make it smaller|exceeds limit|cannot be read as a picture"
    with pytest.raises(FormatError, match=words):
        read_picture(data)
    with pytest.raises(FormatError, match="has 5 x 7 pixels; needed at most 34"):
        read_picture(encoded("PNG"), most_pixels=34)


@pytest.mark.parametrize("kind", ["TIFF", "ICO", "PPM"])
def test_other_kinds_are_refused(kind) -> None:
    with pytest.raises(FormatError, match=r"cannot be read as a picture: .* needed a whole PNG"):
        read_picture(encoded(kind))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "WEBP"])
def test_cut_pictures_are_refused(kind) -> None:
    data = encoded(kind, np.tile(PIXELS, (9, 9, 1)))
    for part in (0, 10, len(data) // 3, len(data) // 2, len(data) * 9 // 10):
        with pytest.raises(FormatError, match="cannot be read as a picture"):
            read_picture(data[:part])


def test_size_is_bounded() -> None:
    with pytest.raises(FormatError, match="needed a picture of at most 5"):
        read_picture(encoded("PNG"), most=5)

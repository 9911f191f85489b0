"""Pictures into an mp4 file, one after the other."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, final

import numpy as np
from numpy.typing import NDArray

from mirror_analysis.episodes.video import require_av
from mirror_analysis.errors import FormatError, ShapeError, UnknownNameError

if TYPE_CHECKING:
    from av import VideoFrame

# Every second picture is a key frame, so that single pictures are found quickly; the quality is
# one at which a second coding costs more than the first (about 40 dB on camera pictures).
_ENCODERS = {
    "av1": ("libsvtav1", {"g": "2", "crf": "20", "preset": "10", "svtav1-params": "lp=1"}),
    "h264": ("libx264", {"g": "2", "crf": "18", "bf": "0", "threads": "1"}),
}
CODECS = tuple(sorted(_ENCODERS))
"""Names of the codecs that can be written."""
_TICKS = 10_000


def rate_of(fps: float) -> Fraction:
    """A rate as the fraction that files are written with, such as 30000/1001 for 29.97.

    Raises:
        ShapeError: if it is not a positive number.
    """
    if not 0 < fps < _TICKS:
        raise ShapeError(f"{fps} frames a second; needed more than 0 and less than {_TICKS}")
    return Fraction(fps).limit_denominator(_TICKS)


def encode(
    path: Path, frames: Iterable[NDArray[np.uint8]], *, fps: float, codec: str = "av1"
) -> int:
    """Writes pictures as a video file; only one of them is held at a time.

    Args:
        path: an mp4 file that is not there yet.
        frames: pictures [height, width, 3] RGB, all of one size.
        fps: pictures per second; picture k is shown at k / fps seconds.
        codec: "av1" or "h264"; both lose a little, 37 dB and more on camera pictures.

    Returns:
        How many pictures were written.

    Raises:
        UnknownNameError: if there is no such codec.
        ShapeError: if there are no pictures, or one has another shape.
        FormatError: if the codec cannot write pictures of that size.
        MissingDependencyError: if PyAV is not installed.

    Example:
        >>> encode(Path("out.mp4"), [np.zeros((64, 64, 3), np.uint8)] * 10, fps=10)
        10
    """
    with VideoEncoder(path, fps=fps, codec=codec) as encoder:
        for frame in frames:
            encoder.add(frame)
    return encoder.count


@final
class VideoEncoder:
    """An mp4 file that is being written; leaving its `with` block completes it.

    `count` pictures were given to it, and `size` bytes of coded ones came out so far: a few
    pictures may still be on their way.

    Args:
        path: an mp4 file that is not there yet.
        fps: pictures per second.
        codec: one of `CODECS`.

    Raises:
        UnknownNameError: if there is no such codec.
        ShapeError: if the rate is not a positive number.
        MissingDependencyError: if PyAV is not installed.
    """

    def __init__(self, path: Path, *, fps: float, codec: str) -> None:
        if codec not in _ENCODERS:
            raise UnknownNameError("video codec", codec, CODECS)
        self.path, self.codec = path, codec
        self.count = self.size = 0
        self._rate = rate_of(fps)
        self._shape: tuple[int, int] | None = None
        with _refused(self):
            av = require_av("writing video")
            name = str(path.absolute())
            self._output = av.open(name, "w", format="mp4", options={"movflags": "faststart"})

    def __enter__(self) -> VideoEncoder:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close(whole=kind is None)

    def add(self, frame: NDArray[np.uint8]) -> None:
        """Writes the next picture.

        Args:
            frame: [height, width, 3] RGB, of the size of the first.

        Raises:
            ShapeError: if it is not.
            FormatError: if the codec cannot write pictures of that size.
        """
        import av

        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
            raise ShapeError(
                f"a picture is {frame.dtype} {list(frame.shape)}; needed uint8 [height, width, 3]"
            )
        with _refused(self):
            if self._shape is None:
                self._start(frame.shape[0], frame.shape[1])
            if frame.shape[:2] != self._shape:
                raise ShapeError(
                    f"picture {self.count} of {self.path.name} is {list(frame.shape[:2])} where"
                    f" the first is {list(self._shape or ())}; a video has pictures of one size"
                )
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            picture.pts, picture.time_base = self.count, 1 / self._rate
            self._write(picture)
        self.count += 1

    def close(self, *, whole: bool = True) -> None:
        """Completes the file.

        Raises:
            ShapeError: if no picture was added.
            FormatError: if it cannot be completed.
        """
        with _refused(self):
            try:
                if whole and self._shape is not None:
                    self._write(None)
            finally:
                self._output.close()
        if whole and self._shape is None:
            raise ShapeError(f"no pictures for {self.path}; a video needs at least one")

    def _start(self, height: int, width: int) -> None:
        if height % 2 or width % 2 or min(height, width) < 16:
            raise FormatError(
                f"pictures of {width} x {height} cannot be written as {self.codec}; needed even"
                ' numbers of 16 and more, or codec="png"'
            )
        name, options = _ENCODERS[self.codec]
        self._stream = self._output.add_stream(name, rate=self._rate, options=dict(options))
        self._stream.height, self._stream.width = height, width
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.time_base = 1 / self._rate
        self._shape = (height, width)

    def _write(self, picture: VideoFrame | None) -> None:
        with _quiet():
            for packet in self._stream.encode(picture):
                self.size += packet.size
                self._output.mux(packet)


@contextmanager
def _quiet() -> Iterator[None]:
    """SVT-AV1 tells its settings on stderr unless this variable says otherwise."""
    before = os.environ.get("SVT_LOG")
    os.environ["SVT_LOG"] = before or "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["SVT_LOG"]


@contextmanager
def _refused(encoder: VideoEncoder) -> Iterator[None]:
    av = require_av("writing video")
    try:
        yield
    except (av.error.FFmpegError, OSError) as error:
        reason = " ".join(str(error).split())
        raise FormatError(
            f"{encoder.path} cannot be written as {encoder.codec}: {reason}"
        ) from None

"""Pictures out of video files: nothing is run, opened elsewhere or held beyond declared bounds."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, final

import numpy as np
from numpy.typing import NDArray

from mirror_analysis.episodes.video_boxes import check_boxes
from mirror_analysis.errors import (
    FormatError,
    MirrorError,
    MissingDependencyError,
    MissingFileError,
    ShapeError,
)

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer
    from av.video.stream import VideoStream

MOST_PIXELS = 8192 * 4352
"""Of one picture; 8K video has 7680 x 4320."""
MOST_FRAMES = 2_000_000
"""Of one file: 18 hours at 30 frames a second."""
MOST_BYTES = 4 * 2**30
"""Of the pictures that one call gives."""

# Containers that hold their pictures themselves. Play lists (concat, hls, dash, sdp) name other
# files and addresses, which libavformat would open, so they are not among them.
_FORMATS = (
    "3g2,3gp,asf,avi,flv,gif,h264,hevc,ivf,m4a,m4v,matroska,mj2,mov,mp4,mpeg,mpegts,mpegvideo,"
    "obu,ogg,webm"
)
_CODECS = (
    "av1,ffv1,flv,flv1,gif,h263,h264,hevc,libdav1d,libvpx,libvpx-vp9,mjpeg,mpeg1video,mpeg2video,"
    "mpeg4,msmpeg4,msmpeg4v2,msmpeg4v3,png,prores,qtrle,rawvideo,theora,vc1,vp8,vp9,wmv1,wmv2,wmv3"
)


@final
@dataclass(frozen=True, kw_only=True)
class VideoFacts:
    """What the header of a video file says.

    Attributes:
        codec: name of the decoder, such as "h264" or "libdav1d" for AV1.
        height: of a picture, in pixels.
        width: of a picture, in pixels.
        rate: pictures per second; 0 where the header does not say.
        duration: seconds; 0 where the header does not say.
    """

    codec: str
    height: int
    width: int
    rate: float
    duration: float


def probe(path: Path) -> VideoFacts:
    """What a video file is, without decoding it.

    Raises:
        MissingFileError: if there is no such file.
        FormatError: if it is no video, or one of more pixels than are read.
        MissingDependencyError: if PyAV is not installed.

    Example:
        >>> probe(Path("episode.mp4")).codec
        'h264'
    """
    with _opened(path) as (container, stream):
        base = stream.time_base
        duration = 0.0
        if stream.duration is not None and base is not None:
            duration = float(stream.duration * base)
        elif container.duration is not None:
            duration = container.duration / 1_000_000
        return VideoFacts(
            codec=stream.codec_context.name,
            height=stream.height,
            width=stream.width,
            rate=float(stream.average_rate or 0),
            duration=max(duration, 0.0),
        )


def frame_times(path: Path) -> NDArray[np.float64]:
    """When each picture of a video file is shown, without decoding any.

    Returns:
        [frame] seconds on the file's own clock, increasing.

    Raises:
        MissingFileError: if there is no such file.
        FormatError: if it is no video, has no pictures, or too many.
        MissingDependencyError: if PyAV is not installed.
    """
    with _opened(path) as (container, stream):
        base = float(stream.time_base or 0)
        shown: list[int] = []
        for packet in container.demux(stream):
            if packet.size and not packet.is_discard:
                stamp = packet.pts if packet.pts is not None else packet.dts
                if stamp is None or not base:
                    raise FormatError(
                        f"{path} does not say when its pictures are shown; convert it to mp4"
                    )
                shown.append(stamp)
            _count(path, len(shown))
    if not shown:
        raise FormatError(f"{path} holds no pictures; needed a video of at least one")
    return np.asarray(np.unique(np.array(shown, dtype=np.int64)) * base, dtype=np.float64)


def decode(
    path: Path,
    *,
    timestamps: NDArray[np.float64] | None = None,
    indices: NDArray[np.int64] | None = None,
    start: float = 0.0,
    tolerance: float | None = None,
) -> NDArray[np.uint8]:
    """Pictures of a video file, decoded once, in order, on one thread.

    Args:
        path: the file.
        timestamps: [time] seconds after `start`; the nearest picture is taken.
        indices: [time] numbers of pictures, from 0, instead of timestamps.
        start: seconds on the file's own clock.
        tolerance: how many seconds the nearest picture may be off; a quarter of the time between
            two pictures when not given.

    Returns:
        [time, height, width, 3] RGB.

    Raises:
        MissingFileError: if there is no such file.
        FormatError: if the file is damaged, ends early, has no picture near enough, or is larger
            than what is read.
        ShapeError: if neither timestamps nor indices are given, or both.
        MissingDependencyError: if PyAV is not installed.

    Example:
        >>> decode(Path("episode.mp4"), timestamps=np.array([0.0, 0.5])).shape
        (2, 480, 640, 3)
    """
    if timestamps is not None and indices is None:
        wanted = start + np.asarray(timestamps, dtype=np.float64)
    elif indices is not None and timestamps is None:
        wanted = np.asarray(indices, dtype=np.float64)
    else:
        raise ShapeError("decode needs either timestamps or indices, and not both")
    if wanted.ndim != 1 or not len(wanted) or not np.isfinite(wanted).all():
        raise ShapeError(f"decode was given {list(wanted.shape)} pictures; needed [time], finite")
    order = np.argsort(wanted, kind="stable")
    facts = probe(path)
    size = len(wanted) * facts.height * facts.width * 3
    if size > MOST_BYTES:
        raise FormatError(
            f"{len(wanted)} pictures of {path} take {size / 2**30:.1f} GiB, of which"
            f" {MOST_BYTES / 2**30:.0f} are read at once; read fewer frames of each episode"
        )
    if tolerance is None:
        tolerance = 0.25 / facts.rate if facts.rate else 0.01
    if indices is not None:
        stream, tolerance = _numbered(_frames(path, None)), 0.0
    else:
        stream = _from(path, float(wanted[order[0]]), tolerance)
    pictures = np.empty((len(wanted), facts.height, facts.width, 3), dtype=np.uint8)
    nearest = _nearest(path, stream, wanted[order], tolerance)
    last: tuple[VideoFrame, int] | None = None
    for row, frame in zip(order, nearest, strict=True):
        if last is None or last[0] is not frame:
            pictures[row] = _picture(path, frame, facts)
        else:
            pictures[row] = pictures[last[1]]
        last = (frame, int(row))
    return pictures


def _nearest(
    path: Path,
    frames: Iterator[tuple[float, VideoFrame]],
    wanted: NDArray[np.float64],
    tolerance: float,
) -> Iterator[VideoFrame]:
    """For each of the increasing times the frame that is nearest to it."""
    row, before = 0, None
    for time, frame in frames:
        while row < len(wanted) and wanted[row] <= time:
            near = (time, frame)
            if before is not None and wanted[row] - before[0] < time - wanted[row]:
                near = before
            yield _close(path, near, wanted[row], tolerance)
            row += 1
        if row == len(wanted):
            return
        before = (time, frame)
    if before is None:
        raise FormatError(f"{path} holds no pictures that can be decoded; fetch it again")
    for time_wanted in wanted[row:]:
        yield _close(path, before, time_wanted, tolerance)


def _close(
    path: Path, found: tuple[float, VideoFrame], wanted: float, tolerance: float
) -> VideoFrame:
    # Times come as float32 and fractions, so equality is only up to rounding.
    if abs(found[0] - wanted) > tolerance + 1e-6 * max(1.0, abs(wanted)):
        raise FormatError(
            f"{path} has no picture at {wanted:g}; the nearest is at {found[0]:g}, off by"
            f" {abs(found[0] - wanted):.3g} where {tolerance:.3g} is allowed; fetch the video"
            " again or mend its timestamps"
        )
    return found[1]


def _picture(path: Path, frame: VideoFrame, facts: VideoFacts) -> NDArray[np.uint8]:
    if (frame.height, frame.width) != (facts.height, facts.width):
        raise FormatError(
            f"pictures of {path} change from {facts.width} x {facts.height} to"
            f" {frame.width} x {frame.height}; needed one size throughout"
        )
    if frame.is_corrupt:
        raise FormatError(f"{path} is damaged at {frame.time} s; fetch it again")
    with _damage(path):
        return np.asarray(frame.to_ndarray(format="rgb24"), dtype=np.uint8)


def _numbered(frames: Iterator[tuple[float, VideoFrame]]) -> Iterator[tuple[float, VideoFrame]]:
    for number, (_, frame) in enumerate(frames):
        yield float(number), frame


def _from(path: Path, first: float, tolerance: float) -> Iterator[tuple[float, VideoFrame]]:
    """Frames from the key frame before a time, or all where the file cannot be entered there."""
    if first > 0:
        frames = _frames(path, first)
        entry = next(frames, None)
        if entry is not None and entry[0] <= first + tolerance:
            yield entry
            yield from frames
            return
        frames.close()
    yield from _frames(path, None)


def _frames(path: Path, seek: float | None) -> Generator[tuple[float, VideoFrame], None, None]:
    with _opened(path) as (container, stream):
        base, rate = float(stream.time_base or 0), float(stream.average_rate or 0)
        if seek is not None and base:
            try:
                container.seek(int(seek / base), stream=stream, backward=True)
            except (ValueError, OSError):
                return  # not every file can be entered in the middle; the caller starts again
        for number, frame in enumerate(container.decode(stream)):
            _count(path, number)
            if frame.pts is not None and base:
                yield frame.pts * base, frame
            elif seek is None and rate:
                yield number / rate, frame
            else:
                raise FormatError(
                    f"{path} does not say when its pictures are shown; convert it to mp4"
                )


def _count(path: Path, frames: int) -> None:
    if frames > MOST_FRAMES:
        raise FormatError(f"{path} has more than {MOST_FRAMES} pictures; divide it")


@contextmanager
def _opened(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    av = require_av("reading video")
    if not path.is_file():
        raise MissingFileError(f"no video {path}; restore it or leave its episode out")
    check_boxes(path)
    # A stream, not a name: libavformat takes some names for protocols.
    with path.open("rb") as source, _damage(path):
        options = {
            "format_whitelist": _FORMATS,
            "codec_whitelist": _CODECS,
            "protocol_whitelist": "none",
            "max_pixels": str(MOST_PIXELS),
        }
        with av.open(source, mode="r", options=options) as container:
            if not container.streams.video:
                raise FormatError(f"{path} has no video stream; needed pictures")
            stream = container.streams.video[0]
            # The stubs do not say so, but a stream of an unknown codec has no context.
            name = getattr(stream.codec_context, "name", "something unknown")
            if name not in _CODECS.split(","):
                raise FormatError(f"{path} is coded as {name}, which is not read; use h264 or AV1")
            if not 0 < stream.width * stream.height <= MOST_PIXELS:
                raise FormatError(
                    f"{path} has pictures of {stream.width} x {stream.height}; needed 1 to"
                    f" {MOST_PIXELS} pixels"
                )
            stream.codec_context.options = {"max_pixels": str(MOST_PIXELS)}
            stream.codec_context.thread_count = 1
            yield container, stream


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    import av

    try:
        yield
    except MirrorError:
        raise
    except (av.error.FFmpegError, OSError, ValueError, MemoryError, OverflowError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise FormatError(f"{path} is not a readable video: {reason}") from None


def require_av(needed_for: str):  # type: ignore[no-untyped-def]  # the module itself
    """The PyAV package.

    Raises:
        MissingDependencyError: if it is not installed.
    """
    try:
        import av
    except ImportError:
        mend = "`pip install mirror-analysis[video]` installs it"
        raise MissingDependencyError("av", needed_for, mend) from None
    return av

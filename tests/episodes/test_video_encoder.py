import sys

import numpy as np
import pytest
from moving import moving, psnr, video

from mirror_analysis.episodes.video import decode, frame_times, probe
from mirror_analysis.episodes.video_encoder import VideoEncoder, encode, rate_of
from mirror_analysis.errors import (
    FormatError,
    MissingDependencyError,
    ShapeError,
    UnknownNameError,
)


@pytest.mark.parametrize(("codec", "decoder"), [("av1", "libdav1d"), ("h264", "h264")])
@pytest.mark.parametrize("fps", [10, 12.5, 29.97, 0.5])
def test_pictures_are_written_at_their_times(tmp_path, codec, decoder, fps, capfd):
    path = tmp_path / "clip.mp4"
    frames = video(path, codec=codec, fps=fps, time=10)
    assert probe(path).codec == decoder
    assert np.allclose(frame_times(path), np.arange(10) / fps, atol=2e-4 / fps)
    assert psnr(decode(path, timestamps=np.arange(10) / fps), frames) > 37
    assert capfd.readouterr() == ("", "")


def test_the_same_pictures_give_the_same_bytes(tmp_path):
    for name in ("a.mp4", "b.mp4"):
        video(tmp_path / name)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_pictures_are_taken_one_by_one(tmp_path):
    path = tmp_path / "clip.mp4"
    assert encode(path, (frame for frame in moving(7)), fps=5, codec="h264") == 7
    assert len(frame_times(path)) == 7


def test_rates_are_fractions():
    assert rate_of(30) == 30 and rate_of(30000 / 1001).denominator == 1001
    for fps in (0, -1, float("inf"), float("nan")):
        with pytest.raises(ShapeError, match=r"frames a second; needed more than 0"):
            rate_of(fps)


def test_what_cannot_be_written_is_said(tmp_path):
    path = tmp_path / "clip.mp4"
    with pytest.raises(UnknownNameError, match=r"unknown video codec 'h265'.*'h264'"):
        encode(path, moving(), fps=10, codec="h265")
    for height, width in ((47, 64), (48, 63), (8, 64)):
        with pytest.raises(FormatError, match=f"{width} x {height} cannot be written as h264"):
            encode(path, moving(2, height, width), fps=10, codec="h264")
    with pytest.raises(ShapeError, match=r"a video needs at least one"):
        encode(path, [], fps=10)
    with pytest.raises(ShapeError, match=r"picture 2 of clip.mp4 is \[32, 64\] where the first"):
        encode(path, [*moving(2), moving(1, 32)[0]], fps=10, codec="h264")
    for shape in ((48, 64), (48, 64, 4)):
        with pytest.raises(ShapeError, match=r"a picture is uint8 \[48, .*; needed uint8 \[height"):
            encode(path, [np.zeros(shape, np.uint8)], fps=10)
    with pytest.raises(FormatError, match=r"gone/clip.mp4 cannot be written as av1"):
        encode(tmp_path / "gone" / "clip.mp4", moving(), fps=10)


def test_an_interrupted_file_is_given_up(tmp_path):
    path = tmp_path / "clip.mp4"
    with pytest.raises(KeyboardInterrupt), VideoEncoder(path, fps=10, codec="h264") as encoder:
        encoder.add(moving(1)[0])
        raise KeyboardInterrupt
    assert encoder.count == 1


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingDependencyError, match=r"writing video needs av.*\[video\]"):
        encode(tmp_path / "clip.mp4", moving(), fps=10)

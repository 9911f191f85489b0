import sys

import av
import numpy as np
import pytest
from moving import moving, psnr, video

from mirror_analysis.episodes import video as reading
from mirror_analysis.episodes.video import decode, frame_times, probe
from mirror_analysis.errors import (
    FormatError,
    MissingDependencyError,
    MissingFileError,
    ShapeError,
)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("video") / "clip.mp4"
    return path, video(path, time=24, fps=10)


def other(path, frames, codec, container, rate=10, **options):
    """A file that our encoder does not write."""
    with av.open(str(path), "w", format=container) as output:
        stream = output.add_stream(codec, rate=rate, options=options)
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
        for frame in frames:
            output.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        output.mux(stream.encode())
    return path


def test_a_header_is_read(clip):
    facts = probe(clip[0])
    assert (facts.codec, facts.height, facts.width, facts.rate) == ("h264", 48, 64, 10)
    assert facts.duration == pytest.approx(2.4)


def test_pictures_come_back_at_their_times(clip):
    path, frames = clip
    every = decode(path, indices=np.arange(24))
    assert every.dtype == np.uint8 and psnr(every, frames) > 38
    times = frame_times(path)
    assert np.allclose(times, np.arange(24) / 10)
    assert np.array_equal(decode(path, timestamps=times), every)


def test_order_repeats_and_seeking_change_nothing(clip):
    path, _ = clip
    every = decode(path, indices=np.arange(24))
    rows = np.array([17, 3, 17, 22, 4, 17])
    assert np.array_equal(decode(path, indices=rows), every[rows])
    assert np.array_equal(decode(path, timestamps=rows / 10), every[rows])
    late = decode(path, timestamps=np.array([0.0, 0.3]), start=1.9)
    assert np.array_equal(late, every[[19, 22]])


def test_the_nearest_picture_is_taken(clip):
    path, _ = clip
    every = decode(path, indices=np.arange(24))
    near = decode(path, timestamps=np.array([0.52, 0.98]), tolerance=0.03)
    assert np.array_equal(near, every[[5, 10]])
    far = np.array([0.55])
    with pytest.raises(FormatError, match=r"no picture at 0.55; the nearest is at 0.[56], off by"):
        decode(path, timestamps=far)
    with pytest.raises(FormatError, match=r"no picture at 2.4; the nearest is at 2.3, off by 0.1"):
        decode(path, timestamps=np.array([1.0, 2.4]))
    with pytest.raises(FormatError, match=r"no picture at 24; the nearest is at 23"):
        decode(path, indices=np.array([24]))


@pytest.mark.parametrize(
    ("codec", "container", "options"),
    [
        ("mpeg4", "avi", {}),
        ("libx264", "matroska", {"bf": "2"}),
        ("libx264", "mp4", {"bf": "2", "g": "7"}),
        ("libx264", "mpegts", {"bf": "0"}),
        ("libvpx-vp9", "webm", {"cpu-used": "8"}),
        ("mjpeg", "avi", {"strict": "unofficial"}),
    ],
)
def test_other_containers_and_codecs_are_read(tmp_path, codec, container, options):
    frames = moving(16)
    path = other(tmp_path / "clip", frames, codec, container, **options)
    times = frame_times(path)
    assert len(times) == 16 and np.allclose(np.diff(times), 0.1, atol=2e-3)
    found = decode(path, timestamps=times)
    assert psnr(found, frames) > 28
    assert np.array_equal(decode(path, timestamps=times[[13, 6]]), found[[13, 6]])


def test_what_is_asked_for_has_to_make_sense(clip):
    path, _ = clip
    for wanted in ({}, {"timestamps": np.zeros(1), "indices": np.zeros(1, dtype=np.int64)}):
        with pytest.raises(ShapeError, match=r"either timestamps or indices, and not both"):
            decode(path, **wanted)
    for wanted in (np.zeros(0), np.zeros((2, 2)), np.array([np.nan])):
        with pytest.raises(ShapeError, match=r"pictures; needed \[time\], finite"):
            decode(path, timestamps=wanted)


def test_what_is_not_there_or_no_video_is_said(tmp_path):
    with pytest.raises(MissingFileError, match=r"no video .*gone.mp4; restore it"):
        probe(tmp_path / "gone.mp4")
    for content in (b"", b"hello", bytes(100_000), b"\0\0\0\x18ftypisom" + b"x" * 50):
        path = tmp_path / "not.mp4"
        path.write_bytes(content)
        with pytest.raises(FormatError, match=r"not.mp4 is not a readable video"):
            decode(path, indices=np.arange(2))
    sound = tmp_path / "sound.mp4"
    with av.open(str(sound), "w") as output:
        stream = output.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), "fltp", "mono")
        frame.sample_rate = 44100
        output.mux(stream.encode(frame))
        output.mux(stream.encode())
    with pytest.raises(FormatError, match=r"has no video stream"):
        probe(sound)


@pytest.mark.parametrize(
    "text",
    [
        "ffconcat version 1.0\nfile clip.mp4\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nclip.mp4\n#EXT-X-ENDLIST\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
    ],
)
def test_play_lists_open_no_other_file(tmp_path, monkeypatch, clip, text):
    (tmp_path / "clip.mp4").write_bytes(clip[0].read_bytes())
    (tmp_path / "list.mp4").write_text(text)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FormatError, match=r"is not a readable video"):
        decode(tmp_path / "list.mp4", indices=np.arange(1))


def test_codecs_that_few_need_are_not_opened(tmp_path):
    path = tmp_path / "clip.avi"
    with av.open(str(path), "w") as output:
        stream = output.add_stream("huffyuv", rate=10)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv422p"
        for frame in moving(3):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        output.mux(stream.encode())
    with pytest.raises(FormatError, match=r"is coded as huffyuv, which is not read; use h264"):
        probe(path)


def test_pictures_without_times_are_refused(tmp_path):
    path = other(tmp_path / "clip.h264", moving(6), "libx264", "h264")
    with pytest.raises(FormatError, match=r"does not say when its pictures are shown; convert it"):
        frame_times(path)


def test_a_change_of_size_is_refused(tmp_path):
    parts = [
        other(tmp_path / str(size), moving(6, size, 64), "libx264", "mpegts").read_bytes()
        for size in (48, 96)
    ]
    path = tmp_path / "both.ts"
    path.write_bytes(b"".join(parts))
    with pytest.raises(FormatError, match=r"change from 64 x 48 to 64 x 96; needed one size"):
        decode(path, indices=np.arange(12))


def test_bounds_hold_before_anything_is_decoded(clip, monkeypatch):
    path, _ = clip
    with monkeypatch.context() as patch:
        patch.setattr(reading, "MOST_PIXELS", 3000)
        # The decoder itself refuses such pictures, or else the header is looked at.
        with pytest.raises(FormatError, match=r"not a readable video|needed 1 to 3000 pixels"):
            probe(path)
    with monkeypatch.context() as patch:
        patch.setattr(reading, "MOST_BYTES", 10_000)
        with pytest.raises(FormatError, match=r"2 pictures of .* take 0.0 GiB.*read fewer frames"):
            decode(path, indices=np.arange(2))
    with monkeypatch.context() as patch:
        patch.setattr(reading, "MOST_FRAMES", 20)
        with pytest.raises(FormatError, match=r"more than 20 pictures; divide it"):
            frame_times(path)
        with pytest.raises(FormatError, match=r"more than 20 pictures; divide it"):
            decode(path, indices=np.array([23]))


@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.95, 0.999])
def test_a_file_that_ends_early_is_refused(tmp_path, clip, share):
    content = clip[0].read_bytes()
    path = tmp_path / "cut.mp4"
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(FormatError, match=r"cut\.mp4"):
        decode(path, indices=np.arange(24))


def test_lying_tables_are_refused(tmp_path, clip):
    content = bytearray(clip[0].read_bytes())
    place = content.find(b"stsz") + 12
    content[place : place + 4] = (2**30).to_bytes(4, "big")
    (tmp_path / "lying.mp4").write_bytes(content)
    with pytest.raises(FormatError, match=r"claims 1073741824 samples"):
        decode(tmp_path / "lying.mp4", indices=np.arange(2))


def test_flipped_bits_give_pictures_or_words(tmp_path, clip):
    content = clip[0].read_bytes()
    path, refused = tmp_path / "flipped.mp4", 0
    for seed in range(60):
        g = np.random.default_rng(seed)
        flipped = bytearray(content)
        for place in g.integers(0, len(content), 1 + seed % 5):
            flipped[place] ^= 1 << int(g.integers(8))
        path.write_bytes(flipped)
        try:
            found = decode(path, timestamps=np.arange(24) / 10)
        except FormatError as error:
            refused += 1
            assert "\n" not in str(error) and "flipped.mp4" in str(error)
        else:
            assert found.shape[0] == 24
    assert refused


def test_a_missing_package_is_named(clip, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingDependencyError, match=r"reading video needs av.*\[video\]"):
        probe(clip[0])


@pytest.mark.real_weights
def test_a_real_file_is_read(shared):
    path = shared / "episodes" / "exercise_human.avi"
    facts = probe(path)
    assert (facts.codec, facts.height, facts.width, facts.rate) == ("mpeg4", 288, 384, 10)
    times = frame_times(path)
    assert np.allclose(times, np.arange(393) / 10)
    rows = np.array([0, 5, 100, 392])
    found = decode(path, timestamps=times[rows])
    assert np.array_equal(found, decode(path, indices=rows))
    with av.open(str(path)) as container:
        every = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
    assert np.array_equal(found, np.stack(every)[rows])

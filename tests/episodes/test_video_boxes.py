import pytest
from moving import video

from mirror_analysis.episodes import video_boxes
from mirror_analysis.episodes.video_boxes import check_boxes
from mirror_analysis.errors import FormatError


def changed(tmp_path, content, box, at, value):
    content = bytearray(content)
    place = content.find(box) + at
    content[place : place + 4] = value.to_bytes(4, "big")
    path = tmp_path / "lying.mp4"
    path.write_bytes(content)
    return path


@pytest.fixture
def clip(tmp_path):
    video(tmp_path / "clip.mp4", time=24)
    return tmp_path / "clip.mp4"


def test_ordinary_files_pass(tmp_path, clip):
    check_boxes(clip)
    for content in (b"", b"RIFF" + bytes(90), b"\x1aE\xdf\xa3" * 9, bytes(1000)):
        (tmp_path / "other").write_bytes(content)
        check_boxes(tmp_path / "other")


def test_lying_tables_are_refused(tmp_path, clip):
    content = clip.read_bytes()
    path = changed(tmp_path, content, b"stsz", 12, 2**30)
    with pytest.raises(FormatError, match=r"claims 1073741824 samples in \d+ bytes and 1 cuts"):
        check_boxes(path)
    path = changed(tmp_path, content, b"elst", 8, 2**24)
    with pytest.raises(FormatError, match=r"claims 24 samples in .* and 16777216 cuts"):
        check_boxes(path)


def fragment(count):
    body = bytes(4) + count.to_bytes(4, "big")
    run = (8 + len(body)).to_bytes(4, "big") + b"trun" + body
    traf = (8 + len(run)).to_bytes(4, "big") + b"traf" + run
    return (8 + len(traf)).to_bytes(4, "big") + b"moof" + traf


def test_fragments_and_long_boxes_are_counted(tmp_path, clip):
    content = clip.read_bytes()
    for more in (
        fragment(2**31),
        b"\0\0\0\1free" + (20).to_bytes(8, "big") + b"1234" + fragment(2**30),
    ):
        (tmp_path / "long.mp4").write_bytes(content + more)
        with pytest.raises(FormatError, match=r"claims \d{10} samples"):
            check_boxes(tmp_path / "long.mp4")
    (tmp_path / "last.mp4").write_bytes(content + b"\0\0\0\0mdat" + fragment(2**31))
    check_boxes(tmp_path / "last.mp4")


def test_cuts_multiply(clip, monkeypatch):
    monkeypatch.setattr(video_boxes, "MOST_SAMPLES", 20)
    with pytest.raises(FormatError, match=r"needed at most one sample a byte and 20 over all cuts"):
        check_boxes(clip)


def test_boxes_are_bounded(clip, monkeypatch):
    monkeypatch.setattr(video_boxes, "MOST_BOXES", 5)
    with pytest.raises(FormatError, match=r"more than 5 boxes; convert it"):
        check_boxes(clip)

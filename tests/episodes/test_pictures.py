import pickle

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lerobot_files import png
from moving import moving, psnr, video

from mirror_analysis.episodes import pictures
from mirror_analysis.episodes.pictures import ImageColumn, Sources, VideoSpan
from mirror_analysis.errors import FormatError

PICTURE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
FRAMES = moving(4, 32, 48)


def column(folder, values, kept=(0, 1, 2, 3), episode=2):
    """The loader of one column, with rows of another episode before it."""
    side = values if isinstance(values, pa.Array) else pa.array(values)
    side = pa.concat_arrays([side[:2], side])
    number = [1, 1] + [2] * (len(side) - 2)
    path = folder / "data.parquet"
    pq.write_table(pa.table({"episode_index": number, "side": side}), path, row_group_size=3)
    return ImageColumn(folder, path, "side", episode, np.array(kept))


def test_pictures_are_bytes_or_names_of_files(tmp_path):
    (tmp_path / "images").mkdir()
    for number, frame in enumerate(FRAMES):
        (tmp_path / "images" / f"{number}.png").write_bytes(png(frame))
    data = [png(frame) for frame in FRAMES]
    names = [f"images/{n}.png" for n in range(4)]
    for values in (
        data,
        names,
        pa.array([{"bytes": d, "path": "../../x"} for d in data], PICTURE),
        pa.array([{"bytes": None, "path": n} for n in names], PICTURE),
    ):
        assert np.array_equal(column(tmp_path, values)(), FRAMES)
        assert np.array_equal(column(tmp_path, values, kept=(1, 3))(), FRAMES[[1, 3]])


def test_named_files_lie_inside_the_folder(tmp_path):
    for name in ("../../x.png", "/etc/hostname"):
        with pytest.raises(FormatError, match=r"needed a relative name without"):
            column(tmp_path, [name] * 4)()


def test_bad_pictures_are_refused(tmp_path, monkeypatch):
    with pytest.raises(FormatError, match=r"holds NoneType; needed the bytes of a picture"):
        column(tmp_path, pa.array([None] * 4, PICTURE))()
    with pytest.raises(FormatError, match=r"holds int; needed the bytes of a picture"):
        column(tmp_path, [1, 2, 3, 4])()
    with pytest.raises(FormatError, match=r"changes its size; needed pictures of one size"):
        column(tmp_path, [png(moving(1, 8 + n, 8)[0]) for n in range(4)])()
    with pytest.raises(FormatError, match=r"cannot be read as a picture"):
        column(tmp_path, [b"no png"] * 4)()
    data = [png(frame) for frame in FRAMES]
    with pytest.raises(FormatError, match=r"holds 0 of 4 pictures of side in episode 3"):
        column(tmp_path, data, episode=3)()
    with pytest.raises(FormatError, match=r"holds 1 of 2 pictures of side in episode 2"):
        column(tmp_path, data, kept=(3, 4))()
    monkeypatch.setattr(pictures, "MOST_BYTES", 10_000)
    with pytest.raises(FormatError, match=r"4 pictures in .* take more than 0 GiB; read fewer"):
        column(tmp_path, data)()


def test_sources_are_read_when_asked_for(tmp_path):
    frames = video(tmp_path / "clip.mp4", time=6)
    times = np.array([0.0, 0.2])
    held = {
        "film": VideoSpan(tmp_path / "clip.mp4", 0.3, times, None),
        "side": column(tmp_path, [png(frame) for frame in FRAMES]),
    }
    sources = pickle.loads(pickle.dumps(Sources(held)))
    assert psnr(sources("film"), frames[[3, 5]]) > 38
    assert np.array_equal(sources("side"), FRAMES)

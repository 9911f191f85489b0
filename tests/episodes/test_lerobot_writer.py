import json
import pickle

import numpy as np
import pyarrow.parquet as pq
import pytest
from moving import moving, psnr

from mirror_analysis.episodes.episode import Episode, Episodes
from mirror_analysis.episodes.lerobot import read, recognise
from mirror_analysis.episodes.lerobot_shards import ShardSizes
from mirror_analysis.episodes.lerobot_writer import write_lerobot
from mirror_analysis.episodes.video import frame_times
from mirror_analysis.errors import FormatError, ShapeError, UnknownNameError

ARRAYS = ("states", "actions", "timestamps", "steps")
FACTS = ("id", "task", "instruction", "success", "length", "labels", "cameras")


def lesson(number, *, time=None, **changes):
    """One episode with everything that can be written."""
    g = np.random.default_rng(number)
    n = 5 + number if time is None else time
    frames = changes.pop(
        "frames", {"front": moving(n, seed=number), "wrist.left": moving(n, 32, 48, seed=number)}
    )
    fields = {
        "id": f"lesson {number}",
        "task": ("push", "pull")[number % 2],
        "instruction": ("push the cup", "pull the cup")[number % 2],
        "success": number % 3 > 0,
        "states": g.standard_normal((n, 7)).astype(np.float32),
        "actions": g.standard_normal((n, 1)).astype(np.float32),
        "timestamps": np.arange(n) / 8 + g.random(n) / 1000,
        "steps": np.arange(n) * 10 + number,
        "length": n * 10 + 20,
        "labels": {"seed": number, "score": number / 3, "split": ("train", "test")[number > 1]}
        | ({"note": "odd"} if number % 2 else {}),
        "extras": {
            "flag": g.random(n) > 0.5,
            "grid": g.standard_normal((n, 2, 3)),
            "small": g.integers(0, 9, (n, 2), dtype=np.uint8),
            "half": g.standard_normal(n).astype(np.float16),
        },
    }
    return Episode.from_frames(frames, **fields | changes)


def lessons(count=4, **changes):
    return Episodes([lesson(number, **changes) for number in range(count)])


def same(first, second):
    for name in FACTS:
        assert getattr(first, name) == getattr(second, name), name
    assert {k: type(v) for k, v in first.labels.items()} == {
        k: type(v) for k, v in second.labels.items()
    }
    assert list(first.extras) == list(second.extras)
    for name in ARRAYS:
        assert getattr(first, name).dtype == getattr(second, name).dtype
        assert np.array_equal(getattr(first, name), getattr(second, name)), name
    for name, values in first.extras.items():
        assert values.dtype == second.extras[name].dtype
        assert values.shape == second.extras[name].shape
        assert np.array_equal(values, second.extras[name]), name


@pytest.mark.parametrize(("codec", "least"), [("png", np.inf), ("h264", 38), ("av1", 38)])
def test_what_was_written_is_read(tmp_path, codec, least):
    told = []
    out = write_lerobot(
        lessons(), tmp_path / "out", codec=codec, progress=lambda *done: told.append(done)
    )
    assert told == [(n, 4) for n in (1, 2, 3, 4)]
    assert recognise(out) and [p.name for p in tmp_path.iterdir()] == ["out"]
    for first, second in zip(lessons(), pickle.loads(pickle.dumps(read(out))), strict=True):
        same(first, second)
        for camera in first.cameras:
            frames = second.frames(camera)
            if codec == "png":
                assert np.array_equal(first.frames(camera), frames)
            else:
                assert psnr(first.frames(camera), frames) > least


def test_what_was_read_is_written_and_read_again(tmp_path):
    first = read(write_lerobot(lessons(), tmp_path / "1", codec="png"))
    second = read(write_lerobot(first, tmp_path / "2", codec="png"))
    for one, other in zip(first, second, strict=True):
        same(one, other)
        assert np.array_equal(one.frames("front"), other.frames("front"))


def test_the_same_episodes_give_the_same_bytes(tmp_path):
    for name in "ab":
        write_lerobot(lessons(2), tmp_path / name, codec="h264")
    files = [p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*") if p.is_file()]
    assert len(files) == 7
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_files_are_named_and_filled_as_the_format_says(tmp_path):
    out = write_lerobot(lessons(), tmp_path / "out", codec="h264")
    info = json.loads((out / "meta" / "info.json").read_text())
    assert info["codebase_version"] == "v3.0" and info["fps"] == 8 and type(info["fps"]) is int
    assert info["total_episodes"] == 4 and info["total_tasks"] == 2
    assert info["total_frames"] == 5 + 6 + 7 + 8
    assert info["splits"] == {"train": "0:2", "test": "2:4"}
    assert info["features"]["observation.state"] == {
        "dtype": "float32", "shape": [7], "names": None
    }  # fmt: skip
    assert info["features"]["action"]["shape"] == [1]
    camera = info["features"]["observation.images.front"]
    assert camera["shape"] == [48, 64, 3] and camera["names"] == ["height", "width", "channels"]
    data = pq.read_table(out / "data" / "chunk-000" / "file-000.parquet")
    assert data["index"].to_pylist() == list(range(26))
    assert str(data.schema.field("observation.state").type) == "fixed_size_list<element: float>[7]"
    assert str(data.schema.field("action").type) == "float"
    stamps = np.array(data["timestamp"])
    assert stamps.dtype == np.float32
    assert np.array_equal(stamps[:5], (np.arange(5) / 8).astype(np.float32))
    listed = pq.read_table(out / "meta" / "episodes" / "chunk-000" / "file-000.parquet")
    assert listed["dataset_to_index"].to_pylist() == [5, 11, 18, 26]
    assert listed["tasks"].to_pylist()[1] == ["pull the cup"]
    key = "videos/observation.images.front"
    assert listed[f"{key}/from_timestamp"].to_pylist() == [0, 5 / 8, 11 / 8, 18 / 8]
    assert listed[f"{key}/to_timestamp"].to_pylist() == [5 / 8, 11 / 8, 18 / 8, 26 / 8]
    for name in (
        "data/chunk_index",
        "data/file_index",
        "meta/episodes/file_index",
        f"{key}/file_index",
    ):
        assert listed[name].to_pylist() == [0] * 4
    assert np.shape(listed["stats/observation.images.front/mean"].to_pylist()) == (4, 3, 1, 1)
    tasks = pq.read_table(out / "meta" / "tasks.parquet").to_pandas()
    assert list(tasks.index) == ["push the cup", "pull the cup"]
    assert list(tasks["task_index"]) == [0, 1]
    film = out / "videos" / "observation.images.front" / "chunk-000" / "file-000.mp4"
    assert np.allclose(frame_times(film), np.arange(26) / 8)
    stats = json.loads((out / "meta" / "stats.json").read_text())
    every = np.concatenate([e.states for e in lessons()]).astype(np.float64)
    assert np.allclose(stats["observation.state"]["mean"], every.mean(axis=0))
    assert np.allclose(stats["observation.state"]["std"], every.std(axis=0))
    assert stats["observation.state"]["count"] == [26]


def test_files_are_divided_between_episodes(tmp_path):
    sizes = ShardSizes(data=0.004, video=0.01)
    episodes = lessons(12)
    out = write_lerobot(episodes, tmp_path / "out", codec="h264", sizes=sizes)
    assert len(list((out / "data").rglob("*.parquet"))) > 2
    assert len(list((out / "meta" / "episodes").rglob("*.parquet"))) == 1
    films = sorted((out / "videos" / "observation.images.front").rglob("*.mp4"))
    assert len(films) > 2 and sum(len(frame_times(film)) for film in films) == sum(
        len(e.steps) for e in episodes
    )
    for first, second in zip(episodes, read(out), strict=True):
        same(first, second)
        assert psnr(first.frames("front"), second.frames("front")) > 38


def test_episodes_without_pictures_states_or_labels_are_written(tmp_path):
    bare = {"frames": {}, "states": np.zeros((6, 0), np.float32), "labels": {}, "extras": {}}
    out = write_lerobot(lessons(2, time=6, **bare), tmp_path / "out")
    for first, second in zip(lessons(2, time=6, **bare), read(out), strict=True):
        same(first, second)
    assert json.loads((out / "meta" / "info.json").read_text())["video_path"] is None
    one = write_lerobot(lessons(2, time=1), tmp_path / "one", fps=5, codec="png")
    same(lessons(2, time=1)[1], read(one)[1])


def test_a_folder_is_whole_or_absent(tmp_path):
    good = lesson(0)
    bad = lesson(1, frames={"front": moving(6, 40), "wrist.left": moving(6, 32, 48)})
    out = tmp_path / "out"
    for codec in ("h264", "png"):
        with pytest.raises(ShapeError, match=r"lesson 1 gave pictures of \[40, 64\], earlier"):
            write_lerobot([good, bad], out, codec=codec)
        assert list(tmp_path.iterdir()) == []
    out.mkdir()
    write_lerobot([good], out, codec="png")
    before = sorted(out.rglob("*"))
    with pytest.raises(FormatError, match=r"out is there and not an empty folder; give a new one"):
        write_lerobot([good], out)
    with pytest.raises(FormatError, match=r"info.json is there and not an empty folder"):
        write_lerobot([good], out / "meta" / "info.json")
    assert sorted(out.rglob("*")) == before


def test_a_codec_is_known(tmp_path):
    with pytest.raises(UnknownNameError, match=r"unknown video codec 'jpg'.*av1, h264, png"):
        write_lerobot(lessons(1), tmp_path / "out", codec="jpg")
    odd = {"front": moving(5, 47), "wrist.left": moving(5)}
    with pytest.raises(FormatError, match=r'64 x 47 cannot be written as av1; .* codec="png"'):
        write_lerobot([lesson(0, frames=odd)], tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    assert len(read(write_lerobot([lesson(0, frames=odd)], tmp_path / "out", codec="png"))) == 1

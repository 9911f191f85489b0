import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from moving import psnr, video

from mirror_analysis.episodes.videos import read, recognise
from mirror_analysis.errors import DefinitionError, FormatError, MissingFileError, PairingError

ROWS = [
    {"file": "a.mp4", "task": "push", "success": True, "split": "train", "seed": 7, "score": 0.5},
    {
        "file": "more/b.mp4",
        "task": "pull",
        "success": False,
        "split": "test",
        "seed": 8,
        "score": 1,
    },
]


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    folder = tmp_path_factory.mktemp("films")
    return folder, [video(folder / row["file"], time=8 + n, seed=n) for n, row in enumerate(ROWS)]


@pytest.fixture
def folder(films, tmp_path):
    for row in ROWS:
        path = tmp_path / row["file"]
        path.parent.mkdir(exist_ok=True)
        path.write_bytes((films[0] / row["file"]).read_bytes())
    return tmp_path


def write(folder, kind, rows=ROWS):
    path = folder / f"labels.{kind}"
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        mark = "\t" if kind == "tsv" else ","
        lines = [list(rows[0]), *(["" if v is None else str(v) for v in r.values()] for r in rows)]
        path.write_text("".join(mark.join(line) + "\n" for line in lines), encoding="utf-8-sig")
    return path


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet"])
def test_every_kind_of_table_is_read(folder, films, kind):
    table = write(folder, kind)
    assert recognise(folder) and recognise(table)
    for path in (folder, table):
        episodes = read(path)
        assert [e.id for e in episodes] == ["a.mp4", "more/b.mp4"]
        assert [e.success for e in episodes] == [True, False]
        assert [e.task for e in episodes] == [e.instruction for e in episodes] == ["push", "pull"]
        assert episodes[1].labels == {"split": "test", "seed": 8, "score": 1.0}
        assert type(episodes[1].labels["seed"]) is int
        assert episodes.cameras == ("video",)
        assert episodes[1].states.shape == episodes[1].actions.shape == (9, 0)
        assert np.allclose(episodes[1].timestamps, np.arange(9) / 10)
        assert psnr(episodes[1].frames("video"), films[1][1]) > 38


def test_some_frames_and_lines_are_read(folder):
    write(folder, "csv")
    every, some = read(folder), read(folder, frames=3, limit=1)
    assert len(some) == 1 and some[0].length == 8 and some[0].steps.tolist() == [0, 4, 7]
    assert np.array_equal(some[0].frames("video"), every[0].frames("video")[[0, 4, 7]])
    assert some[0].digest != every[0].digest == read(folder)[0].digest
    with pytest.raises(DefinitionError, match=r"frames is 0"):
        read(folder, frames=0)


def test_parts_and_views_are_read(folder, films):
    rows = [
        {"file": "a.mp4", "file:side": "more/b.mp4", "id": "x", "start": 0.3, "end": 0.5},
        {"file": "a.mp4", "file:side": "more/b.mp4", "id": "y", "start": 0.1, "end": None},
    ]
    write(folder, "csv", rows)
    episodes = read(folder)
    assert [e.id for e in episodes] == ["x", "y"] and episodes.cameras == ("video", "side")
    assert [e.length for e in episodes] == [2, 7]
    assert episodes[0].timestamps.tolist() == pytest.approx([0, 0.1])
    assert psnr(episodes[0].frames("video"), films[1][0][3:5]) > 38
    assert psnr(episodes[0].frames("side"), films[1][1][3:5]) > 38
    assert episodes[0].labels == {"success_known": False} and episodes[0].success


def test_cells_are_what_they_all_are(folder):
    rows = [
        {"file": "a.mp4", "a": "007", "b": "1", "c": "yes", "d": "2024_01", "e": "1e3", "id": "01"},
        {"file": "more/b.mp4", "a": "x", "b": "", "c": "no", "d": "2", "e": "-.5", "id": "1"},
    ]
    write(folder, "csv", rows)
    first, second = read(folder)
    assert first.labels == {
        "a": "007", "b": 1, "c": True, "d": "2024_01", "e": 1000.0, "success_known": False
    }  # fmt: skip
    assert second.labels["e"] == -0.5 and "b" not in second.labels
    assert (first.id, second.id) == ("01", "1")


def test_what_is_missing_is_named(folder, tmp_path):
    assert not recognise(folder) and not recognise(folder / "gone")
    with pytest.raises(MissingFileError, match=r"needed one table .* there are: none"):
        read(folder)
    for rows, error, words in (
        ([{"name": "a.mp4"}], FormatError, "has no column 'file'"),
        ([{"file": "c.mp4"}], MissingFileError, "line 1 of .*labels.csv: .* is not there"),
        ([{"file": "../a.mp4"}], FormatError, r"line 1 .* without '\.\.'"),
        ([{"file": "/etc/hostname"}], FormatError, "line 1 of .* absolute"),
        ([{"file": "labels.csv"}], FormatError, "line 1 of .* is not a readable video"),
        ([{"file": "a.mp4", "success": "2"}], FormatError, "success is '2'; needed true or false"),
        ([{"file": "a.mp4", "start": "x"}], FormatError, "start is 'x'; needed seconds since"),
        ([{"file": "a.mp4", "start": "9"}], FormatError, "no pictures between 9 and inf seconds"),
        ([{"file": "a.mp4", "id": "x"}] * 2, PairingError, "two episodes are named x"),
    ):
        write(folder, "csv", rows)
        with pytest.raises(error, match=words):
            read(folder)
    write(folder, "tsv")
    with pytest.raises(MissingFileError, match=r"there are: labels.csv, labels.tsv; give the path"):
        read(folder)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("file,task\n", "has no lines; needed one for each video"),
        ("", "has no lines"),
        ("file,file\na.mp4,a.mp4\n", "names a column twice: 'file, file'"),
        ("file,task\na.mp4\n", "line 2 of .* has 1 cells; needed 2"),
        ('file\n"a.mp4\n', "is not a table of text"),
        ("file\n\xff\n", "is not a table of text"),
        ("{}\n{", "is not the JSON that is needed"),
    ],
)
def test_a_bad_table_is_refused(folder, text, words):
    (folder / "labels.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(FormatError, match=words):
        read(folder)


def test_tables_are_bounded(folder, monkeypatch):
    from mirror_analysis.episodes import videos

    write(folder, "csv")
    monkeypatch.setattr(videos, "MOST_ROWS", 2)
    with pytest.raises(FormatError, match=r"has more than 2 lines; divide it"):
        read(folder)


@pytest.mark.real_weights
def test_a_real_video_is_read(shared, tmp_path):
    source = shared / "episodes" / "exercise_human.avi"
    (tmp_path / "exercise.avi").write_bytes(source.read_bytes())
    (tmp_path / "labels.csv").write_text("file,instruction,success\nexercise.avi,exercise,true\n")
    (episode,) = read(tmp_path, frames=8)
    assert episode.frames("video").shape == (8, 288, 384, 3)
    assert episode.length == 393 and episode.steps[-1] == 392

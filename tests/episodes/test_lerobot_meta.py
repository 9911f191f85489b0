import pytest
from lerobot_files import TOP, change_episodes, features, version_2, version_3, write_info

from mirror_analysis.episodes.lerobot_meta import (
    Entry,
    fill,
    read_entries,
    read_info,
    read_tasks,
)
from mirror_analysis.errors import FormatError, MissingFileError


@pytest.fixture
def third(tmp_path):
    return version_3(tmp_path / "data", side=False)


@pytest.fixture
def second(tmp_path):
    return version_2(tmp_path / "data", side=False)


def test_templates_are_filled(tmp_path):
    assert fill("a-{n:03d}/{key}_{n}.x", tmp_path, n=7, key="top") == "a-007/top_7.x"
    assert fill("plain {{n}}", tmp_path, n=7) == "plain {n}"


@pytest.mark.parametrize(
    "template",
    [
        "{n.__class__}",
        "{n.__class__.__init__.__globals__}",
        "{n[0]}",
        "{key[0]}",
        "{other}",
        "{}",
        "{0}",
        "{n!r}",
        "{n:0999999999d}",
        "{n:{key}}",
        "{n:x}",
        "{key:99}",
        "{key:010d}",
        "{n",
        "n}",
    ],
)
def test_templates_do_nothing_else(tmp_path, template):
    with pytest.raises(FormatError, match=r"path template .*; needed one of the fields key, n"):
        fill(template, tmp_path, n=7, key="top")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"codebase_version": "v1.6"}, r"of version 'v1.6'; v2.0, v2.1 and v3.0 are read"),
        ({"codebase_version": "v3.0\n"}, "of version"),
        ({"codebase_version": 3}, "is not the JSON that is needed"),
        ({"fps": 0}, "0 frames a second"),
        ({"fps": 1e300}, "1e.300 frames a second"),
        ({"chunks_size": 0}, "chunks of 0; needed positive"),
        ({"features": 3}, "is not the JSON that is needed"),
        ({"features": {str(n): {"dtype": "x"} for n in range(2001)}}, "names 2001 features"),
        ({"features": {"a": {"dtype": "float32", "shape": [2**40]}}}, "needed at most 1048576"),
        ({"features": {"a": {"dtype": "float32", "shape": [-1]}}}, "feature 'a' .* shape"),
        ({"features": {"a": {"dtype": "int8", "shape": [1] * 33}}}, "feature 'a' .* shape"),
        (
            {"features": {"a": {"dtype": "int8", "shape": [1], "source_shape": [2**40]}}},
            "feature 'a' .* shape",
        ),
        ({"features": {"a": {"dtype": "video", "shape": [2**20, 2**20, 3]}}}, "feature 'a'"),
    ],
)
def test_a_bad_info_is_refused(third, change, words):
    write_info(third, **change)
    with pytest.raises(FormatError, match=words):
        read_info(third)


@pytest.mark.parametrize(
    "change",
    [
        {"data_path": "../{file_index}.parquet"},
        {"data_path": "/etc/{file_index}"},
        {"data_path": "{chunk_index.__class__}/{file_index}"},
        {"data_path": "{file_index:099999999d}"},
        {"video_path": "../../{video_key}.mp4"},
        {"video_path": "{video_key.__class__.__mro__}.mp4"},
        {"video_path": "{episode_index}.mp4"},
    ],
)
def test_hostile_paths_lead_nowhere(third, change):
    write_info(third, **change)
    with pytest.raises(FormatError, match=r"path template|needed a relative name without"):
        read_entries(third, read_info(third))


def test_hostile_names_of_features_lead_nowhere(third):
    key = "../../../etc"
    write_info(third, features={key: {"dtype": "video", "shape": [4, 4, 3]}})
    ones = {f"videos/{key}/{name}": [0, 0, 0] for name in ("chunk_index", "file_index")}
    change_episodes(third, **ones, **{f"videos/{key}/from_timestamp": [0.0] * 3})
    with pytest.raises(FormatError, match=r"climbing out of the folder"):
        read_entries(third, read_info(third))


def test_links_out_of_the_folder_are_refused(third, tmp_path):
    film = third / "videos" / TOP / "chunk-000" / "file-000.mp4"
    film.rename(tmp_path / "elsewhere.mp4")
    film.symlink_to(tmp_path / "elsewhere.mp4")
    with pytest.raises(FormatError, match=r"which a link takes outside it"):
        read_entries(third, read_info(third))
    listed = third / "meta" / "episodes" / "chunk-000" / "file-000.parquet"
    listed.rename(tmp_path / "elsewhere.parquet")
    listed.symlink_to(tmp_path / "elsewhere.parquet")
    with pytest.raises(FormatError, match=r"which a link takes outside it"):
        read_entries(third, read_info(third))


@pytest.mark.parametrize(
    "change",
    [
        {"length": None},
        {"length": ["a", "b", "c"]},
        {"length": [-1, 2, 3]},
        {"length": [1.5, 2.0, 3.0]},
        {"data/file_index": [2**60] * 3},
        {"episode_index": [True, False, True]},
        {"tasks": [[1], [2], [3]]},
        {f"videos/{TOP}/from_timestamp": [float("nan")] * 3},
        {f"videos/{TOP}/from_timestamp": [-1.0] * 3},
        {f"videos/{TOP}/chunk_index": [None] * 3},
    ],
)
def test_a_bad_line_of_the_list_is_refused(third, change):
    change_episodes(third, **change)
    with pytest.raises(FormatError, match=r"has a line without a usable"):
        read_entries(third, read_info(third))


def test_an_episode_is_listed_once(third):
    change_episodes(third, episode_index=[0, 1, 0])
    with pytest.raises(FormatError, match=r"lists episode 0 twice; write it anew"):
        read_entries(third, read_info(third))


def test_videos_need_a_template(third):
    write_info(third, video_path=None)
    with pytest.raises(FormatError, match=r"has video features but no video_path"):
        read_entries(third, read_info(third))


def test_lines_of_version_2_are_read(second):
    info = read_info(second)
    assert read_tasks(second, info) == {0: "push the cup", 1: "pull the cup"}
    entries = read_entries(second, info, limit=2)
    assert len(entries) == 2 and isinstance(entries[0], Entry)
    assert entries[1].data == second / "data" / "chunk-000" / "episode_000001.parquet"
    assert read_entries(second, info)[2].data.parent.name == "chunk-001"
    path = second / "meta" / "episodes.jsonl"
    path.write_text('{"episode_index": 0, "tasks": "one", "length": 2, "operator": "a"}\n\n')
    (entry,) = read_entries(second, info)
    assert entry.tasks == ("one",) and entry.facts == {"operator": "a"}
    path.write_text('{"episode_index": 0}\n')
    with pytest.raises(FormatError, match=r"without a usable 'length'|usable .*length"):
        read_entries(second, info)
    path.write_text('{"episode_index": 0')
    with pytest.raises(FormatError, match=r"line 1 of .*episodes.jsonl: "):
        read_entries(second, info)
    path.unlink()
    with pytest.raises(MissingFileError, match=r"is not there; needed a list of one line"):
        read_entries(second, info)


def test_features_hold_what_is_needed(third):
    info = read_info(third)
    assert info.videos == [TOP] and info.images == []
    assert set(info.features) == set(features(side=False))

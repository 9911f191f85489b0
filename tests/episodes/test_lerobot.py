import pickle
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lerobot_files import (
    LENGTHS,
    TASKS,
    TOP,
    change_episodes,
    features,
    rows,
    version_2,
    version_3,
    write_info,
)
from moving import moving, psnr

from mirror_analysis.episodes.lerobot import read, recognise
from mirror_analysis.errors import DefinitionError, FormatError, MissingFileError

VERSIONS = {"2": version_2, "3": version_3}


@pytest.fixture(scope="module", params=VERSIONS)
def kept(tmp_path_factory, request):
    return VERSIONS[request.param](tmp_path_factory.mktemp("lerobot") / "data")


@pytest.fixture
def third(tmp_path_factory, tmp_path):
    """A data set of version 3 that may be spoiled."""
    return version_3(tmp_path / "data")


def test_both_versions_are_read(kept):
    assert recognise(kept)
    episodes = read(kept)
    assert len(episodes) == 3
    for number, episode in enumerate(episodes):
        want = {k: v.to_pylist() for k, v in rows(number, 0).items()}
        n = LENGTHS[number]
        assert episode.id == f"episode_{number:06d}"
        assert episode.task == episode.instruction == TASKS[number % 2]
        assert episode.length == n and episode.success
        assert np.array_equal(episode.states, np.array(want["observation.state"], np.float32))
        assert np.array_equal(episode.actions, np.array(want["action"], np.float32))
        assert np.array_equal(episode.steps, np.arange(n))
        assert np.array_equal(episode.timestamps, np.array(want["timestamp"], np.float64))
        assert list(episode.extras) == ["grid", "next.reward"]
        assert episode.extras["grid"].dtype == np.int32
        assert np.array_equal(episode.extras["grid"], np.array(want["grid"]).reshape(n, 4))
        assert episode.extras["next.reward"].shape == (n, 1)
        assert episode.cameras == ("top", "side")
        assert psnr(episode.frames("top"), moving(n, seed=number)) > 38
        assert np.array_equal(episode.frames("side"), moving(n, 32, 48, seed=number))


def test_loaders_travel_to_other_processes(kept):
    episode = pickle.loads(pickle.dumps(read(kept)[1]))
    assert np.array_equal(episode.frames("top"), read(kept)[1].frames("top"))


def test_the_versions_hold_the_same(tmp_path):
    two, three = read(version_2(tmp_path / "2")), read(version_3(tmp_path / "3"))
    for first, second in zip(two, three, strict=True):
        assert first.digest != second.digest
        assert psnr(first.frames("top"), second.frames("top")) > 38
    assert two[2].labels == {"robot_type": "arm", "split": "test", "success_known": False}
    assert three[2].labels == {"robot_type": "arm", "success_known": False}


def test_some_frames_are_kept_with_their_true_steps(kept):
    every, some = read(kept)[1], read(kept, frames=3, limit=2)
    assert len(some) == 2
    assert some[1].steps.tolist() == [0, 4, 8] and some[1].length == 9
    for camera in every.cameras:
        assert np.array_equal(some[1].frames(camera), every.frames(camera)[[0, 4, 8]])
    assert np.array_equal(some[1].actions, every.actions[[0, 4, 8]])
    assert some[1].digest != every.digest
    with pytest.raises(DefinitionError, match=r"frames is 0; needed 1 or more"):
        read(kept, frames=0)
    assert len(read(kept, limit=0)) == 0


@pytest.mark.parametrize("make", VERSIONS.values())
def test_success_is_what_the_frames_say(tmp_path, make):
    episodes = read(make(tmp_path / "data", success=False))
    assert [e.success for e in episodes] == [False] * 3
    assert "success_known" not in episodes[0].labels and "next.success" not in episodes[0].extras
    assert all(e.success for e in read(make(tmp_path / "more", success=True)))


def test_further_columns_are_labels(third):
    change_episodes(
        third, operator=["a", "b", "a"], score=[1.5, None, 2.0], success=[True, False, True]
    )
    episodes = read(third)
    assert [e.success for e in episodes] == [True, False, True]
    assert episodes[0].labels == {
        "robot_type": "arm", "operator": "a", "score": 1.5, "success": True
    }  # fmt: skip
    assert "score" not in episodes[1].labels


def test_texts_of_tasks_are_found_under_either_name(tmp_path, third):
    assert read(version_3(tmp_path / "named", index="task"))[1].task == TASKS[1]
    (third / "meta" / "tasks.parquet").unlink()
    pq.write_table(pa.table({"task_index": [7], "task": ["x"]}), third / "meta" / "tasks.parquet")
    assert read(third)[1].task == TASKS[1]
    change_episodes(third, tasks=[[], [], []])
    with pytest.raises(FormatError, match=r"has task 0, which the list of tasks lacks"):
        read(third)
    pq.write_table(pa.table({"number": [7]}), third / "meta" / "tasks.parquet")
    with pytest.raises(FormatError, match=r"list of tasks .* needed a task_index and a task"):
        read(third)


def test_a_task_that_changes_is_an_extra(third):
    data = third / "data" / "chunk-000" / "file-001.parquet"
    pq.write_table(pa.table(rows(2, 15, task_index=pa.array([1, 1, 0, 0]))), data)
    episode = read(third)[2]
    assert episode.extras["task_index"].tolist() == [1, 1, 0, 0]
    assert episode.task == TASKS[1]


def test_names_of_cameras_do_not_collide(tmp_path):
    folder = version_3(tmp_path / "data")
    twin = {"top": {"dtype": "image", "shape": [1, 1, 3]}}
    write_info(folder, features=features() | twin)
    assert read(folder)[0].cameras == (TOP, "side", "top")


def test_what_is_missing_is_named(third, tmp_path):
    assert not recognise(tmp_path) and not recognise(third / "meta")
    with pytest.raises(MissingFileError, match=r"no .*info.json; needed the folder of a LeRobot"):
        read(tmp_path)
    (third / "videos" / TOP / "chunk-000" / "file-000.mp4").unlink()
    with pytest.raises(MissingFileError, match=r"is not there; needed a file"):
        read(third)
    shutil.rmtree(third / "meta" / "episodes")
    with pytest.raises(MissingFileError, match=r"no episodes/\*/\*.parquet in"):
        read(third)


def test_a_folder_with_other_json_is_not_recognised(third):
    info = third / "meta" / "info.json"
    for content in ("{}", "[1]", "not json", '{"features": 1}'):
        info.write_text(content)
        assert not recognise(third)


def test_rows_have_to_fit_the_list(third):
    change_episodes(third, length=[6, 8, 4])
    with pytest.raises(FormatError, match=r"has 9 rows of episode 1, whose length is said to be 8"):
        read(third)
    data = third / "data" / "chunk-000" / "file-001.parquet"
    for changes, words in (
        ({"frame_index": pa.array([0, 1, 1, 3])}, "frame_index of episode 2 .* does not count"),
        ({"action": None}, "has no column 'action'"),
        ({"action": pa.array(["a"] * 4)}, "column 'action' of .* holds string; needed numbers"),
        ({"action": pa.array([[1.0], [1.0, 2.0]] * 2)}, "column 'action' .* differ in length"),
        ({"grid": pa.array([1, 2, None, 3])}, "column 'grid' of .* has missing values"),
        ({"timestamp": pa.array([0.0, 0.3, 0.1, 0.2])}, "timestamps of episode .* decrease"),
    ):
        pq.write_table(pa.table(rows(2, 15, **changes)), data)
        change_episodes(third, length=list(LENGTHS))
        with pytest.raises(FormatError, match=words):
            read(third)
    # Groups of rows of which each is even by itself.
    pq.write_table(
        pa.table(rows(2, 15, action=pa.array([[1.0]] * 2 + [[1.0, 2.0]] * 2))),
        data,
        row_group_size=2,
    )
    with pytest.raises(FormatError, match=r"rows of episode 2 in .* differ in length"):
        read(third)


def test_pictures_have_to_be_at_their_times(third):
    change_episodes(third, **{f"videos/{TOP}/from_timestamp": [0.04, 0.6, 1.5]})
    episodes = read(third)
    with pytest.raises(FormatError, match=r"no picture at 0.04; the nearest is at 0, off by 0.04"):
        episodes[0].frames("top")
    assert psnr(read(third, tolerance=0.045)[0].frames("top"), moving(6)) > 38
    change_episodes(third, **{f"videos/{TOP}/from_timestamp": [0.0, 0.6, 1.7]})
    with pytest.raises(FormatError, match=r"no picture at 1.9; the nearest is at 1.8"):
        read(third)[2].frames("top")


def test_a_digest_follows_the_content(third):
    before = read(third)
    assert [e.digest for e in read(third)] == [e.digest for e in before]
    film = third / "videos" / TOP / "chunk-000" / "file-000.mp4"
    film.write_bytes(film.read_bytes() + b"\0")
    assert all(a.digest != b.digest for a, b in zip(before, read(third), strict=True))

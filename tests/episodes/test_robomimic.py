import json
import pickle

import h5py
import numpy as np
import pytest

from mirror_analysis.episodes import robomimic
from mirror_analysis.errors import FormatError, MissingFileError, StreamError

LENGTH = 6
ENVIRONMENT = {"env_name": "Lift", "type": 1, "env_kwargs": {"control_freq": 20}}


def pictures(number, length=LENGTH):
    values = np.zeros((length, 5, 4, 3), np.uint8)
    values[:, 0] = 200
    values[:, :, :, 1] = np.arange(length).reshape(-1, 1, 1)
    values[:, :, :, 2] = number
    return values


def add(group, name, number, length=LENGTH, rewards=None, **seen):
    demo = group.create_group(name)
    demo.attrs["num_samples"] = length
    demo["actions"] = np.full((length, 7), number, np.float64)
    demo["states"] = np.full((length, 11), number + 0.5)
    demo["dones"] = np.eye(length, dtype=np.int64)[-1]
    demo["rewards"] = np.eye(length)[-1] if rewards is None else rewards
    seen = seen or {
        "agentview_image": pictures(number, length),
        "robot0_eye_in_hand_image": pictures(number + 100, length),
        "agentview_depth": np.arange(length * 20.0, dtype=np.float32).reshape(length, 5, 4, 1),
        "robot0_gripper_qpos": np.full((length, 2), 3.0),
        "object": np.arange(length * 3.0).reshape(length, 3),
        "robot0_eef_quat": np.full((length, 4), 2, np.float32),
        "touch": np.arange(length) % 2 == 0,
    }
    for key, values in seen.items():
        demo[f"obs/{key}"] = values
        demo[f"next_obs/{key}"] = values
    return demo


@pytest.fixture
def lift(tmp_path):
    path = tmp_path / "lift.hdf5"
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["env_args"] = json.dumps(ENVIRONMENT)
        data.attrs["total"] = 3 * LENGTH
        for number in (10, 9, 0):
            add(data, f"demo_{number}", number)
        file["mask/train"] = np.array([b"demo_0", b"demo_10"])
        file["mask/valid"] = ["demo_9"]
        file["mask/20_percent"] = np.array([b"demo_9"])
    return path


def change(path, make):
    with h5py.File(path, "r+") as file:
        make(file)
    return path


def test_demonstrations_are_read_in_the_order_of_numbers(lift):
    assert robomimic.recognise(lift)
    episodes = robomimic.read(lift)
    assert [each.id for each in episodes] == ["lift/demo_0", "lift/demo_9", "lift/demo_10"]
    assert len(robomimic.read(lift, limit=2)) == 2
    assert len(robomimic.read(lift, limit=0)) == 0
    second = episodes[1]
    assert second.task == second.instruction == "Lift"
    assert second.success
    assert dict(second.labels) == {
        "file": "lift.hdf5",
        "demo": "demo_9",
        "mask_20_percent": True,
        "mask_train": False,
        "mask_valid": True,
        "split": "valid",
    }
    assert len(episodes.where(split="train")) == 2
    np.testing.assert_allclose(second.timestamps, np.arange(LENGTH) / 20)
    np.testing.assert_array_equal(second.actions, np.full((LENGTH, 7), 9))


def test_vectors_are_joined_in_the_order_of_their_names(lift):
    episode = robomimic.read(lift)[1]
    assert episode.cameras == ("agentview_image", "robot0_eye_in_hand_image")
    assert episode.states[1].tolist() == [3, 4, 5, 2, 2, 2, 2, 3, 3, 0]
    assert sorted(episode.extras) == [
        "dones",
        "object",
        "rewards",
        "robot0_eef_quat",
        "robot0_gripper_qpos",
        "simulator_states",
        "touch",
    ]
    np.testing.assert_array_equal(episode.extras["simulator_states"], np.full((LENGTH, 11), 9.5))


def test_pictures_are_those_of_the_steps(lift):
    episode = robomimic.read(lift, frames=3)[2]
    assert episode.steps.tolist() == [0, 2, 5]
    assert episode.length == LENGTH
    frames = episode.frames("robot0_eye_in_hand_image")
    np.testing.assert_array_equal(frames, pictures(110)[[0, 2, 5]])
    again = pickle.loads(pickle.dumps(episode.loader))
    np.testing.assert_array_equal(again("robot0_eye_in_hand_image"), frames)
    whole = robomimic.read(lift)[2]
    np.testing.assert_array_equal(whole.frames("agentview_image"), pictures(10))


def test_distance_is_no_camera_and_can_be_read(lift):
    episode = robomimic.read(lift, frames=2)[0]
    stored = np.arange(LENGTH * 20.0, dtype=np.float32).reshape(LENGTH, 5, 4)
    np.testing.assert_array_equal(robomimic.depth(episode, "agentview_depth"), stored[[0, 5]])
    with pytest.raises(StreamError, match=r"'agentview_image' \(there are: agentview_depth\)"):
        robomimic.depth(episode, "agentview_image")
    held = type(episode).from_frames(
        {},
        id="0",
        task="t",
        instruction="i",
        success=True,
        states=episode.states,
        actions=episode.actions,
        timestamps=episode.timestamps,
        steps=episode.steps,
        length=LENGTH,
    )
    with pytest.raises(StreamError, match="was not read from robomimic"):
        robomimic.depth(held, "agentview_depth")


def libero(path, problem='{"language_instruction": "turn on the stove"}', convention="opengl"):
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["env_name"] = "Libero_Kitchen_Tabletop_Manipulation"
        data.attrs["env_args"] = json.dumps(ENVIRONMENT | {"env_name": "Libero_Kitchen"})
        data.attrs["macros_image_convention"] = convention
        if problem is not None:
            data.attrs["problem_info"] = problem
        demo = add(
            data,
            "demo_0",
            4,
            agentview_rgb=pictures(4),
            agentview_depth=np.arange(LENGTH * 20.0).reshape(LENGTH, 5, 4),
            ee_pos=np.zeros((LENGTH, 3)),
        )
        demo["robot_states"] = np.ones((LENGTH, 9))
    return path


def test_a_libero_suite(tmp_path):
    libero(tmp_path / "KITCHEN_SCENE3_turn_on_the_stove_demo.hdf5")
    libero(tmp_path / "KITCHEN_SCENE10_close_the_drawer_demo.hdf5", problem=None)
    libero(tmp_path / "pick_up_the_book_demo.hdf5", problem='{"language_instruction": ["a", "b"]}')
    libero(tmp_path / "put_it_down_demo.hdf5", problem=None)
    (tmp_path / "notes.txt").write_text("nothing")
    assert robomimic.recognise(tmp_path)
    episodes = robomimic.read(tmp_path)
    assert [(each.task, each.instruction) for each in episodes] == [
        ("KITCHEN_SCENE3_turn_on_the_stove", "turn on the stove"),
        ("KITCHEN_SCENE10_close_the_drawer", "close the drawer"),
        ("pick_up_the_book", "a b"),
        ("put_it_down", "put it down"),
    ]
    assert episodes[0].id == "KITCHEN_SCENE3_turn_on_the_stove_demo/demo_0"
    assert "robot_states" in episodes[0].extras
    assert len(robomimic.read(tmp_path, limit=3)) == 3


def test_pictures_stored_upside_down_are_turned(tmp_path):
    up = robomimic.read(libero(tmp_path / "up_demo.hdf5"))[0]
    np.testing.assert_array_equal(up.frames("agentview_rgb"), pictures(4)[:, ::-1])
    stored = np.arange(LENGTH * 20.0, dtype=np.float32).reshape(LENGTH, 5, 4)
    np.testing.assert_array_equal(robomimic.depth(up, "agentview_depth"), stored[:, ::-1])
    other = robomimic.read(libero(tmp_path / "other_demo.hdf5", convention="opencv"))[0]
    np.testing.assert_array_equal(other.frames("agentview_rgb"), pictures(4))


def test_words_of_an_episode_go_before_those_of_the_file(lift):
    def make(file):
        file["data/demo_0"].attrs["ep_meta"] = json.dumps({"lang": "lift the red cube"})

    episodes = robomimic.read(change(lift, make))
    assert [each.instruction for each in episodes] == ["lift the red cube", "Lift", "Lift"]


def test_a_recording_without_observations_environment_or_rewards(tmp_path):
    path = tmp_path / "raw.hdf5"
    with h5py.File(path, "w") as file:
        demo = file.create_group("data/demo_0")
        demo["actions"] = np.zeros((3, 2))
    (episode,) = robomimic.read(path)
    assert episode.task == episode.instruction == "raw"
    assert episode.success
    assert episode.states.shape == (3, 0)
    assert episode.timestamps.tolist() == [0, 1, 2]
    assert "split" not in episode.labels


@pytest.mark.parametrize(
    ("rewards", "success"),
    [
        (np.zeros(LENGTH), False),
        (np.ones(LENGTH, np.uint8), True),
        (np.linspace(0, 0.9, LENGTH), True),
    ],
)
def test_success_is_what_sparse_rewards_say(tmp_path, rewards, success):
    path = tmp_path / "a.hdf5"
    with h5py.File(path, "w") as file:
        add(file.create_group("data"), "demo_0", 0, rewards=rewards)
    assert robomimic.read(path)[0].success is success


def test_what_the_digest_sees(lift):
    before = [each.digest for each in robomimic.read(lift)]
    assert len(set(before)) == 3
    assert [each.digest for each in robomimic.read(lift)] == before
    assert robomimic.read(lift, frames=2)[0].digest != before[0]

    def make(file):
        file["data/demo_0/obs/agentview_image"][3, 2, 2, 0] += 1

    assert robomimic.read(change(lift, make))[0].digest != before[0]


def test_what_is_not_there(tmp_path):
    assert not robomimic.recognise(tmp_path)
    assert not robomimic.recognise(tmp_path / "no.hdf5")
    with pytest.raises(MissingFileError, match="no HDF5 file at"):
        robomimic.read(tmp_path)
    with h5py.File(tmp_path / "other.hdf5", "w") as file:
        file["observations/qpos"] = np.zeros((3, 2))
    assert not robomimic.recognise(tmp_path)
    with pytest.raises(FormatError, match=r"other.hdf5 holds no demonstration; needed groups"):
        robomimic.read(tmp_path)
    (tmp_path / "other.hdf5").write_text("words")
    assert not robomimic.recognise(tmp_path)


def outward(file):
    file["data/demo_0/obs/stolen"] = h5py.ExternalLink("/etc/passwd", "/")


def claims(file):
    file["data/demo_0"].create_dataset("huge", (LENGTH, 2**40), np.float64, chunks=(1, 1024))


def rows(file):
    del file["data/demo_0/obs/object"]
    file["data/demo_0/obs/object"] = np.zeros((LENGTH - 1, 3))


def more_rows(file):
    del file["data/demo_0/dones"]
    file["data/demo_0/dones"] = np.zeros(LENGTH + 1)


def fewer_pictures(file):
    del file["data/demo_0/obs/agentview_image"]
    file["data/demo_0/obs/agentview_image"] = pictures(0)[1:]


def a_group(file):
    del file["data/demo_0/actions"]
    file.create_group("data/demo_0/actions")["a"] = np.zeros(LENGTH)


def words(file):
    del file["data/demo_0/rewards"]
    file["data/demo_0/rewards"] = [b"a"] * LENGTH


def other_layout(file):
    del file["data"]
    file["data"] = np.zeros(3)


def no_group(file):
    del file["data/demo_0/obs"]
    file["data/demo_0/obs"] = np.zeros(LENGTH)


def no_actions(file):
    del file["data/demo_0/actions"]


def not_json(file):
    file["data"].attrs["env_args"] = "{broken"


def many_names(file):
    file["mask"].create_dataset("all", (10**6 + 1,), "S1", chunks=(1000,))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (outward, "link"),
        (claims, "claims"),
        (rows, r"/data/demo_0/obs/object of .* has 5 rows, but there are 6 actions"),
        (more_rows, r"/data/demo_0/dones of .* has 7 rows, but there are 6 actions"),
        (fewer_pictures, r"agentview_image of .* has 5 rows, but there are 6 actions"),
        (a_group, "'actions' of demo_0 in .*lift.hdf5 is no array of numbers"),
        (words, "'rewards' of demo_0 in .*lift.hdf5 is no array of numbers"),
        (no_group, "lift.hdf5"),
        (other_layout, "lift.hdf5 is not laid out as robomimic does it"),
        (no_actions, "lift.hdf5 is a damaged HDF5 file, or lacks a part"),
        (not_json, "env_args of .*lift.hdf5 cannot be read"),
        (many_names, "/mask/all of .* names 1000001 demonstrations; needed at most a million"),
    ],
)
def test_files_that_are_refused(lift, make, message):
    change(lift, make)
    assert robomimic.recognise(lift)
    with pytest.raises(FormatError, match=message):
        robomimic.read(lift)


def test_arrays_that_would_fill_the_memory(lift, monkeypatch):
    monkeypatch.setattr(robomimic, "_MOST_NUMBERS", 400)
    with pytest.raises(FormatError, match=r"would take .* GiB; at most .* so ask for fewer frames"):
        robomimic.read(lift)
    assert len(robomimic.read(lift, frames=4)) == 3

    def make(file):
        seen = file["data/demo_0/obs"]
        values = seen["object"][()]
        del seen["object"]
        seen.create_dataset("object", data=np.tile(values, 10), chunks=(LENGTH, 30))

    with pytest.raises(FormatError, match=r"/data/demo_0/obs/object of .* would take"):
        robomimic.read(change(lift, make), frames=1)


def test_a_cut_file(lift):
    lift.write_bytes(lift.read_bytes()[:5000])
    assert robomimic.recognise(lift)
    with pytest.raises(FormatError, match="damaged HDF5 file"):
        robomimic.read(lift)

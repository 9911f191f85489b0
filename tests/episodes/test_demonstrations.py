import os
import pickle

import numpy as np
import pytest

from mirror_analysis.episodes import demonstrations
from mirror_analysis.errors import DefinitionError, FormatError, MissingFileError

LENGTH = 6


def trajectory(number=0, **changes):
    values = {
        "observations": np.arange(LENGTH * 4.0).reshape(LENGTH, 4) + number,
        "actions": np.full((LENGTH, 2), number, np.float32),
        "rewards": np.arange(LENGTH) / 2,
        "next_observations": np.ones((LENGTH, 4)),
        "init_state_dict": {"door": np.array([0.5, 2]), "qpos": np.zeros(30), "note": "x"},
    } | changes
    return {name: value for name, value in values.items() if value is not None}


def dump(path, value, protocol=4):
    path.write_bytes(pickle.dumps(value, protocol))
    return path


@pytest.mark.parametrize("protocol", range(6))
def test_a_list_of_trajectories(tmp_path, protocol):
    path = dump(tmp_path / "door_demos.pickle", [trajectory(0), trajectory(3)], protocol)
    assert demonstrations.recognise(path)
    episodes = demonstrations.read(path, rate=10)
    assert [each.id for each in episodes] == ["door_demos/0", "door_demos/1"]
    assert len(demonstrations.read(path, limit=1)) == 1
    assert len(demonstrations.read(path, limit=0)) == 0
    second = episodes[1]
    assert second.task == "door_demos"
    assert second.instruction == "door demos"
    assert second.success
    assert second.cameras == ()
    np.testing.assert_array_equal(second.states, np.arange(24.0).reshape(6, 4) + 3)
    np.testing.assert_array_equal(second.actions, np.full((6, 2), 3))
    np.testing.assert_allclose(second.timestamps, np.arange(6) / 10)
    assert list(second.extras) == ["rewards"]
    assert dict(second.labels) == {"position": 1, "door_0": 0.5, "door_1": 2.0}


def test_other_names_and_forms(tmp_path):
    forms = {
        "one": {"obs": np.zeros((4, 3)), "acts": [[1], [2], [3]], "terminal": [False, False, True]},
        "two": {"observation": [[0, 1]] * 3, "action": np.zeros((3, 1)), "ragged": [[1], [2, 3]]},
    }
    path = dump(tmp_path / "a", forms)
    assert demonstrations.recognise(path)
    first, second = demonstrations.read(path)
    assert first.actions.tolist() == [[1], [2], [3]]
    assert first.states.shape == (3, 3)
    assert first.extras["terminal"].tolist() == [False, False, True]
    assert second.states.tolist() == [[0, 1]] * 3
    alone = demonstrations.read(dump(tmp_path / "b", trajectory(2)))
    assert [each.id for each in alone] == ["b/0"]


def test_pictures_are_cameras(tmp_path):
    seen = np.random.default_rng(0).integers(0, 255, (LENGTH, 3, 4, 3), np.uint8)
    path = dump(tmp_path / "a", [trajectory(0), trajectory(1, image_obs=seen)])
    episode = demonstrations.read(path, frames=3)[1]
    assert episode.steps.tolist() == [0, 2, 5]
    assert episode.length == LENGTH
    assert episode.cameras == ("image_obs",)
    assert list(episode.extras) == ["rewards"]
    np.testing.assert_array_equal(episode.frames("image_obs"), seen[[0, 2, 5]])
    again = pickle.loads(pickle.dumps(episode.loader))
    np.testing.assert_array_equal(again("image_obs"), seen[[0, 2, 5]])


@pytest.mark.parametrize(
    ("told", "success"),
    [
        ({}, True),
        ({"success": False}, False),
        ({"env_infos": {"goal_achieved": np.array([False, True, False])}}, True),
        ({"env_infos": {"goal_achieved": np.zeros(3, bool)}}, False),
        ({"env_infos": {"time": np.zeros(3)}}, True),
    ],
)
def test_success_is_what_the_trajectory_says(tmp_path, told, success):
    episode = demonstrations.read(dump(tmp_path / "a", [trajectory(0, **told)]))[0]
    assert episode.success is success


def test_what_the_digest_sees(tmp_path):
    path = dump(tmp_path / "a", [trajectory(0), trajectory(1)])
    first, second = demonstrations.read(path)
    assert first.digest != second.digest
    assert demonstrations.read(path)[0].digest == first.digest
    assert demonstrations.read(path, frames=2)[0].digest != first.digest
    assert demonstrations.read(path, rate=2)[0].digest != first.digest
    dump(path, [trajectory(0, rewards=np.zeros(LENGTH)), trajectory(1)])
    assert demonstrations.read(path)[0].digest != first.digest


@pytest.mark.parametrize(
    "value",
    [
        {"policy": {"observation_dim": 3, "actions_low": 2}},
        [1, 2],
        {"obsnorm": np.zeros(3), "actions": np.zeros(3)},
        "observations actions",
    ],
)
def test_other_pickles_are_not_recognised(tmp_path, value):
    assert not demonstrations.recognise(dump(tmp_path / "a", value))


def test_names_are_found_wherever_they_lie(tmp_path):
    for size in (0, 2**20 - 70, 2**20 - 60, 2**20 - 50, 2**20 - 40, 2**20, 3 * 2**20):
        value = [trajectory(0, padding=None)]
        value[0] = {"padding": b"\0" * size} | value[0]
        assert demonstrations.recognise(dump(tmp_path / "a", value))


def test_what_is_not_there(tmp_path):
    assert not demonstrations.recognise(tmp_path)
    assert not demonstrations.recognise(tmp_path / "nothing")
    (tmp_path / "words").write_text("observations\nactions\n")
    assert not demonstrations.recognise(tmp_path / "words")
    with pytest.raises(MissingFileError, match="needed a pickle of trajectories"):
        demonstrations.read(tmp_path / "nothing")
    path = dump(tmp_path / "a", [trajectory()])
    with pytest.raises(DefinitionError, match="rate is -1 steps per second; needed more than 0"):
        demonstrations.read(path, rate=-1)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (3, "holds int of 1; needed a list of trajectories"),
        ([], "holds list of 0; needed a list of trajectories"),
        ([trajectory(), 3], "trajectory 1 of .* is int; needed a dictionary"),
        ([trajectory(actions=None)], "actions in trajectory 0 of .* are NoneType"),
        ([trajectory(observations=None)], "observations in trajectory 0 of .* are NoneType"),
        ([trajectory(actions=np.array(["a"] * LENGTH))], "actions in .* are <U1; needed an array"),
        ([trajectory(actions=np.float32(3))], "actions in .* are float32; needed an array"),
        ([trajectory(actions=[[1], [2, 3]])], "actions in .* are NoneType; needed an array"),
        (
            [trajectory(actions=np.zeros((4, 2)))],
            "has 6 observations and 4 actions; needed as many",
        ),
    ],
)
def test_pickles_of_something_else(tmp_path, value, message):
    with pytest.raises(FormatError, match=message):
        demonstrations.read(dump(tmp_path / "a", value))


class Runs:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("name", ["rewards", "more"])
def test_a_pickle_that_runs_code_is_refused_and_does_not_run(tmp_path, name):
    touched = tmp_path / "touched"
    hostile = trajectory(0) | {name: Runs(f"touch {touched}")}
    path = dump(tmp_path / "a", [trajectory(0), hostile])
    assert demonstrations.recognise(path)
    with pytest.raises(FormatError, match=r"posix.system|os.system"):
        demonstrations.read(path)
    assert not touched.exists()


def test_a_cut_pickle(tmp_path):
    path = dump(tmp_path / "a", [trajectory(0)])
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(FormatError, match=r"/a "):
        demonstrations.read(path)


@pytest.mark.real_weights
def test_the_door_demonstrations_of_dapg(shared):
    path = shared / "episodes" / "adroit_door_demos.pickle"
    assert demonstrations.recognise(path)
    episodes = demonstrations.read(path)
    assert len(episodes) == 25
    lengths = [each.length for each in episodes]
    assert (min(lengths), max(lengths)) == (223, 300)
    assert {each.states.shape[1] for each in episodes} == {39}
    assert {each.actions.shape[1] for each in episodes} == {28}
    assert episodes[0].instruction == "adroit door demos"
    assert {f"door_body_pos_{i}" for i in range(3)} < episodes[0].labels.keys()
    # Each opens the door, which the environment pays with about 10 a step.
    assert all(each.extras["rewards"].max() > 9 for each in episodes)


@pytest.mark.real_weights
def test_the_hopper_expert_of_cs285(shared):
    path = shared / "episodes" / "expert_data_Hopper-v4.pkl"
    assert demonstrations.recognise(path)
    episodes = demonstrations.read(path)
    assert [each.length for each in episodes] == [1000, 1000]
    assert episodes[0].states.shape == (1000, 11)
    assert episodes[0].actions.shape == (1000, 3)
    assert sorted(episodes[0].extras) == ["reward", "terminal"]
    assert [round(float(each.extras["reward"].sum())) for each in episodes] == [3717, 3718]


@pytest.mark.real_weights
def test_policies_in_pickles_are_no_demonstrations(shared):
    pickles = [*(shared / "weights" / "dapg").iterdir(), *(shared / "weights" / "cs285").iterdir()]
    assert len(pickles) >= 5
    assert not any(demonstrations.recognise(path) for path in pickles)

import os
import pickle
import shutil
import sys
import types

import numpy as np
import pytest
from PIL import Image

from mirror_analysis.episodes import rlbench
from mirror_analysis.errors import DegenerateError, FormatError, MissingFileError, StreamError

LENGTH, SIZE = 12, 6


def place(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def picture(camera, step):
    values = np.full((SIZE, SIZE, 3), step, np.uint8)
    values[0, 0] = len(camera)
    return values


@pytest.fixture
def classes(monkeypatch):
    """Classes that pickle under the names RLBench has for them, gone before anything is read."""
    modules = ("rlbench", "rlbench.demo", "rlbench.backend", "rlbench.backend.observation")
    made = {name: types.ModuleType(name) for name in modules}
    demo = type("Demo", (), {"__module__": "rlbench.demo"})
    observation = type("Observation", (), {"__module__": "rlbench.backend.observation"})
    made["rlbench.demo"].Demo = demo
    made["rlbench.backend.observation"].Observation = observation

    def dump(value, path, protocol=4):
        path.parent.mkdir(parents=True, exist_ok=True)
        with monkeypatch.context() as patch:
            for name, module in made.items():
                patch.setitem(sys.modules, name, module)
            path.write_bytes(pickle.dumps(value, protocol))

    return types.SimpleNamespace(demo=demo, observation=observation, dump=dump)


def recording(classes, length=LENGTH, **changes):
    observations = []
    for step in range(length):
        held = classes.observation()
        held.front_rgb = held.front_depth = held.front_mask = None
        held.joint_velocities = np.full(7, 1.0)
        held.joint_positions = np.arange(7) + step / 10
        held.joint_forces = None
        held.gripper_open = 1.0 if step < 5 else 0.0
        held.gripper_pose = np.arange(7) * step
        held.gripper_matrix = np.eye(4)
        held.gripper_joint_positions = np.array([0.04, 0.03])
        held.gripper_touch_forces = np.zeros(6)
        held.task_low_dim_state = np.arange(3.0)
        held.misc = {
            "front_camera_extrinsics": np.eye(4),
            "front_camera_near": 0.01 * (step + 1),
            "front_camera_far": np.float64(4.5),
            "descriptions": "words are no numbers",
        }
        for name, value in changes.items():
            setattr(held, name, value(step) if callable(value) else value)
        observations.append(held)
    demo = classes.demo()
    demo._observations = observations
    demo.random_seed = np.random.RandomState(0).get_state()
    demo.num_reset_attempts = 1
    return demo


def write_episode(classes, folder, demo=None, cameras=("front", "wrist"), steps=range(LENGTH)):
    classes.dump(demo or recording(classes), folder / "low_dim_obs.pkl")
    for camera in cameras:
        for step in steps:
            place(folder / f"{camera}_rgb" / f"{step}.png", picture(camera, step))
    return folder


@pytest.fixture
def task(classes, tmp_path):
    folder = tmp_path / "root" / "open_drawer"
    for variation, episodes in ((10, [0]), (2, [10, 9])):
        for episode in episodes:
            write_episode(
                classes, folder / f"variation{variation}" / "episodes" / f"episode{episode}"
            )
        classes.dump(
            [f"open drawer {variation}", f"pull {variation}"],
            folder / f"variation{variation}" / "variation_descriptions.pkl",
        )
    return folder


def test_a_task_is_read_in_the_order_of_numbers(task):
    assert rlbench.recognise(task)
    episodes = rlbench.read(task)
    assert [episode.id for episode in episodes] == [
        "open_drawer/variation2/episode9",
        "open_drawer/variation2/episode10",
        "open_drawer/variation10/episode0",
    ]
    assert len(rlbench.read(task, limit=2)) == 2
    assert len(rlbench.read(task, limit=0)) == 0
    first, last = episodes[0], episodes[2]
    assert first.task == "open_drawer"
    assert first.instruction == "open drawer 2"
    assert dict(last.labels) == {
        "variation": 10,
        "description_0": "open drawer 10",
        "description_1": "pull 10",
    }
    assert first.success
    assert first.cameras == ("front_rgb", "wrist_rgb")
    assert first.length == LENGTH
    np.testing.assert_allclose(first.timestamps, np.arange(LENGTH) * 0.05)


def test_ids_do_not_depend_on_where_one_points(task):
    whole = {episode.id: episode.digest for episode in rlbench.read(task.parent)}
    parts = {
        episode.id: episode.digest
        for path in (
            task / "variation2",
            task / "variation10" / "episodes" / "episode0",
        )
        for episode in rlbench.read(path)
    }
    assert whole == parts
    shutil.move(task.parent, task.parents[1] / "train")
    split = rlbench.read(task.parents[1])[0]
    assert split.id == "train/open_drawer/variation2/episode9"
    assert split.labels["split"] == "train"


def test_states_and_actions_are_in_the_order_that_is_declared(task):
    episode = rlbench.read(task)[0]
    assert episode.states.shape == (LENGTH, 17)
    np.testing.assert_allclose(episode.states[3, :7], np.arange(7) + 0.3, rtol=1e-6)
    np.testing.assert_allclose(episode.states[:, 7], [1] * 5 + [0] * 7)
    np.testing.assert_allclose(episode.states[3, 8:15], np.arange(7) * 3)
    np.testing.assert_allclose(episode.states[0, 15:], [0.04, 0.03], rtol=1e-6)
    following = np.minimum(np.arange(LENGTH) + 1, LENGTH - 1)
    np.testing.assert_array_equal(episode.actions, episode.states[following][:, [*range(8, 15), 7]])
    assert episode.extras["front_camera_extrinsics"].shape == (LENGTH, 4, 4)
    assert episode.extras["gripper_matrix"].shape == (LENGTH, 4, 4)
    assert "joint_forces" not in episode.extras
    assert "descriptions" not in episode.extras


def test_the_target_is_the_hand_at_the_next_key_frame(task):
    episode = rlbench.read(task)[0]
    hand = episode.states[:, [*range(8, 15), 7]]
    ends = np.array([5] * 5 + [11] * 7)
    np.testing.assert_array_equal(episode.extras["keyframe_action"], hand[ends])


def test_pictures_are_those_of_the_steps(task):
    episode = rlbench.read(task, frames=4)[0]
    assert episode.steps.tolist() == [0, 4, 7, 11]
    frames = episode.frames("wrist_rgb")
    np.testing.assert_array_equal(frames, [picture("wrist", step) for step in (0, 4, 7, 11)])
    np.testing.assert_array_equal(episode.extras["front_camera_near"], [0.01, 0.05, 0.08, 0.12])
    again = pickle.loads(pickle.dumps(episode.loader))
    np.testing.assert_array_equal(again("wrist_rgb"), frames)


def test_the_variant_of_peract_keeps_descriptions_and_key_frames_inside(classes, tmp_path):
    folder = tmp_path / "close_jar" / "all_variations" / "episodes" / "episode3"
    write_episode(classes, folder, steps=[0, 5, 11])
    place(folder / "wrist_rgb" / "7.png", picture("wrist", 7))
    classes.dump(7, folder / "variation_number.pkl")
    classes.dump(["close the red jar"], folder / "variation_descriptions.pkl", protocol=2)
    (episode,) = rlbench.read(tmp_path)
    assert episode.id == "close_jar/all_variations/episode3"
    assert episode.labels["variation"] == 7
    assert episode.instruction == "close the red jar"
    assert episode.steps.tolist() == [0, 5, 11]
    assert episode.length == LENGTH
    assert episode.frames("front_rgb").shape == (3, SIZE, SIZE, 3)


def test_an_episode_alone_needs_neither_pictures_nor_words(classes, tmp_path):
    folder = tmp_path / "put_money_in_safe" / "try"
    classes.dump(
        recording(classes, gripper_pose=None, joint_velocities=None),
        folder / "low_dim_obs.pkl",
        protocol=2,
    )
    (episode,) = rlbench.read(folder)
    assert episode.id == "put_money_in_safe/try"
    assert episode.instruction == "put money in safe"
    assert episode.cameras == ()
    assert episode.states.shape == (LENGTH, 10)
    assert episode.actions.shape == (LENGTH, 0)
    assert "keyframe_action" not in episode.extras


def test_no_velocities_no_key_frames(classes, tmp_path):
    folder = tmp_path / "t" / "e"
    classes.dump(recording(classes, joint_velocities=None), folder / "low_dim_obs.pkl")
    (episode,) = rlbench.read(folder)
    assert episode.actions.shape == (LENGTH, 8)
    assert "keyframe_action" not in episode.extras


@pytest.mark.parametrize(
    ("opened", "still", "frames"),
    [
        ([1, 1, 0, 0, 0], [], [2, 4]),
        ([1, 1, 1, 1, 0], [], [4]),
        ([1, 1, 1, 0, 0], [], [4]),
        ([1] * 14, [5, 6, 7, 10, 11], [5, 10, 13]),
        ([1] * 14, [5, 9, 12], [5, 13]),
        ([1] * 3 + [0] * 11, [3, 4, 5], [3, 5, 13]),
        ([1], [], []),
    ],
)
def test_key_frames(opened, still, frames):
    velocities = np.ones((len(opened), 7))
    velocities[still] = 0.1
    assert rlbench.key_frames(np.array(opened), velocities).tolist() == frames


def test_depth_is_in_metres(classes, task):
    folder = task / "variation10" / "episodes" / "episode0"
    values = np.zeros((SIZE, SIZE), np.int64)
    values[0, :3] = 0, 2**24 - 1, 0x123456
    coded = np.stack([values >> 16, values >> 8 & 255, values & 255], axis=-1).astype(np.uint8)
    for step in range(LENGTH):
        place(folder / "front_depth" / f"{step}.png", coded)
    episode = rlbench.read(folder, frames=2)[0]
    assert episode.cameras == ("front_rgb", "wrist_rgb")
    metres = rlbench.depth(episode, "front_depth")
    assert metres.shape == (2, SIZE, SIZE)
    near = np.array([0.01, 0.12])
    np.testing.assert_allclose(metres[:, 0, 0], near, rtol=1e-6)
    np.testing.assert_allclose(metres[:, 0, 1], [4.5, 4.5], rtol=1e-6)
    expected = near + 0x123456 / (2**24 - 1) * (4.5 - near)
    np.testing.assert_allclose(metres[:, 0, 2], expected, rtol=1e-6)
    with pytest.raises(StreamError, match="lacks wrist_camera_near or wrist_camera_far"):
        rlbench.depth(episode, "wrist_depth")
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
    with pytest.raises(StreamError, match="was not read from RLBench"):
        rlbench.depth(held, "front_depth")


def test_the_digest_sees_numbers_pictures_and_steps(classes, task):
    path = task / "variation10"
    before = rlbench.read(path)[0].digest
    assert rlbench.read(path)[0].digest == before
    assert rlbench.read(path, frames=3)[0].digest != before
    file = path / "episodes" / "episode0" / "front_rgb" / "0.png"
    place(file, picture("front", 99))
    changed = rlbench.read(path)[0].digest
    assert changed != before
    classes.dump(
        recording(classes, joint_forces=np.ones(7)),
        path / "episodes" / "episode0" / "low_dim_obs.pkl",
    )
    assert rlbench.read(path)[0].digest not in (before, changed)


def test_what_is_not_there(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    assert not rlbench.recognise(tmp_path)
    assert not rlbench.recognise(tmp_path / "nothing")
    for path in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(MissingFileError, match=r"no RLBench episode below .*low_dim_obs.pkl"):
            rlbench.read(path)


def test_a_folder_that_may_not_be_read_is_not_passed_over(task, monkeypatch):
    listed = os.scandir

    def forbidding(path):
        if str(path).endswith("variation10"):
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(os, "scandir", forbidding)
    with pytest.raises(FormatError, match=r"variation10 cannot be listed \(Permission denied\)"):
        rlbench.read(task)


def test_a_picture_that_leads_nowhere(classes, tmp_path):
    folder = write_episode(classes, tmp_path / "t" / "e")
    (folder / "front_rgb" / "3.png").unlink()
    (folder / "front_rgb" / "3.png").symlink_to(folder / "nothing")
    with pytest.raises(MissingFileError, match="needed a picture"):
        rlbench.read(tmp_path)


class Runs:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize(
    "file", ["low_dim_obs.pkl", "variation_descriptions.pkl", "variation_number.pkl"]
)
def test_a_pickle_that_runs_code_is_refused_and_does_not_run(classes, tmp_path, file):
    folder = write_episode(classes, tmp_path / "t" / "e")
    touched = tmp_path / "touched"
    hostile = Runs(f"touch {touched}")
    whole = recording(classes, task_low_dim_state=hostile)
    classes.dump(whole if file == "low_dim_obs.pkl" else [hostile], folder / file)
    with pytest.raises(FormatError, match=r"posix.system|os.system"):
        rlbench.read(tmp_path)
    assert not touched.exists()


@pytest.mark.parametrize(
    ("file", "value", "message"),
    [
        ("low_dim_obs.pkl", {"a": 1}, "holds no list of observations; needed an RLBench Demo"),
        ("low_dim_obs.pkl", [], "holds no list of observations"),
        ("low_dim_obs.pkl", [3], "holds int among the observations"),
        ("variation_descriptions.pkl", [3], "holds no list of texts"),
        ("variation_number.pkl", "3", "holds str; needed the variation's number"),
        ("variation_number.pkl", True, "holds bool; needed the variation's number"),
    ],
)
def test_pickles_of_something_else(classes, tmp_path, file, value, message):
    folder = write_episode(classes, tmp_path / "t" / "e")
    classes.dump(value, folder / file)
    with pytest.raises(FormatError, match=message):
        rlbench.read(tmp_path)


def test_a_field_that_changes_its_shape(classes, tmp_path):
    classes.dump(
        recording(classes, task_low_dim_state=lambda step: np.zeros(2 + step % 2)),
        tmp_path / "t" / "e" / "low_dim_obs.pkl",
    )
    with pytest.raises(FormatError, match="'task_low_dim_state' changes its shape"):
        rlbench.read(tmp_path)


def test_a_truncated_recording(classes, tmp_path):
    file = write_episode(classes, tmp_path / "t" / "e") / "low_dim_obs.pkl"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(FormatError, match=r"low_dim_obs.pkl"):
        rlbench.read(tmp_path)


def test_pictures_of_another_recording(classes, tmp_path):
    folder = write_episode(classes, tmp_path / "t" / "e")
    place(folder / "front_rgb" / f"{LENGTH}.png", picture("front", 0))
    with pytest.raises(FormatError, match=r"has a picture 12.png, but the episode 12 observations"):
        rlbench.read(tmp_path)


def test_no_step_that_every_camera_saw(classes, tmp_path):
    folder = write_episode(classes, tmp_path / "t" / "e", cameras=["front"], steps=[0, 1])
    place(folder / "wrist_rgb" / "2.png", picture("wrist", 2))
    with pytest.raises(FormatError, match=r"no observation of .* has a picture of every camera"):
        rlbench.read(tmp_path)


def test_pictures_of_two_sizes_and_pictures_gone(classes, tmp_path):
    folder = write_episode(classes, tmp_path / "t" / "e")
    episode = rlbench.read(tmp_path)[0]
    place(folder / "front_rgb" / "3.png", np.zeros((SIZE, SIZE + 1, 3), np.uint8))
    with pytest.raises(FormatError, match=r"picture 3 in .*front_rgb has shape \[6, 7, 3\]"):
        episode.frames("front_rgb")
    (folder / "wrist_rgb" / "3.png").unlink()
    with pytest.raises(MissingFileError, match="needed a picture"):
        episode.frames("wrist_rgb")


def test_links_that_leave_the_folder(classes, tmp_path):
    elsewhere = write_episode(classes, tmp_path / "elsewhere" / "t" / "variation0" / "e")
    root = tmp_path / "root"
    folder = write_episode(classes, root / "t" / "e")
    (root / "more").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FormatError, match="'more', which a link takes outside"):
        rlbench.read(root)
    assert not rlbench.recognise(root)
    (root / "more").unlink()
    shutil.rmtree(folder / "front_rgb")
    (folder / "front_rgb").symlink_to(elsewhere / "front_rgb")
    with pytest.raises(FormatError, match="'front_rgb', which a link takes outside"):
        rlbench.read(root)
    (folder / "front_rgb").unlink()
    (folder / "low_dim_obs.pkl").unlink()
    (folder / "low_dim_obs.pkl").symlink_to(elsewhere / "low_dim_obs.pkl")
    with pytest.raises(FormatError, match="which a link takes outside"):
        rlbench.read(root)


def test_a_recording_with_infinity_is_named(classes, tmp_path):
    classes.dump(
        recording(classes, joint_positions=np.full(7, 1e300)),
        tmp_path / "t" / "e" / "low_dim_obs.pkl",
    )
    with pytest.raises(DegenerateError, match="of episode t/e hold NaN or infinity"):
        rlbench.read(tmp_path)

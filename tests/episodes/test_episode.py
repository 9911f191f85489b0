import importlib.util
import sys

import numpy as np
import pytest
import scenes

from mirror_analysis.episodes import episode as episode_module
from mirror_analysis.episodes.episode import Episode, Episodes
from mirror_analysis.errors import (
    DegenerateError,
    FormatError,
    PairingError,
    ShapeError,
    StreamError,
)


def episode(name="e0", *, time=4, cameras=("A", "B"), seed=0, kind=Episode, **changes):
    rng = np.random.default_rng(seed)
    pictures = {c: rng.integers(0, 256, (time, 6, 5, 3), dtype=np.uint8) for c in cameras}
    fields = {
        "id": name,
        "task": "drawer-open",
        "instruction": "open the drawer on the left",
        "success": True,
        "states": rng.normal(size=(time, 3)).astype(np.float32),
        "actions": rng.normal(size=(time, 2)).astype(np.float32),
        "timestamps": np.arange(time) / 10,
        "steps": np.arange(time) * 3,
        "length": 3 * time,
        "labels": {"split": "fit", "noise": 0.2},
        "extras": {"expert_actions": np.zeros((time, 2), np.float32)},
    }
    return kind.from_frames(pictures, **fields | changes)


def test_frames_are_those_of_the_camera_asked_for():
    one = episode()
    assert one.frames("A").shape == (4, 6, 5, 3)
    assert not np.array_equal(one.frames("A"), one.frames("B"))


def test_a_camera_that_is_not_there_names_those_that_are():
    with pytest.raises(StreamError, match=r"^episode e0 has no camera 'C' \(cameras: A, B\)$"):
        episode().frames("C")
    with pytest.raises(StreamError, match=r"no camera 'C' \(cameras: none\)"):
        episode(cameras=()).frames("C")


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        ({"states": np.zeros(4, np.float32)}, ShapeError, r"states .* \[4\]; needed \[time, state"),
        ({"actions": np.zeros((3, 2), np.float32)}, ShapeError, "has 4 steps but 3 actions"),
        ({"extras": {"x": np.zeros(5)}}, ShapeError, "has 4 steps but 5 x; give one of each"),
        ({"states": np.full((4, 1), np.nan, np.float32)}, DegenerateError, "hold NaN or infinity"),
        ({"steps": np.array([0, 3, 3, 6])}, FormatError, "needed increasing steps in 0 to 11"),
        ({"length": 9}, FormatError, "run from 0 to 9; needed increasing steps in 0 to 8"),
        (
            {"timestamps": np.array([0, 2, 1, 3.0])},
            FormatError,
            "timestamps of episode e0 decrease",
        ),
    ],
)
def test_arrays_that_do_not_fit_are_named(changes, error, text):
    with pytest.raises(error, match=text):
        episode(**changes)


def test_other_kinds_of_numbers_are_refused():
    # A copy without the type checks of the test run, which would come first.
    spec = importlib.util.spec_from_file_location("unchecked", episode_module.__file__)
    unchecked = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "unchecked", unchecked)
        spec.loader.exec_module(unchecked)
        with pytest.raises(FormatError, match="actions of episode e0 are float64; needed float32"):
            episode(kind=unchecked.Episode, actions=np.zeros((4, 2)))


def test_an_episode_without_frames_is_refused():
    with pytest.raises(ShapeError, match="has no frames; needed at least one"):
        episode(time=0)


def test_pictures_that_do_not_fit_are_named():
    with pytest.raises(ShapeError, match=r"'A' of episode e0 gave uint8 \[3, 6, 5, 3\]; needed"):
        Episode.from_frames(
            {"A": np.zeros((3, 6, 5, 3), np.uint8)},
            **{
                name: getattr(episode(), name)
                for name in (
                    *("id", "task", "instruction", "success", "length"),
                    *("states", "actions", "timestamps", "steps"),
                )
            },
        )


def test_the_fingerprint_follows_contents_and_not_order():
    a, b = episode("a"), episode("b", seed=1)
    assert Episodes([a, b]).fingerprint == Episodes([b, a]).fingerprint
    others = [
        Episodes([a]),
        Episodes([a, episode("c", seed=1)]),
        Episodes([a, episode("b", seed=2)]),
        Episodes([a, episode("b", seed=1, success=False)]),
    ]
    assert len({e.fingerprint for e in [Episodes([a, b]), *others]}) == 5


def test_two_episodes_of_one_name_are_refused():
    with pytest.raises(PairingError, match="two episodes are named e0; give every episode an id"):
        Episodes([episode(), episode(seed=1)])


def test_take_by_positions_and_by_mask():
    all_three = Episodes([episode(n) for n in "abc"])
    assert [e.id for e in all_three.take([2, 0])] == ["c", "a"]
    assert [e.id for e in all_three.take(np.array([True, False, True]))] == ["a", "c"]
    assert [e.id for e in all_three[1:]] == ["b", "c"]
    assert len(all_three.take([])) == 0
    with pytest.raises(ShapeError, match=r"a mask of shape \[2\] cannot choose from 3 episodes"):
        all_three.take(np.array([True, False]))


def test_where_knows_fields_and_labels():
    episodes = Episodes(
        [episode("a"), episode("b", success=False), episode("c", labels={"split": "test"})]
    )
    assert [e.id for e in episodes.where(success=True)] == ["a", "c"]
    assert [e.id for e in episodes.where(success=True, split="fit")] == ["a"]
    assert len(episodes.where(task="reach")) == 0
    with pytest.raises(
        StreamError, match=r"episode c has no label 'noise' \(labels: task, .*split"
    ):
        episodes.where(noise=0.2)


def test_labels_are_those_that_all_carry():
    episodes = Episodes([episode("a"), episode("b", labels={"split": "test"}, success=False)])
    labels = episodes.labels()
    assert list(labels) == ["task", "instruction", "success", "length", "split"]
    assert labels["success"].tolist() == [True, False]
    assert labels["split"].tolist() == ["fit", "test"]
    assert labels["length"].dtype == np.int64
    assert list(Episodes([]).labels()) == ["task", "instruction", "success", "length"]


def test_cameras_are_those_that_all_have():
    episodes = Episodes([episode("a", cameras=("B", "A")), episode("b", cameras=("A", "B", "C"))])
    assert episodes.cameras == ("B", "A")
    assert Episodes([]).cameras == ()
    episodes.require("A")
    with pytest.raises(
        StreamError, match=r"1 of 2 episodes have no camera 'C', first a \(cameras of all: B, A\)"
    ):
        episodes.require("C")


def test_repr_says_what_there_is():
    assert repr(Episodes([episode()])) == "Episodes(1 of 1 tasks, cameras A, B)"


def test_frames_of_all_episodes_are_one_array():
    every = scenes.episodes(3)
    frames = every.frames("B")
    assert frames.shape == (3, 3, 64, 64, 3)
    np.testing.assert_array_equal(frames[1], every[1].frames("B"))


def test_frames_that_make_no_array_are_refused():
    with pytest.raises(StreamError, match="2 of 2 episodes have no camera 'C'"):
        scenes.episodes(2).frames("C")
    uneven = Episodes([scenes.episode(0), scenes.episode(1, time=5)])
    with pytest.raises(ShapeError, match="between 3 and 5 frames; needed equally many"):
        uneven.frames("A")
    mixed = Episodes([scenes.episode(0), scenes.episode(1, size=32)])
    with pytest.raises(ShapeError, match=r"'A' have 2 sizes, such as \[32, 32, 3\] and \[64, 64"):
        mixed.frames("A")
    with pytest.raises(DegenerateError, match="no episodes to take frames of; needed at least"):
        Episodes([]).frames("A")

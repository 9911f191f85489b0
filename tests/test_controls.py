import numpy as np
import pytest
from scenes import episode, episodes

from mirror_analysis import controls
from mirror_analysis.episodes.episode import Episodes
from mirror_analysis.errors import DegenerateError, ShapeError, StreamError
from mirror_analysis.extraction import extract
from mirror_analysis.features import Features, pair
from mirror_analysis.models.reference.family import ReferenceExecution
from mirror_analysis.models.reference.networks import ExecutionNetwork

DATA = episodes(5)


def only(layers: dict[str, Features]) -> Features:
    (features,) = layers.values()
    return features


def test_pixels_are_means_over_time_and_over_cells():
    features = only(controls.pixels(DATA, "A", cells=4))
    assert features.values.shape == (5, 4 * 4 * 3) and features.values.dtype == np.float32
    for row, one in zip(features.values, DATA, strict=True):
        frames = one.frames("A").astype(np.float64)
        expected = []
        for top in range(0, 64, 16):
            for left in range(0, 64, 16):
                for colour in range(3):
                    cell = frames[:, top : top + 16, left : left + 16, colour]
                    expected.append(cell.sum() / cell.size)
        np.testing.assert_allclose(row, expected, rtol=1e-5)


def test_pixels_are_of_the_camera_asked_for_and_of_any_size():
    a, b = (only(controls.pixels(DATA, camera)) for camera in ("A", "B"))
    assert a.values.shape == (5, 768)
    assert not np.allclose(a.values, b.values)
    odd = only(controls.pixels(episodes(2, size=7), "B", cells=3))
    corner = episodes(2, size=7)[1].frames("B")[:, :3, :3].mean(axis=(0, 1, 2))
    np.testing.assert_allclose(odd.values[1, :3], corner, rtol=1e-5)


def test_state_and_proprioception_are_means_over_time():
    state, felt = only(controls.state(DATA)), only(controls.proprioception(DATA))
    assert state.values.shape == (5, 39) and felt.values.shape == (5, 8)
    for i, one in enumerate(DATA):
        mean = sum(one.states[t].astype(np.float64) for t in range(3)) / 3
        np.testing.assert_allclose(state.values[i], mean, rtol=1e-4, atol=1e-6)
        now, before = mean[:4], mean[18:22]  # the hand and its gripper come first in both halves
        np.testing.assert_allclose(felt.values[i], [*now, *before], rtol=1e-4, atol=1e-6)


def test_time_is_the_length_and_its_logarithm():
    expected = [[60 + i, np.log(60 + i)] for i in range(5)]
    np.testing.assert_allclose(only(controls.time(DATA)).values, expected, rtol=1e-6)


def test_identity_has_a_column_per_value():
    task = only(controls.identity(DATA, "task"))
    assert task.values.tolist() == [[0, 1], [1, 0], [0, 1], [1, 0], [0, 1]]  # pull, push
    assert only(controls.identity(DATA, "seed")).values.tolist() == np.eye(5).tolist()
    assert only(controls.identity(DATA, "side")).values[:, 0].tolist() == [1, 1, 0, 0, 1]


def test_rows_are_those_of_an_extraction_so_that_they_pair():
    model = ReferenceExecution(ExecutionNetwork().eval(), name="actor", camera="B")
    extracted = extract(model, DATA, layers=["vision"])
    there, here = extracted["vision"].index, controls.index(DATA)
    assert np.array_equal(here.episode, there.episode) and here.episode.dtype == there.episode.dtype
    assert np.array_equal(here.step, there.step) and here.step.dtype == there.step.dtype
    assert here.labels.keys() == there.labels.keys()
    for name in here.labels:
        assert np.array_equal(here.label(name), there.label(name))
    # Whatever their order.
    backwards = Episodes(list(DATA)[::-1])
    paired = pair(extracted, controls.time(backwards))
    assert paired.y["time"][:, 0].tolist() == [60, 61, 62, 63, 64]


def test_keys_tell_controls_and_episodes_apart():
    made = {
        **controls.pixels(DATA, "A"),
        **controls.pixels(DATA, "B"),
        **controls.state(DATA),
        **controls.proprioception(DATA),
        **controls.time(DATA),
        **controls.identity(DATA, "task"),
        **controls.identity(DATA, "side"),
    }
    assert list(made) == [
        "pixels A", "pixels B", "state", "proprioception", "time", "task identity", "side identity",
    ]  # fmt: skip
    assert len({features.key.weights for features in made.values()}) == 7
    assert all(features.key.episodes == DATA.fingerprint for features in made.values())
    assert all(features.key.layer == name for name, features in made.items())


def test_what_the_episodes_lack_is_named():
    blind = Episodes([*DATA, episode(9, cameras=("A",))])
    words = r"1 of 6 episodes have no camera 'B', first episode 9 \(cameras of all: A\)"
    with pytest.raises(StreamError, match=words):
        controls.pixels(blind, "B")
    words = "carry no label 'tusk'; they have instruction, length, seed, side, success, task"
    with pytest.raises(StreamError, match=words):
        controls.identity(DATA, "tusk")
    other = episodes(2, states=np.zeros((3, 7), np.float32))
    with pytest.raises(ShapeError, match="states have 7 numbers; proprioception needs the 39 of"):
        controls.proprioception(other)
    assert only(controls.state(other)).values.shape == (2, 7)
    small = episodes(2, size=8)
    with pytest.raises(
        ShapeError, match="'A' of episode episode 0 has 8 x 8 pixels; needed at least the 16"
    ):
        controls.pixels(small, "A")
    with pytest.raises(DegenerateError, match="no episodes to take time of; needed at least one"):
        controls.time(Episodes([]))

import numpy as np
import pytest
from scenes import episode, episodes
from tiny_world import execution as actor
from tiny_world import observation as watcher

from mirror_analysis.episodes import Episodes
from mirror_analysis.episodes.replays import Replay
from mirror_analysis.episodes.step_labels import episode_index, relabelled, step_index
from mirror_analysis.errors import DegenerateError, PairingError
from mirror_analysis.extraction import extract
from mirror_analysis.features import FeatureKey, Features, Index, pair

OBJECT = ("object_x", "object_y", "object_z")


def uneven():
    """Episodes of different numbers of frames, with what the expert would have done."""
    return Episodes(
        [
            episode(i, time=time, extras={"expert_actions": np.full((time, 4), i, np.float32)})
            for i, time in enumerate((3, 5, 2))
        ]
    )


def replays(data):
    return {
        e.id: Replay(np.arange(len(e.steps)) % 2 == 1, np.array(["reach"] * len(e.steps)))
        for e in data
    }


def features(index, pooling="steps"):
    key = FeatureKey("m", "w", "a", pooling, "e")
    return Features(key, np.ones((len(index), 2), np.float32), index)


def test_every_frame_has_the_labels_of_its_episode_and_its_own():
    data = uneven()
    index = step_index(data, replays=replays(data))
    row = 0
    for i, e in enumerate(data):
        for t, step in enumerate(e.steps):
            assert (index.episode[row], index.step[row]) == (e.id, step)
            own = {name: values[row] for name, values in index.labels.items()}
            assert own["task"] == e.task and own["side"] == e.labels["side"]
            assert own["progress"] == pytest.approx(step / (e.length - 1))
            assert [own[f"action_{k}"] for k in range(4)] == [i] * 4
            assert [own[name] for name in OBJECT] == e.states[t, 4:7].tolist()
            assert own["contact"] == (t % 2 == 1) and own["phase"] == "reach"
            row += 1
    assert row == len(index)


def test_without_an_expert_the_action_is_the_one_taken():
    data = episodes(2)
    index = step_index(data)
    for k in range(4):
        expected = np.concatenate([e.actions[:, k] for e in data])
        assert np.array_equal(index.label(f"action_{k}"), expected)
    assert not {"contact", "phase"} & set(index.labels)


def test_a_label_is_there_where_all_episodes_have_it():
    other = episode(9, states=np.zeros((3, 7), np.float32), actions=np.zeros((3, 2), np.float32))
    index = step_index(Episodes([*episodes(2), other]))
    assert {"progress", "action_0", "action_1"} <= set(index.labels)
    assert not {"action_2", *OBJECT} & set(index.labels)
    assert not set(OBJECT) & set(episode_index(Episodes([*episodes(2), other])).labels)


def test_an_episode_of_one_step_has_no_progress():
    short = episode(0, time=1, length=1)
    assert step_index(Episodes([short])).label("progress").tolist() == [0.0]


def test_whole_episodes_tell_where_their_objects_start():
    data = uneven()
    index = episode_index(data)
    assert index.episode.tolist() == [e.id for e in data]
    assert index.step.tolist() == [e.steps[-1] for e in data]
    for k, name in enumerate(OBJECT):
        assert np.array_equal(index.label(name), [e.states[0, 4 + k] for e in data])
    assert set(index.labels) - set(OBJECT) == set(data.labels())


def test_features_get_labels_by_episode_and_step_in_any_order():
    data = uneven()
    index = step_index(data)
    order = np.array([7, 0, 3, 9])
    bare = Index(index.episode[order], index.step[order], {})
    layers = {"a": features(bare), "b": features(bare)}
    found = relabelled(layers, index)
    assert found["a"].index is found["b"].index
    for name, values in index.labels.items():
        assert np.array_equal(found["a"].index.label(name), values[order])
    assert found["a"].key == layers["a"].key and found["a"].values is layers["a"].values


def test_steps_of_two_models_are_labelled_and_paired():
    data = episodes(3)
    index = step_index(data, replays=replays(data))
    x = relabelled(extract(watcher(), data, pooling="steps"), index)
    y = relabelled(extract(actor(), data, pooling="steps"), index)
    assert "frame" in x and "penultimate" not in x and "hidden3" in y
    paired = pair(x, y)
    assert len(paired) == 9 and set(paired.index.labels) == set(index.labels)
    means = relabelled(extract(watcher(), data), episode_index(data))
    assert np.array_equal(
        means["penultimate"].index.label("object_z"), [e.states[0, 6] for e in data]
    )


def test_rows_that_do_not_fit_are_refused():
    data = episodes(2)
    index = step_index(data)
    with pytest.raises(PairingError, match="3 of 6 rows of the features have no labels, first epi"):
        relabelled({"a": features(index)}, step_index(data[:1]))
    with pytest.raises(PairingError, match="layer 'a' was pooled by 'mean/grid2' to one row per"):
        relabelled({"a": features(episode_index(data), "mean/grid2")}, index)
    with pytest.raises(PairingError, match="4 of 6 rows of the features have no labels"):
        relabelled({"a": features(index)}, episode_index(data))
    with pytest.raises(PairingError, match="episode episode 1 was not replayed; replay all the"):
        step_index(data, replays=replays(data[:1]))
    with pytest.raises(DegenerateError, match="no episodes to label; needed at least one"):
        step_index(Episodes([]))
    with pytest.raises(DegenerateError, match="no episodes to label"):
        episode_index(Episodes([]))

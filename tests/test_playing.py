import numpy as np
import pytest
from sb3_zips import write_agent
from toys import Scripted, toys

from mirror_analysis.episodes.environment import Environment
from mirror_analysis.errors import DegenerateError, StreamError, UnknownNameError
from mirror_analysis.models.model import Input
from mirror_analysis.playing import PolicySource, play, policy_source

STATES = Input("states", 2)


@pytest.fixture(autouse=True)
def registered():
    with toys():
        yield


def test_a_policy_sees_what_is_there_before_each_action():
    policy = Scripted(lambda seen: [seen["states"][1] / 10], STATES)
    with Environment("ToyPlain-v0") as environment:
        start = environment.reset(5)["states"][0]
        course = play(environment, policy, seed=5)
    assert policy.resets == 1 and len(policy.seen) == 6 == len(course.rewards)
    assert [seen["states"][1] for seen in policy.seen] == list(range(6))
    np.testing.assert_allclose(np.ravel(course.actions), np.arange(6) / 10, atol=1e-6)
    places = start + np.cumsum(np.arange(6)) / 10
    np.testing.assert_allclose(course.rewards, places, atol=1e-6)
    assert course.total == pytest.approx(places.sum(), abs=1e-5)
    np.testing.assert_allclose([s[0] for s in course.seen["states"][1:]], places[:-1], atol=1e-6)
    assert course.success is bool(places[-1] > 2) and not course.ended and not course.snapshots


def test_success_at_any_step_counts_and_the_environment_may_end_it():
    with Environment("ToyPlain-v0") as environment:
        there = play(environment, Scripted(lambda s: [3 if s["states"][1] == 0 else -1], STATES),
                     seed=1)  # fmt: skip
        assert there.success is True and len(there.rewards) == 6
        fell = play(environment, Scripted(lambda s: [-2], STATES), seed=1)
        assert fell.ended and fell.success is False and len(fell.rewards) == 2
        assert len(play(environment, None, seed=1, horizon=4).actions) == 4
        with pytest.raises(DegenerateError, match="episodes of 0 steps asked for; needed at lea"):
            play(environment, None, seed=1, horizon=0)
    with Environment("ToyPicture-v0") as environment:
        assert play(environment, None, seed=1).success is None


def test_a_policy_that_needs_pictures_gets_them():
    policy = Scripted(lambda s: [0.0], Input("camera"), STATES)
    with Environment("ToyPlain-v0", camera="render", size=8) as environment:
        course = play(environment, policy, seed=1, watch=True)
        assert [int(s["camera"][3, 3, 0]) for s in policy.seen] == [40 + 10 * t for t in range(6)]
        assert [int(environment.draw(s)[3, 3, 0]) for s in course.snapshots] == [
            40 + 10 * t for t in range(6)
        ]
        assert set(course.seen) == {"states"}  # drawn again where it is kept
    with Environment("ToyPlain-v0") as environment:
        with pytest.raises(StreamError, match=r"scripted does not fit the episodes: no camera"):
            play(environment, policy, seed=1)
    seer = Scripted(lambda s: [1], Input("camera"))
    with Environment("ToyDictionary-v0") as environment:
        play(environment, seer, seed=1)
        assert [int(s["camera"][0, 0, 0]) for s in seer.seen] == list(range(6))
        mapped = Scripted(lambda s: [1], Input("states", 3))
        play(environment, mapped, seed=1, streams={"states": "array:goal"})
        assert mapped.seen[0]["states"].tolist() == [1, 1, 1]


def test_sources_are_loaded_with_their_settings(tmp_path):
    path = write_agent(tmp_path / "agent.zip", "ppo")
    assert PolicySource("random").load() is None
    source = PolicySource(str(path), family="sb3", options=(("activation", "ReLU"),))
    model = source.load()
    assert model is not None and model.settings["activation"] == "ReLU"
    assert policy_source(source) is source
    assert policy_source(path, trust=("a",)) == PolicySource(str(path), trust=("a",))
    with pytest.raises(UnknownNameError, match="unknown option of sb3 'activasion'"):
        PolicySource(str(path), options=(("activasion", "ReLU"),)).load()

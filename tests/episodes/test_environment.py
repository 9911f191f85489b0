import sys

import numpy as np
import pytest
from toys import toys

from mirror_analysis.episodes.environment import Environment, versions
from mirror_analysis.errors import (
    DegenerateError,
    FormatError,
    MissingDependencyError,
    ShapeError,
    StreamError,
    UnknownNameError,
)


@pytest.fixture(autouse=True)
def registered():
    with toys():
        yield


def test_a_seed_and_the_actions_are_the_episode():
    with Environment("ToyPlain-v0") as environment:
        first = environment.reset(3)
        assert first["states"].dtype == np.float32 and first["states"][1] == 0
        assert np.array_equal(environment.reset(3)["states"], first["states"])
        assert not np.array_equal(environment.reset(4)["states"], first["states"])
        environment.reset(3)
        step = environment.step(np.array([0.5]))
        np.testing.assert_allclose(step.seen["states"], [first["states"][0] + 0.5, 1.0], atol=1e-6)
        assert step.reward == pytest.approx(first["states"][0] + 0.5)
        assert step.success is False and not step.ended
        assert environment.step(np.array([2.0])).success is True
        assert environment.step(np.array([-9.0])).ended
        assert environment.streams == {"states": (2,)}
        assert environment.dt == 0.05 and environment.horizon == 6


def test_parts_of_a_dictionary_are_streams_by_name_whatever_their_order():
    with Environment("ToyDictionary-v0") as environment:
        shapes = {"array:goal": (3,), "states": (2,), "camera:view": ()}
        assert environment.streams == shapes
        environment.reset(1)
        step = environment.step(np.array([2.0]))
        assert step.seen["states"][1] == 1 and step.seen["array:goal"].tolist() == [1, 1, 1]
        assert (step.seen["camera:view"] == 1).all()
        assert step.seen["camera:view"].shape == (4, 6, 3)
        assert step.success is False  # it says is_success


def test_a_picture_is_a_camera():
    with Environment("ToyPicture-v0") as environment:
        assert environment.streams == {"camera:observation": ()}
        step = environment.step(np.array([2.0, 0.0]))
        assert step.success is None and step.reward > 2


def test_random_actions_depend_on_seed_and_step_alone():
    with Environment("ToyPlain-v0") as a, Environment("ToyPlain-v0") as b:
        b.random_action(9, 9)
        drawn = [a.random_action(5, step) for step in range(50)]
        assert np.array_equal(drawn, [b.random_action(5, step) for step in range(50)])
        assert len(np.unique(drawn)) == 50 and np.ptp(drawn) > 1.5
        assert not np.array_equal(drawn[0], a.random_action(6, 0))
        assert drawn[0].shape == (1,) and drawn[0].dtype == np.float32


def test_what_an_environment_draws_of_itself_keeps_its_proportions():
    with Environment("ToyPlain-v0", camera="render", size=8) as environment:
        picture = environment.render()
        assert environment.streams["camera:render"] == ()
        assert picture.shape == (8, 8, 3) and picture.dtype == np.uint8
        assert (picture[:2] == 0).all() and (picture[2:6] == 40).all()
        before = environment.snapshot()
        environment.step(np.array([0.0]))
        assert (environment.draw(before)[3] == 40).all()
        assert (environment.render()[3] == 50).all()


@pytest.mark.sim
def test_scenes_are_drawn_at_any_moment_without_touching_the_physics():
    with (
        Environment("HalfCheetah-v5", camera="track", size=48) as seen,
        Environment("HalfCheetah-v5") as blind,
    ):
        assert seen.dt == 0.05 and seen.horizon == 1000
        for environment in (seen, blind):
            environment.reset(11)
        snapshots, pictures = [], []
        for step in range(20):
            snapshots.append(seen.snapshot())
            pictures.append(seen.render())
            seen.draw(snapshots[0])
            action = seen.random_action(11, step)
            a, b = seen.step(action), blind.step(action)
            assert np.array_equal(a.seen["states"], b.seen["states"]) and a.reward == b.reward
        assert len(np.unique(np.stack(pictures), axis=0)) == 20
        assert np.array_equal(seen.draw(snapshots[3]), pictures[3])
        assert pictures[0].shape == (48, 48, 3)
    with Environment("HalfCheetah-v5", camera="free", size=48) as free:
        free.reset(11)
        assert free.render().std() > 5 and not np.array_equal(free.render(), pictures[0])
        free.close()


@pytest.mark.sim
def test_environments_of_gymnasium_robotics_are_known():
    with Environment("AdroitHandDoor-v1") as environment:
        assert environment.streams == {"states": (39,)} and environment.horizon == 200
        assert environment.step(np.zeros(28)).success is False
    assert {"gymnasium", "mujoco", "gymnasium-robotics"} <= set(versions())


def test_faults_are_named(monkeypatch):
    with pytest.raises(UnknownNameError, match=r"unknown environment 'ToyPlan-v0'; did you mean"):
        Environment("ToyPlan-v0")
    words = r"'os:ToyPlain-v0' imports the module os; name it with --trust where its code may run"
    with pytest.raises(FormatError, match=words):
        Environment("os:ToyPlain-v0")
    with Environment("toys:ToyPlain-v0", trusted=True) as trusted:
        assert trusted.streams == {"states": (2,)}
    with pytest.raises(FormatError, match=r"nowhere_at_all:A-v0 cannot be made: No module named"):
        Environment("nowhere_at_all:A-v0", trusted=True)
    with pytest.raises(UnknownNameError, match=r"unknown camera of ToyPlain-v0 'track' \(known: r"):
        Environment("ToyPlain-v0", camera="track")
    with pytest.raises(ShapeError, match="pictures of 0 pixels; needed at least 1"):
        Environment("ToyPlain-v0", size=0)
    with pytest.raises(FormatError, match=r"ToyNested-v0 gives an observation inside an observ"):
        Environment("ToyNested-v0")
    with Environment("ToyPlain-v0") as environment:
        with pytest.raises(ShapeError, match="an action of 2 numbers; ToyPlain-v0 takes 1, so giv"):
            environment.step(np.zeros(2))
        with pytest.raises(DegenerateError, match=r"action \[nan\] holds NaN or infinity"):
            environment.step(np.array([np.nan]))
        with pytest.raises(StreamError, match="made without a camera; name one of render"):
            environment.render()
    with pytest.raises(MissingDependencyError, match="environment HalfCheetah-v3 needs a package"):
        Environment("HalfCheetah-v3")
    monkeypatch.setitem(sys.modules, "gymnasium_robotics", None)
    words = r"environment FetchReach-v9 needs gymnasium_robotics, .*'mirror-analysis\[gym\]'` ins"
    with pytest.raises(MissingDependencyError, match=words):
        Environment("FetchReach-v9")
    with pytest.raises(UnknownNameError, match="unknown environment 'ToyPlan-v0'"):
        Environment("ToyPlan-v0")
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    with pytest.raises(MissingDependencyError, match=r"needs gymnasium, which is not installed"):
        Environment("ToyPlain-v0")

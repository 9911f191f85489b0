from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from toys import Scripted

from mirror_analysis.episodes import Nuisance, Simulator
from mirror_analysis.episodes.nuisance import draw, jitter
from mirror_analysis.errors import StreamError
from mirror_analysis.models.model import ExecutionModel, Input
from mirror_analysis.models.reference.family import ReferenceExecution
from mirror_analysis.models.reference.networks import ExecutionNetwork
from mirror_analysis.rollout.lockstep import End, cameras, remembers, roll, wires

TASK = "handle-press"  # the scripted expert needs some 30 steps
SEES = (Input("camera:B"), Input("states", 39))


class Policy(Scripted):
    """Acts on the state, and keeps what it saw."""

    def __init__(self, moves, *needs: Input) -> None:
        super().__init__(lambda seen: moves(seen.get("states")), *(needs or SEES))
        self.moves = moves

    @property
    def frames(self) -> list[NDArray[np.uint8]]:
        return [seen["camera:B"] for seen in self.seen]

    @property
    def states(self) -> list[NDArray[np.float32]]:
        return [seen["states"] for seen in self.seen]


class Forgetful(ExecutionModel):
    """Acts on the state in several simulators at once, and keeps the batches."""

    def __init__(self, moves) -> None:
        self.name, self.needs, self.module = "forgetful", (SEES[1],), torch.nn.Identity()
        self.moves, self.batches = moves, []

    def layers(self):
        return []

    def taps(self):
        return {}

    def forward_batch(self, episodes):
        return None

    def untrained(self, seed: int) -> ExecutionModel:
        return self

    def act(self, now: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        self.batches.append(now["states"])
        return np.array([self.moves(state) for state in now["states"]], dtype=np.float32)


def idle(state) -> list[float]:
    return [0.0, 0.0, 0.0, 0.0]


def down(state) -> list[float]:
    return [0.0, 0.0, -1.0, 0.0]


@pytest.fixture(scope="module")
def simulator():
    with Simulator(TASK, cameras=("B",)) as made:
        yield made


def ends(policy, simulators, seeds, *, horizon=150, nuisance=None, rows=1) -> list[list[End]]:
    where = simulators if isinstance(simulators, list) else [simulators]
    streams = wires(policy)
    return roll(
        policy, where, seeds, streams=streams, nuisance=nuisance, horizon=horizon, rows=rows
    )


# -- one simulator ----------------------------------------------------------------------------


@pytest.mark.sim
def test_an_expert_succeeds_and_is_stopped_there(simulator):
    expert = Policy(lambda state: simulator.expert(state.astype(np.float64)))
    (((success, steps),),) = ends(expert, simulator, [1])
    assert success and steps == len(expert.states) and 5 < steps < 150
    assert expert.resets == 1
    # It saw what was there before each of its actions.
    state = simulator.reset(1)
    np.testing.assert_allclose(expert.states[0], state, rtol=1e-5, atol=1e-6)
    assert np.array_equal(expert.frames[0], simulator.render("B"))
    state, _ = simulator.step(expert.moves(expert.states[0]))
    np.testing.assert_allclose(expert.states[1], state, rtol=1e-5, atol=1e-6)
    assert np.array_equal(expert.frames[1], simulator.render("B"))


@pytest.mark.sim
def test_who_does_nothing_fails_after_the_horizon(simulator):
    lazy = Policy(idle)
    assert ends(lazy, simulator, [1, 2], horizon=25) == [[End(False, 25), End(False, 25)]]
    assert len(lazy.states) == 50 and lazy.resets == 2


@pytest.mark.sim
def test_a_seed_is_a_situation(simulator):
    policy = Policy(idle)
    ends(policy, simulator, [1, 2, 1], horizon=3)
    first, second, third = np.array(policy.states).reshape(3, 3, 39)
    assert np.array_equal(first, third)
    assert not np.allclose(first, second)


@pytest.mark.sim
def test_nuisance_is_drawn_once_per_episode(simulator):
    plain, disturbed, other, nuisance = Policy(idle), Policy(idle), Policy(idle), Nuisance(seed=4)
    ends(plain, simulator, [1], horizon=3)
    ends(disturbed, simulator, [1], horizon=3, nuisance=nuisance)
    change = draw(nuisance, f"{TASK}-1", "B")
    for before, after in zip(plain.frames, disturbed.frames, strict=True):
        assert np.array_equal(jitter(before[None], change)[0], after)
        assert not np.array_equal(before, after)
    ends(other, simulator, [2, 1], horizon=3, nuisance=nuisance)
    assert draw(nuisance, f"{TASK}-2", "B") != change
    assert np.array_equal(other.frames[3:], disturbed.frames)
    np.testing.assert_allclose(disturbed.states, plain.states)


# -- what a policy reads ----------------------------------------------------------------------


@pytest.mark.sim
def test_only_what_the_policy_reads_is_drawn(simulator, monkeypatch):
    drawn = []
    monkeypatch.setattr(Simulator, "render", lambda self, camera: drawn.append(camera))
    blind = Policy(idle, Input("states", 39), Input("instruction"))
    assert cameras(wires(blind)) == ()
    ends(blind, simulator, [1], horizon=2)
    simulator.reset(1)
    assert (
        not drawn
        and [str(seen["instruction"]) for seen in blind.seen] == [simulator.instruction] * 2
    )


def test_inputs_are_wired_to_streams_of_the_simulator():
    two = Policy(idle, Input("camera:top"), Input("camera:A"))
    streams = wires(two, {"camera:top": "camera:B"})
    assert streams == {"camera:top": "camera:B", "camera:A": "camera:A"}
    assert cameras(streams) == ("A", "B")
    with pytest.raises(StreamError, match="camera could be any of several cameras"):
        wires(Policy(idle, Input("camera")))
    with pytest.raises(StreamError, match="states has 39 numbers where states has 7"):
        wires(Policy(idle, Input("states", 7)))


# -- several at once --------------------------------------------------------------------------


def test_who_overrides_reset_remembers():
    assert remembers(Policy(idle))
    assert not remembers(Forgetful(idle))
    assert not remembers(ReferenceExecution(ExecutionNetwork().eval(), name="a", camera="B"))


@pytest.mark.sim
def test_together_or_one_by_one_the_same_episodes_are_played(simulator):
    seeds = [1, 2, 3]
    with Simulator("door-open", cameras=()) as door, Simulator("drawer-open", cameras=()) as drawer:
        where, alone, crowd = [simulator, door, drawer], Forgetful(down), Forgetful(down)
        expected = [ends(alone, one, seeds, horizon=40)[0] for one in where]
        assert ends(crowd, where, seeds, horizon=40, rows=3) == expected
        assert [end.steps for end in expected[0]] != [40, 40, 40]  # some end early
        assert {len(batch) for batch in crowd.batches} == {3}
        assert len(crowd.batches) == max(sum(end.steps for end in row) for row in expected)
        # A row without a simulator repeats one that has, and nothing is done with its action.
        wide = Forgetful(down)
        assert ends(wide, where, seeds, horizon=40, rows=2) == expected
        assert {len(batch) for batch in wide.batches} == {2}
        assert np.array_equal(wide.batches[-1][0], wide.batches[-1][1])


@pytest.mark.sim
def test_a_row_of_the_policy_does_not_depend_on_its_neighbours(simulator):
    """What makes an outcome a property of the episode, with any number of workers and policies."""
    torch.manual_seed(0)
    policy = ReferenceExecution(ExecutionNetwork().eval(), name="policy", camera="B")
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (20, 64, 64, 3), dtype=np.uint8)
    states = rng.normal(size=(20, 39)).astype(np.float32)
    found = []
    for place in range(4):
        rows = rng.permutation(np.arange(1, 20))[:4]
        rows[place] = 0
        found.append(policy.act({"camera:B": frames[rows], "states": states[rows]})[place])
    assert all(np.array_equal(found[0], other) for other in found[1:])

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from mirror_analysis import rollout as module
from mirror_analysis.episodes import Nuisance, Simulator
from mirror_analysis.episodes.metaworld import ROLLOUTS
from mirror_analysis.episodes.nuisance import draw, jitter
from mirror_analysis.errors import DegenerateError, FormatError, UnknownNameError
from mirror_analysis.inference import wilson
from mirror_analysis.models.model import EpisodeLike, ExecutionModel, LayerInfo
from mirror_analysis.models.networks import ExecutionNetwork, ObservationNetwork
from mirror_analysis.models.reference import ReferenceExecution, ReferenceObservation, save
from mirror_analysis.parallel import serial
from mirror_analysis.rollout import rollout

TASK = "handle-press"  # the scripted expert needs some 30 steps


class Policy(ExecutionModel):
    """Does what a function says, and keeps what it saw."""

    def __init__(self, does) -> None:
        self.name, self.inputs, self.module = (
            "scripted",
            ("camera:B", "states"),
            torch.nn.Identity(),
        )
        self.does, self.frames, self.states, self.resets = does, [], [], 0

    def layers(self) -> list[LayerInfo]:
        return []

    def taps(self) -> Mapping[str, torch.nn.Module]:
        return {}

    def forward_batch(self, episodes: Sequence[EpisodeLike]) -> None:
        return None

    def untrained(self, seed: int) -> "Policy":
        return Policy(self.does)

    def reset(self) -> None:
        self.resets += 1

    def act(
        self, frames: Mapping[str, NDArray[np.uint8]], states: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        (camera,) = frames
        assert camera == "B" and frames[camera].shape == (1, 64, 64, 3)
        assert states.shape == (1, 39)
        self.frames.append(frames[camera])
        self.states.append(states[0])
        return np.asarray(self.does(states[0]), dtype=np.float32)[None]


def idle(state: NDArray[np.float32]) -> list[float]:
    return [0.0, 0.0, 0.0, 0.0]


@pytest.fixture(scope="module")
def simulator():
    with Simulator(TASK, cameras=("B",)) as made:
        yield made


def job(nuisance: Nuisance | None = None) -> module._Job:
    return module._Job("scripted", (), TASK, (1, 2), nuisance)


def succeeds(policy: Policy, simulator: Simulator, seed: int, nuisance=None) -> bool:
    return module._succeeds(policy, simulator, "B", job(nuisance), seed)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Files of a policy and of a watcher, both untrained."""
    folder = tmp_path_factory.mktemp("checkpoints")
    torch.manual_seed(0)
    policy = ReferenceExecution(ExecutionNetwork().eval(), name="policy", camera="B")
    watcher = ReferenceObservation(
        ObservationNetwork(2).eval(), name="watcher", camera="A", instructions=["a", "b"]
    )
    for model in (policy, watcher):
        save(model, folder / f"{model.name}.safetensors", provenance={})
    return {name: folder / f"{name}.safetensors" for name in ("policy", "watcher")}


# -- one episode ------------------------------------------------------------------------------


@pytest.mark.sim
def test_an_expert_succeeds_and_is_stopped_there(simulator):
    expert = Policy(lambda state: simulator.expert(state.astype(np.float64)))
    assert succeeds(expert, simulator, 1)
    assert 5 < len(expert.states) < module.HORIZON
    assert expert.resets == 1
    # It saw what was there before each of its actions.
    state = simulator.reset(1)
    np.testing.assert_allclose(expert.states[0], state, rtol=1e-5, atol=1e-6)
    assert np.array_equal(expert.frames[0][0], simulator.render("B"))
    state, _ = simulator.step(expert.does(expert.states[0]))
    np.testing.assert_allclose(expert.states[1], state, rtol=1e-5, atol=1e-6)
    assert np.array_equal(expert.frames[1][0], simulator.render("B"))


@pytest.mark.sim
def test_who_does_nothing_fails_after_the_horizon(simulator, monkeypatch):
    monkeypatch.setattr(module, "HORIZON", 25)
    lazy = Policy(idle)
    assert not succeeds(lazy, simulator, 1)
    assert len(lazy.states) == 25


@pytest.mark.sim
def test_a_seed_is_a_situation(simulator, monkeypatch):
    monkeypatch.setattr(module, "HORIZON", 3)
    seen = []
    for seed in (1, 2, 1):
        policy = Policy(idle)
        succeeds(policy, simulator, seed)
        seen.append(np.array(policy.states))
    assert np.array_equal(seen[0], seen[2])
    assert not np.allclose(seen[0], seen[1])


@pytest.mark.sim
def test_nuisance_is_drawn_once_per_episode(simulator, monkeypatch):
    monkeypatch.setattr(module, "HORIZON", 3)
    plain, disturbed, other, nuisance = Policy(idle), Policy(idle), Policy(idle), Nuisance(seed=4)
    succeeds(plain, simulator, 1)
    succeeds(disturbed, simulator, 1, nuisance)
    succeeds(other, simulator, 2, nuisance)
    change = draw(nuisance, f"{TASK}-1", "B")
    for before, after in zip(plain.frames, disturbed.frames, strict=True):
        assert np.array_equal(jitter(before, change), after)
        assert not np.array_equal(before, after)
    assert draw(nuisance, f"{TASK}-2", "B") != change
    np.testing.assert_allclose(disturbed.states, plain.states)


# -- many -------------------------------------------------------------------------------------


@pytest.mark.sim
def test_scores_are_per_task_then_over_all_and_the_same_for_a_seed(checkpoints, monkeypatch):
    monkeypatch.setattr(module, "HORIZON", 4)
    monkeypatch.setattr(module, "processes", lambda workers: serial())
    told = []
    scores = rollout(
        checkpoints["policy"],
        tasks=[TASK, "drawer-open"],
        episodes=2,
        seed=2,
        nuisance=Nuisance(),
        progress=lambda *count: told.append(count),
    )
    assert told == [(1, 2), (2, 2)]
    assert [(s.x, s.y, s.n) for s in scores] == [
        ("policy", TASK, 2), ("policy", "drawer-open", 2), ("policy", "all tasks", 4),
    ]  # fmt: skip
    assert all(s.measure == "success_rate" and s.condition == "nuisance" for s in scores)
    assert scores[0].parameters == {"horizon": 4, "successes": 0, "environment_seed": 2}
    assert scores[0].value == 0.0 and scores[0].interval == wilson(0, 2)


def fake(monkeypatch, wins) -> list[module._Job]:
    """Episodes are won by the rule given; jobs are written down and nothing is simulated."""
    jobs: list[module._Job] = []

    def run(job: module._Job) -> list[bool]:
        jobs.append(job)
        return [wins(job.task, seed) for seed in job.seeds]

    monkeypatch.setattr(module, "_run", run)
    monkeypatch.setattr(module, "processes", lambda workers: serial())
    return jobs


def test_successes_are_counted_for_the_task_they_were_won_in(checkpoints, monkeypatch):
    jobs = fake(monkeypatch, lambda task, seed: task == TASK or (seed - ROLLOUTS) % 10_000 < 3)
    tasks = ["drawer-open", TASK]
    scores = rollout(checkpoints["policy"], tasks=tasks, episodes=12, seed=7)
    assert [s.value for s in scores] == [3 / 12, 1.0, 15 / 24]
    assert [s.parameters["successes"] for s in scores] == [3, 12, 15]
    assert scores[0].interval == wilson(3, 12) and scores[0].condition == "plain"
    seeds = [(job.task, seed) for job in jobs for seed in job.seeds]
    assert seeds == [(task, ROLLOUTS + 70_000 + i) for task in tasks for i in range(12)]
    assert (
        str(jobs[1]) == f"drawer-open, environment seeds {ROLLOUTS + 70010} to {ROLLOUTS + 70011}"
    )
    assert rollout(checkpoints["policy"], tasks=tasks, episodes=12, seed=7) == scores


def test_all_tasks_are_meant_where_none_is_named(checkpoints, monkeypatch):
    jobs = fake(monkeypatch, lambda task, seed: True)
    scores = rollout(checkpoints["policy"], episodes=1)
    assert [s.y for s in scores] == [*module.TASKS, "all tasks"]
    assert [job.seeds for job in jobs] == [(ROLLOUTS,)] * len(module.TASKS)


@pytest.mark.sim
def test_in_another_process_the_outcome_is_the_same(checkpoints):
    options = {"tasks": [TASK], "episodes": 1, "seed": 3, "workers": 1}
    (job,) = [module._Job(str(checkpoints["policy"]), (), TASK, (30_000,), None)]
    here = module._run(job)
    scores = rollout(checkpoints["policy"], **options)
    assert scores[0].parameters["successes"] == sum(here)
    assert scores[0].parameters["horizon"] == 150


# -- faults -----------------------------------------------------------------------------------


def test_what_cannot_act_is_refused(checkpoints):
    words = r"watcher\.safetensors is an observation model; a rollout needs an execution model, su"
    with pytest.raises(FormatError, match=words):
        rollout(checkpoints["watcher"], tasks=[TASK])
    with pytest.raises(
        UnknownNameError, match="unknown task 'handle-pres'; did you mean 'handle-pr"
    ):
        rollout(checkpoints["policy"], tasks=["handle-pres"])
    with pytest.raises(DegenerateError, match="0 episodes per task asked for; needed at least 1"):
        rollout(checkpoints["policy"], tasks=[TASK], episodes=0)

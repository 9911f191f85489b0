import shutil

import numpy as np
import pytest
import torch
from toys import Scripted

from mirror_analysis.episodes import Nuisance, Simulator
from mirror_analysis.episodes.metaworld import ROLLOUTS
from mirror_analysis.episodes.variants import VARIANTS
from mirror_analysis.errors import (
    DefinitionError,
    DegenerateError,
    FormatError,
    StreamError,
    UnknownNameError,
)
from mirror_analysis.models.model import Input
from mirror_analysis.models.reference.family import ReferenceExecution, ReferenceObservation, save
from mirror_analysis.models.reference.networks import ExecutionNetwork, ObservationNetwork
from mirror_analysis.parallel import serial
from mirror_analysis.playing import PolicySource
from mirror_analysis.rollout import metaworld as module
from mirror_analysis.rollout import rollout_outcomes
from mirror_analysis.rollout.appearance import Look
from mirror_analysis.rollout.lockstep import End
from mirror_analysis.rollout.metaworld import told_apart

TASK = "handle-press"


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Files of two policies and of a watcher, all untrained."""
    folder = tmp_path_factory.mktemp("checkpoints")
    for seed, name in enumerate(("policy", "other")):
        torch.manual_seed(seed)
        policy = ReferenceExecution(ExecutionNetwork().eval(), name=name, camera="B")
        save(policy, folder / f"{name}.safetensors", provenance={})
    watcher = ReferenceObservation(
        ObservationNetwork(2).eval(), name="watcher", camera="A", instructions=["a", "b"]
    )
    save(watcher, folder / "watcher.safetensors", provenance={})
    return {path.stem: path for path in folder.iterdir()}


@pytest.fixture
def here(monkeypatch):
    monkeypatch.setattr(module, "processes", lambda workers: serial())


def fake(monkeypatch, wins) -> list[module._Job]:
    """Episodes are won by the rule given; jobs are written down and nothing is simulated."""
    jobs: list[module._Job] = []

    def run(job: module._Job) -> list[list[list[End]]]:
        jobs.append(job)
        return [
            [[End(wins(p, task, seed), 9 + p) for seed in job.seeds] for task in job.tasks]
            for p in range(len(job.policies))
        ]

    monkeypatch.setattr(module, "_run", run)
    monkeypatch.setattr(module, "processes", lambda workers: serial())
    return jobs


@pytest.mark.parametrize("together", [1, 2])
@pytest.mark.parametrize("workers", [1, 7])
def test_outcomes_land_at_their_policy_task_and_seed(checkpoints, monkeypatch, together, workers):
    def wins(policy, task, seed):
        return (2 * policy + len(task) + seed) % 3 == 0

    jobs = fake(monkeypatch, wins)
    tasks, told = ["drawer-open", TASK, "door-open"], []
    found = rollout_outcomes(
        [checkpoints["policy"], str(checkpoints["other"])], tasks=tasks, episodes=70, seed=7,
        together=together, workers=workers, progress=lambda *count: told.append(count),
    )  # fmt: skip
    seeds = tuple(ROLLOUTS + 70_000 + i for i in range(70))
    for p, outcomes in enumerate(found):
        assert outcomes.policy == ("policy", "other")[p]
        assert (outcomes.tasks, outcomes.seeds) == (tuple(tasks), seeds)
        assert outcomes.success == tuple(
            tuple(wins(p, task, seed) for seed in seeds) for task in tasks
        )
        assert outcomes.steps == ((9 + p,) * 70,) * 3
        assert (outcomes.horizon, outcomes.environment_seed) == (150, 7)
        assert outcomes.condition == "plain"
    assert told == [(i + 1, len(jobs)) for i in range(len(jobs))]
    # Enough of them for every worker, and none so long that nothing is heard of it.
    assert len(jobs) >= 2 * workers
    assert max(len(j.seeds) * len(j.tasks) * 2 for j in jobs) <= 60
    assert str(jobs[0]).startswith(
        "drawer-open, environment" if together == 1 else f"drawer-open, {TASK}, environment seeds"
    )


@pytest.mark.parametrize(
    ("groups", "episodes", "each", "workers", "size"),
    [(18, 56, 1, 2, 56),  # one simulator per task does all
     (18, 17, 1, 16, 10),  # more workers than tasks, but a simulator is not made for less than 10
     (18, 16, 30, 2, 2),  # many policies
     (3, 100, 6, 2, 10),
     (1, 3, 1, 2, 3),
     (18, 400, 1, 2, 60)],
)  # fmt: skip
def test_jobs_are_neither_long_nor_short(groups, episodes, each, workers, size):
    assert module._per_job(groups, episodes, each, workers) == size


def test_policies_of_one_name_are_told_apart(checkpoints, monkeypatch, tmp_path):
    fake(monkeypatch, lambda p, task, seed: p == 0)
    copies = []
    for folder in ("together", "apart"):
        (tmp_path / folder).mkdir()
        copies.append(tmp_path / folder / "execution.safetensors")
        shutil.copy(checkpoints["policy"], copies[-1])
    found = rollout_outcomes([*copies, checkpoints["other"]], tasks=[TASK], episodes=2, workers=1)
    assert [o.policy for o in found] == ["together/execution", "apart/execution", "other"]
    assert told_apart(["a", "a"], ["x/run/a.pt", "y/run/a.pt"]) == ["x/run/a.pt", "y/run/a.pt"]
    assert told_apart(["a", "a", "b"], ["a", "run/a", "b"]) == ["a", "run/a", "b"]
    assert told_apart(["a", "a"], ["run/a.pt", "run/a.pt"]) == ["a", "a"]  # one against itself


def test_all_tasks_are_meant_where_none_is_named(checkpoints, monkeypatch):
    jobs = fake(monkeypatch, lambda policy, task, seed: True)
    (outcomes,) = rollout_outcomes(checkpoints["policy"], episodes=1)
    assert outcomes.tasks == tuple(module.TASKS) and outcomes.rate == 1.0
    assert [job.seeds for job in jobs] == [(ROLLOUTS,)] * len(module.TASKS)


@pytest.mark.parametrize(
    ("appearance", "condition"),
    [(None, "plain"), (Nuisance(seed=3), "nuisance"), ("table-dark", "table-dark")],
    ids=["plain", "nuisance", "variant"],
)
def test_an_appearance_reaches_every_job_and_is_told(
    checkpoints, monkeypatch, appearance, condition
):
    jobs = fake(monkeypatch, lambda policy, task, seed: True)
    pair = [checkpoints["policy"], checkpoints["other"]]
    found = rollout_outcomes(
        pair, tasks=[TASK, "door-open"], episodes=12, workers=9, appearance=appearance
    )
    variant = VARIANTS["table-dark"] if condition == "table-dark" else None
    nuisance = appearance if condition == "nuisance" else None
    assert [job.look for job in jobs] == [Look(condition, nuisance, variant)] * len(jobs)
    assert len(jobs) > 2 and [o.condition for o in found] == [condition] * 2
    assert found[0].seeds == tuple(range(ROLLOUTS, ROLLOUTS + 12))


@pytest.mark.sim
@pytest.mark.parametrize(
    "appearance", [None, Nuisance(), "table-green"], ids=["plain", "nuisance", "variant"]
)
def test_an_outcome_depends_on_nothing_beside_it(here, appearance):
    pair = ["reference-execution-s1", "reference-execution-s0"]
    both = rollout_outcomes(pair, tasks=["drawer-open", TASK], episodes=2, appearance=appearance)
    (alone,) = rollout_outcomes(pair[1], tasks=[TASK], episodes=1, appearance=appearance)
    assert alone.success[0] == both[1].success[1][:1] and alone.steps[0] == both[1].steps[1][:1]
    assert both[0].steps != both[1].steps  # two policies that can be told apart
    assert 5 < alone.steps[0][0] < 150


@pytest.mark.sim
def test_under_a_variant_the_same_episode_is_drawn_otherwise(here, monkeypatch):
    monkeypatch.setattr(module, "HORIZON", 3)
    seen = {}
    for name in (None, "embodiment-blue", "camera-side"):
        scripted = Scripted(lambda _: [0.0, 0.0, -1.0, 0.0], Input("camera:A"), Input("states", 39))
        monkeypatch.setattr(module, "load_policy", lambda source, made=scripted: made)
        (found,) = rollout_outcomes("scripted", tasks=[TASK], episodes=1, appearance=name)
        seen[name] = scripted.seen
        assert (found.condition, len(scripted.seen)) == (name or "plain", 3)
        with Simulator(TASK, cameras=("A",), variant=VARIANTS.get(name)) as simulator:
            simulator.reset(ROLLOUTS)
            for moment in scripted.seen:
                assert np.array_equal(moment["camera:A"], simulator.render("A"))
                simulator.step([0.0, 0.0, -1.0, 0.0])
    for name in ("embodiment-blue", "camera-side"):
        for plain, other in zip(seen[None], seen[name], strict=True):
            assert np.array_equal(plain["states"], other["states"])
            assert not np.array_equal(plain["camera:A"], other["camera:A"])


@pytest.mark.sim
def test_in_another_process_the_outcome_is_the_same(checkpoints):
    source = PolicySource(str(checkpoints["policy"]))
    (((end,),),) = module._run(module._Job((source,), (TASK,), (ROLLOUTS + 30_000,), Look(), 1))
    (found,) = rollout_outcomes(source, tasks=[TASK], episodes=1, seed=3, workers=1)
    assert (found.success, found.steps) == (((end.success,),), ((end.steps,),))
    assert found.horizon == 150


@pytest.mark.sim
def test_who_remembers_acts_alone_even_where_others_share_a_batch(here, monkeypatch):
    monkeypatch.setattr(module, "HORIZON", 2)
    scripted = Scripted(lambda seen: [0.0] * 4, Input("states", 39))  # takes single rows only
    monkeypatch.setattr(module, "load_policy", lambda source: scripted)
    (found,) = rollout_outcomes("scripted", tasks=[TASK, "door-open"], episodes=2,
                                together=2)  # fmt: skip
    assert found.steps == ((2, 2), (2, 2)) and scripted.resets == 4


def test_what_cannot_be_rolled_out_is_refused(checkpoints, here, monkeypatch):
    policy = checkpoints["policy"]
    words = r"watcher\.safetensors is an observation model; a rollout needs an execution model, su"
    with pytest.raises(FormatError, match=words):
        rollout_outcomes([policy, checkpoints["watcher"]], tasks=[TASK])
    with pytest.raises(
        UnknownNameError, match="unknown task 'handle-pres'; did you mean 'handle-pr"
    ):
        rollout_outcomes(policy, tasks=["handle-pres"])
    with pytest.raises(DegenerateError, match="0 episodes per task asked for; needed at least 1"):
        rollout_outcomes(policy, tasks=[TASK], episodes=0)
    with pytest.raises(DegenerateError, match="0 simulators together asked for; needed at least 1"):
        rollout_outcomes(policy, tasks=[TASK], together=0)
    with pytest.raises(DegenerateError, match="no policies to roll out; needed at least 1"):
        rollout_outcomes([])
    with pytest.raises(DefinitionError, match="the policy 'random' acts in Gymnasium only; name"):
        rollout_outcomes("random")
    with pytest.raises(UnknownNameError, match="unknown variant 'camera-sid'; did you mean 'camer"):
        rollout_outcomes(policy, tasks=[TASK], appearance="camera-sid")
    blind = Scripted(None, Input("states", 39))
    monkeypatch.setattr(module, "load_policy", lambda source: blind)
    for appearance, word in (("light-dim", "light-dim"), (Nuisance(), "nuisance")):
        words = f"scripted reads no camera, so {word} changes nothing of what it does; roll it ou"
        with pytest.raises(StreamError, match=words):
            rollout_outcomes("blind", appearance=appearance)
    stranger = Scripted(None, Input("states", 17))
    monkeypatch.setattr(module, "load_policy", lambda source: stranger)
    with pytest.raises(StreamError, match="states has 39 numbers where states has 17"):
        rollout_outcomes("stranger")

"""Roll-outs are made once for each policy, in the same situations, and counted right."""

import numpy as np
import pytest
import small_training as small

from mirror_analysis.episodes.tasks import TASKS
from mirror_analysis.errors import FormatError
from mirror_analysis.results import select
from mirror_analysis.rollout.metaworld import HORIZON
from mirror_analysis.rollout.outcomes import Outcomes, load_outcomes
from mirror_analysis.study.training_effects import acting
from mirror_analysis.study.training_effects.acting import act_all, success_rates
from mirror_analysis.study.training_effects.runs import FILES, runs, train_all

DEFINITION = small.two()


def outcomes(name="execution", tasks=("push", "pull"), count=3, seed=0):
    rng = np.random.default_rng(sum(map(ord, name)))
    won = rng.random((len(tasks), count)) < 0.6
    return Outcomes(
        name, tuple(tasks), tuple(range(seed, seed + count)),
        tuple(tuple(map(bool, row)) for row in won),
        tuple(tuple(40 if w else HORIZON for w in row) for row in won), HORIZON, seed, "plain",
    )  # fmt: skip


@pytest.fixture
def asked(monkeypatch):
    """What the simulator was asked for; it answers by the name of the run."""
    calls = []

    def roll(policies, *, tasks, episodes, seed, workers, progress):
        progress(1, 2)
        progress(2, 2)
        calls.append(([p.parent.name for p in policies], tasks, episodes, seed))
        return [outcomes(p.parent.name, tasks, episodes, seed) for p in policies]

    monkeypatch.setattr(acting, "rollout_outcomes", roll)
    return calls


@pytest.fixture
def out(tmp_path):
    train_all(DEFINITION, small.given().demonstrations, tmp_path, train=small.train_randomly,
              workers=1, device="cpu", progress=lambda *steps: None)  # fmt: skip
    return tmp_path


def act(definition, out):
    told = []
    found = act_all(runs(definition), definition, out, workers=1,
                    progress=lambda *steps: told.append(steps))  # fmt: skip
    return found, told


def test_policies_of_one_seed_act_together_and_once(out, asked):
    found, told = act(DEFINITION, out)
    names = ["independent", "instruction", "shuffled"]
    assert asked == [([f"{n}-s{s}" for n in names], ("push", "pull"), 3, 0) for s in (0, 1)]
    assert told == [(0, 6), (1, 6), (3, 6), (4, 6), (6, 6)]
    assert list(found) == runs(DEFINITION)
    for run, readings in found.items():
        assert readings == success_rates(outcomes(run.name), folds=4)
        assert load_outcomes(out / "rollouts" / f"{run.name}.json") == outcomes(run.name)
    asked.clear()
    assert act(DEFINITION, out) == (found, [(6, 6)]) and not asked


def test_only_what_is_missing_or_of_other_weights_acts_again(out, asked):
    act(DEFINITION, out)
    asked.clear()
    (out / "rollouts" / "shuffled-s0.json").unlink()
    (out / "rollouts" / "independent-s0.sha256").unlink()
    weights = out / "runs" / "instruction-s1" / FILES[1]
    weights.write_bytes(weights.read_bytes() + b" ")
    act(DEFINITION, out)
    assert [names for names, *_ in asked] == [["independent-s0", "shuffled-s0"], ["instruction-s1"]]


@pytest.mark.parametrize("change", [{"rollouts": 4}, {"rollout_seed": 5}])
def test_other_situations_are_met_anew(out, asked, change):
    act(DEFINITION, out)
    asked.clear()
    changed = small.two(evaluation=change)
    found, _ = act(changed, out)
    assert len(asked) == 2
    score = next(iter(found.values()))[0].score
    assert score.n == 2 * changed.evaluation.rollouts
    assert score.parameters["environment_seed"] == changed.evaluation.rollout_seed


def test_all_tasks_where_none_is_named(out, asked):
    act(small.two(episodes={"tasks": []}), out)
    assert asked[0][1] == tuple(TASKS)


def test_none_where_none_is_asked_for(out, asked):
    assert act(small.two(evaluation={"rollouts": 0}), out) == ({}, []) and not asked


def test_a_damaged_record_is_told(out, asked):
    act(DEFINITION, out)
    (out / "rollouts" / "shuffled-s1.json").write_text("{}")
    with pytest.raises(FormatError, match=r"shuffled-s1\.json holds no outcomes of roll-outs"):
        act(DEFINITION, out)


def test_success_is_counted_by_task_and_situation():
    given = outcomes(count=6)
    whole, *tasks = success_rates(given, folds=4)
    won = np.array(given.success)
    assert (whole.score.value, whole.score.n) == (won.mean(), 12)
    assert len(whole.replicates) == 4 and whole.score.x == "execution"
    assert whole.score.parameters == {"horizon": HORIZON, "environment_seed": 0}
    for row, task in zip(won, given.tasks, strict=True):
        (found,) = [r for r in tasks if select([r.score], task=task)]
        assert (found.score.value, found.score.n) == (row.mean(), 6)

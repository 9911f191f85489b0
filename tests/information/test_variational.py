import math

import msgspec
import numpy as np
import pytest
import torch

from mirror_analysis.errors import DefinitionError, DegenerateError, ShapeError, UnknownNameError
from mirror_analysis.information import BOUNDS, TASKS, EstimatorConfig, mutual_information
from mirror_analysis.information.heldout import HeldOut, divide
from mirror_analysis.information.training import standardise

QUICK = EstimatorConfig(steps=120, check_every=20, patience=3, batch=128, seeds=(0,), width=16)
TASK = TASKS["normal-bivariate-0.75"]


def quick(**changes):
    return msgspec.structs.replace(QUICK, **changes)


@pytest.mark.parametrize("bound", sorted(BOUNDS))
def test_an_easy_task_lies_between_a_floor_and_the_truth(bound):
    x, y = TASK.sample(2000, 0)
    score = mutual_information(
        x, y, bound=bound, critic="quadratic", config=quick(learning_rate=0.01)
    )
    assert score.measure == bound and score.n == 500 and score.p_value == 1 / 200
    assert 0.28 < score.value < TASK.exact + 0.08
    assert score.interval.low < score.value < score.interval.high
    assert score.interval.high - score.interval.low < 0.3
    assert score.null.mean < 0.05 and score.null.draws == 199
    assert not score.parameters["saturated"]
    assert (score.ceiling is None) == (bound != "infonce")


@pytest.mark.parametrize("critic", ["bilinear", "inner_product", "separable_mlp", "mlp"])
def test_other_critics_find_it_too(critic):
    x, y = TASK.sample(1000, 0)
    config = quick(batch=48, hidden=24, steps=200, learning_rate=3e-3)
    score = mutual_information(x, y, bound="infonce", critic=critic, config=config, draws=19)
    assert 0.2 < score.value < TASK.exact + 0.15
    assert score.p_value == 1 / 20


def test_the_linear_critic_of_the_study_finds_a_shared_space():
    g = np.random.default_rng(0)
    z = g.standard_normal((600, 8))
    x = z @ g.standard_normal((8, 20)) + 0.2 * g.standard_normal((600, 20))
    y = z @ g.standard_normal((8, 12)) + 0.2 * g.standard_normal((600, 12))
    score = mutual_information(x, y, config=QUICK)
    assert score.parameters["critic"] == "separable_linear"
    assert score.ceiling == pytest.approx(math.log(150)) == score.parameters["log_pairs"]
    assert 0.6 * score.ceiling < score.value < score.ceiling


def test_near_the_ceiling_is_marked_saturated():
    x = np.random.default_rng(0).standard_normal((60, 10))
    config = quick(steps=400, learning_rate=0.01, patience=20)
    score = mutual_information(x, x, config=config)
    assert score.parameters["saturated"] is True
    assert 0.9 * math.log(15) <= score.value <= score.ceiling == math.log(15)


def test_unrelated_data_lie_at_or_below_0_with_even_p():
    g = np.random.default_rng(1)
    values, ps = [], []
    for _ in range(24):
        x, y = g.standard_normal((120, 3)), g.standard_normal((120, 3))
        config = quick(steps=20, check_every=10)
        score = mutual_information(x, y, critic="bilinear", draws=39, config=config)
        values.append(score.value)
        ps.append(score.p_value)
    assert np.mean(values) < 0.02
    # 24 even draws: P(fewer than 5 or more than 19 below one half) < 0.3 %.
    assert 5 <= sum(p <= 0.5 for p in ps) <= 19
    assert sum(p <= 0.05 for p in ps) <= 5


def test_a_critic_cannot_win_by_learning_noise_by_heart():
    g = np.random.default_rng(2)
    x, y = g.standard_normal((80, 60)), g.standard_normal((80, 60))
    score = mutual_information(x, y, critic="bilinear", config=quick(patience=6))
    assert score.value < 0.1
    assert score.p_value > 0.01


def test_units_stay_whole_and_meet_once_in_a_matrix():
    labels = np.repeat(np.arange(40), 5)
    parts = divide(200, labels, QUICK)
    sides = [
        set(np.concatenate(part).tolist()) for part in (parts.fit, parts.validation, parts.test)
    ]
    assert [len(part) for part in (parts.fit, parts.validation, parts.test)] == [24, 6, 10]
    assert not (sides[0] & sides[1] | sides[0] & sides[2] | sides[1] & sides[2])
    assert set.union(*sides) == set(range(200))
    for side in sides:
        assert {row for row in range(200) if labels[row] in labels[sorted(side)]} == side
    held = HeldOut.of(parts.test, QUICK, draws=3)
    assert len(held.rows) == 5 and held.pairs == 10
    assert sorted(np.concatenate(held.rows).tolist()) == sorted(sides[2])
    assert all(len(set(labels[rows])) == 10 for rows in held.rows)


def test_units_that_are_copies_do_not_look_like_evidence():
    # Rows of a unit are alike and units are unrelated: row by row this seems full of information.
    g = np.random.default_rng(3)
    labels = np.repeat(np.arange(60), 8)
    x, y = (
        np.repeat(g.standard_normal((60, 20)), 8, axis=0) + 0.01 * g.standard_normal((480, 20))
        for _ in range(2)
    )
    config = quick(steps=300, patience=20, learning_rate=0.01)
    by_row = mutual_information(x, y, critic="bilinear", config=config)
    by_unit = mutual_information(x, y, critic="bilinear", config=config, units=labels)
    assert by_row.value > 0.3 and by_row.p_value == 1 / 200
    assert by_unit.value < 0.2 and by_unit.p_value > 0.02
    assert by_unit.n == 15 and by_unit.ceiling == pytest.approx(math.log(15))


def test_many_units_are_judged_in_groups():
    x, y = TASK.sample(400, 0)
    whole = mutual_information(x, y, critic="quadratic", config=QUICK)
    parts = mutual_information(x, y, critic="quadratic", config=quick(evaluation_batch=34))
    assert parts.n == whole.n == 100
    assert parts.parameters["pairs"] == 33 and parts.ceiling == pytest.approx(math.log(33))
    assert parts.value == pytest.approx(whole.value, abs=0.1)


def test_the_same_seeds_give_the_same_score_and_seeds_widen_the_interval():
    x, y = TASK.sample(400, 0)
    before = torch.random.get_rng_state()
    several = quick(seeds=(0, 1, 2), steps=40)
    scores = [mutual_information(x, y, config=several, draws=9) for _ in range(2)]
    assert torch.equal(torch.random.get_rng_state(), before)
    assert scores[0] == scores[1]
    assert scores[0].interval.method == "jackknife over 32 groups of units and 3 seeds"
    one = [
        mutual_information(x, y, config=quick(seeds=(seed,), steps=40), draws=0)
        for seed in (0, 1, 2)
    ]
    assert scores[0].value == pytest.approx(np.mean([s.value for s in one]), abs=1e-9)
    assert one[0].null is None and one[0].p_value is None
    assert msgspec.json.decode(msgspec.json.encode(one[0]), type=type(one[0])) == one[0]


def test_features_are_put_on_one_scale_by_training_rows_alone():
    values = torch.tensor([[0.0, 5.0, 1.0], [2.0, 5.0, 3.0], [4.0, 5.0, 2.0], [1e9, 6.0, -1e9]])
    fit = torch.tensor([0, 1, 2])
    found = standardise(values.double(), fit, name="x", inputs="standard")
    assert found.shape == (4, 2)
    assert found[:3].mean(dim=0).tolist() == pytest.approx([0, 0], abs=1e-6)
    assert found[:3].std(dim=0, correction=0).tolist() == pytest.approx([1, 1], abs=1e-6)
    normal = standardise(values.double(), fit, name="x", inputs="normal_scores")
    # Shares 1/6, 3/6, 5/6 of the normal distribution; what is beyond the training rows stays there.
    assert normal[:, 0].tolist() == pytest.approx([-0.967422, 0, 0.967422, 0.967422], abs=1e-5)
    with pytest.raises(DegenerateError, match="x is constant over its 2 training samples"):
        standardise(
            torch.tensor([[1.0], [1.0], [2.0]]).double(), fit[:2], name="x", inputs="standard"
        )


def test_offset_and_scale_of_features_do_not_matter():
    x, y = TASK.sample(400, 0)
    value = mutual_information(x, y, critic="quadratic", config=QUICK, draws=0).value
    moved = mutual_information(x * 100 + 1000, y / 7, critic="quadratic", config=QUICK, draws=0)
    assert moved.value == pytest.approx(value, abs=1e-3)


def test_normal_scores_keep_heavy_tails_from_ruling():
    x, y = TASK.sample(1500, 0)
    x, y = np.sinh(3 * x), np.sinh(3 * y)
    values = [
        mutual_information(
            x, y, critic="quadratic", draws=0, config=quick(inputs=inputs, steps=400)
        ).value
        for inputs in ("standard", "normal_scores")
    ]
    assert values[1] > 0.25 > 0.2 > values[0]


def test_an_overflow_is_undefined_and_not_a_number(monkeypatch):
    from mirror_analysis.information import variational

    def huge(critic, x, y):
        return torch.full((len(x), len(y)), 1e4, dtype=torch.float64)

    monkeypatch.setattr(variational, "score_matrix", huge)
    x, y = TASK.sample(200, 0)
    score = mutual_information(x, y, bound="nwj", critic="bilinear", config=quick(steps=2))
    assert score.value is None and "overflows; use infonce or smile" in score.undefined


def test_progress_is_told():
    x, y = TASK.sample(200, 0)
    told = []
    config = quick(seeds=(0, 1), steps=40)
    mutual_information(x, y, config=config, progress=lambda done, total: told.append((done, total)))
    assert told[0] == (20, 80) and told[-1] == (80, 80)
    assert told == sorted(told)


def test_says_what_is_wrong():
    x, y = TASK.sample(200, 0)
    with pytest.raises(UnknownNameError, match="unknown bound 'infonse'; did you mean 'infonce'"):
        mutual_information(x, y, bound="infonse")
    with pytest.raises(UnknownNameError, match="unknown critic 'linear'"):
        mutual_information(x, y, critic="linear")
    with pytest.raises(ShapeError, match="x has 200 samples but y has 199"):
        mutual_information(x, y[:199])
    with pytest.raises(ShapeError, match=r"units have shape \(3,\) but there are 200 samples"):
        mutual_information(x, y, units=[1, 2, 3])
    with pytest.raises(
        DegenerateError, match="10 units leave 6 to train on, 2 for validation and 2"
    ):
        mutual_information(x, y, units=np.arange(200) % 10)
    with pytest.raises(
        DegenerateError, match="the critic diverged: its validation bound is not fin"
    ):
        mutual_information(x, y, critic="bilinear", bound="nwj", config=quick(learning_rate=1e30))
    rows = np.concatenate(divide(200, None, QUICK).test)[:4]
    only_in_test = np.zeros((200, 1))
    only_in_test[rows] = 1
    with pytest.raises(DegenerateError, match="y is constant over its 120 training samples"):
        mutual_information(x, only_in_test, config=QUICK)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperature": 0.0}, "temperature is 0.0; needed a number above 0"),
        ({"learning_rate": -1.0}, "learning_rate is -1.0; needed a number above 0"),
        ({"batch": 1}, "batch is 1; needed 2 or more"),
        ({"evaluation_batch": 7}, "evaluation_batch is 7; needed 8 or more"),
        ({"test": 1.0}, "test is 1.0; needed a share between 0 and 1"),
        ({"test": 0.6, "validation": 0.4}, "leave nothing to train on"),
        ({"seeds": (1, 1)}, r"seeds are \[1, 1\]; needed at least one, and none twice"),
        ({"seeds": ()}, r"seeds are \[\]; needed at least one"),
        ({"inputs": "rank"}, "inputs is 'rank'; needed 'standard' or 'normal_scores'"),
    ],
)
def test_settings_say_what_is_wrong(changes, message):
    with pytest.raises(DefinitionError, match=message):
        EstimatorConfig(**changes)


@pytest.mark.gpu
def test_runs_on_a_gpu():
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    x, y = (torch.tensor(v) for v in TASK.sample(400, 0))
    here = mutual_information(x, y, config=QUICK, draws=19)
    there = mutual_information(x.cuda(), y.cuda(), config=QUICK, draws=19)
    assert there.value == pytest.approx(here.value, abs=1e-2)

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, r2_score

from mirror_analysis.errors import DegenerateError, PairingError, ShapeError
from mirror_analysis.features import Index
from mirror_analysis.generalisation.judging import (
    JudgeConfig,
    Prediction,
    Subject,
    judge,
    measure_mean,
)
from mirror_analysis.inference.proportion import wilson


def drawn(rng, index, truth, right=0.75):
    wrong = rng.permutation(truth)
    return Prediction(np.where(rng.random(len(truth)) < right, truth, wrong), truth, index)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize(
    ("metric", "oracle"),
    [
        ("probe_accuracy", accuracy_score),
        ("probe_balanced_accuracy", balanced_accuracy_score),
        ("probe_r2", r2_score),
    ],
)
def test_values_are_those_of_scikit_learn(rng, index, metric, oracle):
    truth = rng.choice(["1", "2", "3"], size=60, p=[0.6, 0.3, 0.1])
    truth = truth.astype(float) if metric == "probe_r2" else truth
    told = [drawn(rng, index(60), truth), drawn(rng, index(60), truth)]
    found = judge(told, config=JudgeConfig(metric=metric, draws=19))
    expected = [oracle(truth, p.said) for p in told]
    assert found.estimate.values.tolist() == pytest.approx(expected)
    assert found.score.value == pytest.approx(np.mean(expected))
    assert found.score.measure == metric and found.score.ceiling == 1.0


def test_r2_within_is_that_of_what_is_left_of_the_group_means(rng, index):
    task = np.repeat(["a", "b"], 30)
    truth = rng.standard_normal(60) + np.where(task == "a", 0.0, 9.0)
    said = truth + rng.standard_normal(60)
    told = Prediction(said, truth, index(60, task=task))
    found = judge([told], config=JudgeConfig(metric="probe_r2", within="task", draws=19))
    means = np.where(task == "a", truth[task == "a"].mean(), truth[task == "b"].mean())
    # A common shift of said and truth changes no error.
    assert found.score.value == pytest.approx(r2_score(truth - means, said - means))
    assert found.score.value < r2_score(truth, said) - 0.3


def test_left_out_one_by_one_the_interval_is_the_textbook_one_of_a_mean(rng, index):
    told = drawn(rng, index(50), rng.choice(["a", "b"], size=50))
    found = judge([told], config=JudgeConfig(folds=50, draws=19))
    right = (told.said == told.truth).astype(float)
    half = 2.00957 * right.std(ddof=1) / np.sqrt(50)  # Student t of 49 degrees of freedom
    interval = found.score.interval
    assert interval.high - found.score.value == pytest.approx(half, rel=1e-4)
    assert found.estimate.replicates.shape == (1, 50)


def test_rows_of_an_episode_are_left_out_together(rng, index):
    truth = np.repeat(rng.choice(["a", "b"], size=30), 4)
    # Right in all rows of an episode or in none: as much evidence as 30 rows, not 120.
    right = np.repeat(rng.random(30) < 0.7, 4)
    said = np.where(right, truth, np.where(truth == "a", "b", "a"))
    many = judge([Prediction(said, truth, index(30, rows=4))], config=JudgeConfig(draws=19))
    once = judge([Prediction(said[::4], truth[::4], index(30))], config=JudgeConfig(draws=19))
    assert many.score.interval == once.score.interval
    assert many.score.n == 30


def test_the_null_is_the_agreement_of_two_margins(rng, index):
    truth = rng.choice(["a", "b", "c"], size=300, p=[0.5, 0.3, 0.2])
    said = rng.choice(["a", "b", "c"], size=300, p=[0.7, 0.2, 0.1])
    found = judge([Prediction(said, truth, index(300))], config=JudgeConfig(draws=1999))
    exact = sum((said == c).mean() * (truth == c).mean() for c in "abc")
    assert found.score.null.mean == pytest.approx(exact, abs=0.002)
    assert found.score.null.scheme == "labels of episodes"
    assert 0.01 < found.score.p_value < 1


def test_the_null_within_groups_knows_what_the_groups_tell(rng, index):
    task = np.repeat(["a", "b"], 100)
    truth = np.where(rng.random(200) < np.where(task == "a", 0.9, 0.1), "left", "right")
    said = np.where(task == "a", "left", "right")
    told = Prediction(said, truth, index(200, task=task))
    over, inside = (judge([told], config=JudgeConfig(within=w)) for w in ("", "task"))
    assert over.score.p_value == 0.001
    assert inside.score.p_value == 1.0
    assert inside.score.null.mean == pytest.approx(inside.score.value)
    assert inside.score.null.scheme == "labels of episodes within task"


def test_whole_groups_as_units_take_the_sign_of_their_excess(rng, index):
    task = np.repeat([f"t{i}" for i in range(8)], 50)
    truth = rng.choice(["a", "b"], size=400)
    other = np.where(truth == "a", "b", "a")
    # Three tasks of eight all right, five all wrong: a probe that is sure and knows nothing.
    said = np.where(np.isin(task, ["t1", "t2", "t3"]), truth, other)
    told = Prediction(said, truth, index(400, task=task))
    found = judge([told], config=JudgeConfig(unit="task", within="task"))
    assert found.score.value == pytest.approx(3 / 8)
    assert found.score.n == 8 and len(found.episodes) == 400
    assert found.score.interval.low < 0.1 and found.score.interval.high > 0.7
    # More than three of eight signs positive: 163 of 256; three: 56 more, of which some are ties.
    assert 163 / 256 - 0.04 < found.score.p_value < 219 / 256 + 0.04
    assert found.score.null.mean == pytest.approx(0.5, abs=0.02)
    assert found.score.null.sd == pytest.approx(0.5 / np.sqrt(8), rel=0.1)
    assert found.score.null.scheme.startswith("sign of each task's excess over exchanged labels")
    whole = judge([told], config=JudgeConfig(within="task"))
    assert whole.score.interval.high < 0.45


def test_episodes_of_any_length_exchange_their_label(rng):
    lengths = rng.integers(1, 6, size=40)
    names = np.repeat([f"e{i}" for i in range(40)], lengths)
    steps = np.concatenate([np.arange(n) for n in lengths])
    truth = np.repeat(rng.choice(["a", "b"], size=40), lengths)
    told = Prediction(truth.copy(), truth, Index(names, steps, {}))
    found = judge([told], config=JudgeConfig(draws=99))
    assert found.score.value == 1.0 and found.score.p_value == 0.01
    changing = np.arange(len(names)) % 2
    with pytest.raises(ShapeError, match="needed equally many to trade places"):
        judge([Prediction(changing, changing, Index(names, steps, {}))], config=JudgeConfig())


def test_labels_that_change_inside_episodes_move_with_them(index):
    phase = np.tile(["reach", "grasp"], 20)
    told = Prediction(phase.copy(), phase, index(20, rows=2))
    # All episodes have the same course, so exchanging them changes nothing.
    assert judge([told], config=JudgeConfig(draws=19)).score.p_value == 1.0


def test_all_right_is_not_certain(rng, index):
    truth = rng.choice(["a", "b"], size=40)
    found = judge([Prediction(truth.copy(), truth, index(40))], config=JudgeConfig(draws=19))
    interval = found.score.interval
    assert interval.high == 1.0
    assert interval.low == pytest.approx(wilson(40, 40).low)
    assert interval.method == "Wilson, as none of 40 units changes the value"


def test_about_whom(rng, index):
    told = drawn(rng, index(40), rng.choice(["a", "b"], size=40))
    subject = Subject(x="u", x_layer="l1", y="e", y_layer="l2", stage="after", role="control")
    score = judge(
        [told], config=JudgeConfig(draws=19), subject=subject, parameters={"target": "side"},
        note="why",
    ).score  # fmt: skip
    assert (score.x, score.x_layer, score.y, score.y_layer) == ("u", "l1", "e", "l2")
    assert (score.stage, score.role, score.note) == ("after", "control", "why")
    assert score.parameters == {"target": "side", "unit": "episode", "seeds": 1}


def test_what_cannot_be_judged_is_refused(rng, index):
    truth = rng.choice(["a", "b"], size=40)
    told = drawn(rng, index(40), truth)
    with pytest.raises(DegenerateError, match="no predictions to judge"):
        judge([], config=JudgeConfig())
    with pytest.raises(DegenerateError, match="all 40 test rows have the same label x"):
        judge([Prediction(truth, np.full(40, "x"), index(40))], config=JudgeConfig())
    with pytest.raises(PairingError, match="tested on different rows"):
        judge([told, drawn(rng, index(40, "f"), truth)], config=JudgeConfig())
    still = np.repeat([1.0, 2.0], 20)
    task = Prediction(still, still, index(40, task=np.repeat(["a", "b"], 20)))
    with pytest.raises(DegenerateError, match="does not vary inside any group"):
        judge([task], config=JudgeConfig(metric="probe_r2", within="task"))


def test_the_mean_of_outcomes(rng, index):
    won = rng.random((3, 80)) < np.array([[0.6], [0.7], [0.8]])
    found = measure_mean(
        won, index(80, task=np.repeat(["a", "b"], 40)), measure="success",
        config=JudgeConfig(folds=80), subject=Subject(x="policy"),
    )  # fmt: skip
    assert found.score.value == pytest.approx(won.mean())
    assert found.estimate.values.tolist() == pytest.approx(won.mean(axis=1).tolist())
    assert found.estimate.replicates[1, 0] in (
        pytest.approx((won[1].sum() - 1) / 79), pytest.approx(won[1].sum() / 79),
    )  # fmt: skip
    assert found.score.measure == "success" and found.score.x == "policy"
    with pytest.raises(ShapeError, match=r"success has shape \(3, 80\) and 79 labels"):
        measure_mean(won, index(79), measure="success")
    with pytest.raises(DegenerateError, match="success holds a value outside 0 to 1"):
        measure_mean(won * 2.0, index(80), measure="success")

from itertools import product
from math import comb

import numpy as np
import pytest
from scipy import stats

from mirror_analysis.errors import DegenerateError, PairingError
from mirror_analysis.rollout import Outcomes, paired_success, success_estimate
from mirror_analysis.rollout.paired import mcnemar


def outcomes(won, *, policy="a", first=0, condition="plain") -> Outcomes:
    """[task, episode] of bool as outcomes."""
    won = np.asarray(won, dtype=bool)
    tasks, episodes = won.shape
    return Outcomes(
        policy, tuple(f"task{t}" for t in range(tasks)),
        tuple(range(first, first + episodes)), tuple(tuple(row) for row in won.tolist()),
        ((9,) * episodes,) * tasks, 150, 0, condition,
    )  # fmt: skip


def drawn(rate, seed, shape=(3, 40)) -> np.ndarray:
    return np.random.default_rng(seed).random(shape) < rate


# -- McNemar ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("a", "b"), [(9, 1), (1, 9), (4, 4), (0, 1), (3, 0), (7, 2)])
def test_mcnemar_is_the_exact_sign_test(a, b):
    """Every way to swap the two policies within the episodes that differ, counted."""
    least = min(a, b)
    slow = sum(
        min(sum(flips), a + b - sum(flips)) <= least for flips in product((0, 1), repeat=a + b)
    )
    assert mcnemar(a, b) == pytest.approx(slow / 2 ** (a + b), abs=1e-12)
    assert mcnemar(a, b) == pytest.approx(
        min(1.0, 2 * sum(comb(a + b, k) for k in range(least + 1)) / 2 ** (a + b)), abs=1e-12
    )


def test_without_a_difference_there_is_no_evidence():
    assert mcnemar(0, 0) == 1.0


# -- one pair ---------------------------------------------------------------------------------


def test_the_difference_is_over_the_same_episodes():
    a, b = drawn(0.7, 0), drawn(0.5, 1)
    score = paired_success(outcomes(a), outcomes(b, policy="b"))
    assert (score.measure, score.role, score.x, score.y) == (
        "success_rate_difference", "difference", "a", "b",
    )  # fmt: skip
    assert score.value == pytest.approx(a.mean() - b.mean(), abs=1e-12) and score.n == 120
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    assert (score.parameters["only_x"], score.parameters["only_y"]) == (only_a, only_b)
    assert score.p_value == mcnemar(only_a, only_b)
    assert score.null.mean == 0.0
    # Under the null each episode that differs is +1 or -1 over n.
    assert score.null.sd == pytest.approx(np.sqrt(only_a + only_b) / 120)
    back = paired_success(outcomes(b), outcomes(a))
    assert back.value == -score.value and back.p_value == score.p_value
    assert back.interval.low == pytest.approx(-score.interval.high, abs=1e-12)


def test_the_interval_is_that_of_the_mean_difference_per_environment_seed():
    """With as many groups as seeds the jackknife is Student's interval of their differences."""
    a, b = drawn(0.8, 2, (4, 20)), drawn(0.5, 3, (4, 20))
    score = paired_success(outcomes(a), outcomes(b))
    per_seed = (a.astype(float) - b).mean(axis=0)
    half = stats.t.ppf(0.975, 19) * per_seed.std(ddof=1) / np.sqrt(20)
    assert score.interval.low == pytest.approx(score.value - half, abs=1e-12)
    assert score.interval.high == pytest.approx(score.value + half, abs=1e-12)
    assert score.interval.method == "jackknife over 20 groups of environment seeds"


def test_pairing_makes_the_interval_narrower():
    """Two policies that fail in nearly the same episodes."""
    a = drawn(0.6, 4, (2, 60))
    b = a.copy()
    b[0, :4] = ~b[0, :4]
    shuffled = np.random.default_rng(0).permuted(b, axis=1)
    paired, not_paired = (paired_success(outcomes(a), outcomes(other)) for other in (b, shuffled))
    assert paired.value == pytest.approx(not_paired.value, abs=1e-12)
    widths = [s.interval.high - s.interval.low for s in (paired, not_paired)]
    assert widths[0] < 0.5 * widths[1]


def test_seeds_shared_by_the_tasks_count_once():
    """The same episodes in four tasks are no more evidence than in one."""
    a, b = drawn(0.7, 5, (1, 24)), drawn(0.5, 6, (1, 24))
    one = paired_success(outcomes(a), outcomes(b)).interval
    four = paired_success(outcomes(np.tile(a, (4, 1))), outcomes(np.tile(b, (4, 1)))).interval
    assert (four.low, four.high) == pytest.approx((one.low, one.high), abs=1e-12)


def test_the_interval_covers_the_true_difference():
    rng, covered = np.random.default_rng(7), 0
    for _ in range(300):
        common = rng.random((2, 30))
        a, b = common < 0.7, (common + rng.normal(0, 0.2, (2, 30))) < 0.7
        # The second rate by a large sample of the same law.
        score = paired_success(outcomes(a), outcomes(b))
        covered += score.interval is not None and score.interval.low <= TRUE <= score.interval.high
    assert 0.90 <= covered / 300 <= 0.99


LARGE = np.random.default_rng(8)
TRUE = 0.7 - float(np.mean(LARGE.random(2_000_000) + LARGE.normal(0, 0.2, 2_000_000) < 0.7))


def test_where_nothing_differs_there_is_no_interval():
    a = drawn(0.6, 9)
    score = paired_success(outcomes(a), outcomes(a, policy="b"))
    assert (score.value, score.p_value, score.interval) == (0.0, 1.0, None)
    assert score.note == "no two episodes ended differently"


def test_the_interval_ends_where_a_difference_can():
    a, b = np.ones((1, 3)), np.array([[0, 0, 1]])
    assert paired_success(outcomes(a), outcomes(b)).interval.high == 1.0


# -- over training seeds ----------------------------------------------------------------------


def test_over_training_seeds_the_interval_holds_both_kinds_of_chance():
    a = [outcomes(drawn(0.7, s), policy=f"a{s}") for s in range(3)]
    b = [outcomes(drawn(0.5, s + 9), policy=f"b{s}") for s in range(3)]
    score = paired_success(a, b, x="aligned", y="independent")
    values = [one.rate - other.rate for one, other in zip(a, b, strict=True)]
    assert score.value == pytest.approx(np.mean(values), abs=1e-12)
    assert (score.x, score.y, score.n) == ("aligned", "independent", 120)
    assert score.p_value is None and score.parameters["training_seeds"] == 3
    assert score.interval.method == (
        "jackknife over 32 groups of environment seeds and 3 training seeds"
    )
    # Never narrower than the spread of the seeds alone says.
    assert (score.interval.high - score.interval.low) / 2 > 1.96 * np.std(values, ddof=1) / 3**0.5
    estimate = success_estimate(a) - success_estimate(b)
    assert estimate.interval().low == pytest.approx(score.interval.low, abs=1e-12)


def test_an_estimate_leaves_environment_seeds_out_in_turn():
    won = drawn(0.5, 3, (2, 5))
    estimate = success_estimate([outcomes(won)])
    left_out = [np.delete(won, column, axis=1).mean() for column in range(5)]
    assert sorted(estimate.replicates[0]) == pytest.approx(sorted(left_out))
    assert estimate.values[0] == pytest.approx(won.mean())


# -- faults -----------------------------------------------------------------------------------


def test_only_the_same_episodes_are_compared():
    a = outcomes(drawn(0.5, 0))
    words = "a and b differ in their {}; roll both out in one call of rollout_outcomes, or with th"
    for other, what in (
        (outcomes(drawn(0.5, 0), policy="b", first=1), "environment seeds"),
        (outcomes(drawn(0.5, 0, (2, 40)), policy="b"), "tasks"),
    ):
        with pytest.raises(PairingError, match=words.format(what)):
            paired_success(a, other)
        with pytest.raises(PairingError, match=words.format(what)):
            success_estimate([a, other])
    with pytest.raises(PairingError, match="2 training seeds against 1; compare the same seeds in"):
        paired_success([a, a], a)


def test_conditions_are_named_where_they_differ():
    a = outcomes(drawn(0.5, 0))
    other = outcomes(drawn(0.5, 1), policy="b", condition="nuisance")
    assert paired_success(a, other).condition == "plain, nuisance"
    assert paired_success(a, a).condition == "plain"
    assert (paired_success(a, other).x, paired_success(a, other).y) == ("a", "b")
    away = outcomes(drawn(0.5, 1), condition="camera-side")
    score = paired_success(a, away)
    assert (score.x, score.y) == ("a (plain)", "a (camera-side)")
    assert paired_success(a, away, x="here", y="there").y == "there"


def test_too_little_to_compare_is_refused():
    with pytest.raises(DegenerateError, match="no outcomes to take a success rate of; needed at l"):
        success_estimate([])
    one = outcomes(np.ones((3, 1)))
    with pytest.raises(DegenerateError, match="outcomes of 1 environment seed tell nothing of oth"):
        paired_success(one, one)

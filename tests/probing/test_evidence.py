"""Measures against scikit-learn, replicates by leaving out, intervals by simulation, orders."""

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, r2_score

from mirror_analysis.probing import evidence
from mirror_analysis.probing.folds import Fold
from mirror_analysis.probing.targets import Target


def classes(rng, rows=60):
    truth = rng.choice(3, rows, p=[0.6, 0.3, 0.1])
    guess = np.where(rng.random(rows) < 0.6, truth, rng.integers(0, 3, rows))
    return Target("c", "classification", truth, ("a", "b", "c")), guess


def parts(target, guess, center=None, *, balanced=False):
    center = np.empty(0) if center is None else center
    return evidence.parts_of(target, guess, target.values, center, balanced=balanced)


def test_values_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    target, guess = classes(rng)
    assert parts(target, guess).value() == pytest.approx((guess == target.values).mean())
    assert parts(target, guess, balanced=True).value() == pytest.approx(
        balanced_accuracy_score(target.values, guess)
    )
    truth = rng.normal(size=(40, 2)) * [1.0, 9.0]
    guess = truth + rng.normal(size=(40, 2))
    quantities = Target("q", "regression", truth)
    center = np.broadcast_to(truth.mean(axis=0), truth.shape)
    assert parts(quantities, guess, center).value() == pytest.approx(r2_score(truth, guess))


@pytest.mark.parametrize("balanced", [False, True], ids=["plain", "balanced"])
def test_replicates_are_the_measure_without_each_group(balanced):
    rng = np.random.default_rng(1)
    target, guess = classes(rng)
    group = np.arange(60) % 7
    found = parts(target, guess, balanced=balanced).replicates(group)
    for number in range(7):
        rest = group != number
        alone = Target("c", "classification", target.values[rest], target.classes)
        assert found[number] == pytest.approx(parts(alone, guess[rest], balanced=balanced).value())


def test_a_class_that_one_group_has_alone_is_left_out_with_it():
    target = Target("c", "classification", np.array([0, 0, 1, 1, 2]), ("a", "b", "c"))
    guess = np.array([0, 1, 1, 1, 2])
    found = parts(target, guess, balanced=True).replicates(np.array([0, 1, 0, 1, 2]))
    assert found.tolist() == pytest.approx([2 / 3, 1.0, 0.75])


def test_units_average_to_the_measure():
    rng = np.random.default_rng(2)
    unit = np.arange(60) // 3
    target, guess = classes(rng)
    assert parts(target, guess).of_units(unit).mean() == pytest.approx(parts(target, guess).value())
    truth = rng.normal(size=(60, 2))
    quantities = parts(
        Target("q", "regression", truth), truth + rng.normal(size=(60, 2)), np.zeros((60, 2))
    )
    assert quantities.of_units(unit).mean() == pytest.approx(quantities.value())


def test_centers_and_commonest_are_of_the_rows_a_fit_has_seen():
    folds = [
        Fold(np.array([0]), np.array([1]), np.array([2, 3])),
        Fold(np.array([2]), np.array([3]), np.array([0, 1])),
    ]
    found = evidence.centers(np.array([[1.0], [3.0], [10.0], [20.0]]), folds)
    assert found[:, 0].tolist() == [15, 15, 2, 2]
    assert evidence.commonest(np.array([1, 1, 0, 0]), folds).tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("share", [0.5, 0.93])
def test_intervals_cover_the_share_of_new_episodes(share):
    """Three rows an episode that are right or wrong together more often than not."""
    rng = np.random.default_rng(3)
    units, covered = 60, 0
    for _ in range(300):
        own = rng.beta(share * 2, (1 - share) * 2, units)
        right = (rng.random((units, 3)) < own[:, None]).astype(np.int64).reshape(-1)
        target = Target("c", "classification", np.ones(3 * units, dtype=np.int64), ("a", "b"))
        groups = evidence.jackknife_groups(np.repeat(np.arange(units), 3), 0)
        found = parts(target, right)
        interval = evidence.interval_of(
            float(found.value()), found.replicates(groups), units, share=True, unit="episode"
        )
        covered += interval.low <= share <= interval.high
    assert covered / 300 == pytest.approx(0.95, abs=0.035)


def test_where_all_are_right_the_interval_still_has_a_width():
    ones = np.ones(32)
    found = evidence.interval_of(1.0, ones, 50, share=True, unit="episode")
    assert (found.high, found.method) == (
        1.0, "Wilson of effective size, jackknife over 32 groups of 50 episodes",
    )  # fmt: skip
    # Wilson with t of 31 degrees of freedom instead of z.
    assert found.low == pytest.approx(50 / (50 + 2.0395**2), abs=1e-4)


def test_orders_move_whole_episodes_inside_their_groups():
    episodes = np.array(list("aabbccdd"))
    task = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    moving = np.arange(8)
    found = evidence.orders(moving, episodes, [task], draws=200, seed=0)
    assert found.shape == (200, 8)
    assert {tuple(o) for o in found.tolist()} == {
        (*x, *y) for x in ((0, 1, 2, 3), (2, 3, 0, 1)) for y in ((4, 5, 6, 7), (6, 7, 4, 5))
    }


def test_episodes_of_other_lengths_trade_a_label_of_the_whole():
    episodes = np.array(list("aabccc"))
    label = np.array(["u", "u", "v", "w", "w", "w"])
    found = label[evidence.orders(label, episodes, [], draws=50, seed=0)]
    for drawn in found:
        assert drawn[0] == drawn[1] and len(set(drawn[3:])) == 1
        assert sorted({drawn[0], drawn[2], drawn[3]}) == ["u", "v", "w"]
    assert len({tuple(d) for d in found.tolist()}) == 6


def test_moving_labels_trade_between_episodes_of_equal_length_only():
    episodes = np.array(list("aabbccc"))
    found = evidence.orders(np.arange(7), episodes, [], draws=50, seed=0)
    assert {tuple(o) for o in found.tolist()} == {(0, 1, 2, 3, 4, 5, 6), (2, 3, 0, 1, 4, 5, 6)}
    assert evidence.orders(np.arange(3), np.array(list("abb")), [], draws=5, seed=0) is None

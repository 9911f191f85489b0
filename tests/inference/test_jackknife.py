import math

import numpy as np
import pytest
from scipy import stats

from mirror_analysis.errors import DegenerateError, ShapeError
from mirror_analysis.inference import (
    combine_seeds,
    folds,
    jackknife_interval,
)


def leave_out_means(values, fold):
    return np.array([values[fold != k].mean() for k in range(fold.max() + 1)])


def test_folds_keep_units_whole_and_groups_spread():
    unit = np.repeat(np.arange(48), 3)
    group = unit // 16
    fold = folds(unit, within=group, count=8, seed=1)
    assert len(fold) == 144 and set(fold) == set(range(8))
    for u in range(48):
        assert len(set(fold[unit == u])) == 1
    for g in range(3):
        assert np.bincount(fold[group == g]).tolist() == [6] * 8  # 2 units of 3 rows in each
    assert (folds(unit, within=group, count=8, seed=1) == fold).all()
    assert (folds(unit, within=group, count=8, seed=2) != fold).any()


def test_uneven_groups_are_balanced_in_sum():
    group = np.repeat(np.arange(5), 7)
    counts = np.bincount(folds(np.arange(35), within=group, count=10))
    assert counts.max() - counts.min() <= 1


def test_few_units_are_a_fold_each():
    fold = folds(["a", "b", "b", "c"])
    assert fold.max() == 2 and fold[1] == fold[2]


def test_folds_follow_unit_labels_not_the_order_of_rows():
    unit = np.arange(40)
    order = np.random.default_rng(0).permutation(40)
    assert (folds(unit[order], count=8) == folds(unit, count=8)[order]).all()


def test_leaving_out_one_gives_the_textbook_interval_of_a_mean():
    x = np.random.default_rng(0).standard_normal(20)
    replicates = leave_out_means(x, np.arange(20))
    interval = jackknife_interval(float(x.mean()), replicates)
    half = stats.t.ppf(0.975, 19) * x.std(ddof=1) / math.sqrt(20)
    assert interval.low == pytest.approx(x.mean() - half)
    assert interval.high == pytest.approx(x.mean() + half)
    assert interval.level == 0.95
    assert interval.method == "jackknife over 20 groups of units"
    narrow = jackknife_interval(float(x.mean()), replicates, level=0.5)
    assert narrow.high - narrow.low < interval.high - interval.low
    assert narrow.level == 0.5


@pytest.mark.parametrize(("seed_sd", "unit_sd"), [(1.0, 0.2), (0.1, 1.0), (0.5, 1.0)])
def test_seed_means_cover_the_truth(seed_sd, unit_sd):
    g = np.random.default_rng(5)
    fold = folds(np.arange(48), count=16)
    covered = 0
    for _ in range(400):
        shared = unit_sd * g.standard_normal(48)
        rows = [shared + seed_sd * g.standard_normal() for _ in range(4)]
        replicates = [leave_out_means(r, fold) for r in rows]
        mean, interval, of_mean = combine_seeds([float(r.mean()) for r in rows], replicates)
        assert of_mean == pytest.approx(np.mean(replicates, axis=0))
        covered += interval.low <= 0 <= interval.high
    assert 0.95 - 4 * math.sqrt(0.05 * 0.95 / 400) < covered / 400 <= 0.995
    assert "16 groups of units and 4 seeds" in interval.method
    assert interval.low < mean < interval.high


def test_seed_means_follow_satterthwaite():
    values, replicates = [1.0, 3.0], [[0.0, 1.0, 2.0], [0.0, 1.0, 2.0]]
    mean, interval, _ = combine_seeds(values, replicates)
    units, seeds = 2 / 3 * 2, 2 / 2
    freedom = (units + seeds) ** 2 / (units**2 / 2 + seeds**2 / 1)
    assert mean == 2.0
    assert interval.high - 2 == pytest.approx(stats.t.ppf(0.975, freedom) * (units + seeds) ** 0.5)
    still = combine_seeds([1.0, 1.0], np.ones((2, 3)))[1]
    assert (still.low, still.high) == (1.0, 1.0)


def test_says_what_is_wrong():
    with pytest.raises(DegenerateError, match="folds got count 1; needed at least 2"):
        folds([0, 1, 2], count=1)
    with pytest.raises(DegenerateError, match=r"shape \(1,\); needed \[fold\] with at least 2"):
        jackknife_interval(0.0, [1.0])
    with pytest.raises(DegenerateError, match="1 of 3 replicates are not finite; the measure"):
        jackknife_interval(0.0, [1.0, float("nan"), 2.0])
    with pytest.raises(DegenerateError, match="combine_seeds got 1 seed; needed at least 2"):
        combine_seeds([1.0], [[1.0, 2.0]])
    with pytest.raises(DegenerateError, match="not finite; leave that seed out"):
        combine_seeds([1.0, math.inf], np.ones((2, 2)))
    with pytest.raises(ShapeError, match=r"\(2,\) and replicates \(3, 2\); needed \[seed\]"):
        combine_seeds([1.0, 2.0], np.ones((3, 2)))

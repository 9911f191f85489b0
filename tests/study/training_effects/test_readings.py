"""Shares and their replicates are what counting by hand gives."""

import numpy as np
import pytest

from mirror_analysis.inference.jackknife import folds, jackknife_interval
from mirror_analysis.results import Comparison, Interval, Score
from mirror_analysis.study.training_effects.readings import from_comparison, shares

BASE = Score("accuracy", 0.0, x="model", y="", n=0, condition="plain", parameters={"classes": 4})


@pytest.fixture(scope="module")
def drawn():
    rng = np.random.default_rng(0)
    task = np.repeat(["push", "pull", "lift"], 10)
    return rng.random(30) < 0.7, task, np.array([f"episode {i}" for i in range(30)])


def test_over_all_tasks(drawn):
    right, task, unit = drawn
    reading = shares(right, task, unit, base=BASE, count=5, chance=0.25)[0]
    fold = folds(unit, within=task, count=5)
    expected = [right[fold != i].mean() for i in range(5)]
    assert reading.replicates == pytest.approx(expected, abs=0)
    score = reading.score
    assert (score.value, score.n, score.ceiling) == (right.mean(), 30, 1.0)
    assert score.interval == jackknife_interval(right.mean(), expected)
    assert score.parameters == {"classes": 4} and score.condition == "plain"
    assert score.null.mean == 0.25 and score.null.scheme == "guessing"
    assert score.null.sd == pytest.approx((0.25 * 0.75 / 30) ** 0.5)


def test_per_task(drawn):
    right, task, unit = drawn
    found = shares(right, task, unit, base=BASE, count=32)[1:]
    assert [r.score.parameters["task"] for r in found] == ["lift", "pull", "push"]
    for reading in found:
        own = right[task == reading.score.parameters["task"]]
        assert (reading.score.value, reading.score.n) == (own.mean(), 10)
        left_out = sorted((own.sum() - won) / 9 for won in own)
        assert sorted(reading.replicates) == pytest.approx(left_out)
        assert reading.score.null is None


def test_a_single_episode_has_no_interval():
    one = shares(np.array([True]), np.array(["push"]), np.array(["a"]), base=BASE, count=4)
    assert [(r.score.value, r.score.interval, r.replicates) for r in one] == [(1.0, None, [])] * 2


def test_scores_of_a_comparison_keep_their_replicates():
    scores = (
        Score("cka", 0.4, x="x", y="y", n=8, x_layer="a", y_layer="b", parameters={"k": 3},
              interval=Interval(0, 1)),
        Score("knn", None, x="x", y="y", n=8, x_layer="a", y_layer="b", undefined="no rows"),
    )  # fmt: skip
    comparison = Comparison(scores, {("cka", "a", "b"): [0.3, 0.5]})
    first, second = from_comparison(comparison, x="u", parameters={"maps": "m"})
    assert first.replicates == [0.3, 0.5] and second.replicates == []
    assert first.score.parameters == {"k": 3, "maps": "m"}
    assert second.score.parameters == {"maps": "m"} and second.score.x == "u"
    assert scores[0].parameters == {"k": 3}

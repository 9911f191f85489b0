from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm

from mirror_analysis.errors import DegenerateError, ShapeError
from mirror_analysis.features import Index
from mirror_analysis.generalisation.conditions import ConditionsConfig, across_conditions
from mirror_analysis.generalisation.judging import JudgeConfig, Subject
from mirror_analysis.generalisation.parts import Parts, Rows
from mirror_analysis.probing.settings import Probe

CONFIG = ConditionsConfig(
    home="left camera", away="right camera", probe=Probe(strengths=(1e-2,)),
    judged=JudgeConfig(draws=99),
)  # fmt: skip


def seen(w, *, strength=1.5, shift=0.0, axis=0, width=4):
    def make(part):
        values = w.noise(part, width)
        values[:, axis] += strength * w.sign(part) + shift
        return values

    return w.parts(make)


def renamed(rows, prefix):
    index = rows.index
    return Rows(rows.values, Index(np.char.add(prefix, index.episode), index.step, index.labels))


@pytest.mark.parametrize("shift", [0.0, 0.8, 2.0])
def test_the_drop_under_a_planted_shift_is_known(world, shift):
    w = world(1, tasks=2, sizes=(500, 100, 1500))
    a = 1.5
    found = across_conditions([seen(w)], [seen(w, shift=shift)], "side", config=CONFIG)
    inside = norm.cdf(a)
    outside = (norm.cdf(a - shift) + norm.cdf(a + shift)) / 2
    assert found.home.score.value == pytest.approx(inside, abs=0.02)
    assert found.away.score.value == pytest.approx(outside, abs=0.02)
    assert found.refitted.score.value == pytest.approx(inside, abs=0.02)
    assert found.drop.score.value == pytest.approx(inside - outside, abs=0.025)
    assert found.shortfall.score.value == pytest.approx(inside - outside, abs=0.025)
    low, high = found.shortfall.score.interval.low, found.shortfall.score.interval.high
    assert low - 0.01 <= inside - outside <= high + 0.01
    assert high - low < 0.06


def test_another_axis_leaves_chance_and_is_there_to_be_found_again(world):
    w = world(2, tasks=2, sizes=(200, 50, 400))
    found = across_conditions([seen(w)], [seen(w, axis=1)], "side", config=CONFIG)
    interval = found.away.score.interval
    assert interval.low < 0.5 < interval.high
    assert abs(found.away.score.null.mean - 0.5) < 0.02
    assert found.refitted.score.p_value == 0.01
    assert found.shortfall.score.interval.low > 0.3
    assert found.shortfall.score.note == (
        "what a probe fitted under left camera misses under right camera"
    )
    assert [s.parameters["fitted"] for s in found.scores[:3]] == [
        "left camera", "left camera", "right camera",
    ]  # fmt: skip
    assert [s.parameters["tested"] for s in found.scores[:3]] == [
        "left camera", "right camera", "right camera",
    ]  # fmt: skip
    assert len(found.scores) == 5


def test_the_paired_drop_is_narrower_than_that_of_other_episodes(world):
    w = world(3, tasks=2, sizes=(200, 50, 400))
    home = seen(w)
    # The same noise, so that both conditions are hard on the same episodes.
    away = Parts(home.fit, home.validation, Rows(home.test.values + 0.3, home.test.index))
    same = across_conditions([home], [away.test], "side", config=CONFIG)
    other = across_conditions([home], [renamed(away.test, "other-")], "side", config=CONFIG)
    assert same.drop.score.value == other.drop.score.value
    assert same.drop.score.n == 800 and other.drop.score.n == 1600
    narrow, wide = same.drop.score.interval, other.drop.score.interval
    assert wide.high - wide.low > 1.3 * (narrow.high - narrow.low)
    assert "the test episodes are others" in other.drop.score.note
    assert same.refitted is None and same.shortfall is None


def test_the_interval_of_a_drop_between_other_episodes_is_that_of_two_shares(world):
    w = world(4, tasks=2, sizes=(200, 50, 400))
    home, away = seen(w), renamed(seen(w, shift=1.0).test, "other-")
    found = across_conditions([home], [away], "side", config=CONFIG)
    p, q = found.home.score.value, found.away.score.value
    half = 2.0 * np.sqrt(p * (1 - p) / 800 + q * (1 - q) / 800)
    interval = found.drop.score.interval
    assert (interval.high - interval.low) / 2 == pytest.approx(half, rel=0.3)


def test_seeds_and_controls(world):
    w = world(5, tasks=2, sizes=(100, 30, 100))
    home, away = [seen(w), seen(w), seen(w)], [seen(w), seen(w), seen(w)]
    blind = [seen(w, strength=0.0) for _ in range(3)]
    found = across_conditions(
        home, away, "side", controls={"untrained": (blind, blind)},
        subject=Subject(x="policy", condition="nuisance"), config=CONFIG,
    )  # fmt: skip
    assert found.away.score.parameters["seeds"] == 3
    assert "3 seeds" in found.away.score.interval.method
    assert found.excess.score.value == pytest.approx(
        found.away.score.value - found.controls["untrained"].away.score.value
    )
    assert found.excess.score.interval.low > 0.2
    assert found.controls["untrained"].away.score.x == "untrained policy"
    assert {s.condition for s in found.scores} == {"nuisance"}


def test_what_cannot_be_carried_over_is_refused(world):
    w = world(6, tasks=2, sizes=(30, 10, 30))
    home = seen(w)
    with pytest.raises(ShapeError, match=r"left camera has 1 training seeds and right camera 2"):
        across_conditions([home], [home, home], "side", config=CONFIG)
    with pytest.raises(ShapeError, match=r"left camera has 4 features and right camera 3;"):
        across_conditions([home], [seen(w, width=3)], "side", config=CONFIG)
    labels = {**home.test.index.labels, "side": np.full(len(home.test), "far")}
    far = Rows(home.test.values, replace(home.test.index, labels=labels))
    with pytest.raises(DegenerateError, match=r"'side' is far under right camera but never"):
        across_conditions([home], [far], "side", config=CONFIG)

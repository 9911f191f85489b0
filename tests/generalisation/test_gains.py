import numpy as np
import pytest
from scipy import stats

from mirror_analysis.errors import DegenerateError, PairingError, ShapeError
from mirror_analysis.generalisation.gains import above_controls, excess_gain, paired_gain
from mirror_analysis.generalisation.judging import JudgeConfig, Prediction, judge, measure_mean


def outcomes(rng, seeds, count, rate):
    return (rng.random((seeds, count)) < rate).astype(float)


def test_with_one_seed_it_is_the_paired_t_interval(index):
    rng = np.random.default_rng(0)
    before = outcomes(rng, 1, 60, 0.5)
    after = np.maximum(before, outcomes(rng, 1, 60, 0.3))
    config = JudgeConfig(folds=60)
    gain = paired_gain(
        measure_mean(after, index(60), measure="success", config=config),
        measure_mean(before, index(60), measure="success", config=config),
    )
    expected = stats.ttest_rel(after[0], before[0]).confidence_interval(0.95)
    assert gain.score.value == pytest.approx((after - before).mean())
    assert gain.score.interval.low == pytest.approx(expected.low)
    assert gain.score.interval.high == pytest.approx(expected.high)
    assert gain.score.role == "difference" and gain.score.measure == "success"
    assert gain.score.note.startswith("one training seed: the interval holds for new episodes")


def test_seeds_that_differ_widen_it(index):
    rng = np.random.default_rng(1)
    before = outcomes(rng, 4, 100, 0.5)
    rise = np.array([[0.0], [0.1], [0.3], [0.6]])
    after = np.maximum(before, outcomes(rng, 4, 100, rise))
    gain = paired_gain(*(measure_mean(v, index(100), measure="success") for v in (after, before)))
    of_seeds = (after - before).mean(axis=1)
    least = 3.182 * of_seeds.std(ddof=1) / 2  # Student t of 3 degrees of freedom
    assert gain.score.interval.high - gain.score.value > 0.8 * least
    assert gain.estimate.values.tolist() == pytest.approx(of_seeds.tolist())
    assert gain.score.note == "" and gain.score.parameters["seeds"] == 4


def test_the_interval_covers_a_known_gain(index):
    """Episodes differ in difficulty, seeds in how much they gain; the mean gain is known."""
    rng = np.random.default_rng(2)
    held = np.zeros(2)
    count, worlds = 64, 80
    rows = index(count)
    for _ in range(worlds):
        hard = rng.uniform(0.2, 0.7, size=count)
        gained = 0.1 + 0.05 * rng.standard_normal((5, 1))
        draw = rng.random((5, count))  # shared by both: the same episodes, the same start
        before, after = draw < hard, draw < hard + gained
        for number, gain in enumerate((gained, np.full((5, 1), 0.1))):
            # Against the gain of these seeds, and of seeds in general.
            found = paired_gain(
                measure_mean(after, rows, measure="success"),
                measure_mean(before, rows, measure="success"),
            ).score.interval
            held[number] += found.low <= gain.mean() <= found.high
    assert (held / worlds > 0.9).all()


def test_no_difference_on_any_episode_is_not_certain(index):
    won = np.ones((1, 50))
    same = measure_mean(won, index(50), measure="success")
    gain = paired_gain(same, same).score
    assert gain.value == 0.0
    assert gain.interval.low == -gain.interval.high < -0.05


def test_above_its_control(index):
    rng = np.random.default_rng(3)
    start = outcomes(rng, 3, 200, 0.3)
    made = {
        "aligned": np.maximum(start, outcomes(rng, 3, 200, 0.5)),
        "shuffled": np.maximum(start, outcomes(rng, 3, 200, 0.1)),
        "noise": start,
    }
    before = measure_mean(start, index(200), measure="success")
    gains = {
        name: paired_gain(measure_mean(won, index(200), measure="success"), before)
        for name, won in made.items()
    }
    found = excess_gain(gains["aligned"], {k: gains[k] for k in ("shuffled", "noise")})
    shuffled = gains["shuffled"].score.value
    assert found.excess.score.parameters["control"] == "shuffled"
    assert found.excess.score.note == "above the best control, 'shuffled'"
    assert found.excess.score.value == pytest.approx(gains["aligned"].score.value - shuffled)
    assert found.excess.score.interval.low > 0
    assert found.excess.score.interval.low < gains["aligned"].score.interval.low
    against_itself = above_controls(gains["aligned"], {"itself": gains["aligned"]})
    assert against_itself.score.value == 0.0
    assert found.controls["noise"].score.value == 0.0


def test_gains_of_different_things_are_refused(index):
    rng = np.random.default_rng(4)
    won = measure_mean(outcomes(rng, 2, 50, 0.5), index(50), measure="success")
    fewer = measure_mean(outcomes(rng, 2, 49, 0.5), index(49), measure="success")
    seeds = measure_mean(outcomes(rng, 3, 50, 0.5), index(50), measure="success")
    truth = rng.choice(["a", "b"], size=50)
    told = judge([Prediction(truth[::-1], truth, index(50))], config=JudgeConfig(draws=9))
    with pytest.raises(PairingError, match="after has measure success and before probe_accuracy"):
        paired_gain(won, told)
    with pytest.raises(PairingError, match="after has n 50 and before 49"):
        paired_gain(won, fewer)
    with pytest.raises(ShapeError, match="2 seeds of 32 replicates and 3 of 32"):
        paired_gain(won, seeds)
    others = measure_mean(outcomes(rng, 2, 50, 0.5), index(50, "f"), measure="success")
    with pytest.raises(PairingError, match="50 episodes and what it is compared with on 50 that"):
        paired_gain(won, others)
    with pytest.raises(PairingError, match="that are not the same; test both on the same"):
        above_controls(won, {"other": others})
    gain = paired_gain(won, won)
    with pytest.raises(DegenerateError, match="'noise' is a pair, not a difference"):
        excess_gain(gain, {"noise": won})
    with pytest.raises(DegenerateError, match="excess got no controls"):
        excess_gain(gain, {})

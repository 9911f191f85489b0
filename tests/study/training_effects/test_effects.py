"""Averages, gains and excesses are what numpy makes of the readings by hand."""

import msgspec
import numpy as np
import pytest
import small_training as small

from mirror_analysis.inference.estimate import Estimate, excess
from mirror_analysis.inference.proportion import wilson
from mirror_analysis.results import Interval, Score, select
from mirror_analysis.study.training_effects.effects import BEST_CONTROL, OTHERS, Place, effects
from mirror_analysis.study.training_effects.readings import Reading
from mirror_analysis.study.training_effects.runs import Run

DEFINITION = small.definition(models={"seeds": [0, 1, 2]}, evaluation={"folds": 8})
GAINS = {"instruction": (0.1, 0.1, 0.2), "noise": (0.05, 0.0, 0.1)}
NAMES = [c.name for c in DEFINITION.conditions]
RECOGNISED = {"measure": "instruction_accuracy", "condition": "plain", "task": None}
FITTED = {"measure": "recall_at_1", "condition": "nuisance", "within": "",
          "maps": "fitted on frozen features"}  # fmt: skip


@pytest.fixture(scope="module")
def readings():
    return small.Simulated(DEFINITION, GAINS).readings()


@pytest.fixture(scope="module")
def scores(readings):
    return effects(readings, DEFINITION)


def estimate(readings, trained, **place):
    found = [
        next(r for r in readings[Run(trained, seed)] if select([r.score], **place))
        for seed in (0, 1, 2)
    ]
    return Estimate(
        np.array([r.score.value for r in found]), np.array([r.replicates for r in found])
    )


def one(scores, **fields) -> Score:
    found = select(scores, **fields)
    assert len(found) == 1, (fields, len(found))
    return found[0]


@pytest.mark.parametrize("place", [RECOGNISED, FITTED], ids=["accuracy", "recall"])
@pytest.mark.parametrize("name", NAMES)
def test_means_over_seeds(readings, scores, name, place):
    expected = estimate(readings, name, **place)
    role = {"independent": "reference"}.get(name, DEFINITION.named(name).role)
    role = {"aligned": "pair"}.get(role, role)
    found = one(scores, comparison=name, seed=None, against=None, **place)
    assert found.role == role
    assert found.value == pytest.approx(expected.values.mean())
    assert found.interval.low == pytest.approx(max(0.0, expected.interval().low))
    assert found.interval.high == pytest.approx(min(1.0, expected.interval().high))
    for seed, value in enumerate(expected.values):
        assert one(scores, comparison=name, seed=seed, **place).value == value


@pytest.mark.parametrize("place", [RECOGNISED, FITTED], ids=["accuracy", "recall"])
def test_gains_are_paired_by_seed_and_episode(readings, scores, place):
    base = estimate(readings, "independent", **place)
    for name in NAMES[1:]:
        found = one(scores, comparison=name, seed=None, against="independent", **place)
        expected = estimate(readings, name, **place) - base
        assert found.role == "difference" and found.null is None and found.ceiling is None
        assert found.value == pytest.approx(expected.mean)
        assert (found.interval.low, found.interval.high) == pytest.approx(
            (expected.interval().low, expected.interval().high)
        )
    assert not select(scores, comparison="independent", role="difference")


def test_excess_over_the_best_control_is_that_of_the_gains(readings, scores):
    """(aligned - baseline) - (control - baseline), whichever control gains most."""
    base = estimate(readings, "independent", **FITTED)
    gains = {n: estimate(readings, n, **FITTED) - base for n in ("shuffled", "untrained", "noise")}
    own = estimate(readings, "instruction", **FITTED) - base
    best, value, interval = excess(own, gains)
    found = one(scores, comparison="instruction", against=BEST_CONTROL, **FITTED)
    assert found.parameters["best"] == best == "noise"
    assert found.value == pytest.approx(value)
    assert (found.interval.low, found.interval.high) == pytest.approx((interval.low, interval.high))
    assert not select(scores, comparison="noise", against=BEST_CONTROL)


def test_excess_over_the_other_aligned(readings, scores):
    others = {n: estimate(readings, n, **FITTED) for n in ("episode", "task")}
    best, value, interval = excess(estimate(readings, "instruction", **FITTED), others)
    found = one(scores, comparison="instruction", against=OTHERS, **FITTED)
    assert (found.parameters["best"], found.value) == (best, pytest.approx(value))
    assert found.interval.low == pytest.approx(interval.low)


def test_single_tasks_are_averaged_and_not_kept_by_seed(scores):
    found = select(scores, measure="success_rate", comparison="noise", task="task-c")
    values, differences = ([s for s in found if (s.role == "difference") == kind]
                           for kind in (False, True))  # fmt: skip
    assert [s.seed for s in values] == [None] and len(differences) == 1
    assert values[0].n == 16


def changed(readings, condition, **fields):
    """The readings with scores of one condition replaced."""
    out = {}
    for run, found in readings.items():
        if run.condition == condition:
            found = [
                msgspec.structs.replace(r, score=msgspec.structs.replace(r.score, **fields))
                for r in found
            ]
        out[run] = found
    return out


def test_what_is_not_defined_in_one_seed_is_not_defined(readings):
    broken = {
        run: changed({run: found}, "noise", value=None, undefined="constant")[run]
        if run.seed == 1 else found
        for run, found in readings.items()
    }  # fmt: skip
    scores = effects(broken, DEFINITION)
    gone = one(scores, comparison="noise", seed=None, **FITTED)
    assert (gone.value, gone.interval, gone.undefined) == (None, None, "constant")
    assert not select(scores, comparison="noise", role="difference", **FITTED)
    best = one(scores, comparison="instruction", against=BEST_CONTROL, **FITTED)
    assert best.parameters["best"] in ("shuffled", "untrained")


def test_a_condition_may_lack_a_number(readings):
    """The maps of training exist only where models were aligned to each other."""
    maps = {**FITTED, "maps": "trained with the models"}
    scores = effects(readings, DEFINITION)
    assert not select(scores, comparison="noise", **maps)
    assert one(scores, comparison="instruction", against=BEST_CONTROL, **maps)


def test_the_safe_p_and_the_mean_null(readings, scores):
    worse = changed(readings, "noise", p_value=0.2)
    kept = {run: worse[run] if run.seed == 2 else found for run, found in readings.items()}
    found = one(effects(kept, DEFINITION), comparison="noise", seed=None, against=None, **FITTED)
    assert found.p_value == 0.2 and found.null.mean == pytest.approx(0.02)


def test_what_never_varied_has_the_interval_of_a_share():
    """A jackknife of constant successes would claim to know."""
    score = Score("success_rate", 1.0, x="execution", y="", n=12, condition="plain", ceiling=1.0,
                  interval=Interval(1, 1), parameters={"task": "push"})  # fmt: skip
    readings = {Run(n, s): [Reading(score, [1.0] * 4)] for n in NAMES for s in (0, 1, 2)}
    found = one(effects(readings, DEFINITION), comparison="noise", seed=None, against=None)
    assert found.interval == wilson(12, 12) and found.interval.low < 0.8
    gain = one(effects(readings, DEFINITION), comparison="noise", against="independent")
    assert gain.value == 0 and gain.interval.high == -gain.interval.low == wilson(0, 12).high


def test_no_difference_of_shares_is_larger_than_one():
    """Two seeds that disagree have a t interval far beyond what shares can reach."""
    two = small.definition(models={"seeds": [0, 1]}, evaluation={"folds": 8})

    def reading(name, seed, ceiling):
        value = 0.5 + (0.4 if seed else -0.4) * (name == "noise")
        score = Score("success_rate", value, x="execution", y="", n=12, condition="plain",
                      ceiling=ceiling)  # fmt: skip
        return Reading(score, [value - 0.01, value, value + 0.01, value])

    for ceiling, most in ((1.0, 1.0), (None, 5.0)):
        readings = {Run(n, s): [reading(n, s, ceiling)] for n in NAMES for s in (0, 1)}
        gain = one(effects(readings, two), comparison="noise", against="independent")
        assert -gain.interval.low == gain.interval.high > 0.99 * most
        assert ceiling is None or gain.interval.high == 1.0


def test_places_tell_numbers_apart():
    score = Score("recall_at_1", 0.5, x="u", y="e", n=4, condition="plain", within="task",
                  parameters={"k": 1, "maps": "m", "task": "push"})  # fmt: skip
    place = Place.of(score)
    assert place == ("recall_at_1", "plain", "task", ("", ""), (("task", "push"), ("maps", "m")))
    assert not place.whole

"""What is planted is found, what is not there is not, and what a control has too is said so."""

import msgspec
import numpy as np
import pytest
import small_training as small

from mirror_analysis.results import Interval, Score, select
from mirror_analysis.study.training_effects.effects import effects
from mirror_analysis.study.training_effects.findings import above_zero, findings
from mirror_analysis.study.training_effects.readings import Reading
from mirror_analysis.study.training_effects.runs import runs

SIZE = {"models": {"seeds": [0, 1, 2, 3, 4]}, "evaluation": {"folds": 16}}
DEFINITION = small.definition(**SIZE)
RATES = small.definition("pairing-and-temperature", **SIZE)
GAIN = {"instruction": (0.13, 0.13, 0.2), "episode": (0.02, 0.02, 0.05)}
OUTCOMES = ("recognition", "success", "recall", "cka-within-task", "few-shot", "transfer")


def found(definition, gains, seed=0):
    scores = effects(small.Simulated(definition, gains, seed=seed, count=80).readings(), definition)
    return {f.name: f for f in findings(scores, definition)}, scores


@pytest.fixture(scope="module")
def planted():
    return found(DEFINITION, GAIN)


@pytest.fixture(scope="module")
def null():
    return found(DEFINITION, {})


@pytest.fixture(scope="module")
def shared():
    """A control gains as much."""
    return found(DEFINITION, {**GAIN, "untrained": GAIN["instruction"]})


@pytest.mark.parametrize("name", OUTCOMES)
def test_a_planted_gain_is_found(planted, name):
    claims, _ = planted
    assert claims[f"{name}-gain"].holds is True, claims[f"{name}-gain"].statement
    beyond = claims[f"{name}-gain-beyond-controls"]
    assert beyond.holds is True, beyond.statement
    assert "not shown" not in beyond.statement


@pytest.mark.parametrize("name", OUTCOMES)
def test_no_gain_is_found_where_there_is_none(null, name):
    claims, _ = null
    gain, beyond = claims[f"{name}-gain"], claims[f"{name}-gain-beyond-controls"]
    assert gain.holds is not True and beyond.holds is not True
    assert "No gain is shown; one above" in gain.statement
    assert beyond.statement.endswith("There is no gain to explain.")


@pytest.mark.parametrize("name", OUTCOMES)
def test_a_gain_that_a_control_has_too_is_not_that_of_alignment(shared, name):
    claims, _ = shared
    gain, beyond = claims[f"{name}-gain"], claims[f"{name}-gain-beyond-controls"]
    assert gain.holds is True
    assert beyond.holds is not True, beyond.statement
    assert beyond.statement.endswith("not shown to come from what the partner knows.")
    assert "“aligned to the partner's untrained twin”" in beyond.statement


def test_to_lose_less_than_the_controls_is_no_gain():
    worse = dict.fromkeys(("shuffled", "untrained", "noise"), (-0.3, -0.3, -0.2))
    claims, _ = found(DEFINITION, worse)
    for name in OUTCOMES:
        beyond = claims[f"{name}-gain-beyond-controls"]
        assert above_zero(beyond.score) is True and beyond.holds is None, beyond.statement
        assert beyond.statement.endswith("But a gain over training apart is not shown.")


def test_a_loss_is_called_a_loss():
    claims, _ = found(DEFINITION, {"instruction": (-0.2, -0.2, -0.1)})
    for name in OUTCOMES:
        assert claims[f"{name}-gain"].holds is False
        assert claims[f"{name}-gain"].statement.endswith("costs more than it brings here.")
        assert claims[f"{name}-gain-beyond-controls"].holds is False


def test_statements_say_the_numbers_they_rest_on(planted):
    claims, scores = planted
    assert list(claims)[:4] == [
        "recognition-gain", "recognition-gain-beyond-controls",
        "success-gain", "success-gain-beyond-controls",
    ]  # fmt: skip
    for claim in claims.values():
        assert claim.score in scores and claim.score.role == "difference"
    gain = claims["success-gain"].score
    text = claims["success-gain"].statement
    assert f"{100 * gain.value:+.1f} points" in text
    assert f"[{100 * gain.interval.low:+.1f}, {100 * gain.interval.high:+.1f}]" in text
    for name, words in (("instruction", "is {:.1f} %"), ("independent", "apart it is {:.1f} %")):
        (value,) = select(scores, measure="success_rate", comparison=name, seed=None, task=None,
                          against=None)  # fmt: skip
        assert words.format(100 * value.value) in text
    recall = claims["recall-gain"].score
    assert f"{recall.value:+.3f} [{recall.interval.low:+.3f}" in claims["recall-gain"].statement


def test_which_way_of_aligning_is_best(planted):
    claims, _ = planted
    best = claims["best-for-recognition"]
    assert best.holds is True and best.score.parameters["comparison"] == "instruction"
    assert "“Aligned by instruction” leads" in best.statement and "cannot" not in best.statement
    tied, _ = found(RATES, {c: (0.1, 0.1, 0.1) for c in ("episode", "task", "instruction-0.2")})
    for name in ("best-for-recognition", "best-for-success"):
        assert tied[name].holds is not True
        assert tied[name].statement.endswith("which of them is best cannot be told from these"
                                             " numbers.")  # fmt: skip


def test_without_controls_nothing_is_said_of_them():
    claims, _ = found(RATES, {"instruction": (0.13, 0.13, 0.2)})
    assert claims["success-gain"].holds is True
    assert not [name for name in claims if "controls" in name]


def test_a_claim_without_its_numbers_is_left_out(planted):
    assert findings([], DEFINITION) == []
    kept = [s for s in planted[1] if s.measure != "success_rate"]
    assert not [f for f in findings(kept, DEFINITION) if "success" in f.name]


@pytest.mark.parametrize(
    ("interval", "expected"),
    [(Interval(0.1, 0.2), True), (Interval(-0.2, -0.1), False), (Interval(-0.1, 0.1), None),
     (None, None)],
)  # fmt: skip
def test_above_zero(interval, expected):
    score = Score("linear_cka", 0.0, x="u", y="e", n=3, interval=interval)
    assert above_zero(score) is expected


def test_false_claims_are_rare():
    """Over worlds without any gain, claims hold hardly more often than intervals allow."""
    definition = small.two(**SIZE)
    rng, held, worlds, fold = np.random.default_rng(0), 0, 60, np.arange(60) % 8
    base = Score("success_rate", 0.0, x="execution", y="", n=60, condition="plain", ceiling=1.0)
    for _ in range(worlds):
        hard, readings = rng.normal(0, 0.1, 60), {}
        for run in runs(definition):
            won = rng.random(60) < 0.8 + hard
            left_out = [float(won[fold != i].mean()) for i in range(8)]
            score = msgspec.structs.replace(base, value=float(won.mean()))
            readings[run] = [Reading(score, left_out)]
        claims = {f.name: f for f in findings(effects(readings, definition), definition)}
        held += claims["success-gain"].holds is True
    assert held / worlds <= 0.07  # nominal .025 or less

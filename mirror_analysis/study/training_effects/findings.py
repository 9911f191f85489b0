"""The claims of a study of training, in words, as its numbers bear them out or do not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mirror_analysis.results import Finding, Score, select
from mirror_analysis.study.training_effects.effects import BEST_CONTROL, OTHERS
from mirror_analysis.study.training_effects.generalising import CROSSED
from mirror_analysis.training_definitions import TrainingStudyDefinition

FITTED = "fitted on frozen features"


@dataclass(frozen=True)
class _Outcome:
    """What training is judged by.

    Attributes:
        name: of findings, such as "recognition".
        words: what is measured, in a sentence.
        place: where its scores are.
        percent: whether it is said in points of a hundred.
    """

    name: str
    words: str
    place: dict[str, object]
    percent: bool = True


RECOGNITION = _Outcome(
    "recognition",
    "recognition of the instruction on plain views",
    {"measure": "instruction_accuracy", "condition": "plain"},
)
SUCCESS = _Outcome(
    "success",
    "closed-loop success",
    {"measure": "success_rate", "condition": "plain"},
)
AGREEMENT = (
    _Outcome(
        "recall",
        "Recall@1 of alignments fitted anew on frozen features, under nuisance,",
        {"measure": "recall_at_1", "condition": "nuisance", "within": "", "maps": FITTED},
        percent=False,
    ),
    _Outcome(
        "cka-within-task",
        "debiased linear CKA within tasks under nuisance",
        {"measure": "linear_cka", "condition": "nuisance", "within": "task"},
        percent=False,
    ),
)
ELSEWHERE = (
    _Outcome(
        "few-shot",
        "accuracy of the execution model's layer from one labelled episode per class, under"
        " nuisance,",
        {"measure": "few_shot_accuracy", "condition": "nuisance", "model": "execution", "shots": 1},
    ),
    _Outcome(
        "transfer",
        "what a probe of the observation model tells from the execution model, under nuisance,",
        {
            "measure": "probe_accuracy", "condition": "nuisance", "model": "execution",
            "setting": CROSSED,
        },
    ),
)  # fmt: skip


def findings(scores: Sequence[Score], definition: TrainingStudyDefinition) -> list[Finding]:
    """What can be said, the headline first; a claim without its numbers is left out.

    Args:
        scores: of the study.
        definition: says which condition is the headline.
    """
    scores = [s for s in scores if s.seed is None and "task" not in s.parameters]
    found: list[Finding] = []
    for outcome in (RECOGNITION, SUCCESS):
        found += _gain(scores, definition, outcome)
        found += _beyond_controls(scores, definition, outcome)
    for outcome in (*AGREEMENT, *ELSEWHERE):
        found += _gain(scores, definition, outcome)
        found += _beyond_controls(scores, definition, outcome)
    for outcome in (RECOGNITION, SUCCESS):
        found += _best(scores, definition, outcome)
    return found


def _gain(
    scores: Sequence[Score], definition: TrainingStudyDefinition, outcome: _Outcome
) -> Iterator[Finding]:
    """Whether the headline condition has more than the baseline."""
    name, base = definition.evaluation.headline, definition.baseline
    gain = _one(scores, outcome, name, role="difference", against=base)
    own, other = _one(scores, outcome, name), _one(scores, outcome, base)
    if gain is None or own is None or other is None:
        return
    holds = above_zero(gain)
    text = (
        f"For models {definition.named(name).title}, {outcome.words} is {_value(own, outcome)};"
        f" trained apart it is {_value(other, outcome)}. The difference, over the same seeds and"
        f" episodes, is {_signed(gain, outcome)}."
    )
    if holds is None:
        text += f" No gain is shown; one above {_end(gain, outcome)} is unlikely."
    elif not holds:
        text += " Alignment costs more than it brings here."
    yield Finding(f"{outcome.name}-gain", text, holds, gain)


def _beyond_controls(
    scores: Sequence[Score], definition: TrainingStudyDefinition, outcome: _Outcome
) -> Iterator[Finding]:
    """Whether the gain is more than what the controls gain, who know nothing of the partner."""
    name, base = definition.evaluation.headline, definition.baseline
    over = _one(scores, outcome, name, role="difference", against=BEST_CONTROL)
    gain = _one(scores, outcome, name, role="difference", against=base)
    if over is None or gain is None:
        return
    best = str(over.parameters["best"])
    control = _one(scores, outcome, best, role="difference", against=base)
    if control is None:
        return
    text = (
        f"In {outcome.words.rstrip(',')} the best control, {_title(definition, best)}, has"
        f" {_signed(control, outcome)} against training apart, and alignment has"
        f" {_signed(gain, outcome)}: more by {_signed(over, outcome)}."
    )
    gained, beyond = above_zero(gain), above_zero(over)
    holds = beyond
    if beyond is not True:
        text += (
            " So the gain is not shown to come from what the partner knows."
            if gained
            else " There is no gain to explain."
            if gained is None
            else ""
        )
    elif gained is not True:
        # To lose less than a control does is no gain.
        holds = None
        text += " But a gain over training apart is not shown."
    yield Finding(f"{outcome.name}-gain-beyond-controls", text.rstrip(), holds, over)


def _best(
    scores: Sequence[Score], definition: TrainingStudyDefinition, outcome: _Outcome
) -> Iterator[Finding]:
    """Which way of aligning is best, if the numbers can tell."""
    aligned = [c.name for c in definition.conditions if c.role == "aligned"]
    found = {name: _one(scores, outcome, name) for name in aligned}
    values = {n: s.value for n, s in found.items() if s is not None and s.value is not None}
    if len(values) < 2:
        return
    first, second = sorted(values, key=lambda name: -values[name])[:2]
    lead = _one(scores, outcome, first, role="difference", against=OTHERS)
    if lead is None:
        return
    holds = above_zero(lead)
    listed = "; ".join(f"{definition.named(n).title} {_value(found[n], outcome)}" for n in aligned)
    text = (
        f"By {outcome.words}: {listed}. {_title(definition, first, capital=True)} leads"
        f" {_title(definition, second)} by {_signed(lead, outcome)}"
    )
    text += "." if holds else ", so which of them is best cannot be told from these numbers."
    yield Finding(f"best-for-{outcome.name}", text, holds, lead)


def above_zero(score: Score) -> bool | None:
    """True or False where the interval excludes 0, None where it does not."""
    if score.interval is None:
        return None
    if score.interval.low > 0:
        return True
    return False if score.interval.high < 0 else None


def _one(
    scores: Sequence[Score], outcome: _Outcome, condition: str, *, role: str = "",
    against: str | None = None,
) -> Score | None:  # fmt: skip
    found = select(scores, **outcome.place, comparison=condition, against=against)
    found = [s for s in found if (s.role == "difference") == (role == "difference")]
    return found[0] if found and found[0].value is not None else None


def _title(definition: TrainingStudyDefinition, condition: str, *, capital: bool = False) -> str:
    title = definition.named(condition).title
    return f"“{title[:1].upper() + title[1:] if capital else title}”"


def _value(score: Score | None, outcome: _Outcome) -> str:
    if score is None or score.value is None:
        return "–"
    return f"{100 * score.value:.1f} %" if outcome.percent else f"{score.value:.3f}"


def _end(score: Score, outcome: _Outcome) -> str:
    """The largest gain the interval still holds."""
    assert score.interval is not None
    high = score.interval.high
    return f"{100 * high:.1f} points" if outcome.percent else f"{high:.3f}"


def _signed(score: Score, outcome: _Outcome) -> str:
    if score.value is None or score.interval is None:
        return "–"
    factor, digits, unit = (100, 1, " points") if outcome.percent else (1, 3, "")
    value, low, high = (
        f"{factor * number:+.{digits}f}"
        for number in (score.value, score.interval.low, score.interval.high)
    )
    return f"{value}{unit} [{low}, {high}]"

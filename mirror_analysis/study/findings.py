"""The claims of a study, in words, as its numbers bear them out or do not."""

from __future__ import annotations

from collections.abc import Iterator

from mirror_analysis.results import Finding, Score, select
from mirror_analysis.study.contrasts import PAIR
from mirror_analysis.study.summary import UNTRAINED


def findings(
    scores: list[Score], *, nuisance: str = "independent nuisance in the two views"
) -> list[Finding]:
    """What can be said, the headline first; a claim without its numbers is left out.

    Args:
        scores: of a study.
        nuisance: what it is and whom it reaches, in words.
    """
    found = list(_excess_recall(scores, nuisance))
    for make in (_excess_within_task, _beyond_task, _excess_plain, _outcome):
        found.extend(make(scores))
    return found


def _excess_recall(scores: list[Score], nuisance: str) -> Iterator[Finding]:
    for score in _best_control(scores, measure="recall_at_1", condition="nuisance", within=""):
        pair, control = _pair_and_control(scores, score)
        yield Finding(
            "excess-recall",
            f"Under {nuisance}, trained models find each other's"
            f" episodes with Recall@1 {_value(pair)} in a gallery of"
            f" {min(int(score.parameters['gallery']), score.n)}; the best matched control"
            f" ({score.parameters['best']}) reaches {_value(control)}."
            f" The excess is {_signed(score)}.",
            _above_zero(score),
            score,
        )


def _excess_within_task(scores: list[Score]) -> Iterator[Finding]:
    for score in _best_control(scores, measure="linear_cka", condition="nuisance", within="task"):
        pair, control = _pair_and_control(scores, score)
        yield Finding(
            "excess-cka-within-task",
            "With task means removed, debiased linear CKA of the trained models is"
            f" {_value(pair)} under nuisance; the best matched control"
            f" ({score.parameters['best']}) has {_value(control)}."
            f" The excess is {_signed(score)}.",
            _above_zero(score),
            score,
        )


def _beyond_task(scores: list[Score]) -> Iterator[Finding]:
    """Whether the fit finds more than which task an episode is of."""
    place = {"measure": "recall_at_1", "condition": "nuisance", "within": "", "seed": None}
    mixed = _one(scores, comparison="shuffled within task", role="reference", **place)
    difference = _one(scores, role="difference", against="shuffled within task", **place)
    if difference is None or mixed is None:
        return
    yield Finding(
        "beyond-task",
        "The same fit on pairs shuffled within their task, which can learn only what both models"
        f" know of the task, reaches Recall@1 {_value(mixed)} under nuisance. Episode by episode"
        f" pairing adds {_signed(difference)}.",
        _above_zero(difference),
        difference,
    )


def _excess_plain(scores: list[Score]) -> Iterator[Finding]:
    """Whether the published protocol, on views as they are, tells learned from unlearned."""
    place = {"measure": "recall_at_1", "condition": "plain", "within": "", "seed": None}
    pair = _one(scores, role="pair", comparison=PAIR, **place)
    untrained = _one(scores, comparison=UNTRAINED, role="control", **place)
    for score in _best_control(scores, measure="recall_at_1", condition="plain", within=""):
        if pair is None or untrained is None:
            return
        best, control = score.parameters["best"], _pair_and_control(scores, score)[1]
        learned = _above_zero(score)
        yield Finding(
            "excess-recall-plain",
            "On plain views the published test gives the trained pair Recall@1"
            f" {_value(pair)}, and two untrained networks {_value(untrained)}. The excess over the"
            f" best matched control ({best}, {_value(control)}) is {_signed(score)}"
            + ("." if learned else ", so that its recall does not show that anything was learned."),
            learned,
            score,
        )


def _outcome(scores: list[Score]) -> Iterator[Finding]:
    place = {"measure": "recall_at_1", "condition": "success-failure", "within": "", "seed": None}
    gap = _one(scores, role="difference", comparison=PAIR, against="failure", **place)
    untrained = _one(scores, role="difference", comparison=UNTRAINED, against="failure", **place)
    double = _one(scores, role="difference", comparison=PAIR, against=UNTRAINED, **place)
    if gap is None or untrained is None or double is None:
        return
    yield Finding(
        "success-against-failure",
        "Recall@1 of successful less failed episodes of equal tasks and lengths, under nuisance and"
        f" with the alignment fitted on both, is {_signed(gap)} for the trained pair and"
        f" {_signed(untrained)} for two untrained networks. The difference of differences is"
        f" {_signed(double)}.",
        _above_zero(double),
        double,
    )


def _best_control(scores: list[Score], **place: object) -> list[Score]:
    return select(scores, role="difference", against="best control", seed=None, **place)


def _pair_and_control(scores: list[Score], excess: Score) -> tuple[Score | None, Score | None]:
    place = {
        "measure": excess.measure,
        "condition": excess.condition,
        "within": excess.within,
        "seed": None,
        "x_layer": excess.x_layer,
        "y_layer": excess.y_layer,
    }
    pair = _one(scores, role="pair", comparison=PAIR, **place)
    del place["x_layer"], place["y_layer"]
    best = excess.parameters["best"]
    return pair, _one(scores, role="control", comparison=best, **place)


def _one(scores: list[Score], **fields: object) -> Score | None:
    found = select(scores, **fields)
    return found[0] if found else None


def _above_zero(score: Score) -> bool | None:
    """True or False where the interval excludes 0, None where it does not."""
    if score.interval is None:
        return None
    if score.interval.low > 0:
        return True
    return False if score.interval.high < 0 else None


def _value(score: Score | None) -> str:
    return "–" if score is None or score.value is None else f"{score.value:.2f}"


def _signed(score: Score) -> str:
    if score.value is None or score.interval is None:
        return "–"
    return f"{score.value:+.3f} [{score.interval.low:+.3f}, {score.interval.high:+.3f}]"

"""The numbers of a study of training as tables."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

from mirror_analysis.reporting import wording
from mirror_analysis.reporting.tables import Cell, Group, Notes, Table
from mirror_analysis.reporting.training_effects import elsewhere, few_shot, looks, probes
from mirror_analysis.reporting.training_effects.agreement import PANELS
from mirror_analysis.reporting.training_effects.evidence import (
    BEST_CONTROL,
    OTHERS,
    RECOGNITION,
    SUCCESS,
    TrainingEvidence,
    details,
)
from mirror_analysis.reporting.training_effects.rows import VIEWS, Panel
from mirror_analysis.results import Role, Score

NAMES = (
    "conditions", "gains", "tasks", "agreement", "probes", "few-shot", "elsewhere", "looks",
)  # fmt: skip
"""Every table there can be, by the stem of its files."""

_ROLES: dict[Role, str] = {
    "reference": "Baseline",
    "pair": "Aligned to the partner",
    "control": "Controls",
}


def tables(evidence: TrainingEvidence) -> list[Table]:
    """All tables for which the result has scores."""
    made = (
        _conditions(evidence),
        _gains(evidence),
        _tasks(evidence),
        _agreement(evidence),
        _probes(evidence),
        _few_shot(evidence),
        _elsewhere(evidence),
        _looks(evidence),
    )
    return [table for table in made if table.scores]


def _conditions(evidence: TrainingEvidence) -> Table:
    """Ours, and the published numbers in columns of their own."""
    notes, groups, scores = Notes(), [], []
    published = bool(evidence.published)
    for role, names in _by_role(evidence):
        rows = []
        for name in names:
            found = [
                evidence.one(name, RECOGNITION),
                evidence.one(name, RECOGNITION, "nuisance"),
                evidence.one(name, SUCCESS),
            ]
            scores += [s for s in found if s is not None]
            cells = [Cell(evidence.title(name)), *(_measured(notes, s) for s in found)]
            if published:
                theirs = evidence.published.get(name)
                cells += [
                    Cell(wording.number(theirs.of(m), 3) if theirs else "")
                    for m in (RECOGNITION, SUCCESS)
                ]
            rows.append(cells)
        groups.append(Group(role, rows))
    columns = ["Condition", "Recognition, plain", "Recognition, nuisance", "Closed-loop success"]
    caption = (
        "Recognition of the instruction and closed-loop success, shares of episodes, means over"
        f" {len(evidence.seeds)} training seeds."
        f" In brackets: {wording.intervals(scores) or 'no intervals'}."
    )
    if published:
        columns += ["Published recognition", "Published success"]
        caption += f" Published: {evidence.source}; other models and tasks, for comparison only."
    title = "Recognition and success"
    return Table("conditions", title, caption, columns, groups, notes.reasons, scores)


def _gains(evidence: TrainingEvidence) -> Table:
    notes, groups, scores = Notes(), [], []
    for heading, found in _differences(evidence):
        rows = []
        for score in found:
            scores.append(score)
            against = str(score.parameters.get("against", ""))
            best = score.parameters.get("best")
            against = evidence.title(against)
            rows.append(
                [
                    Cell(evidence.title(str(score.parameters.get("comparison", "")))),
                    Cell(f"{against} ({evidence.title(str(best))})" if best else against),
                    notes.value(score),
                    Cell(wording.bracket(score)),
                    Cell(str(score.n)),
                ]
            )
        groups.append(Group(heading, rows))
    columns = ["Condition", "Less", "Difference", "Interval", "n"]
    caption = (
        "Differences over the same training seeds and the same episodes or situations. Against"
        f" the {BEST_CONTROL} and {OTHERS}, the interval holds whichever of them is truly the best."
        f" Interval: {wording.intervals(scores) or 'none in the result'}."
    )
    return Table("gains", "Differences", caption, columns, groups, notes.reasons, scores)


def _differences(evidence: TrainingEvidence) -> Iterator[tuple[str, list[Score]]]:
    """Differences over all tasks, by what they are of."""
    found: dict[str, list[Score]] = {}
    for s in evidence.result.scores:
        if s.role == "difference" and s.seed is None and "task" not in s.parameters:
            words = [wording.measure_axis(s.measure), wording.condition_label(s.condition)]
            words += [wording.within_label(s.within)] if s.within else []
            words += [wording.plain(value) for _, value in sorted(details(s), key=str)]
            found.setdefault(", ".join(words), []).append(s)
    yield from found.items()


def _tasks(evidence: TrainingEvidence) -> Table:
    notes, scores, groups = Notes(), [], []
    names = [evidence.baseline, evidence.headline]
    rows = []
    for task in evidence.tasks:
        found = [
            evidence.one(name, measure, task=task)
            for measure, name in itertools.product((RECOGNITION, SUCCESS), names)
        ]
        scores += [s for s in found if s is not None]
        rows.append([Cell(task), *(_measured(notes, s, 2) for s in found)])
    if rows:
        groups.append(Group("Plain videos", rows))
    titles = [evidence.title(name) for name in names]
    columns = ["Task", *(f"{what}, {title}" for what in ("Recognition", "Success")
                         for title in titles)]  # fmt: skip
    caption = (
        "Single tasks, means over training seeds."
        f" In brackets: {wording.intervals(scores) or 'no intervals'}."
    )
    return Table("tasks", "Task by task", caption, columns, groups, notes.reasons, scores)


def _agreement(evidence: TrainingEvidence) -> Table:
    caption = f"Agreement of {evidence.x} and {evidence.y} on test episodes."
    return _panelled(evidence, ("agreement", "Agreement of the two models", caption), PANELS)


def _probes(evidence: TrainingEvidence) -> Table:
    """What is read off either model: a column per question and model."""
    caption = (
        "Linear probes of the declared layers, fitted on episodes that no model was trained on and"
        " tested on others: share of episodes that are named right, or share of variance."
    )
    return _panelled(evidence, ("probes", "Linear probes", caption), probes.panels(evidence))


def _elsewhere(evidence: TrainingEvidence) -> Table:
    caption = (
        "Probes put to the other model through an alignment of frozen features, beside maps of"
        " shuffled pairs and a probe of the model's own in the same space; and probes in tasks that"
        " they were not fitted on."
    )
    title = "On the other model, and in new tasks"
    return _panelled(evidence, ("elsewhere", title, caption), elsewhere.panels(evidence))


def _panelled(
    evidence: TrainingEvidence, words: tuple[str, str, str], panels: Sequence[Panel]
) -> Table:
    """A column per panel, a group of rows per view; words are name, title and caption."""
    groups = {}
    for views in VIEWS:
        label = wording.condition_label(views)
        groups[label[:1].upper() + label[1:]] = [
            partial(panel.of, evidence, views=views) for panel in panels
        ]
    return _by_condition(evidence, words, [panel.title for panel in panels], groups)


def _few_shot(evidence: TrainingEvidence) -> Table:
    groups: dict[str, list[_Column]] = {}
    counts: list[str] = []
    for model, views in itertools.product(few_shot.MODELS, VIEWS):
        curves = few_shot.curves(evidence, model, views)
        told = {name: dict(curve) for name, curve in curves.items()}
        counts = counts or list(next(iter(told.values()), {}))
        groups[f"{model} model, {wording.condition_label(views)}"] = [
            partial(_at, told, count) for count in counts
        ]
    caption = (
        "Share of test episodes that are named right from so many labelled episodes of each class,"
        " by the nearest class mean."
    )
    words = ("few-shot", "From few labelled episodes", caption)
    return _by_condition(evidence, words, [f"{count} per class" for count in counts], groups)


def _at(told: Mapping[str, Mapping[str, Score]], count: str, name: str) -> Score | None:
    return told.get(name, {}).get(count)


def _looks(evidence: TrainingEvidence) -> Table:
    asked = looks.looks(evidence)
    groups = {
        panel.title: [partial(panel.of, evidence, views=look) for look in asked]
        for panel in looks.PANELS
    }
    caption = (
        "Share of test episodes that are named right under looks of the scene that nothing was"
        " trained or fitted under."
    )
    words = ("looks", "Under another look of the scene", caption)
    return _by_condition(evidence, words, [wording.condition_label(look) for look in asked], groups)


_Column = Callable[[str], Score | None]
"""The number of a condition."""


def _by_condition(
    evidence: TrainingEvidence, words: tuple[str, str, str], titles: Sequence[str],
    groups: Mapping[str, Sequence[_Column]],
) -> Table:  # fmt: skip
    """A row per condition that has any number, in groups of the same columns."""
    notes, scores, made = Notes(), [], []
    for heading, columns in groups.items():
        rows = []
        for name in evidence.conditions:
            found = [column(name) for column in columns]
            scores += [s for s in found if s is not None]
            if any(found):
                rows.append([Cell(evidence.title(name)), *(_measured(notes, s, 2) for s in found)])
        if rows:
            made.append(Group(heading, rows))
    name, title, caption = words
    caption += f" In brackets: {wording.intervals(scores) or 'no intervals'}."
    return Table(name, title, caption, ["Condition", *titles], made, notes.reasons, scores)


def _by_role(evidence: TrainingEvidence) -> Iterator[tuple[str, list[str]]]:
    for role, heading in _ROLES.items():
        names = [c.name for c in evidence.conditions.values() if c.role == role]
        if names:
            yield heading, names


def _measured(notes: Notes, score: Score | None, digits: int = 3) -> Cell:
    if score is None or score.value is None:
        return notes.value(score)
    return Cell(wording.measured(score, digits))

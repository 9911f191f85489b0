"""How many labelled episodes either model needs under every condition of training."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mirror_analysis.reporting import style, wording
from mirror_analysis.reporting.figures.drawing import Absent, Drawing
from mirror_analysis.reporting.style import Mark
from mirror_analysis.reporting.training_effects.evidence import TrainingEvidence
from mirror_analysis.reporting.training_effects.marks import condition_marks
from mirror_analysis.reporting.training_effects.rows import VIEWS
from mirror_analysis.results import Score

MODELS = ("observation", "execution")
_NAME = "few-shot"
_TITLE = "From few labelled episodes"

Curve = list[tuple[str, Score]]
"""Shots in words and accuracy, from few to many."""


def curves(evidence: TrainingEvidence, model: str, views: str) -> dict[str, Curve]:
    """Condition -> its curve, for those that have one."""
    shots = evidence.generalisation.get("shots")
    found: dict[str, Curve] = {}
    for condition in evidence.conditions:
        points = [
            (str(count), evidence.one(condition, measure, views, model=model, shots=count))
            for count in (shots if isinstance(shots, list) else ())
            for measure in ("few_shot_accuracy", "few_shot_balanced_accuracy")
        ]
        known = [(count, s) for count, s in points if s is not None and s.value is not None]
        if known:
            found[condition] = known
    return found


def draw(evidence: TrainingEvidence) -> Drawing | Absent:
    """Models down, views across; a line per condition, bands for the two that are compared."""
    panels = {
        (model, views): found
        for model in MODELS
        for views in VIEWS
        if (found := curves(evidence, model, views))
    }
    if not panels:
        return Absent(_NAME, _TITLE, "the result has no accuracy from few labelled episodes")
    marks = condition_marks(evidence)
    figure = Figure(figsize=(style.DOUBLE, 4.4), layout="constrained")
    grid = figure.subplots(len(MODELS), len(VIEWS), squeeze=False, sharex=True, sharey=True)
    for row, model in zip(grid, MODELS, strict=True):
        for axes, views in zip(row, VIEWS, strict=True):
            _panel(axes, evidence, panels.get((model, views), {}), marks)
            style.panel_title(axes, f"{model} model, {wording.condition_label(views)}")
        row[0].set_ylabel("% of test episodes named right", fontsize=7)
    for axes in grid[-1]:
        axes.set_xlabel("labelled episodes per class", fontsize=7)
    every = [s for found in panels.values() for curve in found.values() for _, s in curve]
    lowest = min(s.interval.low if s.interval else s.value or 0.0 for s in every)
    grid[0, 0].set_ylim(max(0.0, 100 * lowest - 5), 101)
    shown = [c for c in evidence.conditions if any(c in found for found in panels.values())]
    figure.legend(
        handles=[
            Line2D([], [], color=marks[c].color, linestyle=marks[c].line, marker=marks[c].marker,
                   markersize=4, linewidth=1.2, label=evidence.title(c))
            for c in shown
        ],
        loc="outside lower center", ncols=3,
    )  # fmt: skip
    return Drawing(_NAME, _TITLE, figure, _caption(evidence, panels), _alt(evidence, panels))


def _panel(
    axes: Axes, evidence: TrainingEvidence, found: dict[str, Curve], marks: dict[str, Mark]
) -> None:
    told = (evidence.baseline, evidence.headline)
    for condition, curve in found.items():
        mark, values = marks[condition], [100 * s.value for _, s in curve if s.value is not None]
        front = condition in told
        axes.plot(range(len(values)), values, color=mark.color, linestyle=mark.line,
                  marker=mark.marker, markersize=4 if front else 3, zorder=3 if front else 2,
                  linewidth=1.4 if front else 0.8)  # fmt: skip
        ends = [s.interval for _, s in curve if s.interval is not None]
        if front and len(ends) == len(values):
            axes.fill_between(
                range(len(values)), [100 * e.low for e in ends], [100 * e.high for e in ends],
                color=mark.color, alpha=0.15, linewidth=0, zorder=1,
            )  # fmt: skip
    longest = max(found.values(), key=len, default=[])
    axes.set_xticks(range(len(longest)), [count for count, _ in longest])
    style.bare(axes)


def _caption(evidence: TrainingEvidence, panels: dict[tuple[str, str], dict[str, Curve]]) -> str:
    scores = [s for found in panels.values() for curve in found.values() for _, s in curve]
    meaning = wording.intervals(scores)
    target = wording.plain(evidence.generalisation.get("target", "label"))
    chance = [s.null.mean for s in scores if s.null is not None]
    return (
        f"The {target} of test episodes, told from so many labelled episodes of each class by the"
        " nearest class mean of the declared layer; means over many draws."
        + (f" Chance: {100 * sum(chance) / len(chance):.1f} %." if chance else "")
        + (f" Bands of the baseline and the declared condition: {meaning}." if meaning else "")
        + f" {wording.units(scores)} per seed."
    )


def _alt(evidence: TrainingEvidence, panels: dict[tuple[str, str], dict[str, Curve]]) -> str:
    words = []
    for (model, views), found in panels.items():
        words.append(f"{model} model, {wording.condition_label(views)}:")
        for condition, curve in found.items():
            told = ", ".join(f"{count} {wording.spoken(s)}" for count, s in curve)
            words.append(f"{evidence.title(condition)} {told};")
    return " ".join(words)

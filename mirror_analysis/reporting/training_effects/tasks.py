"""Recognition and success task by task: trained apart and aligned."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mirror_analysis.reporting import style, wording
from mirror_analysis.reporting.figures.drawing import Absent, Drawing, dot
from mirror_analysis.reporting.training_effects.evidence import (
    RECOGNITION,
    SUCCESS,
    TrainingEvidence,
)
from mirror_analysis.reporting.training_effects.points import in_points
from mirror_analysis.results import Score

_NAME = "tasks"
_TITLE = "Task by task"
_ROW = 0.22  # inches

_Pair = tuple[Score, Score]


def draw(evidence: TrainingEvidence) -> Drawing | Absent:
    """A panel per outcome, a row per task; a line joins the baseline and the declared condition."""
    panels = {m: found for m in (RECOGNITION, SUCCESS) if (found := _pairs(evidence, m))}
    if not panels:
        return Absent(_NAME, _TITLE, "the result has no numbers of single tasks")
    last = panels[list(panels)[-1]]
    known = [task for task in evidence.tasks if any(task in found for found in panels.values())]
    tasks = sorted(known, key=lambda task: _value(last, task))
    figure = Figure(figsize=(style.DOUBLE, 1.0 + _ROW * len(tasks)), layout="constrained")
    grid = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for axes, (measure, found) in zip(grid, panels.items(), strict=True):
        _panel(axes, tasks, found)
        style.panel_title(axes, wording.measure_label(measure))
        axes.set_xlabel("% of episodes", fontsize=7)
    grid[0].set_yticks(range(len(tasks)), tasks)
    grid[0].set_ylim(-0.6, len(tasks) - 0.4)
    base, own = style.ROLES["reference"], style.ROLES["pair"]
    figure.legend(
        handles=[
            Line2D([], [], color=base.color, marker=base.marker, markersize=4, linewidth=0,
                   markerfacecolor="white", label=evidence.title(evidence.baseline)),
            Line2D([], [], color=own.color, marker=own.marker, markersize=4, linewidth=0,
                   label=evidence.title(evidence.headline)),
        ],
        loc="outside lower center", ncols=2,
    )  # fmt: skip
    return Drawing(_NAME, _TITLE, figure, _caption(panels), _alt(evidence, panels, tasks))


def _pairs(evidence: TrainingEvidence, measure: str) -> dict[str, _Pair]:
    found = {}
    for task in evidence.tasks:
        base = evidence.one(evidence.baseline, measure, task=task)
        own = evidence.one(evidence.headline, measure, task=task)
        if base is not None and own is not None:
            found[task] = base, own
    return found


def _value(found: dict[str, _Pair], task: str) -> float:
    base = found[task][0].value if task in found else None
    return -1.0 if base is None else base


def _panel(axes: Axes, tasks: list[str], found: dict[str, _Pair]) -> None:
    for at, task in enumerate(tasks):
        if task not in found:
            continue
        base, own = (in_points(score) for score in found[task])
        ends = [s.value for s in (base, own) if s.value is not None]
        if len(ends) == 2:
            axes.plot(ends, [at - 0.14, at + 0.14], color="#B0B0B0", linewidth=1.0, zorder=1)
        dot(axes, at - 0.14, base, style.ROLES["reference"], filled=False, upright=False)
        dot(axes, at + 0.14, own, style.ROLES["pair"], upright=False)
        if at % 2 == 0:
            axes.axhspan(at - 0.5, at + 0.5, color="#F6F6F6", linewidth=0, zorder=-1)
    axes.set_xlim(-3, 103)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    style.bare(axes)


def _caption(panels: dict[str, dict[str, _Pair]]) -> str:
    scores = [s for found in panels.values() for pair in found.values() for s in pair]
    meaning = wording.intervals(scores)
    return (
        "Means over training seeds on plain videos, tasks in the order of the last panel's"
        " baseline. Single tasks are few episodes: they show where differences are, not that they"
        " are."
        + (f" Bars: {meaning}." if meaning else "")
        + f" {wording.units(scores)} per task and seed."
    )


def _alt(evidence: TrainingEvidence, panels: dict[str, dict[str, _Pair]], tasks: list[str]) -> str:
    words = []
    for measure, found in panels.items():
        words.append(
            f"{wording.measure_label(measure)} per task, {evidence.title(evidence.baseline)} then"
            f" {evidence.title(evidence.headline)}:"
        )
        words += [
            f"{task} {wording.spoken(found[task][0])}, {wording.spoken(found[task][1])};"
            for task in tasks
            if task in found
        ]
    return " ".join(words)

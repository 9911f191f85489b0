"""Dots with intervals: a panel per number, a row per condition of training, both views."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mirror_analysis.reporting import style, wording
from mirror_analysis.reporting.figures.drawing import Drawing, dot
from mirror_analysis.reporting.training_effects.evidence import Condition, TrainingEvidence
from mirror_analysis.results import Parameter, Role, Score

VIEWS = ("plain", "nuisance")
WORDS: dict[Role, str] = {"reference": "trained apart", "pair": "aligned", "control": "control"}
"""Role -> word of the legend."""

_ROW = 0.26  # inches


@dataclass(frozen=True)
class Panel:
    """What a panel, or a column of a table, shows.

    Attributes:
        title: in words.
        measure: name.
        within: label inside whose groups it was taken.
        details: further parameters that tell it apart.
    """

    title: str
    measure: str
    within: str = ""
    details: tuple[tuple[str, Parameter], ...] = ()

    def of(self, evidence: TrainingEvidence, condition: str, views: str) -> Score | None:
        """The number of a condition."""
        return evidence.one(condition, self.measure, views, self.within, **dict(self.details))


@dataclass(frozen=True)
class Frame:
    """What is said around the panels.

    Attributes:
        name: stem of the file.
        title: of the figure.
        caption: first sentences; what bars and numbers mean is added.
        axis: unit of the panels, where titles do not say it.
    """

    name: str
    title: str
    caption: str
    axis: str = ""


Scores = dict[tuple[str, str], Score]
"""(condition, views) -> number."""


def known(
    evidence: TrainingEvidence, panels: Sequence[Panel], views: Sequence[str] = VIEWS
) -> dict[Panel, Scores]:
    """Panel -> (condition, views) -> number, of those panels that have any."""
    found = {panel: _scores(evidence, panel, views) for panel in panels}
    return {panel: scores for panel, scores in found.items() if scores}


def draw_rows(
    evidence: TrainingEvidence, panels: dict[Panel, Scores], frame: Frame, *, across: int = 4
) -> Drawing:
    """The figure.

    Args:
        evidence: result.
        panels: what `known` found, not empty.
        frame: words.
        across: panels side by side at most.
    """
    shown = list(evidence.conditions.values())
    across = min(across, len(panels))
    down = -(-len(panels) // across)
    height = 0.75 + down * (0.45 + _ROW * len(shown))
    figure = Figure(figsize=(style.DOUBLE, height), layout="constrained")
    grid = figure.subplots(down, across, squeeze=False, sharey=True)
    for axes, (panel, found) in zip(grid.flat, panels.items(), strict=False):
        _draw_panel(axes, evidence, shown, found)
        style.panel_title(axes, panel.title, width=64 // across)
        axes.set_xlabel(frame.axis, fontsize=7)
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    for axes in grid[:, 0]:
        axes.set_yticks(range(len(shown)), [c.title for c in shown])
        axes.set_ylim(len(shown) - 0.5, -0.5)
    _legend(figure, shown, panels)
    return Drawing(frame.name, frame.title, figure, _caption(panels, frame), _alt(evidence, panels))


def _scores(evidence: TrainingEvidence, panel: Panel, views: Sequence[str]) -> Scores:
    found = {
        (condition, view): panel.of(evidence, condition, view)
        for condition in evidence.conditions
        for view in views
    }
    return {key: s for key, s in found.items() if s is not None and s.value is not None}


def _draw_panel(
    axes: Axes, evidence: TrainingEvidence, shown: list[Condition], found: Scores
) -> None:
    values = [s.value for s in found.values() if s.value is not None]
    for at, condition in enumerate(shown):
        if at % 2 == 0:
            axes.axhspan(at - 0.5, at + 0.5, color="#F6F6F6", linewidth=0, zorder=-1)
        for views in VIEWS:
            score = found.get((condition.name, views))
            if score is None:
                continue
            shift = -0.16 if views == "plain" else 0.16
            if score.null is not None:
                axes.plot(score.null.mean, at + shift, marker="|", color=style.GREY, markersize=4,
                          zorder=1)  # fmt: skip
            dot(axes, at + shift, score, style.ROLES[condition.role], filled=views == "plain",
                upright=False)  # fmt: skip
    for views in VIEWS:
        base = found.get((evidence.baseline, views))
        if base is not None and base.value is not None:
            axes.axvline(base.value, color=style.GREY, linewidth=0.7, zorder=0,
                         linestyle="-" if views == "plain" else ":")  # fmt: skip
    ends = [e for s in found.values() if s.interval for e in (s.interval.low, s.interval.high)]
    nulls = [s.null.mean for s in found.values() if s.null is not None]
    low, high = min([0.0, *nulls, *values, *ends]), max([0.3, *nulls, *values, *ends])
    axes.set_xlim(low - 0.06 * (high - low), high + 0.06 * (high - low))
    axes.locator_params(axis="x", nbins=4)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    style.bare(axes)


def _legend(figure: Figure, shown: list[Condition], panels: dict[Panel, Scores]) -> None:
    handles = [
        Line2D([], [], color=style.ROLES[role].color, marker=style.ROLES[role].marker,
               markersize=4, linewidth=1.0, label=WORDS.get(role, role))
        for role in dict.fromkeys(c.role for c in shown)
    ]  # fmt: skip
    there = {views for found in panels.values() for _, views in found}
    handles += [
        Line2D([], [], color=style.BLACK, marker="o", markersize=4, linewidth=0,
               markerfacecolor=style.BLACK if views == "plain" else "white",
               label=wording.condition_label(views))
        for views in VIEWS if views in there
    ]  # fmt: skip
    if any(s.null is not None for found in panels.values() for s in found.values()):
        handles.append(
            Line2D([], [], color=style.GREY, marker="|", markersize=5, linewidth=0,
                   label="mean of the null")
        )  # fmt: skip
    figure.legend(handles=handles, loc="outside lower center", ncols=6, columnspacing=1.4)


def _caption(panels: dict[Panel, Scores], frame: Frame) -> str:
    scores = [s for found in panels.values() for s in found.values()]
    meaning = wording.intervals(scores)
    text = f"{frame.caption} Lines: trained apart, plain videos (solid) and with nuisance (dotted)."
    return text + (f" Bars: {meaning}." if meaning else "") + f" {wording.units(scores)} per seed."


def _alt(evidence: TrainingEvidence, panels: dict[Panel, Scores]) -> str:
    words = []
    for panel, found in panels.items():
        words.append(f"{panel.title}:")
        words += [
            f"{evidence.title(c)}, {wording.condition_label(v)} {wording.spoken(s)};"
            for (c, v), s in found.items()
        ]
    return " ".join(words)

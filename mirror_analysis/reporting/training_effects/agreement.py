"""How far the two models agree under every condition of training."""

from __future__ import annotations

from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mirror_analysis.reporting import style, wording
from mirror_analysis.reporting.figures.drawing import Absent, Drawing, dot
from mirror_analysis.reporting.training_effects.evidence import (
    FITTED,
    TRAINED,
    Condition,
    TrainingEvidence,
)
from mirror_analysis.results import Parameter, Role, Score

_NAME = "agreement"
_TITLE = "Agreement before and after"
_ROW = 0.26  # inches
_VIEWS = ("plain", "nuisance")
_WORDS: dict[Role, str] = {"reference": "trained apart", "pair": "aligned", "control": "control"}


@dataclass(frozen=True)
class Panel:
    """What a panel shows."""

    title: str
    measure: str
    within: str
    maps: str

    def of(self, evidence: TrainingEvidence, condition: str, views: str) -> Score | None:
        """The number of a condition."""
        details: dict[str, Parameter] = {"maps": self.maps} if self.maps else {}
        return evidence.one(condition, self.measure, views, self.within, **details)


PANELS = (
    Panel("Recall@1, maps fitted anew", "recall_at_1", "", FITTED),
    Panel("Recall@1, maps of training", "recall_at_1", "", TRAINED),
    Panel("Linear CKA", "linear_cka", "", ""),
    Panel("Linear CKA within task", "linear_cka", "task", ""),
)

_Scores = dict[tuple[str, str], Score]


def draw(evidence: TrainingEvidence) -> Drawing | Absent:
    """Dots with intervals: a panel per measure, a row per condition, both views."""
    panels = {p: found for p in PANELS if (found := _scores(evidence, p))}
    if not panels:
        return Absent(_NAME, _TITLE, "the result has no measure of agreement")
    shown = list(evidence.conditions.values())
    figure = Figure(figsize=(style.DOUBLE, 1.1 + _ROW * len(shown)), layout="constrained")
    grid = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for axes, (panel, found) in zip(grid, panels.items(), strict=True):
        _draw_panel(axes, evidence, shown, found)
        style.panel_title(axes, panel.title, width=16)
    grid[0].set_yticks(range(len(shown)), [c.title for c in shown])
    grid[0].set_ylim(len(shown) - 0.5, -0.5)
    _legend(figure, shown, panels)
    return Drawing(_NAME, _TITLE, figure, _caption(evidence, panels), _alt(evidence, panels))


def _scores(evidence: TrainingEvidence, panel: Panel) -> _Scores:
    found = {
        (condition, views): panel.of(evidence, condition, views)
        for condition in evidence.conditions
        for views in _VIEWS
    }
    return {key: s for key, s in found.items() if s is not None and s.value is not None}


def _draw_panel(
    axes: Axes, evidence: TrainingEvidence, shown: list[Condition], found: _Scores
) -> None:
    values = [s.value for s in found.values() if s.value is not None]
    for at, condition in enumerate(shown):
        if at % 2 == 0:
            axes.axhspan(at - 0.5, at + 0.5, color="#F6F6F6", linewidth=0, zorder=-1)
        for views in _VIEWS:
            score = found.get((condition.name, views))
            if score is None:
                continue
            shift = -0.16 if views == "plain" else 0.16
            if score.null is not None:
                axes.plot(score.null.mean, at + shift, marker="|", color=style.GREY, markersize=4,
                          zorder=1)  # fmt: skip
            dot(axes, at + shift, score, style.ROLES[condition.role], filled=views == "plain",
                upright=False)  # fmt: skip
    for views in _VIEWS:
        base = found.get((evidence.baseline, views))
        if base is not None and base.value is not None:
            axes.axvline(base.value, color=style.GREY, linewidth=0.7, zorder=0,
                         linestyle="-" if views == "plain" else ":")  # fmt: skip
    low, high = min([0.0, *values]), max([0.3, *values])
    axes.set_xlim(low - 0.06 * (high - low), high + 0.1 * (high - low))
    axes.locator_params(axis="x", nbins=4)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    style.bare(axes)


def _legend(figure: Figure, shown: list[Condition], panels: dict[Panel, _Scores]) -> None:
    handles = [
        Line2D([], [], color=style.ROLES[role].color, marker=style.ROLES[role].marker,
               markersize=4, linewidth=1.0, label=_WORDS.get(role, role))
        for role in dict.fromkeys(c.role for c in shown)
    ]  # fmt: skip
    handles += [
        Line2D([], [], color=style.BLACK, marker="o", markersize=4, linewidth=0,
               markerfacecolor=style.BLACK if views == "plain" else "white",
               label=wording.condition_label(views))
        for views in _VIEWS
    ]  # fmt: skip
    if any(s.null is not None for found in panels.values() for s in found.values()):
        handles.append(
            Line2D([], [], color=style.GREY, marker="|", markersize=5, linewidth=0,
                   label="mean of the null")
        )  # fmt: skip
    figure.legend(handles=handles, loc="outside lower center", ncols=6, columnspacing=1.4)


def _caption(evidence: TrainingEvidence, panels: dict[Panel, _Scores]) -> str:
    scores = [s for found in panels.values() for s in found.values()]
    meaning = wording.intervals(scores)
    text = (
        f"{evidence.x} and {evidence.y} on episodes neither was trained on, before (trained apart)"
        " and after alignment. Lines: trained apart, plain videos (solid) and with nuisance"
        " (dotted)."
    )
    if any(panel.maps == TRAINED for panel in panels):
        text += " Maps of training exist where the two models were aligned to each other."
    return text + (f" Bars: {meaning}." if meaning else "") + f" {wording.units(scores)} per seed."


def _alt(evidence: TrainingEvidence, panels: dict[Panel, _Scores]) -> str:
    words = []
    for panel, found in panels.items():
        words.append(f"{panel.title}:")
        words += [
            f"{evidence.title(c)}, {wording.condition_label(v)} {wording.spoken(s)};"
            for (c, v), s in found.items()
        ]
    return " ".join(words)

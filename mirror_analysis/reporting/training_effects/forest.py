"""What each condition of training adds to training apart, beside what was published."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mirror_analysis.reporting import style, wording
from mirror_analysis.reporting.figures.drawing import Absent, Drawing, dot
from mirror_analysis.reporting.training_effects.evidence import (
    RECOGNITION,
    SUCCESS,
    Condition,
    TrainingEvidence,
)
from mirror_analysis.reporting.training_effects.points import POINTS, in_points, spoken_points
from mirror_analysis.results import Role, Score

_NAME = "gains"
_TITLE = "What alignment adds to training apart"
_ROW = 0.3  # inches
_HEADINGS: dict[Role, str] = {"pair": "Aligned to the partner", "control": "Controls"}
_WORDS: dict[Role, str] = {"pair": "aligned", "control": "control"}
_VIEWS = ("plain", "nuisance")

_Row = tuple[Condition, dict[str, Score], float | None]


def draw(evidence: TrainingEvidence) -> Drawing | Absent:
    """Differences with intervals: a panel per outcome, a row per condition, zero for no gain."""
    panels = {m: rows for m in (RECOGNITION, SUCCESS) if (rows := _rows(evidence, m))}
    if not panels:
        return Absent(_NAME, _TITLE, "the result has no differences to a baseline")
    shown = [c for c in evidence.conditions.values()
             if any(c == row[0] for rows in panels.values() for row in rows)]  # fmt: skip
    places, headings = _places(shown)
    figure = Figure(
        figsize=(style.DOUBLE, 1.15 + _ROW * (max(places.values()) + 1)), layout="constrained"
    )
    grid = figure.subplots(1, len(panels), squeeze=False, sharex=True, sharey=True)[0]
    for axes, (measure, rows) in zip(grid, panels.items(), strict=True):
        _panel(axes, rows, places)
        style.panel_title(axes, wording.measure_label(measure))
        axes.set_xlabel(f"difference to “{evidence.title(evidence.baseline)}” ({POINTS})",
                        fontsize=7)  # fmt: skip
    _label_rows(grid[0], shown, places, headings, evidence.headline)
    _legend(figure, shown, panels)
    return Drawing(_NAME, _TITLE, figure, _caption(evidence, panels), _alt(evidence, panels))


def _rows(evidence: TrainingEvidence, measure: str) -> list[_Row]:
    rows: list[_Row] = []
    for condition in evidence.conditions.values():
        found = {views: evidence.gain(condition.name, measure, views) for views in _VIEWS}
        known = {views: s for views, s in found.items() if s is not None and s.value is not None}
        if known:
            rows.append((condition, known, evidence.published_gain(condition.name, measure)))
    return rows


def _places(shown: list[Condition]) -> tuple[dict[str, float], dict[float, str]]:
    """Where each condition and each heading of a role stands."""
    rows: dict[str, float] = {}
    headings: dict[float, str] = {}
    at, before = 0.0, None
    for condition in shown:
        if condition.role != before:
            headings[at] = _HEADINGS.get(condition.role, "Others")
            at += 1.0
        rows[condition.name], before = at, condition.role
        at += 1.0
    return rows, headings


def _panel(axes: Axes, rows: list[_Row], places: dict[str, float]) -> None:
    for condition, found, published in rows:
        at, mark = places[condition.name], style.ROLES[condition.role]
        axes.axhspan(at - 0.45, at + 0.45, color="#F6F6F6", linewidth=0, zorder=-1)
        for views, score in found.items():
            shift = 0.0 if len(found) == 1 else -0.17 if views == "plain" else 0.17
            dot(axes, at + shift, in_points(score), mark, filled=views == "plain", upright=False)
        if published is not None:
            axes.plot(100 * published, at, marker="*", color=style.BLACK, markersize=7,
                      markerfacecolor="white", markeredgewidth=0.8, zorder=4)  # fmt: skip
    axes.axvline(0, color=style.BLACK, linewidth=0.8, zorder=0)
    axes.margins(x=0.08)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    style.bare(axes)


def _label_rows(
    axes: Axes, shown: list[Condition], places: dict[str, float], headings: dict[float, str],
    headline: str,
) -> None:  # fmt: skip
    words = {places[c.name]: c.title + (" (declared)" if c.name == headline else "") for c in shown}
    order = sorted({**words, **headings})
    axes.set_yticks(order, [headings.get(at) or words[at] for at in order])
    axes.set_ylim(max(order) + 0.6, -0.6)
    for at, label in zip(order, axes.get_yticklabels(), strict=True):
        if at in headings:
            label.set_fontweight("bold")


def _legend(figure: Figure, shown: list[Condition], panels: dict[str, list[_Row]]) -> None:
    handles = [
        Line2D([], [], color=style.ROLES[role].color, marker=style.ROLES[role].marker,
               markersize=4, linewidth=1.0, label=_WORDS.get(role, role))
        for role in dict.fromkeys(c.role for c in shown)
    ]  # fmt: skip
    if any("nuisance" in found for rows in panels.values() for _, found, _ in rows):
        handles += [
            Line2D([], [], color=style.BLACK, marker="o", markersize=4, linewidth=0,
                   markerfacecolor=style.BLACK if views == "plain" else "white",
                   label=wording.condition_label(views))
            for views in _VIEWS
        ]  # fmt: skip
    if any(published is not None for rows in panels.values() for *_, published in rows):
        handles.append(
            Line2D([], [], color=style.BLACK, marker="*", markersize=7, linewidth=0,
                   markerfacecolor="white", label="published, other models and tasks")
        )  # fmt: skip
    figure.legend(handles=handles, loc="outside lower center", ncols=5, columnspacing=1.4)


def _caption(evidence: TrainingEvidence, panels: dict[str, list[_Row]]) -> str:
    scores = [s for rows in panels.values() for _, found, _ in rows for s in found.values()]
    text = (
        "Each condition less training apart, over the same training seeds"
        f" ({len(evidence.seeds)}) and the same test episodes or situations. Controls put pressure"
        " on the representations without what the partner knows, so alignment has to exceed them."
    )
    meaning = wording.intervals(scores)
    text += f" Bars: {meaning}." if meaning else ""
    if evidence.published:
        text += f" Stars: published differences ({evidence.source}), for comparison only."
    return f"{text} {wording.units(scores)} per seed."


def _alt(evidence: TrainingEvidence, panels: dict[str, list[_Row]]) -> str:
    words = []
    for measure, rows in panels.items():
        words.append(f"{wording.measure_label(measure)}, difference to training apart:")
        for condition, found, published in rows:
            told = [f"{wording.condition_label(v)} {spoken_points(s)}" for v, s in found.items()]
            if published is not None:
                told.append(f"published {100 * published:+.1f}")
            words.append(f"{condition.title} {', '.join(told)};")
    return " ".join(words)

"""The trained pair against every control, in every measure."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mirror_analysis.reporting import style, wording
from mirror_analysis.reporting.evidence import TRAINED, Evidence
from mirror_analysis.reporting.figures.drawing import Absent, Drawing, dot
from mirror_analysis.results import Role, Score

_NAME = "controls"
_TITLE = "The trained pair against its controls"
_ROLE_WORDS: dict[Role, str] = {
    "pair": "trained pair",
    "control": "matched control",
    "reference": "reference",
}
_HEADINGS: dict[Role, str] = {"control": "Matched controls", "reference": "References"}
_ROW = 0.18  # inches
_DASHES = (0, (5, 2))

_Scores = dict[tuple[str, str], Score]


def draw(evidence: Evidence) -> Drawing | Absent:
    """Dots with intervals: a panel per measure, a row per comparison, every condition."""
    panels = {
        (m, w): found
        for m in evidence.shown
        for w in evidence.withins
        if len(found := _scores(evidence, m, w)) > 1 and any(k != TRAINED for k, _ in found)
    }
    if not panels:
        return Absent(_NAME, _TITLE, "the result has no controls at the declared layers")
    measures = list(dict.fromkeys(m for m, _ in panels))
    withins = [w for w in evidence.withins if any(within == w for _, within in panels)]
    measured = {condition for panel in panels.values() for _, condition in panel}
    conditions = [c for c in evidence.conditions if c in measured]
    rows, headings = _places(evidence.comparisons)
    last = max(rows.values())
    height = 0.95 + len(withins) * (0.45 + _ROW * (last + 1))
    figure = Figure(figsize=(style.DOUBLE, height), layout="constrained")
    grid = figure.subplots(len(withins), len(measures), squeeze=False, sharey=True)
    for j, name in enumerate(measures):
        column = [(i, w) for i, w in enumerate(withins) if (name, w) in panels]
        limits = _limits(name, [panels[name, w] for _, w in column])
        for i, within in enumerate(withins):
            axes = grid[i, j]
            if (name, within) not in panels:
                axes.set_axis_off()
                continue
            best = evidence.best_control(name, conditions[0], within)
            if best is not None and best[1].value is not None:
                axes.axvline(best[1].value, color=style.BLUE, linewidth=0.8, linestyle=":",
                             zorder=0)  # fmt: skip
            _panel(axes, evidence, panels[name, within], rows, conditions, limits)
            if i == column[0][0]:
                style.panel_title(axes, wording.measure_label(name), width=12)
            if i == column[-1][0]:
                axes.set_xlabel("nats" if wording.in_nats(name) else "value", fontsize=7)
    for i, within in enumerate(withins):
        grid[i, 0].set_ylabel(wording.within_label(within), fontsize=8, fontweight="bold")
    _label_rows(grid[0, 0], rows, headings)
    figure.supylabel(f"{evidence.x} {wording.DASH} {evidence.y}", fontsize=8)
    _legend(figure, list(evidence.comparisons.values()), conditions, panels)
    return Drawing(
        _NAME, _TITLE, figure, _caption(evidence, panels, conditions), _alt(evidence, panels)
    )


def _scores(evidence: Evidence, measure: str, within: str) -> _Scores:
    found = {
        (key, condition): evidence.one(key, measure, condition, within)
        for key in evidence.comparisons
        for condition in evidence.conditions
    }
    return {key: score for key, score in found.items() if score is not None}


def _places(comparisons: Mapping[str, Role]) -> tuple[dict[str, float], dict[float, str]]:
    """Where each comparison and each heading of a role stands, the pair first."""
    rows: dict[str, float] = {}
    headings: dict[float, str] = {}
    at, before = 0.0, None
    for key, role in comparisons.items():
        if role != before and role in _HEADINGS:
            headings[at + 0.1] = _HEADINGS[role]
            at += 1.0
        rows[key], before = at, role
        at += 1.0
    return rows, headings


def _limits(name: str, panels: list[_Scores]) -> tuple[float, float]:
    """Ends of the axis: 0 to 1 for shares and similarities, so that panels can be compared."""
    scores = [s for panel in panels for s in panel.values() if s.value is not None]
    values = [s.value for s in scores if s.value is not None]
    if wording.in_nats(name):
        # The null of a bound lies far below and would squeeze what is to be read.
        values += [s.interval.low for s in scores if s.interval is not None]
        values += [s.ceiling for s in scores if s.ceiling is not None]
        low, high = min([0.0, *values]), max([0.0, *values]) if values else 1.0
    else:
        values += [s.null.mean for s in scores if s.null is not None]
        low, high = min([0.0, *values]), max([1.0, *values])
    return low - 0.08 * (high - low), high + 0.08 * (high - low)


def _panel(
    axes: Axes, evidence: Evidence, scores: _Scores, rows: dict[str, float],
    conditions: list[str], limits: tuple[float, float],
) -> None:  # fmt: skip
    spread = 0.18 if len(conditions) > 1 else 0.0
    for count, (key, row) in enumerate(rows.items()):
        mark = style.ROLES[evidence.comparisons[key]]
        if count % 2 == 0:
            axes.axhspan(row - 0.5, row + 0.5, color="#F4F4F4", linewidth=0, zorder=-1)
        for place, condition in enumerate(conditions):
            score = scores.get((key, condition))
            if score is None:
                continue
            at = row + spread * (2 * place / max(1, len(conditions) - 1) - 1)
            if score.value is None:
                if place == 0:
                    axes.annotate("n.d.", (0.03, row), xycoords=("axes fraction", "data"),
                                  va="center", fontsize=style.SMALLEST, color=style.GREY,
                                  bbox={"color": "white", "pad": 0.5})  # fmt: skip
                continue
            if score.null is not None:
                axes.plot(score.null.mean, at, marker="|", color=style.GREY, markersize=4,
                          markeredgewidth=0.9, zorder=1)  # fmt: skip
            dot(axes, at, score, mark, filled=place == 0, upright=False)
    for ceiling in {s.ceiling for s in scores.values() if s.ceiling is not None}:
        axes.axvline(ceiling, color=style.BLACK, linewidth=0.8, linestyle=_DASHES, zorder=0)
    axes.set_xlim(*limits)
    axes.locator_params(axis="x", nbins=3)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    style.bare(axes)


def _label_rows(axes: Axes, rows: dict[str, float], headings: dict[float, str]) -> None:
    places = {**{at: wording.comparison_label(key) for key, at in rows.items()}, **headings}
    order = sorted(places)
    axes.set_yticks(order, [places[at] for at in order])
    axes.set_ylim(max(rows.values()) + 0.6, -0.6)
    for labels in (
        a.get_yticklabels() for a in axes.figure.axes if a.get_subplotspec() is not None
    ):
        for at, label in zip(order, labels, strict=False):
            if at in headings:
                label.set_fontweight("bold")


def _legend(
    figure: Figure, roles: list[Role], conditions: list[str],
    panels: dict[tuple[str, str], _Scores],
) -> None:  # fmt: skip
    handles = [
        Line2D([], [], color=style.ROLES[r].color, marker=style.ROLES[r].marker, markersize=4,
               linewidth=1.0, label=_ROLE_WORDS[r])
        for r in dict.fromkeys(roles)
    ]  # fmt: skip
    if len(conditions) > 1:
        handles += [
            Line2D([], [], color=style.BLACK, marker="o", markersize=4, linewidth=0,
                   markerfacecolor=style.BLACK if place == 0 else "white",
                   label=wording.condition_label(condition))
            for place, condition in enumerate(conditions)
        ]  # fmt: skip
    scores = [s for panel in panels.values() for s in panel.values()]
    if any(s.null is not None for s in scores):
        handles.append(
            Line2D([], [], color=style.GREY, marker="|", markersize=5, linewidth=0,
                   label="mean of the null")
        )  # fmt: skip
    if "control" in roles:
        handles.append(
            Line2D([], [], color=style.BLUE, linestyle=":", linewidth=0.8,
                   label="best matched control")
        )  # fmt: skip
    if any(s.ceiling is not None for s in scores):
        handles.append(
            Line2D([], [], color=style.BLACK, linestyle=_DASHES, linewidth=0.8,
                   label="largest possible value")
        )  # fmt: skip
    figure.legend(handles=handles, loc="outside lower center", ncols=4, columnspacing=1.6,
                  handletextpad=0.6)  # fmt: skip


def _caption(
    evidence: Evidence, panels: dict[tuple[str, str], _Scores], conditions: list[str]
) -> str:
    scores = [s for panel in panels.values() for s in panel.values()]
    meaning = wording.intervals(scores)
    text = f"Rows name the side of {evidence.x} first and that of {evidence.y} second. "
    if evidence.layers.x and evidence.layers.y:
        text += (
            f"Layers {wording.plain(evidence.layers.x)} and {wording.plain(evidence.layers.y)}. "
        )
    text += (
        "Matched controls see what the declared layers see and have not learned both sides of it;"
        " references are told something those layers would have to find out, or are the trained"
        " pair with its fit pairs mixed. "
    )
    if len(conditions) > 1:
        text += (
            f"Filled: {wording.condition_label(conditions[0])};"
            f" open: {wording.listing(wording.condition_label(c) for c in conditions[1:])}. "
        )
    text += f"Bars: {meaning}. " if meaning else "No intervals in the result. "
    text += f"Dotted line: best matched control, {wording.condition_label(conditions[0])}."
    text += f" Bars and nulls beyond the frame are cut. {wording.units(scores)}."
    if any(len(panel) < len(evidence.comparisons) * len(conditions) for panel in panels.values()):
        text += " Empty rows: not measured."
    if any(s.value is None for s in scores):
        text += " n.d.: not defined; the tables give the reasons."
    if len(evidence.measures) > len(evidence.shown):
        text += " The other measures are in the tables."
    return text


def _alt(evidence: Evidence, panels: dict[tuple[str, str], _Scores]) -> str:
    words = ["Dot plot."]
    for (name, within), scores in panels.items():
        for condition in dict.fromkeys(c for _, c in scores):
            best = evidence.best_control(name, condition, within)
            words.append(
                f"{wording.measure_label(name)} {wording.within_label(within)},"
                f" {wording.condition_label(condition)}: trained pair"
                f" {wording.spoken(scores.get((TRAINED, condition)))}"
            )
            words[-1] += (
                f", best matched control {wording.comparison_label(best[0])}"
                f" {wording.spoken(best[1])}."
                if best
                else ", no matched control."
            )
    return " ".join(words)

"""The trained pair against every control, in every measure."""

from __future__ import annotations

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
    "reference": "reference (sees more than the layer)",
}
_ROW = 0.19  # inches


def draw(evidence: Evidence) -> Drawing | Absent:
    """Dots with intervals: a panel per measure, a row per comparison, both conditions."""
    keys = list(evidence.comparisons)
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
    conditions = list(
        dict.fromkeys(
            c for c in evidence.conditions for p in panels.values() for _, k in p if k == c
        )
    )
    height = 1.0 + len(withins) * (0.55 + _ROW * len(keys))
    figure = Figure(figsize=(style.DOUBLE, height), layout="constrained")
    grid = figure.subplots(len(withins), len(measures), squeeze=False, sharey=True)
    for i, within in enumerate(withins):
        for j, name in enumerate(measures):
            axes = grid[i, j]
            if (name, within) in panels:
                _panel(axes, evidence, panels[name, within], keys, conditions)
            else:
                axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center",
                          fontsize=style.SMALLEST, color=style.GREY)  # fmt: skip
                axes.set_xticks([])
            best = evidence.best_control(name, conditions[0], within)
            if best is not None:
                axes.axvline(
                    best[1].value or 0.0, color=style.BLUE, linewidth=0.8, linestyle=":", zorder=0
                )
            style.bare(axes)
            if i == 0:
                style.panel_title(axes, wording.measure_label(name), width=12)
            if i == len(withins) - 1:
                axes.set_xlabel(
                    "nats" if "nats" in wording.measure_axis(name) else "value", fontsize=7
                )
        grid[i, 0].set_ylabel(wording.within_label(within), fontsize=8, fontweight="bold")
    grid[0, 0].set_yticks(range(len(keys)), [wording.comparison_label(k) for k in keys])
    grid[0, 0].set_ylim(len(keys) - 0.4, -0.6)
    figure.supylabel(f"{evidence.x} {wording.DASH} {evidence.y}", fontsize=8)
    _legend(figure, [evidence.comparisons[k] for k in keys], conditions)
    return Drawing(
        _NAME, _TITLE, figure, _caption(evidence, panels, conditions), _alt(evidence, panels)
    )


def _scores(evidence: Evidence, measure: str, within: str) -> dict[tuple[str, str], Score]:
    found = {
        (key, condition): evidence.one(key, measure, condition, within)
        for key in evidence.comparisons
        for condition in evidence.conditions
    }
    return {key: score for key, score in found.items() if score is not None}


def _panel(
    axes: Axes, evidence: Evidence, scores: dict[tuple[str, str], Score],
    keys: list[str], conditions: list[str],
) -> None:  # fmt: skip
    spread = 0.17 if len(conditions) > 1 else 0.0
    for row, key in enumerate(keys):
        mark = style.ROLES[evidence.comparisons[key]]
        if row % 2:
            axes.axhspan(row - 0.5, row + 0.5, color="#F5F5F5", linewidth=0, zorder=-1)
        for place, condition in enumerate(conditions):
            score = scores.get((key, condition))
            if score is None:
                continue
            at = row + spread * (2 * place / max(1, len(conditions) - 1) - 1)
            if score.value is None:
                axes.annotate("n.d.", (0.02, at), xycoords=("axes fraction", "data"), va="center",
                              fontsize=style.SMALLEST, color=style.GREY)  # fmt: skip
                continue
            if score.null is not None:
                axes.plot(score.null.mean, at, marker="|", color=style.GREY, markersize=4,
                          markeredgewidth=0.9, zorder=1)  # fmt: skip
            dot(axes, at, score, mark, filled=place == 0, upright=False)
    for ceiling in {s.ceiling for s in scores.values() if s.ceiling is not None}:
        axes.axvline(ceiling, color=style.BLACK, linewidth=0.8, linestyle=(0, (5, 2)), zorder=0)
    axes.tick_params(axis="y", length=0)
    axes.locator_params(axis="x", nbins=4)
    axes.margins(x=0.08)


def _legend(figure: Figure, roles: list[Role], conditions: list[str]) -> None:
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
    handles += [
        Line2D([], [], color=style.GREY, marker="|", markersize=5, linewidth=0, label="null mean"),
        Line2D(
            [], [], color=style.BLUE, linestyle=":", linewidth=0.8, label="best matched control"
        ),
        Line2D([], [], color=style.BLACK, linestyle=(0, (5, 2)), linewidth=0.8, label="ceiling"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, columnspacing=1.6,
                  handletextpad=0.6)  # fmt: skip


def _caption(
    evidence: Evidence,
    panels: dict[tuple[str, str], dict[tuple[str, str], Score]],
    conditions: list[str],
) -> str:
    scores = [s for panel in panels.values() for s in panel.values()]
    meaning = wording.intervals(scores)
    text = f"Rows name {evidence.x} first and {evidence.y} second. "
    if evidence.layers.x and evidence.layers.y:
        text += (
            f"Layers {wording.plain(evidence.layers.x)} and {wording.plain(evidence.layers.y)}. "
        )
    text += "Matched controls see what the layer sees; references see more. "
    if len(conditions) > 1:
        text += (
            f"Filled: {wording.condition_label(conditions[0])};"
            f" open: {wording.listing(wording.condition_label(c) for c in conditions[1:])}. "
        )
    text += f"Bars: {meaning}. " if meaning else "No intervals in the result. "
    text += (
        f"Grey ticks: mean of the null. Dotted line: best matched control,"
        f" {wording.condition_label(conditions[0])}. Dashed line: largest possible value."
        f" {wording.units(scores)}."
    )
    if any(len(panel) < len(evidence.comparisons) * len(conditions) for panel in panels.values()):
        text += " Empty rows: not measured."
    if any(s.value is None for s in scores):
        reasons = {wording.plain(s.undefined) for s in scores if s.value is None}
        text += f" n.d.: not defined ({'; '.join(sorted(reasons))})."
    if len(evidence.measures) > len(evidence.shown):
        text += " The other measures are in the tables."
    return text


def _alt(evidence: Evidence, panels: dict[tuple[str, str], dict[tuple[str, str], Score]]) -> str:
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

"""Each training seed on its own: the trained pair beside its best control."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mirror_analysis.reporting import style, wording
from mirror_analysis.reporting.evidence import TRAINED, Evidence
from mirror_analysis.reporting.figures.drawing import Absent, Drawing, dot
from mirror_analysis.results import Score

_NAME = "seeds"
_TITLE = "Every training seed on its own"

_Row = tuple[int, Score, str, Score]


def draw(evidence: Evidence) -> Drawing | Absent:
    """A panel per measure; a line joins each seed's best control to its trained pair."""
    if len(evidence.seeds) == 1:
        return Absent(_NAME, _TITLE, "the result has one training seed")
    condition = next((c for c in evidence.conditions if _panels(evidence, c)), None)
    if condition is None:
        return Absent(
            _NAME, _TITLE, "the result has no scores of single training seeds with controls"
        )
    panels = _panels(evidence, condition)
    measures = list(dict.fromkeys(m for m, _ in panels))
    withins = list(dict.fromkeys(w for _, w in panels))
    width = min(style.DOUBLE, max(style.SINGLE, 0.7 + 1.2 * len(measures)))
    figure = Figure(figsize=(width, 0.75 + 1.55 * len(withins)), layout="constrained")
    grid = figure.subplots(len(withins), len(measures), squeeze=False)
    for i, within in enumerate(withins):
        for j, name in enumerate(measures):
            axes = grid[i, j]
            if (name, within) not in panels:
                axes.set_axis_off()
                continue
            _panel(axes, panels[name, within])
            if i == 0:
                style.panel_title(axes, wording.measure_axis(name), width=12)
        grid[i, 0].set_ylabel(wording.within_label(within), fontsize=7, fontweight="bold")
    figure.supxlabel("Training seed", fontsize=8)
    pair, control = style.ROLES["pair"], style.ROLES["control"]
    figure.legend(
        handles=[
            Line2D([], [], color=pair.color, marker=pair.marker, markersize=4, linewidth=0,
                   label=f"trained pair: {evidence.x} {wording.DASH} {evidence.y}"),
            Line2D([], [], color=control.color, marker=control.marker, markersize=4, linewidth=0,
                   markerfacecolor="white", label="best matched control"),
        ],
        loc="outside upper left", ncols=1 if width < 6 else 2,
    )  # fmt: skip
    return Drawing(
        _NAME, _TITLE, figure, _caption(evidence, panels, condition), _alt(panels, condition)
    )


def _panels(evidence: Evidence, condition: str) -> dict[tuple[str, str], list[_Row]]:
    found = {
        (m, w): _rows(evidence, m, condition, w) for m in evidence.shown for w in evidence.withins
    }
    return {key: rows for key, rows in found.items() if rows}


def _rows(evidence: Evidence, measure: str, condition: str, within: str) -> list[_Row]:
    rows = []
    for seed in evidence.seeds:
        trained = evidence.one(TRAINED, measure, condition, within, seed)
        best = evidence.best_control(measure, condition, within, seed)
        if trained is not None and trained.value is not None and best is not None:
            rows.append((seed, trained, *best))
    return rows


def _panel(axes: Axes, rows: list[_Row]) -> None:
    pair, control = style.ROLES["pair"], style.ROLES["control"]
    for at, (_, trained, _, best) in enumerate(rows):
        ends = [s.value for s in (best, trained) if s.value is not None]
        axes.plot([at - 0.12, at + 0.12], ends, color="#B0B0B0", linewidth=1.0, zorder=1)
        dot(axes, at - 0.12, best, control, filled=False)
        dot(axes, at + 0.12, trained, pair)
    axes.set_xticks(range(len(rows)), [str(seed) for seed, *_ in rows])
    axes.set_xlim(-0.6, len(rows) - 0.4)
    axes.axhline(0, color=style.GREY, linewidth=0.6, zorder=0)
    axes.margins(y=0.08)
    axes.locator_params(axis="y", nbins=5)
    style.bare(axes)


def _caption(evidence: Evidence, panels: dict[tuple[str, str], list[_Row]], condition: str) -> str:
    rows = [row for panel in panels.values() for row in panel]
    scores = [s for _, trained, _, best in rows for s in (trained, best)]
    meaning = wording.intervals(scores)
    return (
        f"{evidence.x} and {evidence.y}, {wording.condition_label(condition)}, at the declared"
        " layers. The best control is the matched control with the largest value for that seed and"
        " measure, or the one the study took the excess against; here:"
        f" {wording.listing(wording.comparison_label(key) for _, _, key, _ in rows)}."
        + (f" Bars: {meaning}." if meaning else "")
        + f" {wording.units(scores)} in each seed."
    )


def _alt(panels: dict[tuple[str, str], list[_Row]], condition: str) -> str:
    words = [f"Values by training seed, {wording.condition_label(condition)}."]
    for (name, within), rows in panels.items():
        words.append(f"{wording.measure_label(name)} {wording.within_label(within)}:")
        words += [
            f"seed {seed} trained pair {wording.spoken(trained)}, best control"
            f" {wording.comparison_label(key)} {wording.spoken(best)};"
            for seed, trained, key, best in rows
        ]
        words[-1] = words[-1].rstrip(";") + "."
    return " ".join(words)

"""How often the right episode is among the k nearest, for k up to the gallery."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mirror_analysis.reporting import style, wording
from mirror_analysis.reporting.evidence import TRAINED, Evidence
from mirror_analysis.reporting.figures.drawing import Absent, Drawing
from mirror_analysis.results import Score

_NAME = "recall"
_TITLE = "Retrieval of the same episode"
_TASK = ("task identity", "task identity-task identity")

_Curves = dict[str, list[tuple[int, float, Score]]]


def draw(evidence: Evidence) -> Drawing | Absent:
    """Recall@k curves of the trained pair and its controls, with chance and the task's ceiling."""
    panels = {
        (w, c): curves
        for w in evidence.withins
        for c in evidence.conditions
        if TRAINED in (curves := _curves(evidence, c, w))
    }
    if not panels:
        return Absent(
            _NAME, _TITLE, "the result has no Recall@k of the trained pair at two k or more"
        )
    withins = list(dict.fromkeys(w for w, _ in panels))
    conditions = list(dict.fromkeys(c for _, c in panels))
    figure = Figure(figsize=(style.DOUBLE, 0.6 + 2.35 * len(withins)), layout="constrained")
    grid = figure.subplots(len(withins), len(conditions), squeeze=False)
    keys = list(dict.fromkeys(k for curves in panels.values() for k in curves))
    marks = _marks(evidence, keys)
    for i, within in enumerate(withins):
        for j, condition in enumerate(conditions):
            axes = grid[i, j]
            if (within, condition) not in panels:
                axes.set_axis_off()
                continue
            _panel(axes, panels[within, condition], marks)
            style.panel_title(
                axes, f"{wording.condition_label(condition)}, {wording.within_label(within)}"
            )
            if j == 0:
                axes.set_ylabel("Recall@k")
            if i == len(withins) - 1:
                axes.set_xlabel("k (nearest episodes)")
    handles = {
        label: handle
        for axes in grid.flat
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    order = [wording.comparison_label(k) for k in keys] + ["chance, k / gallery"]
    figure.legend(
        [handles[name] for name in order if name in handles],
        [name for name in order if name in handles],
        loc="outside right upper", title=f"{evidence.x}\n{wording.DASH} {evidence.y}",
        title_fontsize=7, handlelength=3.2, alignment="left",
    )  # fmt: skip
    return Drawing(_NAME, _TITLE, figure, _caption(evidence, panels), _alt(panels))


def _curves(evidence: Evidence, condition: str, within: str) -> _Curves:
    """Curves of the pair, its matched controls and task identity; others are in the table."""
    found: _Curves = {}
    for key, role in evidence.comparisons.items():
        if role == "reference" and key not in _TASK:
            continue
        points = [(k, evidence.recall(key, k, condition, within)) for k in evidence.ks]
        known = [(k, s.value, s) for k, s in points if s is not None and s.value is not None]
        if len(known) > 1:
            found[key] = known
    return found


def _marks(evidence: Evidence, keys: Sequence[str]) -> dict[str, style.Mark]:
    controls = [k for k in keys if evidence.comparisons[k] == "control"]
    marks = {k: style.SERIES[i % len(style.SERIES)] for i, k in enumerate(controls)}
    for key in keys:
        if key not in marks:
            marks[key] = style.ROLES[evidence.comparisons[key]]
    return marks


def _panel(axes: Axes, curves: _Curves, marks: dict[str, style.Mark]) -> None:
    for key, points in curves.items():
        mark, front = marks[key], 4 if key == TRAINED else 3
        inside = mark.color if key == TRAINED else "white"
        ks = [k for k, *_ in points]
        axes.plot(
            ks, [value for _, value, _ in points], color=mark.color, linestyle=mark.line,
            marker=mark.marker, markersize=3.4, markerfacecolor=inside,
            markeredgewidth=0.8, linewidth=1.8 if key == TRAINED else 1.0, zorder=front,
            label=wording.comparison_label(key),
        )  # fmt: skip
        banded = [(k, s.interval) for k, _, s in points if s.interval is not None]
        axes.fill_between(
            [k for k, _ in banded], [i.low for _, i in banded], [i.high for _, i in banded],
            color=mark.color, alpha=0.15, linewidth=0, zorder=front - 2,
        )  # fmt: skip
    gallery = _gallery(curves)
    ks = sorted({k for points in curves.values() for k, *_ in points})
    if gallery:
        chance = [min(1.0, k / gallery) for k in ks]
        axes.plot(
            ks, chance, color=style.GREY, linewidth=0.8, label="chance, k / gallery", zorder=1
        )
    axes.set_xscale("log")
    axes.set_xticks(ks, [str(k) for k in ks])
    axes.minorticks_off()
    axes.set_ylim(-0.02, 1.02)
    axes.grid(axis="y")
    style.bare(axes)


def _gallery(curves: _Curves) -> int | None:
    found = {s.parameters.get("gallery") for points in curves.values() for *_, s in points}
    sizes = [g for g in found if isinstance(g, int)]
    return sizes[0] if len(sizes) == 1 else None


def _caption(evidence: Evidence, panels: dict[tuple[str, str], _Curves]) -> str:
    scores = [s for curves in panels.values() for points in curves.values() for *_, s in points]
    galleries = [
        f"{size} episodes {wording.within_label(within)}"
        for (within, _), curves in panels.items()
        if (size := _gallery(curves))
    ]
    meaning = wording.intervals(scores)
    text = (
        "Share of episodes whose own representation in the other model is among the k nearest,"
        f" from {evidence.x} to {evidence.y}; k on a logarithmic scale."
    )
    if galleries:
        text += f" Gallery: {wording.listing(galleries)}. Thin grey line: chance."
    if any(key in curves for curves in panels.values() for key in _TASK):
        text += " Task identity: what knowing the task and nothing else gives."
    text += f" Bands: {meaning}." if meaning else ""
    return f"{text} {wording.units(scores)}."


def _alt(panels: dict[tuple[str, str], _Curves]) -> str:
    words = ["Curves of Recall@k."]
    for (within, condition), curves in panels.items():
        words.append(
            f"{wording.condition_label(condition)}, {wording.within_label(within)}:".capitalize()
        )
        for key, points in curves.items():
            (k_first, _, first), (k_last, last, _) = points[0], points[-1]
            words.append(
                f"{wording.comparison_label(key)} {wording.spoken(first)} at k = {k_first}"
                f" and {wording.number(last, 2)} at k = {k_last};"
            )
        words[-1] = words[-1].rstrip(";") + "."
    return " ".join(words)

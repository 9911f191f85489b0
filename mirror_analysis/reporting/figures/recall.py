"""How often the right episode is among the k nearest, for k up to the gallery."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mirror_analysis.reporting import style, wording
from mirror_analysis.reporting.evidence import TRAINED, Evidence
from mirror_analysis.reporting.figures.drawing import Absent, Drawing
from mirror_analysis.results import Score

_NAME = "recall"
_TITLE = "Retrieval of the same episode"
# References that bound what a fit can find without looking at single episodes.
_REFERENCES = (
    "task identity", "task identity-task identity", "shuffled", "shuffled within task",
)  # fmt: skip
_MARKERS = ("s", "^", "v", "P", "X", "<", ">", "h", "p")
_GREYS = (
    style.Mark(style.GREY, "D", ":"),
    style.Mark(style.GREY, "x", "--"),
    style.Mark(style.GREY, "+", "-."),
)
_PALE = "#8CA6C0"
_CHANCE = "chance"

_Curves = dict[str, list[tuple[int, float, Score]]]


def draw(evidence: Evidence) -> Drawing | Absent:
    """Recall@k of the trained pair and its controls, with chance and what the task gives."""
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
    keys = list(dict.fromkeys(k for curves in panels.values() for k in curves))
    marks = _marks(evidence, keys)
    lines = -(-(len(marks) + 2) // 4)
    width = style.DOUBLE if len(conditions) > 1 else 4.8
    figure = Figure(
        figsize=(width, 0.65 + 0.17 * lines + 2.25 * len(withins)), layout="constrained"
    )
    grid = figure.subplots(len(withins), len(conditions), squeeze=False, sharey=True)
    bests = {key: _best(evidence, curves, *key) for key, curves in panels.items()}
    for i, within in enumerate(withins):
        for j, condition in enumerate(conditions):
            axes = grid[i, j]
            if (within, condition) not in panels:
                axes.set_axis_off()
                continue
            best = bests[within, condition]
            _panel(axes, panels[within, condition], marks, best)
            _headed(axes, f"{wording.condition_label(condition)}, {wording.within_label(within)}",
                    best)  # fmt: skip
            if i == len(withins) - 1:
                axes.set_xlabel("k (nearest episodes)")
        grid[i, 0].set_ylabel("Recall@k")
    figure.legend(
        handles=_handles(marks, any(bests.values())), loc="outside lower center",
        ncols=4 if len(conditions) > 1 else 2, handlelength=2.6, title_fontsize=7,
        title=f"{evidence.x} {wording.DASH} {evidence.y}",
    )  # fmt: skip
    return Drawing(_NAME, _TITLE, figure, _caption(evidence, panels), _alt(panels))


def _curves(evidence: Evidence, condition: str, within: str) -> _Curves:
    """Curves of the pair, its matched controls and the task; other references are in the table."""
    found: _Curves = {}
    for key, role in evidence.comparisons.items():
        if role == "reference" and key not in _REFERENCES:
            continue
        points = [(k, evidence.recall(key, k, condition, within)) for k in evidence.ks]
        known = [(k, s.value, s) for k, s in points if s is not None and s.value is not None]
        if len(known) > 1:
            found[key] = known
    return found


def _best(evidence: Evidence, curves: _Curves, within: str, condition: str) -> str:
    """The matched control that stands out: the one of Recall@1, "" without one."""
    best = evidence.best_control("recall_at_1", condition, within)
    if best is not None and best[0] in curves:
        return best[0]
    controls = [key for key in curves if evidence.comparisons[key] == "control"]
    return max(controls, key=lambda key: curves[key][0][1], default="")


def _marks(evidence: Evidence, keys: list[str]) -> dict[str, style.Mark]:
    """Markers tell the comparisons of one role apart, colours the roles."""
    controls = [k for k in keys if evidence.comparisons[k] == "control"]
    references = [k for k in keys if evidence.comparisons[k] == "reference"]
    marks = {TRAINED: style.ROLES["pair"]}
    for i, key in enumerate(controls):
        marks[key] = style.Mark(_PALE, _MARKERS[i % len(_MARKERS)], "-")
    for i, key in enumerate(references):
        marks[key] = _GREYS[i % len(_GREYS)]
    return marks


def _panel(axes: Axes, curves: _Curves, marks: dict[str, style.Mark], best: str) -> None:
    for key, points in curves.items():
        mark = marks[key]
        front, wide, color = 2, 0.9, mark.color
        if key in (TRAINED, best):
            front, wide = (5, 2.2) if key == TRAINED else (4, 1.8)
            color = mark.color if key == TRAINED else style.BLUE
            banded = [(k, s.interval) for k, _, s in points if s.interval is not None]
            axes.fill_between(
                [k for k, _ in banded], [i.low for _, i in banded], [i.high for _, i in banded],
                color=color, alpha=0.15, linewidth=0, zorder=1,
            )  # fmt: skip
        axes.plot(
            [k for k, *_ in points], [value for _, value, _ in points], color=color,
            linestyle=mark.line, linewidth=wide, marker=mark.marker, markersize=3.6,
            markerfacecolor=color if key == TRAINED else "white", markeredgewidth=0.8,
            zorder=front,
        )  # fmt: skip
    chance = [(k, s.null.mean) for k, _, s in curves[TRAINED] if s.null is not None]
    axes.plot([k for k, _ in chance], [c for _, c in chance], color=style.BLACK, linewidth=0.8,
              zorder=1)  # fmt: skip
    ks = sorted({k for points in curves.values() for k, *_ in points})
    axes.set_xscale("log")
    axes.set_xticks(ks, [str(k) for k in ks])
    axes.minorticks_off()
    axes.set_ylim(-0.02, 1.02)
    axes.grid(axis="y")
    style.bare(axes)


def _headed(axes: Axes, title: str, best: str) -> None:
    style.panel_title(axes, title)
    if best:
        axes.set_title(
            axes.get_title(loc="left"), loc="left", fontweight="bold", fontsize=8, pad=14
        )
        axes.annotate(
            f"best matched control: {wording.comparison_label(best)}", (0, 1),
            xytext=(0, 4), xycoords="axes fraction", textcoords="offset points",
            fontsize=style.SMALLEST, color=style.BLUE,
        )  # fmt: skip


def _handles(marks: dict[str, style.Mark], blue: bool) -> list[Line2D]:
    handles = [
        Line2D([], [], color=mark.color, linestyle=mark.line, marker=mark.marker, markersize=3.6,
               linewidth=2.2 if key == TRAINED else 0.9, markeredgewidth=0.8,
               markerfacecolor=mark.color if key == TRAINED else "white",
               label=wording.comparison_label(key))
        for key, mark in marks.items()
    ]  # fmt: skip
    if blue:
        handles.insert(
            1, Line2D([], [], color=style.BLUE, linewidth=1.8, label="best matched control")
        )
    return [*handles, Line2D([], [], color=style.BLACK, linewidth=0.8, label=_CHANCE)]


def _gallery(curves: _Curves) -> int | None:
    found = {s.parameters.get("gallery") for points in curves.values() for *_, s in points}
    sizes = [g for g in found if isinstance(g, int)]
    return sizes[0] if len(sizes) == 1 else None


def _caption(evidence: Evidence, panels: dict[tuple[str, str], _Curves]) -> str:
    scores = [s for curves in panels.values() for points in curves.values() for *_, s in points]
    sizes = {size for curves in panels.values() if (size := _gallery(curves))}
    meaning = wording.intervals(scores)
    text = (
        "Share of episodes whose own representation in the other model is among the k nearest,"
        f" from {evidence.x} to {evidence.y}; k on a logarithmic scale."
    )
    if sizes:
        text += (
            f" Gallery: {wording.listing(map(str, sorted(sizes)))} episodes, or all of the group"
            " where it has fewer."
        )
    text += (
        " In blue: the matched control with the largest Recall@1; the marker tells which."
        " Pale: the other matched controls. Thin black line: chance, the mean of the null."
    )
    if any(key in curves for curves in panels.values() for key in _REFERENCES[:2]):
        text += " Task identity: what knowing the task and nothing else gives."
    if any(key in curves for curves in panels.values() for key in _REFERENCES[2:]):
        text += " Shuffled: the trained pair, aligned on pairs that were mixed."
    if meaning:
        text += f" Bands, for the trained pair and the best control: {meaning}."
    return f"{text} {wording.units(scores)}. Intervals of all are in the table."


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

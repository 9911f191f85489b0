"""Whether agreement goes with success, and whether more so than in untrained models."""

from __future__ import annotations

import math

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mirror_analysis.reporting import style, wording
from mirror_analysis.reporting.evidence import CONTRAST, OUTCOMES, TRAINED, Evidence
from mirror_analysis.reporting.figures.drawing import Absent, Drawing, dot
from mirror_analysis.results import Score

_NAME = "outcome"
_TITLE = "Successful against failed episodes"
_ACROSS = 4  # panels side by side in which ticks can still be read
_UNTRAINED = "untrained-untrained"
_DOUBLE_DIFFERENCE = "difference of\ndifferences"
_MARKS = {TRAINED: style.ROLES["pair"], _UNTRAINED: style.ROLES["control"]}

_Panel = tuple[str, str, str]


def draw(evidence: Evidence) -> Drawing | Absent:
    """Both outcomes of the trained and the untrained pair, and their differences below."""
    view = evidence.views[0] if evidence.views else ""
    panels = [
        (m, w, view)
        for m in evidence.shown
        for w in evidence.withins
        if all(map(_known, evidence.outcomes(TRAINED, m, w, view)[:2]))
    ]
    if not panels:
        return Absent(_NAME, _TITLE, "the result has no scores by outcome of the trained pair")
    contrasts = {panel: found for panel in panels if (found := _contrasts(evidence, *panel))}
    deep = 2 if contrasts else 1
    blocks = math.ceil(len(panels) / _ACROSS)
    across = math.ceil(len(panels) / blocks)
    width = min(style.DOUBLE, max(style.SINGLE, 0.5 + 2.1 * across))
    height = 0.65 + blocks * (2.0 + 1.6 * (deep - 1))
    figure = Figure(figsize=(width, height), layout="constrained")
    grid = figure.subplots(deep * blocks, across, squeeze=False)
    for axes in grid[deep * (blocks - 1) :].flat:
        axes.set_axis_off()
    for place, panel in enumerate(panels):
        block, j = divmod(place, across)
        column = grid[deep * block : deep * (block + 1), j]
        for axes in column:
            axes.set_axis_on()
        _outcomes(column[0], evidence, panel)
        title = f"{wording.measure_axis(panel[0])},\n{wording.within_label(panel[1])}"
        column[0].set_title(title, loc="left", fontweight="bold", fontsize=8, pad=4)
        if deep == 2:
            _differences(column[1], contrasts.get(panel, {}))
        if j == 0:
            column[0].set_ylabel("value", fontsize=7)
            if deep == 2:
                column[1].set_ylabel("successes − failures", fontsize=7)
    handles = [
        Line2D([], [], color=mark.color, marker=mark.marker, linestyle=mark.line, markersize=4,
               linewidth=1.0, markerfacecolor=mark.color if key == TRAINED else "white",
               label=wording.comparison_label(key))
        for key, mark in _MARKS.items()
    ]  # fmt: skip
    figure.legend(
        handles=handles, loc="outside upper left", ncols=2, alignment="left", title_fontsize=7,
        title=f"{evidence.x} {wording.DASH} {evidence.y}", handlelength=3,
    )  # fmt: skip
    return Drawing(
        _NAME,
        _TITLE,
        figure,
        _caption(evidence, panels, contrasts),
        _alt(evidence, panels, contrasts),
    )


def _known(score: Score | None) -> bool:
    return score is not None and score.value is not None


def _contrasts(evidence: Evidence, measure: str, within: str, view: str) -> dict[str, Score]:
    """Success less failure of each pair, then the difference of the two, by label."""
    found: dict[str, Score] = {}
    for key in _MARKS:
        gap = evidence.outcomes(key, measure, within, view)[2]
        if gap is not None:
            found[key.split("-")[0]] = gap
    double = evidence.difference(TRAINED, _UNTRAINED, measure, f"{CONTRAST}{view}", within)
    if double is not None:
        found[_DOUBLE_DIFFERENCE] = double
    return found


def _outcomes(axes: Axes, evidence: Evidence, panel: _Panel) -> None:
    for shift, (key, mark) in zip((-0.06, 0.06), _MARKS.items(), strict=True):
        scores = evidence.outcomes(key, *panel)[:2]
        points = [
            (i + shift, s.value, s)
            for i, s in enumerate(scores)
            if s is not None and s.value is not None
        ]
        axes.plot(
            [at for at, _, _ in points],
            [value for _, value, _ in points],
            color=mark.color,
            linestyle=mark.line,
            linewidth=1.0,
        )
        for at, _, s in points:
            dot(axes, at, s, mark, filled=key == TRAINED)
    axes.set_xticks(range(2), OUTCOMES)
    axes.set_xlim(-0.4, 1.4)
    axes.margins(y=0.12)
    axes.locator_params(axis="y", nbins=5)
    style.bare(axes)


def _differences(axes: Axes, contrasts: dict[str, Score]) -> None:
    axes.axhline(0, color=style.GREY, linewidth=0.7)
    marks = [*_MARKS.values(), style.Mark(style.BLACK, "D", "-")]
    order = [*(key.split("-")[0] for key in _MARKS), _DOUBLE_DIFFERENCE]
    for at, (label, mark) in enumerate(zip(order, marks, strict=True)):
        score = contrasts.get(label)
        if score is not None:
            dot(axes, at, score, mark, filled=mark.marker != "s")
    names = [*order[:-1], "trained −\nuntrained"]
    axes.set_xticks(range(len(order)), names)
    axes.set_xlim(-0.5, len(order) - 0.5)
    axes.margins(y=0.12)
    axes.locator_params(axis="y", nbins=5)
    style.bare(axes)


def _caption(
    evidence: Evidence, panels: list[_Panel], contrasts: dict[_Panel, dict[str, Score]]
) -> str:
    pairs = {key: [evidence.outcomes(key, *panel) for panel in panels] for key in _MARKS}
    scores = [s for found in pairs.values() for three in found for s in three if s is not None]
    scores += [s for found in contrasts.values() for s in found.values()]
    meaning = wording.intervals(scores)
    successes, failures = (
        wording.units(s for s in part if s is not None)
        for part in list(zip(*pairs[TRAINED], strict=True))[:2]
    )
    text = (
        f"Agreement of {evidence.x} and {evidence.y} on episodes that succeeded and that failed,"
        " for the trained pair and for its untrained twins."
    )
    if contrasts:
        text += (
            " Below each: successes less failures for each pair, and the difference of these"
            " differences, which alone speaks of what was learned."
        )
    if meaning:
        text += f" Bars: {meaning}."
    return f"{text} Successes: {successes}; failures: {failures}."


def _alt(
    evidence: Evidence, panels: list[_Panel], contrasts: dict[_Panel, dict[str, Score]]
) -> str:
    words = ["Success against failure."]
    for panel in panels:
        name, within, _ = panel
        words.append(f"{wording.measure_label(name)} {wording.within_label(within)}:")
        for key in _MARKS:
            success, failure, _ = evidence.outcomes(key, *panel)
            words.append(
                f"{wording.comparison_label(key)} {wording.spoken(success)} in successes and"
                f" {wording.spoken(failure)} in failures;"
            )
        double = contrasts.get(panel, {}).get(_DOUBLE_DIFFERENCE)
        words.append(f"difference of differences {wording.spoken(double)}.")
    return " ".join(words)

"""What counts as a positive pair, and the temperature: the gain of every combination that ran."""

from __future__ import annotations

import matplotlib
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from mirror_analysis.reporting import style, wording
from mirror_analysis.reporting.figures.drawing import Absent, Drawing
from mirror_analysis.reporting.training_effects.evidence import (
    RECOGNITION,
    SUCCESS,
    TrainingEvidence,
)
from mirror_analysis.reporting.training_effects.points import POINTS, in_points, spoken_points
from mirror_analysis.results import Score

_NAME = "pairings"
_TITLE = "By pairing and temperature"
_ORDER = ("episode", "instruction", "task")
_DIVERGING = "PuOr_r"

_Cells = dict[tuple[str, float], tuple[str, Score]]


def draw(evidence: TrainingEvidence) -> Drawing | Absent:
    """A panel per outcome: pairings down, temperatures across, the gain in every cell."""
    panels = {m: cells for m in (RECOGNITION, SUCCESS) if (cells := _cells(evidence, m))}
    found = {place for cells in panels.values() for place in cells}
    pairings = sorted({p for p, _ in found}, key=lambda p: _ORDER.index(p) if p in _ORDER else 9)
    temperatures = sorted({t for _, t in found})
    if len(found) < 2:
        return Absent(_NAME, _TITLE, "the result has one way of aligning")
    height = 0.95 + 0.62 * len(pairings)
    width = min(style.DOUBLE, 1.2 + len(panels) * (0.4 + 0.95 * len(temperatures)))
    figure = Figure(figsize=(width, height), layout="constrained")
    grid = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    largest = max(
        (abs(100 * s.value) for cells in panels.values() for _, s in cells.values()
         if s.value is not None), default=1.0,
    )  # fmt: skip
    for axes, (measure, cells) in zip(grid, panels.items(), strict=True):
        _panel(axes, evidence, measure, cells, (pairings, temperatures), max(largest, 1.0))
        style.panel_title(axes, wording.measure_label(measure))
    grid[0].set_ylabel("positive pairs: same …", fontsize=8)
    return Drawing(_NAME, _TITLE, figure, _caption(evidence, panels), _alt(evidence, panels))


def _cells(evidence: TrainingEvidence, measure: str) -> _Cells:
    cells: _Cells = {}
    for condition in evidence.conditions.values():
        gain = evidence.gain(condition.name, measure)
        if condition.role == "pair" and gain is not None and condition.temperature is not None:
            cells.setdefault((condition.pairing, condition.temperature), (condition.name, gain))
    return cells


def _panel(
    axes: Axes, evidence: TrainingEvidence, measure: str, cells: _Cells,
    axis: tuple[list[str], list[float]], largest: float,
) -> None:  # fmt: skip
    pairings, temperatures = axis
    shades, colours = matplotlib.colormaps[_DIVERGING], Normalize(-largest, largest)
    for (pairing, temperature), (name, score) in cells.items():
        x, y = temperatures.index(temperature), pairings.index(pairing)
        told = in_points(score)
        # Half the range, so that black letters are read on every shade.
        at = 0.5 if told.value is None else float(colours(told.value))
        shade = shades(0.5 + 0.6 * (at - 0.5))
        declared = name == evidence.headline
        axes.add_patch(
            Rectangle((x - 0.48, y - 0.47), 0.96, 0.94, facecolor=shade,
                      edgecolor=style.VERMILION if declared else "white",
                      linewidth=1.6 if declared else 0.8, zorder=3 if declared else 2)
        )  # fmt: skip
        lines = [wording.signed(told.value, 1) if told.value is not None else "n.d."]
        if told.interval is not None:
            low, high = (wording.signed(e, 1) for e in (told.interval.low, told.interval.high))
            lines.append(f"[{low}, {high}]")
        published = evidence.published_gain(name, measure)
        if published is not None:
            lines.append(f"published {wording.signed(100 * published, 1)}")
        axes.text(x, y, "\n".join(lines), ha="center", va="center", fontsize=style.SMALLEST,
                  linespacing=1.25, zorder=4)  # fmt: skip
    axes.set_xlim(-0.5, len(temperatures) - 0.5)
    axes.set_ylim(len(pairings) - 0.5, -0.5)
    axes.set_xticks(range(len(temperatures)), [f"{t:g}" for t in temperatures])
    axes.set_yticks(range(len(pairings)), pairings)
    axes.set_xlabel("temperature", fontsize=7)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _caption(evidence: TrainingEvidence, panels: dict[str, _Cells]) -> str:
    scores = [score for cells in panels.values() for _, score in cells.values()]
    text = (
        f"Difference to training apart in {POINTS}, plain videos; orange is a gain, purple a loss."
        f" Framed: the condition that was declared beforehand"
        f" ({evidence.title(evidence.headline)}). Empty: not trained."
    )
    if evidence.published:
        text += f" Published: {evidence.source}; other models and tasks."
    meaning = wording.intervals(scores)
    return text + (f" In brackets: {meaning}." if meaning else "") + f" {wording.units(scores)}."


def _alt(evidence: TrainingEvidence, panels: dict[str, _Cells]) -> str:
    words = []
    for measure, cells in panels.items():
        words.append(f"{wording.measure_label(measure)}, difference to training apart:")
        for (pairing, temperature), (name, score) in cells.items():
            published = evidence.published_gain(name, measure)
            told = "" if published is None else f", published {100 * published:+.1f}"
            words.append(f"same {pairing}, {temperature:g}: {spoken_points(score)}{told};")
    return " ".join(words)

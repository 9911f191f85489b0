"""Every layer of one model against every layer of the other, one heatmap per measure."""

from __future__ import annotations

import math

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Rectangle

from mirror_analysis.reporting import style, wording
from mirror_analysis.reporting.evidence import Evidence
from mirror_analysis.reporting.figures.drawing import Absent, Drawing
from mirror_analysis.results import Score

_NAME = "layers"
_TITLE = "Agreement of every layer pair"
_CELL = (0.27, 0.26)  # inches, room for a value and its marks at 7 points
_PRINTED = 10  # layers up to which values fit into the cells
_LABEL = 16  # characters of a layer name that fit beside an axis


def draw(evidence: Evidence) -> Drawing | Absent:
    """Heatmaps of the trained pair over all layers, under the condition of the headline."""
    condition = next((c for c in evidence.conditions if _panels(evidence, c)), None)
    if condition is None:
        return Absent(_NAME, _TITLE, "the result has no scores of the trained pair by layer")
    panels = _panels(evidence, condition)
    measures = list(dict.fromkeys(m for m, _ in panels))
    withins = [w for w in evidence.withins if any(within == w for _, within in panels)]
    first = next(iter(panels.values()))
    rows, columns = len({s.x_layer for s in first}), len({s.y_layer for s in first})
    width, height = _extent(columns, _CELL[0]), _extent(rows, _CELL[1])
    across = max(1, min(len(measures), int((style.DOUBLE - 0.9) / (width + 0.12))))
    blocks = math.ceil(len(measures) / across)
    down = blocks * len(withins)
    size = (
        max(style.SINGLE, min(style.DOUBLE, 1.1 + across * (width + 0.12))),
        0.3 + blocks * 0.75 + down * (height + 0.32),
    )
    figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.04))
    grid = figure.subplots(down, across, squeeze=False)
    spans = {
        m: _span([s for (name, _), p in panels.items() if name == m for s in p]) for m in measures
    }
    for i, axes in np.ndenumerate(grid):
        at = (i[0] // len(withins)) * across + i[1]
        within = withins[i[0] % len(withins)]
        if at >= len(measures) or (measures[at], within) not in panels:
            axes.set_axis_off()
            continue
        cells = panels[measures[at], within]
        mesh = _heatmap(axes, cells, evidence, spans[measures[at]])
        suffix = f", {wording.within_label(within)}" if within else ""
        style.panel_title(axes, wording.measure_axis(measures[at]) + suffix)
        axes.tick_params(labelleft=i[1] == 0, labelbottom=i[0] % len(withins) == len(withins) - 1)
        if max(rows, columns) > _PRINTED:
            figure.colorbar(mesh, ax=axes, fraction=0.05, pad=0.02)
    figure.supylabel(f"Layer of {evidence.x}", fontsize=8)
    figure.supxlabel(f"Layer of {evidence.y}", fontsize=8)
    return Drawing(
        _NAME,
        _TITLE,
        figure,
        _caption(evidence, panels, condition),
        _alt(evidence, panels, condition),
    )


def _panels(evidence: Evidence, condition: str) -> dict[tuple[str, str], list[Score]]:
    """The cells of every panel that has at least two."""
    found = {
        (m, w): evidence.grid(m, condition, w) for m in evidence.shown for w in evidence.withins
    }
    return {key: cells for key, cells in found.items() if len(cells) > 1}


def _extent(count: int, cell: float) -> float:
    return min(3.0, max(0.9, count * (cell if count <= _PRINTED else 0.14)))


def _span(cells: list[Score]) -> Normalize:
    values = [s.value for s in cells if s.value is not None] or [0.0, 1.0]
    return Normalize(min(0.0, *values), max(*values, 1e-9))


def _heatmap(axes: Axes, cells: list[Score], evidence: Evidence, span: Normalize) -> QuadMesh:
    x_layers = list(dict.fromkeys(s.x_layer for s in cells))
    y_layers = list(dict.fromkeys(s.y_layer for s in cells))
    table = np.full((len(x_layers), len(y_layers)), np.nan)
    for s in cells:
        if s.value is not None:
            table[x_layers.index(s.x_layer), y_layers.index(s.y_layer)] = s.value
    mesh = axes.pcolormesh(
        table, cmap=style.SEQUENTIAL, norm=span, edgecolors="white", linewidth=0.5
    )
    axes.invert_yaxis()
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    for labels, set_ticks, slant in (
        (x_layers, axes.set_yticks, 0),
        (y_layers, axes.set_xticks, 90),
    ):
        step = math.ceil(len(labels) / 20)
        at = range(0, len(labels), step)
        set_ticks([i + 0.5 for i in at], [_short(labels[i]) for i in at], rotation=slant)
    printed = max(table.shape) <= _PRINTED
    colors = matplotlib.colormaps[style.SEQUENTIAL]
    for s in cells:
        row, column = x_layers.index(s.x_layer), y_layers.index(s.y_layer)
        mark = wording.stars(corrected(evidence, s))
        value = _brief(s.value)
        text = f"{value}\n{mark}" if printed and mark else value if printed else mark and "·"
        shade = (
            0.0 if s.value is None else float(np.dot(colors(span(s.value))[:3], (0.3, 0.59, 0.11)))
        )
        color = "white" if s.value is not None and shade < 0.5 else "black"
        axes.text(
            column + 0.5, row + 0.54, text, ha="center", va="center", color=color,
            fontsize=style.SMALLEST, linespacing=0.85,
        )  # fmt: skip
        if (s.x_layer, s.y_layer) == (evidence.layers.x, evidence.layers.y):
            for edge, width in (("white", 3.2), (style.VERMILION, 1.6)):
                axes.add_patch(
                    Rectangle((column, row), 1, 1, fill=False, edgecolor=edge, linewidth=width,
                              clip_on=False, zorder=3)
                )  # fmt: skip
    return mesh


def corrected(evidence: Evidence, cell: Score) -> float | None:
    """The p-value corrected over the grid; without one of the mean, the largest over seeds."""
    if cell.p_max is not None:
        return cell.p_max
    single = [s.p_max for s in evidence.over_seeds(cell)]
    known = [p for p in single if p is not None]
    return max(known) if known and len(known) == len(single) else None


def _brief(value: float | None) -> str:
    """Two digits without the leading zero, to fit a cell."""
    text = wording.number(value, 2)
    return text.replace("0.", ".", 1) if value is not None and abs(value) < 0.995 else text


def _short(layer: str) -> str:
    """A layer name that fits beside an axis: its middle is what one can spare."""
    name = wording.plain(layer)
    if len(name) <= _LABEL:
        return name
    return f"{name[: _LABEL // 2 - 1]}…{name[-_LABEL // 2 :]}"


def _caption(evidence: Evidence, panels: dict[tuple[str, str], list[Score]], condition: str) -> str:
    cells = [s for panel in panels.values() for s in panel]
    marked = any(corrected(evidence, s) is not None for s in cells)
    text = (
        f"{evidence.x} (rows, first layer at the top) against {evidence.y} (columns), both trained,"
        f" {wording.condition_label(condition)}; {wording.units(cells)}."
    )
    if any(within for _, within in panels):
        text += " Panels marked “within” are taken inside groups that share that label."
    if marked:
        text += (
            " Marks: p corrected for the maximum over all cells of the panel,"
            " * below .05, ** below .01, *** below .001"
        )
        mean = all(s.p_max is not None for s in cells)
        text += (
            "." if mean else "; where the mean over training seeds has none, the largest of them."
        )
    if all(s.seed is None for s in cells) and evidence.seeds:
        text += f" Values are means over {len(evidence.seeds)} training seeds."
    elif cells[0].seed is not None:
        text += f" Values are of training seed {cells[0].seed}."
    if evidence.layers.x and evidence.layers.y:
        text += (
            f" Outlined: the layer pair declared for the headline, "
            f"{wording.plain(evidence.layers.x)} and {wording.plain(evidence.layers.y)}."
        )
    return text + " Colour scales differ between measures."


def _alt(evidence: Evidence, panels: dict[tuple[str, str], list[Score]], condition: str) -> str:
    words = [f"Heatmaps, {wording.condition_label(condition)}."]
    for (name, within), cells in panels.items():
        known = [s for s in cells if s.value is not None]
        where = f"{wording.measure_label(name)} {wording.within_label(within)}"
        if not known:
            words.append(f"{where}: not defined in any cell.")
            continue
        top = max(known, key=lambda s: s.value or 0.0)
        words.append(
            f"{where}: largest {wording.number(top.value, 2)} at {wording.plain(top.x_layer)} and"
            f" {wording.plain(top.y_layer)}"
        )
        declared = [
            s for s in known if (s.x_layer, s.y_layer) == (evidence.layers.x, evidence.layers.y)
        ]
        p = corrected(evidence, declared[0]) if declared else None
        words[-1] += (
            f", declared pair {wording.spoken(declared[0])}, corrected p {wording.probability(p)}."
            if declared
            else "."
        )
    return " ".join(words)

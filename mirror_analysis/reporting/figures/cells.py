"""One measure of every layer pair as coloured cells."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import Normalize
from matplotlib.patches import Rectangle

from mirror_analysis.reporting import style, wording
from mirror_analysis.results import Score

PRINTED = 10
"""Layers up to which values fit into the cells."""

_LABEL = 16  # characters of a layer name that fit beside an axis


def span(cells: Sequence[Score]) -> Normalize:
    """Colours from 0, or the least value below it, to the largest."""
    values = [s.value for s in cells if s.value is not None] or [0.0, 1.0]
    return Normalize(min(0.0, *values), max(*values, 1e-9))


def heatmap(
    axes: Axes,
    cells: Sequence[Score],
    colours: Normalize,
    *,
    printed: bool,
    p: Callable[[Score], float | None],
    outlined: tuple[str, str] | None = None,
) -> QuadMesh:
    """Draws one measure of all layer pairs, x layers down and y layers across.

    Args:
        axes: to draw into.
        cells: one score per layer pair.
        colours: from values to colours.
        printed: whether values fit into the cells; else only a dot where p is small.
        p: corrected p of a cell, for the marks; None for no mark.
        outlined: layers of x and y of the cell to frame.
    """
    x_layers = list(dict.fromkeys(s.x_layer for s in cells))
    y_layers = list(dict.fromkeys(s.y_layer for s in cells))
    table = np.full((len(x_layers), len(y_layers)), np.nan)
    for s in cells:
        if s.value is not None:
            table[x_layers.index(s.x_layer), y_layers.index(s.y_layer)] = s.value
    mesh = axes.pcolormesh(
        table, cmap=style.SEQUENTIAL, norm=colours, edgecolors="white", linewidth=0.5
    )
    axes.invert_yaxis()
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    for labels, axis in ((x_layers, axes.yaxis), (y_layers, axes.xaxis)):
        at = range(0, len(labels), math.ceil(len(labels) / 20))
        axis.set_ticks([i + 0.5 for i in at], [_short(labels[i]) for i in at])
    for label in axes.get_xticklabels():
        label.set(rotation=45, ha="right", rotation_mode="anchor")
    digits = 1 if wording.in_nats(cells[0].measure) else 2
    shades = matplotlib.colormaps[style.SEQUENTIAL]
    for s in cells:
        row, column = x_layers.index(s.x_layer), y_layers.index(s.y_layer)
        mark = wording.stars(p(s))
        text = f"{_brief(s.value, digits)}{mark}" if printed else mark and "·"
        shade = (
            0.0
            if s.value is None
            else float(np.dot(shades(colours(s.value))[:3], (0.3, 0.59, 0.11)))
        )
        color = "white" if s.value is not None and shade < 0.5 else "black"
        axes.text(
            column + 0.5, row + 0.54, text, ha="center", va="center", color=color,
            fontsize=style.SMALLEST,
        )  # fmt: skip
        if (s.x_layer, s.y_layer) == outlined:
            for edge, width in (("white", 3.2), (style.VERMILION, 1.6)):
                axes.add_patch(
                    Rectangle((column, row), 1, 1, fill=False, edgecolor=edge, linewidth=width,
                              clip_on=False, zorder=3)
                )  # fmt: skip
    return mesh


def _brief(value: float | None, digits: int) -> str:
    """A value without its leading zero, to fit a cell."""
    text = wording.number(value, digits)
    return text.replace("0.", ".", 1) if value is not None and 0 < abs(value) < 0.95 else text


def _short(layer: str) -> str:
    """A layer name that fits beside an axis: its middle is what one can spare."""
    name = wording.plain(layer)
    if len(name) <= _LABEL:
        return name
    return f"{name[: _LABEL // 2 - 1]}…{name[-_LABEL // 2 :]}"

"""A comparison as a picture, without a study around it."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from mirror_analysis.errors import DegenerateError, UnknownNameError
from mirror_analysis.reporting import style, wording
from mirror_analysis.reporting.figures.cells import PRINTED, heatmap, span
from mirror_analysis.results import Comparison


def draw_comparison(comparison: Comparison, *, measures: Sequence[str] = ()) -> Figure:
    """Heatmaps of all layer pairs, one panel per measure, the best cell framed.

    Marks are of the p corrected for the maximum over the panel: * below .05, ** below .01,
    *** below .001; a dot where the cells are too many for values.

    Args:
        comparison: what `compare` returned.
        measures: which to draw; all when none are named.

    Returns:
        The figure, to be shown or saved.

    Raises:
        UnknownNameError: if a measure is not in the comparison.
        DegenerateError: if the comparison is empty.

    Example:
        >>> draw_comparison(compare(u_layers, e_layers)).savefig("layers.pdf")
    """
    there = list(dict.fromkeys(s.measure for s in comparison.scores))
    for name in measures:
        if name not in there:
            raise UnknownNameError("measure", name, there)
    chosen = list(measures) or there
    if not chosen:
        raise DegenerateError("the comparison has no scores; compare with at least one measure")
    across = min(3, len(chosen))
    down = -(-len(chosen) // across)
    panels = {m: [s for s in comparison.scores if s.measure == m] for m in chosen}
    first = panels[chosen[0]]
    rows, columns = len({s.x_layer for s in first}), len({s.y_layer for s in first})
    printed = max(rows, columns) <= PRINTED
    width = max(2.2, min(4.0, 0.9 + 0.36 * columns))
    height = max(1.5, min(4.0, 0.9 + (0.22 if printed else 0.36) * rows))
    with style.applied():
        figure = Figure(figsize=(across * width + 0.3, down * height + 0.3), layout="constrained")
        for position, name in enumerate(chosen):
            axes = figure.add_subplot(down, across, position + 1)
            cells = panels[name]
            known = [s for s in cells if s.value is not None]
            best = comparison.best(name) if known else None
            mesh = heatmap(
                axes,
                cells,
                span(cells),
                printed=printed,
                p=lambda s: s.p_max,
                outlined=(best.x_layer, best.y_layer) if best is not None else None,
            )
            style.panel_title(axes, wording.measure_axis(name))
            axes.set_xlabel(f"layer of {first[0].y}", fontsize=8)
            axes.set_ylabel(f"layer of {first[0].x}", fontsize=8)
            if not printed:
                figure.colorbar(mesh, ax=axes, fraction=0.05, pad=0.02)
    return figure

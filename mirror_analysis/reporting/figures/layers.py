"""Every layer of one model against every layer of the other, one heatmap per measure."""

from __future__ import annotations

from functools import partial

from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from mirror_analysis.reporting import style, wording
from mirror_analysis.reporting.evidence import Evidence
from mirror_analysis.reporting.figures.cells import PRINTED, heatmap, span
from mirror_analysis.reporting.figures.drawing import Absent, Drawing
from mirror_analysis.results import Score

_NAME = "layers"
_TITLE = "Agreement of every layer pair"
_ROW = 0.165  # inches, room for a line at 7 points
_CELL = 0.34  # inches, room for a value and its marks beside it
_TALLEST = 2.2  # inches of a panel whose cells carry no values
_PAGE = 9.0  # inches of height that a page leaves to a figure
_BETWEEN = 0.27  # inches from one row of panels to the next, for their titles
_BELOW = 0.95  # inches for layer names and the axis label

_Panels = dict[tuple[str, str], list[Score]]


def draw(evidence: Evidence) -> Drawing | Absent:
    """Heatmaps of the trained pair over all layers, under the condition of the headline.

    A row per measure, over all episodes on the left and within groups on the right; measures
    that were taken in one way only share rows.
    """
    condition = next((c for c in evidence.conditions if _panels(evidence, c)), None)
    if condition is None:
        return Absent(_NAME, _TITLE, "the result has no scores of the trained pair by layer")
    panels = _panels(evidence, condition)
    places = _arranged(panels)
    across = max(map(len, places))
    first = next(iter(panels.values()))
    rows, columns = len({s.x_layer for s in first}), len({s.y_layer for s in first})
    printed = max(rows, columns) <= PRINTED
    room = (style.DOUBLE - 1.1) / max(2, across)
    width = min(room, max(1.2, columns * _CELL)) if printed else room
    height = max(rows, 3) * _ROW if printed else min(_TALLEST, width * rows / columns)
    places = places[: max(1, int((_PAGE - _BELOW) / (height + _BETWEEN)))]
    down, panels = len(places), {key: panels[key] for keys in places for key in keys}
    size = (
        min(style.DOUBLE, max(style.SINGLE, 1.1 + across * width)),
        _BELOW + down * (height + _BETWEEN),
    )
    figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.03))
    grid = figure.subplots(down, across, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    spans = {m: span([s for (n, _), p in panels.items() if n == m for s in p]) for m, _ in panels}
    for i, keys in enumerate(places):
        for j, (name, within) in enumerate(keys):
            axes = grid[i, j]
            axes.set_axis_on()
            mesh = heatmap(
                axes, panels[name, within], spans[name], printed=printed,
                p=partial(corrected, evidence), outlined=(evidence.layers.x, evidence.layers.y),
            )  # fmt: skip
            suffix = f", {wording.within_label(within)}" if any(evidence.withins) else ""
            style.panel_title(axes, wording.measure_axis(name) + suffix)
            lowest = all(len(below) <= j for below in places[i + 1 :])
            axes.tick_params(labelleft=j == 0, labelbottom=lowest)
            if lowest:
                axes.set_xlabel(f"layer of {evidence.y}", fontsize=8)
            if not printed:
                figure.colorbar(mesh, ax=axes, fraction=0.05, pad=0.02)
    figure.supylabel(f"layer of {evidence.x}", fontsize=8)
    return Drawing(
        _NAME,
        _TITLE,
        figure,
        _caption(evidence, panels, condition),
        _alt(evidence, panels, condition),
    )


def _arranged(panels: _Panels) -> list[list[tuple[str, str]]]:
    """The rows of the figure: measures with several panels, then the others side by side."""
    by_measure: dict[str, list[tuple[str, str]]] = {}
    for key in panels:
        by_measure.setdefault(key[0], []).append(key)
    several = [keys for keys in by_measure.values() if len(keys) > 1]
    single = [keys[0] for keys in by_measure.values() if len(keys) == 1]
    across = max([2, *map(len, several)])
    return several + [single[i : i + across] for i in range(0, len(single), across)]


def _panels(evidence: Evidence, condition: str) -> _Panels:
    """The cells of every panel that has at least two."""
    found = {
        (m, w): evidence.grid(m, condition, w) for m in evidence.shown for w in evidence.withins
    }
    return {key: cells for key, cells in found.items() if len(cells) > 1}


def corrected(evidence: Evidence, cell: Score) -> float | None:
    """The p-value corrected over the grid; without one of the mean, the largest over seeds."""
    if cell.p_max is not None:
        return cell.p_max
    single = [s.p_max for s in evidence.over_seeds(cell)]
    known = [p for p in single if p is not None]
    return max(known) if known and len(known) == len(single) else None


def _caption(evidence: Evidence, panels: _Panels, condition: str) -> str:
    cells = [s for panel in panels.values() for s in panel]
    marked = any(corrected(evidence, s) is not None for s in cells)
    text = (
        f"{evidence.x} (rows, first layer at the top) against {evidence.y} (columns), both trained,"
        f" {wording.condition_label(condition)}; {wording.units(cells)}."
    )
    if any(within for _, within in panels):
        text += " Panels marked “within”: group means removed, or galleries of one group only."
    if marked:
        text += (
            " Marks: p corrected for the maximum over all cells of the panel,"
            " * below .05, ** below .01, *** below .001"
        )
        mean = all(s.p_max is not None for s in cells)
        text += (
            "." if mean else "; where the mean over training seeds has none, the largest of them."
        )
    if all(s.seed is None for s in cells) and len(evidence.seeds) > 1:
        text += f" Values are means over {len(evidence.seeds)} training seeds."
    elif cells[0].seed is not None:
        text += f" Values are of training seed {cells[0].seed}."
    if evidence.layers.x and evidence.layers.y:
        text += (
            f" Outlined: the layer pair declared for the headline, "
            f"{wording.plain(evidence.layers.x)} and {wording.plain(evidence.layers.y)}."
        )
    text += " Colour scales differ between measures."
    left = [m for m, _ in _panels(evidence, condition) if m not in {name for name, _ in panels}]
    if left:
        words = wording.listing(wording.measure_label(m) for m in left)
        text += f" For want of room without {words}."
    return text


def _alt(evidence: Evidence, panels: _Panels, condition: str) -> str:
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

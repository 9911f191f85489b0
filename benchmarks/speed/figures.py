"""Pictures of what was measured."""

from __future__ import annotations

from pathlib import Path

import seaborn
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from benchmarks.speed.record import Benchmarks, Check, Growth, Row
from mirror_analysis.reporting.style import DOUBLE, GREY, applied, bare, panel_title

_PALETTE = seaborn.color_palette("colorblind")
_KINDS = {
    "floor": ("matrix products", GREY, "D"),
    "ours": ("ours", _PALETTE[3], "o"),
    "peer": ("package", _PALETTE[0], "s"),
    "published": ("published algorithm", _PALETTE[2], "^"),
}
_MARKERS = ("o", "s", "^", "v", "P", "X", "<", ">", "h", "p", "*")
_LINES = ("-", "--", "-.", ":")
_AXIS = {
    "samples": "samples N",
    "layers": "layers on each side",
    "features": "features D of each layer",
}


def drawn(found: Benchmarks, stem: Path) -> list[str]:
    """Draws what there is next to `stem`, and gives the file names."""
    made = {"aims": _aims(found.rows), "times": _times(found.rows)}
    if found.growth is not None and found.growth.points:
        made["growth"] = _growth(found.growth)
    names = []
    for kind, figure in made.items():
        if figure is None:
            continue
        path = stem.with_name(f"{stem.name}-{kind}.png")
        with applied():
            figure.savefig(path, bbox_inches="tight")
        names.append(path.name)
    return names


def _in_decades(axis: Axis) -> None:
    """Ticks as plain numbers: the style of the reports reads no mathematical notation."""
    low, high = sorted(axis.get_view_interval())
    few = high / max(low, 1e-12) < 200
    axis.set_major_locator(LogLocator(10, (1, 2, 5) if few else (1,), numticks=20))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


def margin(check: Check) -> float | None:
    """How many times better than its aim; below 1 it fell short."""
    if check.aim is None or not check.measured or check.measured < 0:
        return None
    ratio = check.measured / check.aim
    return 1 / ratio if check.sense == "at most" else ratio


def _aims(rows: list[Row]) -> Figure | None:
    bars = [(r, c, m) for r in rows for c in r.checks if (m := margin(c)) is not None]
    if not bars:
        return None
    with applied():
        figure = Figure(figsize=(DOUBLE, 0.6 + 0.24 * len(bars)))
        axes = figure.add_subplot()
        for place, (_, check, value) in enumerate(bars):
            color = _PALETTE[0] if check.met else _PALETTE[3]
            axes.plot([1, value], [place, place], color=color, lw=2)
            axes.plot([value], [place], "o" if check.met else "X", color=color)
        axes.axvline(1, color="black", lw=0.8)
        axes.set_xscale("log")
        axes.set_yticks(range(len(bars)), [f"{r.name}: {_short(c.what)}" for r, c, _ in bars])
        axes.set_ylim(len(bars) - 0.5, -0.5)
        _in_decades(axes.xaxis)
        axes.set_xlabel("times better than the aim (left of 1: fell short)")
        axes.grid(axis="x")
        bare(axes)
    return figure


def _short(text: str, width: int = 62) -> str:
    return text if len(text) <= width else text[: width - 1].rstrip() + "…"


def _times(rows: list[Row]) -> Figure | None:
    shown = [(r, [t for t in r.timings if t.turns]) for r in rows]
    shown = [(r, timings) for r, timings in shown if timings]
    if not shown:
        return None
    heights = [len(timings) + 1.4 for _, timings in shown]
    with applied():
        figure = Figure(figsize=(DOUBLE, 0.17 * sum(heights) + 0.5 * len(shown)))
        panels = figure.subplots(len(shown), 1, squeeze=False, height_ratios=heights)[:, 0]
        for axes, (row, timings) in zip(panels, shown, strict=True):
            for place, timing in enumerate(timings):
                _, color, marker = _KINDS[timing.kind]
                hollow = timing.scale != 1
                axes.plot(
                    [timing.wall],
                    [place],
                    marker,
                    color=color,
                    markerfacecolor="white" if hollow else color,
                    ms=5,
                )
            axes.set_xscale("log")
            axes.set_yticks(range(len(timings)), [_short(t.name, 48) for t in timings])
            axes.set_ylim(len(timings) - 0.5, -0.5)
            axes.grid(axis="x")
            low, high = axes.get_xlim()
            axes.set_xlim(min(low, high / 10), high)
            _in_decades(axes.xaxis)
            panel_title(axes, f"{row.name}: {row.work}", width=84)
            bare(axes)
        panels[-1].set_xlabel("seconds by the clock (hollow: scaled from a part of the work)")
        handles = [
            panels[0].plot([], [], marker, color=color, ls="", label=label)[0]
            for label, color, marker in _KINDS.values()
        ]
        figure.legend(handles=handles, loc="lower center", ncols=4, bbox_to_anchor=(0.5, 1.0))
        figure.tight_layout()
    return figure


def _growth(found: Growth) -> Figure:
    names = list(dict.fromkeys(p.name for p in found.points))
    alongs = [a for a in _AXIS if any(p.along == a for p in found.points)]
    with applied():
        figure = Figure(figsize=(DOUBLE, 2.9))
        panels = figure.subplots(1, len(alongs), sharey=True, squeeze=False)[0]
        for axes, along in zip(panels, alongs, strict=True):
            for number, name in enumerate(names):
                curve = [
                    (p.size, p.wall) for p in found.points if (p.along, p.name) == (along, name)
                ]
                if not curve:
                    continue
                floor = name == "matrix products"
                axes.plot(
                    *zip(*curve, strict=True),
                    color=GREY if floor else _PALETTE[number % len(_PALETTE)],
                    marker=_MARKERS[number % len(_MARKERS)],
                    linestyle=_LINES[number % len(_LINES)],
                    ms=4,
                    label=name,
                )
            fixed = ", ".join(f"{v} {k}" for k, v in found.fixed.items() if k != along)
            axes.set_xscale("log", base=2)
            axes.set_yscale("log")
            sizes = sorted({p.size for p in found.points if p.along == along})
            axes.set_xticks(sizes, [str(s) for s in sizes])
            axes.minorticks_off()
            _in_decades(axes.yaxis)
            axes.set_xlabel(_AXIS[along])
            panel_title(axes, fixed)
            axes.grid()
            bare(axes)
        panels[0].set_ylabel("seconds by the clock")
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="lower center", ncols=4, bbox_to_anchor=(0.5, 1.0))
        figure.tight_layout()
    return figure

"""What a figure is before it is a file: a drawing with its caption and its numbers in words."""

from __future__ import annotations

from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mirror_analysis.reporting.style import Mark
from mirror_analysis.results import Score


@dataclass(frozen=True, eq=False)
class Drawing:
    """A figure.

    Attributes:
        name: stem of its files.
        title: in words.
        figure: the picture itself, drawn but not saved.
        caption: what is seen, what the intervals mean and how many units stand behind it.
        alt: the numbers in words, for who cannot see the picture.
        dense: so many points that a page should hold it as an image.
    """

    name: str
    title: str
    figure: Figure
    caption: str
    alt: str
    dense: bool = False


@dataclass(frozen=True)
class Absent:
    """A figure that cannot be drawn from this result.

    Attributes:
        name: stem of its files, had there been any.
        title: in words.
        reason: which scores the result lacks.
    """

    name: str
    title: str
    reason: str


def dot(
    axes: Axes, at: float, score: Score, mark: Mark, *, filled: bool = True, upright: bool = True
) -> None:
    """Draws a value as a marker on the bar of its interval; nothing where it is not defined.

    Args:
        axes: where.
        at: place on the other axis, in data units.
        score: the value and its interval.
        mark: how it looks.
        filled: with its colour, or else with white.
        upright: along the vertical axis, or else along the horizontal one.
    """
    if score.value is None:
        return
    if score.interval is not None:
        ends, places = [score.interval.low, score.interval.high], [at, at]
        line = (places, ends) if upright else (ends, places)
        axes.plot(*line, color=mark.color, linewidth=1.0, zorder=2)
    axes.plot(
        *((at, score.value) if upright else (score.value, at)),
        marker=mark.marker,
        color=mark.color,
        markersize=4,
        markerfacecolor=mark.color if filled else "white",
        markeredgewidth=0.9,
        zorder=3,
    )

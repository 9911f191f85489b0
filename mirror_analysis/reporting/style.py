"""The look of every figure: sizes, colours that survive colour blindness and grey print, fonts."""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib
import seaborn
from matplotlib.axes import Axes

from mirror_analysis.results import Role

SINGLE = 3.5
"""Width of a single-column figure, inches."""
DOUBLE = 7.2
"""Width of a double-column figure, inches."""
SMALLEST = 7.0
"""Smallest font, points at print width."""

BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, VERMILION, PURPLE = "#F0E442", "#0072B2", "#D55E00", "#CC79A7"
"""The palette of Okabe and Ito (2008)."""
GREY = "#6E6E6E"
SEQUENTIAL = "viridis"


@dataclass(frozen=True)
class Mark:
    """How one series is told apart, in colour and without it.

    Attributes:
        color: hexadecimal.
        marker: of matplotlib.
        line: line style of matplotlib.
    """

    color: str
    marker: str
    line: Literal["-", "--", "-.", ":"] | tuple[int, tuple[float, ...]]


ROLES: dict[Role, Mark] = {
    "pair": Mark(VERMILION, "o", "-"),
    "control": Mark(BLUE, "s", "--"),
    "reference": Mark(GREY, "D", ":"),
    "difference": Mark(BLACK, "o", "-"),
}

SERIES = (
    Mark(BLUE, "s", "--"),
    Mark(GREEN, "^", "-."),
    Mark(PURPLE, "v", (0, (4, 1, 1, 1, 1, 1))),
    Mark(ORANGE, "P", (0, (2, 1))),
    Mark(SKY, "X", (0, (6, 2))),
    Mark(BLACK, "<", (0, (1, 1))),
    Mark(GREY, ">", (0, (3, 1, 1, 1))),
    Mark("#7A5C00", "h", (0, (8, 1, 2, 1))),
    Mark("#882255", "p", (0, (4, 3))),
)

_RC: dict[Any, Any] = {
    "axes.edgecolor": "#333333",
    "axes.labelsize": 8,
    "axes.linewidth": 0.7,
    "axes.titlesize": 8,
    "figure.dpi": 100,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial", "Helvetica", "sans-serif"],
    "font.size": 8,
    "grid.color": "#E3E3E3",
    "grid.linewidth": 0.5,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "lines.linewidth": 1.2,
    "pdf.fonttype": 42,
    "savefig.dpi": 200,
    # Text stays text: it can be searched, read aloud and edited.
    "svg.fonttype": "none",
    "svg.hashsalt": "mirror-analysis",
    # Names come from files; a dollar sign in one is a dollar sign.
    "text.parse_math": False,
    "xtick.labelsize": 7,
    "xtick.major.size": 2.5,
    "xtick.major.width": 0.7,
    "ytick.labelsize": 7,
    "ytick.major.size": 2.5,
    "ytick.major.width": 0.7,
}


@contextmanager
def applied() -> Iterator[None]:
    """Draws and saves what is inside in the style of the reports, and leaves no trace."""
    with matplotlib.rc_context({**seaborn.axes_style("ticks"), **_RC}), warnings.catch_warnings():
        # The text is in the SVG all the same; the reader's font has what ours lacks.
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from font", append=False)
        yield


def panel_title(axes: Axes, text: str, *, width: int = 60) -> None:
    """Titles a panel at its left edge, as journals do, in lines of at most `width` characters."""
    lines = textwrap.fill(text, width, break_long_words=True)
    axes.set_title(lines, loc="left", fontweight="bold", fontsize=8, pad=4)


def bare(axes: Axes) -> None:
    """Takes away the frame lines that carry no scale."""
    axes.spines[["top", "right"]].set_visible(False)

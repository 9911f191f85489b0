"""The figures of a report, in reading order, one module each."""

from __future__ import annotations

from collections.abc import Callable

from mirror_analysis.reporting.evidence import Evidence
from mirror_analysis.reporting.figures.controls import draw as _controls
from mirror_analysis.reporting.figures.drawing import Absent, Drawing
from mirror_analysis.reporting.figures.layers import draw as _layers
from mirror_analysis.reporting.figures.maps import draw as _maps
from mirror_analysis.reporting.figures.outcome import draw as _outcome
from mirror_analysis.reporting.figures.recall import draw as _recall
from mirror_analysis.reporting.figures.seeds import draw as _seeds

__all__ = ["FIGURES", "Absent", "Drawing"]

FIGURES: dict[str, Callable[[Evidence], Drawing | Absent]] = {
    "controls": _controls,
    "layers": _layers,
    "recall": _recall,
    "outcome": _outcome,
    "maps": _maps,
    "seeds": _seeds,
}

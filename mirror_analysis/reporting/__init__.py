"""Figures, tables and one self-contained page, made from a `Result` alone."""

from __future__ import annotations

from mirror_analysis.lazy import lazy

# Public name -> module that defines it; matplotlib is imported when a name is used.
_PUBLIC = {"draw_comparison": "heatmaps", "render_report": "document"}

__all__ = [*_PUBLIC]

__getattr__, __dir__ = lazy(__name__, _PUBLIC)

"""Studies: a definition in, a result out."""

from __future__ import annotations

from mirror_analysis.lazy import lazy

_PUBLIC = {"run_study": "running"}
__all__ = sorted(_PUBLIC)

__getattr__, __dir__ = lazy(__name__, _PUBLIC)

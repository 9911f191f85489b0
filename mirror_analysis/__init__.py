"""Measures whether two models represent the same episodes alike, and whether that was learned."""

from __future__ import annotations

from mirror_analysis.lazy import lazy

# Public name -> module that defines it; nothing heavy is imported until a name is used.
_PUBLIC = {
    "Comparison": "results",
    "Episode": "episodes",
    "Episodes": "episodes",
    "Features": "features",
    "Result": "results",
    "Score": "results",
    "align": "alignment",
    "compare": "comparison",
    "difference": "comparison",
    "extract": "extraction",
    "load_episodes": "episodes",
    "load_model": "models",
    "load_result": "results",
    "pair": "features",
    "probe": "probing",
    "render_report": "reporting",
    "run_study": "study",
    "split": "features",
}

__version__ = "0.1.0"
__all__ = [*_PUBLIC, "__version__"]

__getattr__, __dir__ = lazy(__name__, _PUBLIC)

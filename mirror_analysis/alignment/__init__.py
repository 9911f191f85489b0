"""Linear maps that bring two models into one space, and how well partners meet there."""

from __future__ import annotations

from mirror_analysis.lazy import lazy

_PUBLIC = {
    "AlignmentConfig": "linear",
    "LinearAlignment": "linear",
    "align": "fitting",
    "align_closed_form": "closed_form",
    "align_many": "many",
    "align_seeds": "fitting",
    "info_nce": "losses",
    "linear_info_nce": "losses",
    "recall_at_k": "retrieval",
}
__all__ = sorted(_PUBLIC)

__getattr__, __dir__ = lazy(__name__, _PUBLIC)

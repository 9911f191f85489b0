"""Linear maps that bring two models into one space, and how well partners meet there."""

from __future__ import annotations

import importlib
from typing import Any

_PUBLIC = {
    "AlignmentConfig": "linear",
    "LinearAlignment": "linear",
    "align": "fitting",
    "align_seeds": "fitting",
    "info_nce": "losses",
    "recall_at_k": "retrieval",
}
__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(importlib.import_module(f"{__name__}.{_PUBLIC[name]}"), name)

"""How alike two representations of the same samples are; names load when first used."""

from __future__ import annotations

import importlib
from typing import Any

_PUBLIC = {
    "DEFAULT": "measures",
    "MEASURES": "measures",
    "Layer": "measures",
    "Measure": "measures",
    "cknna": "neighbors",
    "linear_cka": "cka",
    "load_measure": "measures",
    "mutual_knn": "neighbors",
    "svcca": "cca",
}

__all__ = list(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'mirror_analysis.similarity' has no attribute '{name}'")
    return getattr(importlib.import_module(f"{__name__}.{_PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])

"""Nulls, intervals and corrections: how far a value can be trusted; names load when first used."""

from __future__ import annotations

import importlib
from typing import Any

_PUBLIC = {
    "Excess": "jackknife",
    "combine_seeds": "jackknife",
    "difference": "jackknife",
    "excess": "jackknife",
    "folds": "jackknife",
    "jackknife_interval": "jackknife",
    "p_max": "maximum",
    "p_value": "permutation",
    "permutations": "permutation",
    "wilson": "proportion",
}

__all__ = list(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'mirror_analysis.inference' has no attribute '{name}'")
    return getattr(importlib.import_module(f"{__name__}.{_PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])

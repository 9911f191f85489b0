"""Studies: a definition in, a result out."""

from __future__ import annotations

import importlib
from typing import Any

_PUBLIC = {"run_study": "running"}
__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(importlib.import_module(f"{__name__}.{_PUBLIC[name]}"), name)

"""Figures, tables and one self-contained page, made from a `Result` alone."""

from __future__ import annotations

import importlib
from typing import Any

# Public name -> module that defines it; matplotlib is imported when a name is used.
_PUBLIC = {"render_report": "document"}

__all__ = [*_PUBLIC]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'mirror_analysis.reporting' has no attribute '{name}'")
    return getattr(importlib.import_module(f"mirror_analysis.reporting.{_PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])

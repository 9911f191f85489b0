"""How much information two representations share, in nats; names load when first used."""

from __future__ import annotations

import importlib
from typing import Any

_PUBLIC = {"infonce": "bounds", "infonce_ceiling": "bounds"}

__all__ = list(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'mirror_analysis.information' has no attribute '{name}'")
    return getattr(importlib.import_module(f"{__name__}.{_PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])

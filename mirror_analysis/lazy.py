"""Public names that are imported when they are first used, so that `import` loads nothing heavy."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def lazy(
    package: str, public: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """The module functions `__getattr__` and `__dir__` of a package (PEP 562).

    Args:
        package: its name, `__name__`.
        public: name -> module below the package that defines it.

    Example:
        >>> __getattr__, __dir__ = lazy(__name__, {"linear_cka": "cka"})
    """

    def load(name: str) -> Any:
        if name not in public:
            raise AttributeError(f"module '{package}' has no attribute '{name}'")
        return getattr(importlib.import_module(f"{package}.{public[name]}"), name)

    def names() -> list[str]:
        return sorted({*vars(importlib.import_module(package)), *public})

    return load, names

"""How much information two representations share, in nats; names load when first used."""

from __future__ import annotations

from mirror_analysis.lazy import lazy

_PUBLIC = {"infonce": "bounds", "infonce_ceiling": "bounds"}

__all__ = list(_PUBLIC)

__getattr__, __dir__ = lazy(__name__, _PUBLIC)

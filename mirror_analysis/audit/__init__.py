"""Whether this installation tells the truth: it is held to values that are known."""

from __future__ import annotations

from mirror_analysis.lazy import lazy

_PUBLIC = {
    "AUDITS": "audits",
    "Check": "checks",
    "run_audit": "audits",
}

__all__ = list(_PUBLIC)

__getattr__, __dir__ = lazy(__name__, _PUBLIC)

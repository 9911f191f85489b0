"""Closed-loop success and return of a policy in its environment."""

from __future__ import annotations

from mirror_analysis.lazy import lazy

_PUBLIC = {
    "Outcomes": "outcomes",
    "load_outcomes": "outcomes",
    "paired_success": "paired",
    "rollout": "summary",
    "rollout_against": "summary",
    "rollout_drop": "summary",
    "rollout_outcomes": "metaworld",
    "save_outcomes": "outcomes",
    "success_estimate": "paired",
    "success_rates": "summary",
}

__all__ = list(_PUBLIC)

__getattr__, __dir__ = lazy(__name__, _PUBLIC)

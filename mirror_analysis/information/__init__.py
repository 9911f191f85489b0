"""How much information two representations share, in nats; names load when first used."""

from __future__ import annotations

from mirror_analysis.lazy import lazy

_PUBLIC = {
    "BOUNDS": "variational",
    "CRITICS": "critics",
    "EstimatorConfig": "config",
    "TASKS": "tasks",
    "Task": "tasks",
    "donsker_varadhan": "bounds",
    "gaussian_mi": "gaussian",
    "gaussian_mi_bias": "gaussian",
    "infonce": "bounds",
    "infonce_ceiling": "bounds",
    "information_score": "scoring",
    "jensen_shannon": "bounds",
    "js_divergence": "bounds",
    "ksg_mi": "ksg",
    "mutual_information": "variational",
    "nwj": "bounds",
    "smile": "bounds",
}

__all__ = list(_PUBLIC)

__getattr__, __dir__ = lazy(__name__, _PUBLIC)

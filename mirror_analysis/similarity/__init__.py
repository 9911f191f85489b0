"""How alike two representations of the same samples are; names load when first used."""

from __future__ import annotations

from mirror_analysis.lazy import lazy

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

__getattr__, __dir__ = lazy(__name__, _PUBLIC)

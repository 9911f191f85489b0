"""Nulls, intervals and corrections: how far a value can be trusted; names load when first used."""

from __future__ import annotations

from mirror_analysis.lazy import lazy

_PUBLIC = {
    "Estimate": "estimate",
    "Invariants": "invariants",
    "bootstrap_interval": "bootstrap",
    "bootstrap_ratio_interval": "bootstrap",
    "circular_shifts": "permutation",
    "combine_seeds": "jackknife",
    "correlation": "association",
    "exact_null": "moments",
    "excess": "estimate",
    "folds": "jackknife",
    "independent_difference": "estimate",
    "jackknife_interval": "jackknife",
    "p_max": "maximum",
    "p_value": "permutation",
    "permutations": "permutation",
    "q_values": "multiplicity",
    "wilson": "proportion",
}

__all__ = list(_PUBLIC)

__getattr__, __dir__ = lazy(__name__, _PUBLIC)

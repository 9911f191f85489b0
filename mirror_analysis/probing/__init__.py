"""What can be read off a representation by a linear map or by its neighbours, layer by layer."""

from __future__ import annotations

from mirror_analysis.lazy import lazy

_PUBLIC = {
    "Decoded": "decoded",
    "Fold": "folds",
    "Probe": "settings",
    "decode": "decoding",
    "gain": "differences",
    "grouped_folds": "folds",
    "logistic_path": "logistic",
    "probe": "decoding",
    "ridge_path": "ridge",
    "row_index": "running",
    "run_definition": "running",
    "settings_of": "running",
    "split_fold": "folds",
}

__all__ = list(_PUBLIC)

__getattr__, __dir__ = lazy(__name__, _PUBLIC)

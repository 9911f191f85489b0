"""Linear probes fitted on some rows, chosen on others and asked about the rest, many at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mirror_analysis.errors import DegenerateError
from mirror_analysis.probing.folds import Fold
from mirror_analysis.probing.nested import (
    Predicted,
    knn_predictions,
    logistic_predictions,
    ridge_predictions,
)
from mirror_analysis.probing.settings import Probe

Labels = NDArray[np.generic]


def decode_folds(
    values: NDArray[np.floating], labels: Labels, folds: Sequence[Fold], *, probe: Probe
) -> Labels:
    """What the probes of several folds say about their test rows.

    The strength is chosen on the validation rows of each fold, and the probe then fitted on its
    fit and validation rows together.

    Args:
        values: [row, feature].
        labels: [row] classes, or quantities.
        folds: rows of each part; no row is tested in two folds.
        probe: estimator (for "" logistic, or ridge where labels are floats), strengths, tolerance
            and device; what it says about folds and nulls is not used.

    Returns:
        [row] predicted labels, of the type of the labels; rows that are not tested keep theirs.

    Raises:
        DegenerateError: if features or labels do not vary over the fit rows of a fold.

    Example:
        >>> decode_folds(values, side, [Fold(fit, validation, test)], probe=Probe())[test]
    """
    tested = np.concatenate([fold.test for fold in folds])
    quantities = is_quantity(labels, probe)
    for fold in folds:
        if len(np.unique(labels[fold.fit])) < 2:
            raise DegenerateError(
                f"all {len(fold.fit)} rows to fit on have the label {labels[fold.fit][0]};"
                " choose another target or give more episodes"
            )
    classes, codes = np.unique(labels, return_inverse=True)
    if quantities:
        found = _quantities(values, labels.astype(np.float64), folds, probe)
    else:
        found = _classes(values, codes.astype(np.int64), folds, len(classes), probe)
    if found.constant is not None:
        raise DegenerateError(
            f"no feature varies over the {len(folds[found.constant].fit)} rows to fit on; choose"
            " another layer"
        )
    said = labels.copy()
    told = found.values[0, tested]
    said[tested] = told[:, 0] if quantities else classes[told]
    return said


def is_quantity(labels: Labels, probe: Probe) -> bool:
    """Whether labels are regressed on rather than told apart."""
    return probe.estimator == "ridge" or (
        probe.estimator != "logistic" and labels.dtype.kind == "f"
    )


def estimator_of(labels: Labels, probe: Probe) -> str:
    """The estimator that is used."""
    return probe.estimator or ("ridge" if is_quantity(labels, probe) else "logistic")


def _classes(
    values: NDArray[np.floating],
    codes: NDArray[np.int64],
    folds: Sequence[Fold],
    classes: int,
    probe: Probe,
) -> Predicted:
    if probe.estimator == "knn":
        return knn_predictions(values, codes[None], folds, classes=classes, probe=probe)
    return logistic_predictions([values], codes, folds, classes=classes, probe=probe)[0]


def _quantities(
    values: NDArray[np.floating],
    labels: NDArray[np.float64],
    folds: Sequence[Fold],
    probe: Probe,
) -> Predicted:
    if probe.estimator == "knn":
        return knn_predictions(values, labels[None, :, None], folds, classes=0, probe=probe)
    return ridge_predictions(values, labels[None, :, None], folds, probe=probe)

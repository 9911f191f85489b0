"""The one call that decodes a label from every layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mirror_analysis.errors import DegenerateError, PairingError, UnknownNameError
from mirror_analysis.features import Features, Index, Layers, Split
from mirror_analysis.probing.decoded import Decoded
from mirror_analysis.probing.folds import Fold, constant_in, grouped_folds, split_fold
from mirror_analysis.probing.measuring import Run
from mirror_analysis.probing.settings import ESTIMATORS, Probe
from mirror_analysis.probing.targets import Target, check_classes, read_target
from mirror_analysis.results import Score

# "x" or "y".
Side: TypeAlias = str
Rows: TypeAlias = Layers | Features | Split


def probe(
    features: Rows,
    target: str | Sequence[str],
    *,
    settings: Probe | None = None,
    kind: str | None = None,
    side: Side = "x",
    progress: Callable[[int, int], None] | None = None,
) -> list[Score]:
    """How well a label can be read off each layer by a linear map, or by its neighbours.

    Args:
        features: layers of one model, one row or several per episode; or a split, which is
            fitted on its fit part, chosen on its validation part and tested on its test part.
        target: label that is decoded; several for quantities that are decoded together.
        settings: what is fitted, held out and permuted; logistic or ridge in five folds over
            episodes when None.
        kind: None for quantities where the label is a float, and classes otherwise.
        side: of a split, which model.
        progress: called with (steps done, steps in all).

    Returns:
        For each layer "probe_accuracy" (or "probe_balanced_accuracy") in [0, 1], or "probe_r2", at
        most 1 and 0 for what knows the mean only, with interval over what is held out, the null,
        p, and p corrected for the maximum over layers.

    Raises:
        UnknownNameError: if rows do not carry a label.
        DegenerateError: if there are too few episodes or classes.

    Example:
        >>> scores = probe(features, "instruction")
        >>> scores[-1].value, scores[-1].p_max
        (0.87, 0.005)
    """
    return list(
        decode(features, target, settings=settings, kind=kind, side=side, progress=progress).scores
    )


def decode(
    features: Rows,
    target: str | Sequence[str],
    *,
    settings: Probe | None = None,
    kind: str | None = None,
    side: Side = "x",
    progress: Callable[[int, int], None] | None = None,
) -> Decoded:
    """`probe` with its predictions, for pairing with another run; arguments are the same."""
    settings = settings or Probe()
    name, layers, index = _rows(features, side)
    if isinstance(features, Split):
        settings = replace(settings, held_out="split")
    wanted = read_target(index, target, kind=kind)
    estimator = settings.estimator or ESTIMATORS[wanted.kind][0]
    if estimator not in ESTIMATORS[wanted.kind]:
        raise UnknownNameError(f"estimator for {wanted.kind}", estimator, ESTIMATORS[wanted.kind])
    settings = replace(settings, estimator=estimator)
    if settings.null == "auto":
        settings = replace(settings, null="labels" if estimator == "logistic" else "refit")
    folds = _folds(index, wanted, settings)
    if wanted.kind == "classification":
        least = 1 if estimator == "knn" else 2
        check_classes(wanted, folds, settings.held_out, least=least)
    return Run(name, layers, index, wanted, settings, folds, progress).decoded()


def _rows(features: Rows, side: Side) -> tuple[str, Mapping[str, NDArray[Any]], Index]:
    """Name of the model, values of its layers, and their index."""
    if side not in ("x", "y"):
        raise UnknownNameError("side", side, ("x", "y"))
    if isinstance(features, Split):
        parts = {
            "fit": features.fit, "validation": features.validation, "test": features.test,
        }  # fmt: skip
        names = {p: list(getattr(part, side)) for p, part in parts.items()}
        if len({tuple(n) for n in names.values()}) > 1 or not names["fit"]:
            raise PairingError(
                f"the parts of the split have layers {names['fit']}, {names['validation']} and"
                f" {names['test']} of {side}; needed the same ones in each, and at least one"
            )
        values = {
            n: np.concatenate([getattr(part, side)[n] for part in parts.values()])
            for n in names["fit"]
        }
        shared = set.intersection(*(set(part.index.labels) for part in parts.values()))
        labels = {
            n: np.concatenate([part.index.labels[n] for part in parts.values()]) for n in shared
        }
        labels["split"] = np.repeat(list(parts), [len(part.index) for part in parts.values()])
        index = Index(
            np.concatenate([part.index.episode for part in parts.values()]),
            np.concatenate([part.index.step for part in parts.values()]),
            labels,
        )
        return side, values, index
    layers = {features.key.layer: features} if isinstance(features, Features) else features
    if not layers:
        raise PairingError("probe got no layers; needed at least one")
    first = next(iter(layers.values()))
    for layer, found in layers.items():
        if not np.array_equal(found.index.episode, first.index.episode) or not np.array_equal(
            found.index.step, first.index.step
        ):
            raise PairingError(
                f"layer '{layer}' has other rows than the first layer; extract all in one pass"
            )
    return first.key.checkpoint, {n: f.values for n, f in layers.items()}, first.index


def _folds(index: Index, target: Target, settings: Probe) -> list[Fold]:
    if settings.held_out == "split":
        return [split_fold(index, seed=settings.seed)]
    held = index.episode if settings.held_out == "episode" else index.label(settings.held_out)
    if not constant_in(held, index.episode):
        raise DegenerateError(
            f"rows of one episode have several values of '{settings.held_out}'; hold out episodes"
        )
    spread = None
    if settings.within and constant_in(index.label(settings.within), held):
        spread = index.label(settings.within)
    elif settings.estimator == "logistic" and constant_in(target.values, held):
        # Every fit has to know every class. Where labels are permuted and all is fitted again,
        # folds may not know them: they would be dealt otherwise for every draw.
        spread = target.values
    return grouped_folds(held, count=settings.folds, spread=spread, seed=settings.seed)

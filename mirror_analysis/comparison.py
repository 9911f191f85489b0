"""The one call that compares two representations, whatever they come as."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from mirror_analysis.errors import PairingError, UnknownNameError
from mirror_analysis.features import Features, Layers, pair
from mirror_analysis.results import Comparison, Score
from mirror_analysis.similarity.measures import DEFAULT, Measure

if TYPE_CHECKING:
    import torch

    Array: TypeAlias = NDArray[Any] | torch.Tensor
    Representation: TypeAlias = Array | Mapping[str, Array] | Features | Layers

Labels: TypeAlias = NDArray[Any] | Sequence[Any]


def compare(
    x: Representation,
    y: Representation,
    *,
    measures: Sequence[str | Measure] = DEFAULT,
    within: str | Labels | None = None,
    units: Labels | None = None,
    draws: int = 999,
    folds: int = 32,
    seed: int = 0,
    x_name: str = "x",
    y_name: str = "y",
    progress: Callable[[int, int], None] | None = None,
) -> Comparison:
    """How alike two models represent the same rows: every layer pair in every measure.

    Each score has its value, a 95 % jackknife interval, the permutation null, its own p and the
    p corrected for the maximum over the layer pairs of its measure.

    Args:
        x: [sample, feature]; or layer name -> [sample, feature], in forward order; or features,
            one layer or a mapping of layers, whose rows are then matched by episode and step.
        y: the same of the second model; features if x is features.
        measures: names out of `similarity.MEASURES`, or measures with settings of their own.
        within: [sample] group labels, or with features the name of a label such as "task":
            group means are removed first and rows trade places inside groups only.
        units: [sample] labels of independent units. Default: the episodes of features, else
            every row by itself. Rows of one episode are not independent: name them here.
        draws: permutations; 0 for no null.
        folds: groups of units left out in turn for the interval; 0 for none.
        seed: of permutations and folds.
        x_name: name of the first model in the scores.
        y_name: name of the second.
        progress: called with (steps done, steps in all).

    Returns:
        The scores, and jackknife replicates for subtracting comparisons on the same rows.

    Raises:
        PairingError: if only one side is features, or rows do not match.
        UnknownNameError: if a measure or label is not known.
        ShapeError: if sample or label counts differ.
        DegenerateError: if there are too few units.

    Example:
        >>> comparison = compare(u_layers, e_layers, within="task")
        >>> comparison.best("linear_cka").p_max
        0.001
    """
    from mirror_analysis.similarity.grid import grid

    group_name = "groups"
    if _is_features(x, "x") != _is_features(y, "y"):
        with_labels, without = ("x", "y") if _is_features(x, "x") else ("y", "x")
        raise PairingError(
            f"{with_labels} is features but {without} is arrays, so rows cannot be matched;"
            " give both as features, or both as arrays over the same rows"
        )
    if _is_features(x, "x"):
        paired = pair(_as_layers(x), _as_layers(y))
        a: Mapping[str, Any] = paired.x
        b: Mapping[str, Any] = paired.y
        units = paired.index.episode if units is None else units
        if isinstance(within, str):
            group_name, within = within, paired.index.label(within)
    else:
        a, b = _as_arrays(x), _as_arrays(y)
        if isinstance(within, str):
            raise UnknownNameError("label", within, ())
    found = grid(
        a,
        b,
        measures=measures,
        units=units,
        within=within,
        draws=draws,
        folds=folds,
        seed=seed,
        progress=progress,
    )
    scores = tuple(_named(s, x_name, y_name, group_name) for s in found.scores)
    return Comparison(scores, found.replicates)


def _is_features(side: Representation, name: str) -> bool:
    if isinstance(side, Features):
        return True
    if not isinstance(side, Mapping):
        return False
    kinds = {isinstance(layer, Features) for layer in side.values()}
    if len(kinds) > 1:
        raise PairingError(
            f"{name} mixes features and arrays; give all its layers as one or as the other"
        )
    return kinds == {True}


def _as_layers(side: Any) -> Layers:
    return {side.key.layer: side} if isinstance(side, Features) else side


def _as_arrays(side: Any) -> Mapping[str, Any]:
    if isinstance(side, Mapping):
        return side
    return {"": side if hasattr(side, "ndim") else np.asarray(side)}


def _named(score: Score, x: str, y: str, group: str) -> Score:
    changes: dict[str, Any] = {"x": x, "y": y}
    if score.within:
        changes["within"] = group
        if score.null is not None:
            scheme = score.null.scheme.replace("within groups", f"within {group}")
            changes["null"] = msgspec.structs.replace(score.null, scheme=scheme)
    return msgspec.structs.replace(score, **changes)

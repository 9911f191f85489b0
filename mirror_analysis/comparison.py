"""The one call that compares two representations, whatever they come as."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from mirror_analysis.errors import PairingError, UnknownNameError
from mirror_analysis.features import Features, Layers, pair
from mirror_analysis.inference.jackknife import jackknife_interval
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
    exchange: Literal["units", "steps"] = "units",
    null: Literal["auto", "moments", "permutation"] = "auto",
    draws: int = 999,
    folds: int = 32,
    seed: int = 0,
    memory: int = 2 << 30,
    x_name: str = "x",
    y_name: str = "y",
    progress: Callable[[int, int], None] | None = None,
) -> Comparison:
    """How alike two models represent the same rows: every layer pair in every measure.

    Each score has its value, a 95 % jackknife interval, the permutation null, its own p, the p
    corrected for the maximum over the layer pairs of its measure, and its false discovery rate.

    Args:
        x: [sample, feature]; or layer name -> [sample, feature], in forward order; or features,
            one layer or a mapping of layers, whose rows are then matched by episode and step.
        y: the same of the second model; features if x is features.
        measures: names out of `similarity.MEASURES`, or measures with settings of their own.
        within: [sample] group labels, or with features the name of a label such as "task":
            group means are removed first and rows trade places inside groups only.
        units: [sample] labels of independent units. Default: the episodes of features, else
            every row by itself. Rows of one episode are not independent: name them here.
        exchange: what trades places under the null: whole "units", or "steps", which shifts the
            rows of every unit around by a random offset: do the sides agree in time inside units?
        null: "permutation" draws orders; "moments" takes the exact moments over all orders, for
            measures that have them where rows are free to trade places; "auto" takes moments
            there above 256 rows, where they save minutes, and permutations everywhere else.
        draws: permutations; 0 for no null.
        folds: groups of units left out in turn for the interval; 0 for none.
        seed: of permutations and folds.
        memory: bytes that matrices over pairs of rows may take together.
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
        exchange=exchange,
        null=null,
        draws=draws,
        folds=folds,
        seed=seed,
        memory=memory,
        progress=progress,
    )
    scores = tuple(_named(s, x_name, y_name, group_name) for s in found.scores)
    return Comparison(scores, found.replicates)


def difference(first: Comparison, second: Comparison) -> Comparison:
    """How much more alike one pair of models is than another, cell by cell, on the same rows.

    Both comparisons must be of the same rows with the same seed and folds, such as a trained pair
    and its untrained twin: then what is common to them cancels, and the interval of a difference
    is the jackknife's over the differences of their replicates.

    Args:
        first: of the pair under study.
        second: of its control, with the same measures and as many layers on each side, which
            are matched by name, or where names differ by place.

    Returns:
        Scores of role "difference" with the layers of the first, value first less second, without
        null and p; undefined where one of the two is.

    Raises:
        PairingError: if measures, layers or folds do not correspond.

    Example:
        >>> gain = difference(compare(u, e), compare(u_untrained, e_untrained))
        >>> gain.best("linear_cka").interval.low > 0
        True
    """
    if len(first.scores) != len(second.scores):
        raise PairingError(
            f"the comparisons have {len(first.scores)} and {len(second.scores)} scores; needed the"
            " same measures and as many layers in both"
        )
    by_name = {(s.measure, s.x_layer, s.y_layer): s for s in second.scores}
    named = all((s.measure, s.x_layer, s.y_layer) in by_name for s in first.scores)
    scores, replicates = [], {}
    for number, a in enumerate(first.scores):
        key = (a.measure, a.x_layer, a.y_layer)
        b = by_name[key] if named else second.scores[number]
        if (a.measure, a.parameters, a.within) != (b.measure, b.parameters, b.within):
            raise PairingError(
                f"{a.measure} {a.parameters} within '{a.within}' meets {b.measure} {b.parameters}"
                f" within '{b.within}'; compare both pairs with the same measures and groups"
            )
        if a.n != b.n:
            raise PairingError(
                f"{a.measure} is over {a.n} units in one comparison and {b.n} in the other;"
                " needed the same rows"
            )
        score = Score(
            measure=a.measure, value=None, x=f"{a.x} less {b.x}", y=f"{a.y} less {b.y}", n=a.n,
            x_layer=a.x_layer, y_layer=a.y_layer, parameters=a.parameters, within=a.within,
            role="difference", undefined=a.undefined or b.undefined,
        )  # fmt: skip
        if a.value is not None and b.value is not None:
            mine = first.replicates.get(key)
            theirs = second.replicates.get((b.measure, b.x_layer, b.y_layer))
            interval = None
            if mine is not None and theirs is not None:
                if len(mine) != len(theirs):
                    raise PairingError(
                        f"the comparisons have {len(mine)} and {len(theirs)} folds; needed the same"
                    )
                replicates[key] = [u - v for u, v in zip(mine, theirs, strict=True)]
                interval = jackknife_interval(a.value - b.value, replicates[key])
            score = msgspec.structs.replace(score, value=a.value - b.value, interval=interval)
        scores.append(score)
    return Comparison(tuple(scores), replicates)


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

"""Estimates that train nothing, with a null and an interval."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import torch

from mirror_analysis.errors import DefinitionError, DegenerateError, UnknownNameError
from mirror_analysis.inference import folds, jackknife_interval, permutations
from mirror_analysis.inference import p_value as permutation_p
from mirror_analysis.inference.units import Labels
from mirror_analysis.information.gaussian import gaussian_mi
from mirror_analysis.information.inputs import paired_rows
from mirror_analysis.information.ksg import ksg_mi
from mirror_analysis.matrices import Array
from mirror_analysis.results import Null, Parameter, Score

_ESTIMATORS: dict[str, tuple[Callable[..., float], frozenset[str]]] = {
    "gaussian_mi": (gaussian_mi, frozenset({"components", "correct", "shrinkage"})),
    "ksg_mi": (ksg_mi, frozenset({"algorithm", "k", "standardise"})),
}


def information_score(
    x: Array,
    y: Array,
    *,
    measure: str = "gaussian_mi",
    units: Labels | None = None,
    draws: int = 199,
    seed: int = 0,
    settings: Mapping[str, Parameter] | None = None,
) -> Score:
    """`gaussian_mi` or `ksg_mi` of paired rows, with a null, a p-value and an interval.

    Where rows are single units and nothing is shrunk, `gaussian_mi` is corrected exactly.
    Otherwise the mean over shuffled pairings of whole units is taken off, since rows of one unit
    are worth fewer than their number.

    Args:
        x: [sample, x_feature].
        y: [sample, y_feature], the same samples.
        measure: "gaussian_mi" or "ksg_mi".
        units: [sample] labels of independent units of equally many rows, such as episodes; None
            for every row by itself.
        draws: shuffled pairings, at least 1.
        seed: of the shuffles and the folds.
        settings: keyword arguments of the measure.

    Returns:
        The score: interval by leaving out 32 groups of units (jackknife), null by shuffling
        whole units, `n` = units.

    Raises:
        UnknownNameError: if there is no such measure.
        DefinitionError: if the measure has no such setting.
        DegenerateError: if no draw is asked for, or as the measure itself raises.
        ShapeError: as the measure raises, or if units have different numbers of rows.

    Source:
        Kott 2001 (jackknife); Phipson and Smyth 2010 (p-value).

    Example:
        >>> x, y = TASKS["normal-bivariate-0.75"].sample(5000, seed=0)  # exact: 0.413
        >>> score = information_score(x, y)
        >>> round(score.value, 2), score.p_value
        (0.41, 0.005)
    """
    if measure not in _ESTIMATORS:
        raise UnknownNameError("measure", measure, _ESTIMATORS)
    function, known = _ESTIMATORS[measure]
    chosen = dict(settings or {})
    if not set(chosen) <= known:
        raise DefinitionError(
            f"{measure} has no setting {', '.join(sorted(set(chosen) - known))} here;"
            f" needed some of {', '.join(sorted(known))}"
        )
    if draws < 1:
        raise DegenerateError(f"information_score got draws {draws}; needed at least 1")
    a, b = paired_rows(x, y)
    labels = np.arange(len(a)) if units is None else np.asarray(units)
    corrected = measure == "gaussian_mi" and bool(chosen.pop("correct", True))
    plain = partial(function, **chosen)
    if measure == "gaussian_mi":
        plain = partial(plain, correct=False)
    orders = permutations(labels, draws=draws, seed=seed)
    fold = folds(labels, seed=seed)
    value = plain(a, b)
    shuffles = np.array([plain(a, b[torch.from_numpy(order).to(b.device)]) for order in orders])
    without = np.empty(int(fold.max()) + 1)
    for left_out in range(len(without)):
        kept = torch.from_numpy(fold != left_out).to(a.device)
        without[left_out] = plain(a[kept], b[kept])
    excess, how = 0.0, "none"
    if corrected and units is None and chosen.get("shrinkage", "none") == "none":
        excess, how = value - function(a, b, **chosen), "exact"
    elif corrected:
        excess, how = float(shuffles.mean()), "shuffled units"
    shuffles, without, value = shuffles - excess, without - excess, value - excess
    return Score(
        measure=measure,
        value=value,
        x="x",
        y="y",
        n=len(np.unique(labels)),
        interval=jackknife_interval(value, without),
        null=Null(float(shuffles.mean()), float(shuffles.std()), draws, "units"),
        p_value=float(permutation_p(value, shuffles)),
        parameters={**chosen, "correction": how},
    )

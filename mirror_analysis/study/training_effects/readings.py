"""What is read off one trained pair: numbers with the replicates that differences need."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import numpy as np
from numpy.typing import NDArray

from mirror_analysis.inference.jackknife import folds, jackknife_interval
from mirror_analysis.results import Comparison, Null, Parameter, Score


class Reading(msgspec.Struct, frozen=True):
    """A number of one trained pair.

    Attributes:
        score: the number, without the condition of training it belongs to.
        replicates: [fold] the same without each group of episodes; empty where not defined.
    """

    score: Score
    replicates: list[float]


class Part(msgspec.Struct, frozen=True):
    """Every number of one kind of one trained pair."""

    readings: list[Reading]


def from_comparison(comparison: Comparison, **changes: object) -> list[Reading]:
    """The scores of a comparison with their replicates.

    Args:
        comparison: of two representations.
        **changes: fields of the scores that are set anew; `parameters` are added.
    """
    added = changes.pop("parameters", {})
    assert isinstance(added, Mapping)
    return [
        Reading(
            msgspec.structs.replace(s, **changes, parameters={**s.parameters, **added}),
            list(comparison.replicates.get((s.measure, s.x_layer, s.y_layer), [])),
        )
        for s in comparison.scores
    ]


def shares(
    right: NDArray[np.bool_],
    task: NDArray[np.generic],
    unit: NDArray[np.generic],
    *,
    base: Score,
    count: int,
    chance: float | None = None,
) -> list[Reading]:
    """A share over all tasks and of each task, with jackknife replicates over episodes.

    Tasks weigh as many episodes as they have. Over all tasks, folds hold episodes of every task;
    of one task, they hold its own.

    Args:
        right: [episode] whether it counts.
        task: [episode] names.
        unit: [episode] ids, the same for every trained pair.
        base: what the scores are besides their value.
        count: folds.
        chance: what guessing gives; None where nobody can guess.

    Returns:
        One over all tasks, then one per task with the parameter "task".
    """
    groups = {"": np.ones(len(right), dtype=bool)}
    groups |= {str(name): task == name for name in np.unique(task)}
    return [
        _share(right[mask], task[mask], unit[mask], name, base, count, None if name else chance)
        for name, mask in groups.items()
    ]


def _share(
    right: NDArray[np.bool_], task: NDArray[np.generic], unit: NDArray[np.generic], name: str,
    base: Score, count: int, chance: float | None,
) -> Reading:  # fmt: skip
    parameters: dict[str, Parameter] = {**base.parameters, **({"task": name} if name else {})}
    value, null = float(right.mean()), None
    if chance is not None:
        null = Null(chance, (chance * (1 - chance) / right.size) ** 0.5, 0, "guessing")
    if right.size < 2:
        score = msgspec.structs.replace(base, value=value, n=right.size, parameters=parameters)
        return Reading(score, [])
    fold = folds(unit, within=task, count=count)
    replicates = [float(right[fold != number].mean()) for number in range(int(fold.max()) + 1)]
    interval = jackknife_interval(value, replicates)
    score = msgspec.structs.replace(
        base, value=value, n=right.size, interval=interval, null=null, parameters=parameters,
        ceiling=1.0,
    )  # fmt: skip
    return Reading(score, replicates)

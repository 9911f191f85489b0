"""How often an observation model names the right instruction."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from mirror_analysis.episodes import Episodes
from mirror_analysis.errors import FormatError, UnknownNameError
from mirror_analysis.extraction import extract
from mirror_analysis.inference.proportion import wilson
from mirror_analysis.models.model import Model
from mirror_analysis.models.reference.family import ReferenceObservation
from mirror_analysis.results import Score


def recognise(
    model: Model,
    episodes: Episodes,
    *,
    condition: str = "plain",
    device: str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> list[Score]:
    """Share of episodes whose instruction the model names, by task and over all.

    Args:
        model: an observation model that was trained to name instructions.
        episodes: that it has not seen; disturb them with `apply_nuisance` where that is asked.
        condition: how to call the state of the views in the scores.
        device: where the model runs.
        progress: called with (episodes done, episodes in all).

    Returns:
        "instruction_accuracy" in [0, 1] with its Wilson interval: one per task, then over all.

    Raises:
        FormatError: if the model does not name instructions.
        UnknownNameError: if an episode's instruction is not among those the model knows.
    """
    if not isinstance(model, ReferenceObservation):
        raise FormatError(
            f"{model.name} does not name instructions; give an observation model such as"
            " reference-observation-s0"
        )
    labels = episodes.labels()
    for instruction in np.unique(labels["instruction"]).tolist():
        if instruction not in model.instructions:
            raise UnknownNameError(f"instruction of {model.name}", instruction, model.instructions)
    told = None if progress is None else lambda p: progress(p.done, p.total)
    logits = extract(model, episodes, layers=["instruction"], device=device, progress=told)
    named = np.array(model.instructions)[logits["instruction"].values.argmax(axis=1)]
    right: NDArray[np.bool_] = named == labels["instruction"]
    tasks = labels["task"]
    scores = [
        _accuracy(model, str(task), right[tasks == task], condition) for task in np.unique(tasks)
    ]
    return [*scores, _accuracy(model, "all tasks", right, condition)]


def _accuracy(
    model: ReferenceObservation, task: str, right: NDArray[np.bool_], condition: str
) -> Score:
    count, trials = int(right.sum()), right.size
    return Score(
        "instruction_accuracy",
        count / trials,
        x=model.name,
        y=task,
        n=trials,
        interval=wilson(count, trials),
        parameters={"classes": len(model.instructions), "right": count},
        condition=condition,
    )

"""How training went under every condition, as scores on what was trained on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from mirror_analysis.results import Score
from mirror_analysis.study.training_effects.effects import ROLES
from mirror_analysis.study.training_effects.runs import Run, curve_of
from mirror_analysis.training_definitions import TrainingStudyDefinition

STAGE = "training"
LOSSES = ("observation", "execution", "alignment")


def curves(
    runs: Sequence[Run], out: Path, definition: TrainingStudyDefinition, *, episodes: int
) -> list[Score]:
    """Losses at the end of every pass, means over training seeds.

    Args:
        runs: whose records are there.
        out: folder of the study.
        definition: of the study.
        episodes: how many were trained on.

    Returns:
        "observation_loss", "execution_loss" and "alignment_loss" of the split "fit" and the stage
        "training", with the parameters "comparison", "update", and the "least" and "largest" of
        the seeds.
    """
    scores: list[Score] = []
    for condition in definition.conditions:
        kept = [curve_of(run, out) for run in runs if run.condition == condition.name]
        for loss in LOSSES:
            scores += _of_loss(kept, loss, condition.name, definition, episodes)
    return scores


def _of_loss(
    kept: Sequence[dict[str, list[float]]], loss: str, condition: str,
    definition: TrainingStudyDefinition, episodes: int,
) -> Iterator[Score]:  # fmt: skip
    curves = [curve for curve in kept if loss in curve]
    if not curves:
        return
    # One more pass in one seed than in another cannot be averaged.
    length = min(len(curve[loss]) for curve in curves)
    values = np.array([curve[loss][:length] for curve in curves])
    for place in range(length):
        seeds = values[:, place]
        yield Score(
            f"{loss}_loss",
            float(seeds.mean()),
            x="observation" if loss != "execution" else "execution",
            y="execution" if loss == "alignment" else "",
            n=episodes,
            split="fit",
            stage=STAGE,
            role=ROLES[definition.named(condition).role],
            parameters={
                "comparison": condition,
                "update": int(curves[0]["update"][place]),
                "least": float(seeds.min()),
                "largest": float(seeds.max()),
            },
        )

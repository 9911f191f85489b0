"""What a result of a study of training says of itself besides its numbers."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from mirror_analysis.episodes import Episodes
from mirror_analysis.provenance import sha256_file
from mirror_analysis.study.training_effects.runs import FILES, Run
from mirror_analysis.training_definitions import ConditionRole, TrainingStudyDefinition


def display_names(definition: TrainingStudyDefinition) -> dict[str, str]:
    """What to call either model."""
    m = definition.models
    return {
        "x": f"observation model (camera {m.x_camera})",
        "y": f"execution model (camera {m.y_camera})",
    }


def seeds(definition: TrainingStudyDefinition) -> dict[str, list[int]]:
    """Every seed by purpose."""
    return {
        "training": list(definition.models.seeds),
        "demonstrations": [definition.demonstrations.seed],
        "fit episodes": [definition.episodes.seed_fit],
        "test episodes": [definition.episodes.seed_test],
        "nuisance": [definition.nuisance.seed],
        "alignment": list(definition.alignment.probe_seeds),
        "environments": [definition.evaluation.rollout_seed],
    }


def inputs(runs: Sequence[Run], out: Path, episodes: Mapping[str, Episodes]) -> dict[str, str]:
    """Digests of all weights and of the episodes.

    Args:
        runs: whose files are there.
        out: folder of the study.
        episodes: by what they are for.
    """
    found = {
        f"{run.name}/{name}": sha256_file(run.folder(out) / name) for run in runs for name in FILES
    }
    return found | {name: chosen.fingerprint for name, chosen in episodes.items()}


def data(
    definition: TrainingStudyDefinition, demonstrations: Episodes, episodes: Episodes
) -> dict[str, object]:
    """How many episodes of which kind, of which tasks."""
    labels = episodes.labels()
    test = labels["split"] == "test"
    ids = "\n".join(sorted(episode.id for episode in (*demonstrations, *episodes)))
    tasks = sorted(set(labels["task"].tolist()))
    return {
        "demonstrations": len(demonstrations),
        "fit episodes": int((~test).sum()),
        "test episodes": int(test.sum()),
        "roll-outs per policy": definition.evaluation.rollouts * len(tasks),
        "tasks": tasks,
        "instructions": len(set(labels["instruction"].tolist())),
        "episode ids sha256": hashlib.sha256(ids.encode()).hexdigest(),
    }


def notes(definition: TrainingStudyDefinition) -> list[str]:
    """What a reader must know, one sentence or two each."""
    m, headline = definition.models, definition.evaluation.headline
    made = [
        "Under one and the same seed every condition starts from the same weights and sees the"
        " same episodes in the same order, and every policy meets the same situations; differences"
        " are taken pair by pair.",
        f"That findings are about “{definition.named(headline).title}”, and that the layers are"
        f" {m.x_layer} and {m.y_layer}, was chosen before looking.",
        "Models are trained on the demonstrations only; alignments are fitted again, and probes"
        " fitted, on other episodes, and numbers come from a third set.",
    ]
    controls = _titles(definition, "control")
    if controls:
        made.append(
            "The controls put the same kind of pressure on the representations without what the"
            f" partner knows of the episode: {', '.join(controls)}."
        )
    else:
        made.append("This study has no controls: it compares ways of aligning with one another.")
    if len(m.seeds) == 1:
        made.append(
            "One seed was trained: intervals are for new episodes and know nothing of how training"
            " runs differ."
        )
    if definition.published:
        made.append(
            f"Published numbers ({definition.published_from}) stand beside ours and enter no"
            " computation; tasks, models and data differ."
        )
    return made


def _titles(definition: TrainingStudyDefinition, role: ConditionRole) -> list[str]:
    return [c.title for c in definition.conditions if c.role == role]

"""How the numbers of a study of training were made, in sentences."""

from __future__ import annotations

from collections.abc import Mapping

from mirror_analysis.reporting import wording
from mirror_analysis.reporting.methods import setting
from mirror_analysis.reporting.training_effects.evidence import TrainingEvidence


def methods(evidence: TrainingEvidence) -> list[str]:
    """Paragraphs on training, measuring, differences, intervals and controls."""
    parts = (_training, _measuring, _differences, _intervals, _controls)
    return [text for text in (part(evidence) for part in parts) if text]


def _section(evidence: TrainingEvidence, name: str) -> Mapping[str, object]:
    value = evidence.result.definition.get(name)
    return value if isinstance(value, Mapping) else {}


def _training(evidence: TrainingEvidence) -> str:
    training = _section(evidence, "training")
    told = ", ".join(f"{k.replace('_', ' ')} {setting(v)}" for k, v in training.items())
    return (
        f"{evidence.x} and {evidence.y} are trained together; the loss is that of the one, plus"
        " the weighed loss of the other, plus the weighed loss of alignment (bidirectional InfoNCE"
        f" after one linear map each). Settings: {wording.plain(told)}. Conditions change only"
        " what their names say; trained apart, the weight of the alignment is 0 and everything"
        " else is the same code, data and number of updates."
    )


def _measuring(evidence: TrainingEvidence) -> str:
    models = _section(evidence, "models")
    return (
        "Recognition is the share of test episodes whose instruction the observation model names"
        " (chance: one of all instructions); success is the share of situations in which the"
        " policy does the task in closed loop, the same situations for every policy. Agreement is"
        f" measured between the layers {setting(models.get('x_layer'))} and"
        f" {setting(models.get('y_layer'))}: Recall@1 of linear maps that are fitted anew on"
        " frozen features of other episodes, or that were trained with the models, and similarity"
        " of the features as they are. “Within task” leaves out what tells tasks apart."
    )


def _differences(evidence: TrainingEvidence) -> str:
    return (
        "Differences are taken between runs of one training seed, which start from the same"
        " weights and see the same episodes in the same order, on the same test episodes or"
        " situations, and then averaged over seeds."
    )


def _intervals(evidence: TrainingEvidence) -> str:
    meaning = wording.intervals(evidence.result.scores)
    if not meaning:
        return "The result gives no intervals."
    text = f"Intervals: {meaning}. A group of episodes is left out at a time;"
    return text + (
        " the variance between the training seeds is added, so they hold for new episodes and new"
        " training runs."
        if len(evidence.seeds) > 1
        else " they know nothing of how training runs differ."
    )


def _controls(evidence: TrainingEvidence) -> str:
    titles = [f"“{c.title}”" for c in evidence.conditions.values() if c.role == "control"]
    if not titles:
        return ""
    return (
        f"Controls ({wording.listing(titles)}) have the same kind of loss and none of what the"
        " partner knows of the episode. A gain that they have too is not one of alignment. The"
        " excess is over the best of them; its interval is valid whichever that truly is."
    )

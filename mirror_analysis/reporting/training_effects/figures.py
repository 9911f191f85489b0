"""The figures of a study of training, in reading order."""

from __future__ import annotations

from collections.abc import Callable

from mirror_analysis.reporting.figures.drawing import Absent, Drawing
from mirror_analysis.reporting.training_effects.agreement import draw as _agreement
from mirror_analysis.reporting.training_effects.elsewhere import draw as _elsewhere
from mirror_analysis.reporting.training_effects.evidence import TrainingEvidence
from mirror_analysis.reporting.training_effects.few_shot import draw as _few_shot
from mirror_analysis.reporting.training_effects.forest import draw as _forest
from mirror_analysis.reporting.training_effects.looks import draw as _looks
from mirror_analysis.reporting.training_effects.losses import draw as _losses
from mirror_analysis.reporting.training_effects.pairings import draw as _pairings
from mirror_analysis.reporting.training_effects.probes import draw as _probes
from mirror_analysis.reporting.training_effects.tasks import draw as _tasks

FIGURES: dict[str, Callable[[TrainingEvidence], Drawing | Absent]] = {
    "gains": _forest,
    "pairings": _pairings,
    "tasks": _tasks,
    "agreement": _agreement,
    "probes": _probes,
    "few-shot": _few_shot,
    "elsewhere": _elsewhere,
    "looks": _looks,
    "losses": _losses,
}
"""Name -> what draws it."""

"""What linear probes read off either model under every condition of training."""

from __future__ import annotations

from mirror_analysis.reporting import wording
from mirror_analysis.reporting.figures.drawing import Absent, Drawing
from mirror_analysis.reporting.training_effects.evidence import TrainingEvidence, details
from mirror_analysis.reporting.training_effects.rows import Frame, Panel, draw_rows, known

_AXIS = "share of episodes or variance"
_NAME = "probes"
_TITLE = "Linear probes before and after"


def panels(evidence: TrainingEvidence) -> list[Panel]:
    """A panel per question and model, in the order of the result."""
    found: dict[Panel, None] = {}
    for s in evidence.result.scores:
        told = dict(details(s))
        if s.measure.startswith("probe_") and "setting" not in told and s.role != "difference":
            # The label inside which episodes trade places under the null belongs to the question.
            title = (
                f"{wording.plain(told.get('probe', ''))}, {wording.plain(told.get('model', ''))}"
            )
            found[Panel(title, s.measure, s.within, tuple(sorted(told.items())))] = None
    return list(found)


def draw(evidence: TrainingEvidence) -> Drawing | Absent:
    """A panel per question and model."""
    shown = known(evidence, panels(evidence))
    if not shown:
        return Absent(_NAME, _TITLE, "the result has no linear probes")
    caption = (
        "Share of episodes that are named right, or share of variance, by linear probes of the"
        " declared layers, fitted on episodes that no model was trained on and tested on others."
    )
    return draw_rows(evidence, shown, Frame(_NAME, _TITLE, caption, _AXIS), across=3)

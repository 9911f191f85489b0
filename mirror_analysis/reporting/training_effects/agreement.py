"""How far the two models agree under every condition of training."""

from __future__ import annotations

from mirror_analysis.reporting.figures.drawing import Absent, Drawing
from mirror_analysis.reporting.training_effects.evidence import FITTED, TRAINED, TrainingEvidence
from mirror_analysis.reporting.training_effects.rows import Frame, Panel, draw_rows, known

_NAME = "agreement"
_TITLE = "Agreement before and after"

PANELS = (
    Panel("Recall@1, maps fitted anew", "recall_at_1", details=(("maps", FITTED),)),
    Panel("Recall@1, maps of training", "recall_at_1", details=(("maps", TRAINED),)),
    Panel("Linear CKA", "linear_cka"),
    Panel("Linear CKA within task", "linear_cka", "task"),
)


def draw(evidence: TrainingEvidence) -> Drawing | Absent:
    """A panel per measure."""
    panels = known(evidence, PANELS)
    if not panels:
        return Absent(_NAME, _TITLE, "the result has no measure of agreement")
    caption = (
        f"{evidence.x} and {evidence.y} on episodes neither was trained on, before (trained apart)"
        " and after alignment."
    )
    if PANELS[1] in panels:
        caption += " Maps of training exist where the two models were aligned to each other."
    return draw_rows(evidence, panels, Frame(_NAME, _TITLE, caption))

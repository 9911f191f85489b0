"""Probes away from where they were fitted: on the other model, and in tasks that were held out."""

from __future__ import annotations

from mirror_analysis.reporting.figures.drawing import Absent, Drawing
from mirror_analysis.reporting.training_effects.evidence import TrainingEvidence
from mirror_analysis.reporting.training_effects.rows import Frame, Panel, draw_rows, known
from mirror_analysis.reporting.wording import plain

_AXIS = "share of episodes"
_NAME = "elsewhere"
_TITLE = "On the other model, and in new tasks"

_CROSSED = "fitted on the other model"
_CEILING = "fitted on the model itself, in the shared space"
_MIXED = "fitted on the other model, maps of shuffled pairs"
_NEW = "tasks that were held out"

_FROM = {"execution": "observation", "observation": "execution"}


def panels(evidence: TrainingEvidence) -> list[Panel]:
    """Transfer with its control and its ceiling, then new tasks, model by model."""
    measures = {s.measure for s in evidence.result.scores if s.parameters.get("setting")}
    found = []
    for model, other in _FROM.items():
        for title, within, setting in (
            (f"probe, {other} → {model}", "", _CROSSED),
            ("the same, maps of shuffled pairs", "", _MIXED),
            (f"probe of its own, {model}", "", _CEILING),
            (f"new tasks, {model}", "task", _NEW),
        ):
            told = (("model", model), ("setting", setting))
            found += [Panel(title, measure, within, told) for measure in sorted(measures)]
    return list(known(evidence, found))


def draw(evidence: TrainingEvidence) -> Drawing | Absent:
    """A panel per question and model."""
    shown = known(evidence, panels(evidence))
    if not shown:
        return Absent(_NAME, _TITLE, "the result has no probes away from where they were fitted")
    target, held_out = (
        plain(evidence.generalisation.get(key, "label")) for key in ("target", "held_out")
    )
    caption = (
        f"How often a probe fitted on the model before the arrow tells the {target} from the model"
        " after it, in the space of an alignment of frozen features; the same where the alignment"
        " was fitted on pairs shuffled within tasks; and a probe fitted on the model itself."
    )
    if any(panel.within for panel in shown):
        caption += f" New tasks: the {held_out} in tasks that the probe was not fitted on."
    return draw_rows(evidence, shown, Frame(_NAME, _TITLE, caption, _AXIS), across=4)

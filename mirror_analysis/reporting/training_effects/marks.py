"""How conditions of training are told apart where several share a panel."""

from __future__ import annotations

from mirror_analysis.reporting import style
from mirror_analysis.reporting.style import Mark
from mirror_analysis.reporting.training_effects.evidence import TrainingEvidence


def condition_marks(evidence: TrainingEvidence) -> dict[str, Mark]:
    """Condition -> how it looks; the declared one stands out, the baseline stays grey."""
    found = {evidence.baseline: style.ROLES["reference"], evidence.headline: style.ROLES["pair"]}
    others = [c for c in evidence.conditions if c not in found]
    return found | {c: style.SERIES[i % len(style.SERIES)] for i, c in enumerate(others)}

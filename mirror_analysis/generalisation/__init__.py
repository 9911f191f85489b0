"""What a representation still says away from where it was learned; names load when first used."""

from __future__ import annotations

from mirror_analysis.lazy import lazy

_PUBLIC = {
    "Classifier": "few_shot_probes",
    "Conditions": "conditions",
    "ConditionsConfig": "conditions",
    "FewShotConfig": "few_shot",
    "Gain": "gains",
    "HeldOut": "held_out",
    "HeldOutConfig": "held_out",
    "JudgeConfig": "judging",
    "Measured": "judging",
    "Meeting": "transfer",
    "Parts": "parts",
    "Prediction": "judging",
    "Rows": "parts",
    "Shots": "few_shot_points",
    "Subject": "judging",
    "TransferConfig": "transfer",
    "above_controls": "gains",
    "across_conditions": "conditions",
    "across_models": "transfer",
    "curve_frame": "few_shot_points",
    "excess_gain": "gains",
    "few_shot_curve": "few_shot",
    "few_shot_gain": "few_shot_points",
    "held_out_groups": "held_out",
    "judge": "judging",
    "measure_mean": "judging",
    "paired_gain": "gains",
    "parts_of": "parts",
    "shuffled_pairs": "transfer",
}
__all__ = sorted(_PUBLIC)

__getattr__, __dir__ = lazy(__name__, _PUBLIC)

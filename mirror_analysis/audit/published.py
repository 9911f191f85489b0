"""Statistics over models, recomputed from the published points of a study."""

from __future__ import annotations

import csv
from importlib import resources

from mirror_analysis.audit.checks import Check, Job, judged, near, shown
from mirror_analysis.inference.association import correlation

_GROUP = "correlation"
# Half of the last digit that was published.
_DIGITS3, _DIGITS4 = 0.0005, 0.00005


def jobs(quick: bool, seed: int) -> list[Job]:
    """One job; it takes a second either way."""
    return [Job(_GROUP, "published correlations", published, {"seed": seed})]


def points(panel: str) -> tuple[list[float], list[float]]:
    """Alignment and success of the models of a panel of the record."""
    text = resources.files(__package__).joinpath("sensorimotor_record.csv").read_text("utf-8")
    lines = (line for line in text.splitlines() if not line.startswith("#"))
    rows = [row for row in csv.DictReader(lines) if row["panel"] == panel]
    return [float(r["alignment"]) for r in rows], [float(r["success"]) for r in rows]


def published(seed: int) -> list[Check]:
    """The numbers of the record against those computed from its points."""
    vla = correlation(*points("VLA"), seed=seed)
    vlm = correlation(*points("VLM"), seed=seed)
    wam = correlation(*points("WAM"), seed=seed)
    assert vla.interval and vla.bootstrap and vla.leave_one_out and vlm.interval
    assert vla.p_value is not None and vla.p_parametric is not None
    assert vlm.p_value is not None and vlm.p_parametric is not None
    ranks = {name: correlation(*points(name), method="spearman") for name in ("VLA", "VLM")}
    # Both p's are from 20,000 random orders, so 99 % of the time this close.
    p_error = 2.58 * (2 * 0.0046 / 20_000) ** 0.5
    known = (
        ("VLA: Pearson r", vla.value, 0.7173, _DIGITS4),
        ("VLA: two-sided p", vla.p_parametric, 0.0086, _DIGITS4),
        ("VLA: one-sided permutation p", vla.p_value, 0.0046, p_error + _DIGITS4),
        ("VLA: Fisher interval, low", vla.interval.low, 0.244, _DIGITS3),
        ("VLA: Fisher interval, high", vla.interval.high, 0.915, _DIGITS3),
        ("VLA: bootstrap interval, low", vla.bootstrap.low, 0.442, 0.02),
        ("VLA: bootstrap interval, high", vla.bootstrap.high, 0.911, 0.01),
        ("VLA: least r without one model", vla.leave_one_out[0], 0.630, _DIGITS3),
        ("VLA: largest r without one model", vla.leave_one_out[1], 0.783, _DIGITS3),
        ("VLA: Spearman", ranks["VLA"].value, 0.802, _DIGITS3),
        ("VLM: Pearson r", vlm.value, 0.6813, _DIGITS4),
        ("VLM: two-sided p", vlm.p_parametric, 0.0628, _DIGITS4),
        ("VLM: one-sided p, all orders", vlm.p_value, 0.0338, p_error * 2.7 + _DIGITS4),
        ("VLM: Fisher interval, low", vlm.interval.low, -0.045, _DIGITS3),
        ("VLM: Fisher interval, high", vlm.interval.high, 0.936, _DIGITS3),
        ("VLM: Spearman", ranks["VLM"].value, 0.667, _DIGITS3),
        ("video models: r", correlation(*points("video")).value, 0.161, _DIGITS3),
        ("visual questions: r", correlation(*points("VQA")).value, -0.154, _DIGITS3),
    )
    found = [near(_GROUP, *row) for row in known]
    undefined = float(wam.p_value is None and wam.interval is None)
    found.append(
        judged(_GROUP, "WAM: no p and no interval from 3 models", undefined, low=1, high=1)
    )
    (thawed, frozen), (thawed_success, frozen_success) = points("freezing")
    falls = float(frozen < thawed and frozen_success < thawed_success)
    found.append(
        shown(_GROUP, "freezing: alignment and success fall together", falls, "two points, no r")
    )
    return found

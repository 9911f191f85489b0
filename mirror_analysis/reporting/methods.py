"""How the numbers were made, in sentences taken from the numbers themselves and the definition."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from mirror_analysis.reporting import wording
from mirror_analysis.reporting.evidence import TRAINED, Evidence, comparison, measure
from mirror_analysis.results import Score

_NOT_SETTINGS = ("comparison", "against", "best", "k", "gallery")
_LISTED = 24  # items of a list up to which all are shown


def methods(evidence: Evidence) -> list[str]:
    """Paragraphs on units, estimators, intervals, p-values, controls and training seeds."""
    return [text for text in (part(evidence) for part in _PARTS) if text]


def _units(evidence: Evidence) -> str:
    scores = evidence.result.scores
    if not scores:
        return ""
    splits = wording.listing(sorted({f"“{wording.plain(s.split)}”" for s in scores}))
    text = (
        f"The independent unit is the episode: {wording.units(scores)}; numbers come from the"
        f" split {splits}."
    )
    if evidence.layers.x:
        text += (
            f" The declared layers are {wording.plain(evidence.layers.x)} of {evidence.x} and"
            f" {wording.plain(evidence.layers.y)} of {evidence.y}."
        )
    if any(evidence.withins):
        named = wording.listing(wording.within_label(w) for w in evidence.withins if w)
        text += f" Scores “{named}” compare episodes only with others of the same group."
    return text


def _estimators(evidence: Evidence) -> str:
    shown: dict[str, str] = {}
    for score in evidence.result.scores:
        name = measure(score)
        if score.role != "difference" and name in evidence.measures and name not in shown:
            settings = [f"{k} = {_value(v)}" for k, v in _settings(score).items()]
            label = wording.measure_axis(name)
            shown[name] = f"{label} ({wording.plain(', '.join(settings))})" if settings else label
    if not shown:
        return ""
    text = f"Measures: {'; '.join(shown.values())}."
    if any(s.ceiling is not None for s in evidence.result.scores):
        text += (
            " A score with a ceiling cannot exceed it: an InfoNCE bound never exceeds the logarithm"
            " of its batch, so near that value it says “at least” and no more."
        )
    return text


def _settings(score: Score) -> dict[str, object]:
    recall = measure(score).startswith("recall_at_")
    skip = _NOT_SETTINGS[:3] if not recall else (*_NOT_SETTINGS[:3], "k")
    return {k: v for k, v in score.parameters.items() if k not in skip}


def _alignment(evidence: Evidence) -> str:
    section = evidence.result.definition.get("alignment")
    if not isinstance(section, Mapping) or not section:
        return ""
    settings = ", ".join(f"{_words(k)} {_value(v)}" for k, v in section.items())
    return (
        "Retrieval and the InfoNCE bound follow a linear alignment of frozen features, fitted on"
        f" episodes apart from those the numbers come from ({wording.plain(settings)})."
    )


def _intervals(evidence: Evidence) -> str:
    meaning = wording.intervals(evidence.result.scores)
    if not meaning:
        return "The result gives no intervals."
    return f"Intervals are {meaning}. Where none is shown, the result has none."


def _p_values(evidence: Evidence) -> str:
    nulls = {s.null for s in evidence.result.scores if s.null is not None}
    schemes = sorted(
        {
            f"{n.draws} permutations of {wording.plain(n.scheme)}"
            if n.draws
            else f"a null known in closed form ({wording.plain(n.scheme)})"
            for n in nulls
        }
    )
    if not schemes:
        return "The result gives no null distributions."
    return (
        f"p-values are one-sided, from {wording.listing(schemes)}: the share of the null that is at"
        " least as large as the value. p max is the same for the largest cell of the layer grid,"
        " so it pays for having looked at every cell."
    )


def _controls(evidence: Evidence) -> str:
    by_role = {
        role: [wording.comparison_label(k) for k, r in evidence.comparisons.items() if r == role]
        for role in ("control", "reference")
    }
    text = ""
    if by_role["control"]:
        text += (
            "Matched controls are functions of what the layer sees"
            f" ({wording.listing(by_role['control'])}); the excess is over the largest of them."
        )
    if by_role["reference"]:
        text += (
            f" References see more than the layer ({wording.listing(by_role['reference'])}):"
            " they set the scale and are nothing to exceed."
        )
    return text.strip()


def _seeds(evidence: Evidence) -> str:
    if not evidence.seeds:
        return ""
    means = any(s.seed is None and comparison(s) == TRAINED for s in evidence.result.scores)
    count = len(evidence.seeds)
    text = f"Models were trained with seed{'s' if count > 1 else ''}"
    text += f" {wording.listing(str(seed) for seed in evidence.seeds)}"
    return text + ("; scores without a seed are means over them." if means else ".")


_PARTS = (_units, _estimators, _alignment, _intervals, _p_values, _controls, _seeds)


def flat(value: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, str]]:
    """A nested table as dotted names and values in words; long lists give their size."""
    for key, item in value.items():
        if isinstance(item, Mapping) and item:
            yield from flat(item, f"{prefix}{key}.")
        else:
            yield wording.plain(f"{prefix}{key}"), wording.plain(_value(item))


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        if len(value) > _LISTED:
            return f"{', '.join(map(_value, value[:3]))}, … ({len(value)} in all)"
        return ", ".join(map(_value, value)) or "none"
    if value is None or value == {}:
        return "none"
    return str(value)


def _words(name: object) -> str:
    return str(name).replace("_", " ")

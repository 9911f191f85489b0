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
        text += (
            f" Scores “{named}” leave out what tells the groups apart: for similarities the group"
            " means are removed from every feature, and in retrieval the gallery holds episodes of"
            " the same group only."
        )
    return text


def _estimators(evidence: Evidence) -> str:
    shown: dict[str, str] = {}
    for score in evidence.result.scores:
        name = measure(score)
        if score.role != "difference" and name in evidence.measures and name not in shown:
            settings = [f"{k} = {setting(v)}" for k, v in _settings(score).items()]
            label = wording.measure_axis(name)
            shown[name] = f"{label} ({wording.plain(', '.join(settings))})" if settings else label
    if not shown:
        return ""
    text = f"Measures: {'; '.join(shown.values())}."
    if "recall_at_1" in shown:
        text += " A gallery is all episodes where there are fewer than it asks for."
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
    fits = section.get("probe_seeds")
    settings = ", ".join(f"{_words(k)} {setting(v)}" for k, v in section.items())
    text = (
        "Retrieval and the InfoNCE bound follow a linear alignment of frozen features, fitted on"
        f" episodes apart from those the numbers come from ({wording.plain(settings)})."
    )
    if isinstance(fits, list) and len(fits) > 1:
        text += (
            f" At the declared layers they are means over {len(fits)} fits with seeds of their own;"
            " cells of a layer grid come from one fit each."
        )
    return text


def _intervals(evidence: Evidence) -> str:
    meaning = wording.intervals(evidence.result.scores)
    if not meaning:
        return "The result gives no intervals."
    text = (
        f"Intervals: {meaning}. A group of episodes is left out at a time, with fitted maps held"
        " fixed, so they hold for new episodes;"
    )
    text += (
        " with several training seeds the variance between the seeds is added, so they hold for"
        " new seeds too."
        if len(evidence.seeds) > 1
        else " they know nothing of how training seeds differ."
    )
    return text + " Where none is shown, the result has none."


def _p_values(evidence: Evidence) -> str:
    nulls = {s.null for s in evidence.result.scores if s.null is not None}
    schemes = {
        f"{n.draws} permutations of {wording.of_episodes(n.scheme)}"
        if n.draws
        else f"a null known in closed form ({wording.of_episodes(n.scheme)})"
        for n in nulls
    }
    if not schemes:
        return "The result gives no null distributions."
    text = (
        f"p-values are one-sided, from {wording.listing(sorted(schemes))}: the share of the null"
        " that is at least as large as the value."
    )
    if any(n.draws for n in nulls):
        text += " Whole episodes are permuted, with fitted maps held fixed."
    return text + (
        " p max is the same for the largest cell of the layer grid, so it pays for having looked"
        " at every cell. The p of averaged numbers is the largest of those averaged."
    )


def _controls(evidence: Evidence) -> str:
    by_role = {
        role: [wording.comparison_label(k) for k, r in evidence.comparisons.items() if r == role]
        for role in ("control", "reference")
    }
    text = ""
    if by_role["control"]:
        text += (
            "Matched controls see what the declared layers see and have not learned both sides of"
            f" it ({wording.listing(by_role['control'])}). The excess is over the largest of them;"
            " the low end of its interval is the least over all matched controls, so it is valid"
            " whichever of them is truly the best."
        )
    if by_role["reference"]:
        text += (
            " References are told something those layers would have to find out (state,"
            " proprioception, time, task identity), or are the trained pair itself with its fit"
            f" pairs mixed ({wording.listing(by_role['reference'])}): they set the scale and do not"
            " count as controls."
        )
    return text.strip()


def _seeds(evidence: Evidence) -> str:
    models = evidence.result.definition.get("models")
    draws = models.get("untrained_draws") if isinstance(models, Mapping) else None
    text = ""
    if evidence.seeds:
        count = len(evidence.seeds)
        text = f"Models were trained with seed{'s' if count > 1 else ''}"
        text += f" {wording.listing(str(seed) for seed in evidence.seeds)}"
        means = any(s.seed is None and comparison(s) == TRAINED for s in evidence.result.scores)
        text += "; scores without a seed are means over them." if means and count > 1 else "."
    if isinstance(draws, int) and draws > 1:
        each = " for each training seed" if evidence.seeds else ""
        text += f" Untrained twins are means over {draws} initialisations{each}."
    return text.strip()


_PARTS = (_units, _estimators, _alignment, _intervals, _p_values, _controls, _seeds)


def flat(value: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, str]]:
    """A nested table as dotted names and values in words; long lists give their size."""
    for key, item in value.items():
        if isinstance(item, Mapping) and item:
            yield from flat(item, f"{prefix}{key}.")
        else:
            yield wording.plain(f"{prefix}{key}"), wording.plain(setting(item))


def setting(value: object) -> str:
    """A value of a definition in words; long lists give their size."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        if len(value) > _LISTED:
            return f"{', '.join(map(setting, value[:3]))}, … ({len(value)} in all)"
        return ", ".join(map(setting, value)) or "none"
    if value is None or value == {}:
        return "none"
    return str(value)


def _words(name: object) -> str:
    return str(name).replace("_", " ")

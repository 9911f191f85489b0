"""How names and numbers are put into words, the same in figures, tables and sentences."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from mirror_analysis.results import Score

DASH = "–"
MINUS = "−"

_MEASURES = {
    "alignment_loss": "Alignment loss",
    "cknna": "CKNNA",
    "cycle_knn": "Cycle k-NN",
    "distance_correlation": "Distance correlation",
    "donsker_varadhan": "Donsker–Varadhan",
    "execution_loss": "Execution loss",
    "few_shot_accuracy": "Few-shot accuracy",
    "few_shot_balanced_accuracy": "Few-shot balanced accuracy",
    "gaussian_mi": "Gaussian MI",
    "infonce": "InfoNCE",
    "instruction_accuracy": "Recognition accuracy",
    "jensen_shannon": "Jensen–Shannon",
    "knn_edit_similarity": "k-NN edit similarity",
    "knn_jaccard": "k-NN Jaccard",
    "knn_lcs": "k-NN common subsequence",
    "knn_rank_similarity": "k-NN rank similarity",
    "ksg_mi": "KSG MI",
    "linear_cka": "Linear CKA",
    "linear_predictivity": "Linear predictivity",
    "mean_cca": "Mean CCA",
    "mean_squared_cca": "Mean squared CCA",
    "mine": "MINE",
    "mutual_knn": "Mutual k-NN",
    "nwj": "NWJ",
    "observation_loss": "Observation loss",
    "orthogonal_predictivity": "Orthogonal predictivity",
    "polynomial_cka": "Polynomial CKA",
    "probe_accuracy": "Probe accuracy",
    "probe_balanced_accuracy": "Probe balanced accuracy",
    "probe_r2": "Probe R²",
    "procrustes_similarity": "Procrustes",
    "pwcca": "PWCCA",
    "rbf_cka": "RBF CKA",
    "recall_at_1": "Recall@1",
    "recall_at_k": "Recall@k",
    "ridge_cca": "Ridge CCA",
    "rsa": "RSA",
    "rv": "RV",
    "sensorimotor_alignment": "Sensorimotor alignment",
    "smile": "SMILE",
    "success_rate": "Closed-loop success",
    "svcca": "SVCCA",
}
_NATS = {
    "donsker_varadhan",
    "gaussian_mi",
    "infonce",
    "jensen_shannon",
    "ksg_mi",
    "mine",
    "nwj",
    "smile",
}
_CONDITIONS = {
    "": "all episodes",
    "nuisance": "with nuisance",
    "plain": "plain videos",
    "success": "successes",
    "failure": "failures",
    "success-failure": "successes − failures",
}


def plain(text: object) -> str:
    """Text without control characters, which neither SVG nor LaTeX can hold."""
    return "".join("\ufffd" if unicodedata.category(c) == "Cc" else c for c in str(text))


def measure_label(measure: str) -> str:
    """The name of a measure as readers know it, such as "Linear CKA"; unknown names stay."""
    return _MEASURES.get(measure, plain(measure))


def measure_axis(measure: str) -> str:
    """The name of a measure with its unit, for an axis."""
    return f"{measure_label(measure)} (nats)" if measure in _NATS else measure_label(measure)


def comparison_label(key: str) -> str:
    """A display key in words: "trained-untrained" becomes "trained – untrained"."""
    return plain(key).replace("-", f" {DASH} ")


def finding_label(name: str) -> str:
    """The name of a finding in words: "excess-cka-within-task" becomes "Excess CKA within task"."""
    known = {"cka": "CKA", "cca": "CCA", "infonce": "InfoNCE", "rsa": "RSA", "svcca": "SVCCA"}
    words = " ".join(known.get(word, word) for word in plain(name).split("-"))
    return words[:1].upper() + words[1:]


def condition_label(condition: str) -> str:
    """A condition in words, such as "with nuisance"."""
    name, _, views = condition.partition(" (")
    known = _CONDITIONS.get(name)
    return plain(f"{known} ({views}" if known and views else known or condition)


def of_episodes(text: str) -> str:
    """A clause on units in the words of episodes, which every score has for its units."""
    return re.sub(r"\bunits\b", "episodes", plain(text))


def in_nats(measure: str) -> bool:
    """Whether a measure is information, which has a unit, and not a share or a similarity."""
    return measure in _NATS


def within_label(within: str) -> str:
    """Where a measure was taken: over all episodes or inside groups."""
    return f"within {plain(within)}" if within else "over all episodes"


def signed(value: float, digits: int = 3) -> str:
    """A difference with its sign: "+0.017", "−0.087", "0.000"."""
    text = number(value, digits)
    return text if text.startswith(MINUS) or not float(text) else f"+{text}"


def number(value: float | None, digits: int = 3) -> str:
    """A number with a true minus sign; an en dash where there is none."""
    if value is None:
        return DASH
    text = f"{value:.{digits}f}"
    # "-0.000" would claim a sign that the shown digits do not have.
    if text.startswith("-"):
        return text[1:] if float(text) == 0 else MINUS + text[1:]
    return text


def bracket(score: Score, digits: int = 3) -> str:
    """The interval of a score as "[low, high]", or nothing."""
    if score.value is None or score.interval is None:
        return ""
    return f"[{number(score.interval.low, digits)}, {number(score.interval.high, digits)}]"


def measured(score: Score, digits: int = 3) -> str:
    """A value with its interval: "0.360 [0.310, 0.410]"."""
    return f"{number(score.value, digits)} {bracket(score, digits)}".strip()


def spoken(score: Score | None, digits: int = 2) -> str:
    """A value with its interval in words: "0.36 (0.31 to 0.41)"."""
    if score is None:
        return "not measured"
    if score.value is None:
        return f"not defined ({plain(score.undefined) or 'no reason given'})"
    if score.interval is None:
        return number(score.value, digits)
    low, high = score.interval.low, score.interval.high
    return f"{number(score.value, digits)} ({number(low, digits)} to {number(high, digits)})"


def probability(p: float | None) -> str:
    """A p-value to two digits, never as 0: "0.031", "< 0.0001"."""
    if p is None:
        return DASH
    if p < 0.0001:
        return "< 0.0001"
    return f"{p:.4f}" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def stars(p: float | None) -> str:
    """Marks of a p-value: * below .05, ** below .01, *** below .001."""
    if p is None:
        return ""
    return "***" if p < 0.001 else "**" if p < 0.01 else "*" if p < 0.05 else ""


def listing(words: Iterable[str]) -> str:
    """Words joined for a sentence: "a, b and c"."""
    items = list(dict.fromkeys(words))
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def intervals(scores: Iterable[Score]) -> str:
    """What the intervals of these scores mean, as a clause; "" where there are none."""
    methods: dict[float, set[str]] = {}
    for score in scores:
        if score.interval is not None:
            methods.setdefault(score.interval.level, set()).add(of_episodes(score.interval.method))
    kinds = []
    for level, names in sorted(methods.items()):
        how = "; ".join(sorted(names - {""}))
        kinds.append(f"{level * 100:g}% intervals" + (f" ({how})" if how else ""))
    return listing(kinds) if kinds else ""


def units(scores: Iterable[Score]) -> str:
    """The count of independent units behind these scores, such as "n = 288 episodes"."""
    counts = sorted({s.n for s in scores})
    if not counts:
        return ""
    span = str(counts[0]) if len(counts) == 1 else f"{counts[0]}–{counts[-1]}"
    return f"n = {span} episodes"


_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\char34{}",
    "–": "--", "−": "$-$", "±": r"$\pm$", "×": r"$\times$", "[": "{[}", "]": "{]}",
}  # fmt: skip


def latex(text: object) -> str:
    """Text with every character that means something to LaTeX made harmless."""
    return "".join(_LATEX.get(c, c) for c in plain(text))

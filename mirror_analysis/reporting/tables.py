"""The numbers of a report as tables: raw in CSV, formatted in LaTeX and on the page."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from mirror_analysis.reporting import wording
from mirror_analysis.reporting.evidence import (
    CONTRAST,
    TRAINED,
    Evidence,
    comparison,
    is_outcome,
    measure,
)
from mirror_analysis.results import Score

_EXCESS = "excess over the best control"


@dataclass(frozen=True)
class Cell:
    """One place of a table.

    Attributes:
        text: what stands there.
        mark: letter of the note that explains it, "" without one.
    """

    text: str
    mark: str = ""


@dataclass(frozen=True)
class Group:
    """Rows under one heading; the first cell of a row names it."""

    title: str
    rows: list[list[Cell]]


@dataclass(frozen=True)
class Table:
    """A table with the scores it was made from.

    Attributes:
        name: stem of its files.
        title: in words.
        caption: what the columns mean.
        columns: their headings, the first that of the row names.
        groups: the rows.
        notes: reasons of undefined values, in the order of their letters a, b, c, ...
        scores: behind the cells, in reading order.
    """

    name: str
    title: str
    caption: str
    columns: list[str]
    groups: list[Group]
    notes: list[str]
    scores: list[Score]

    @property
    def rows(self) -> int:
        """How many rows there are, headings apart."""
        return sum(len(group.rows) for group in self.groups)


@dataclass
class Notes:
    """Reasons already given a letter."""

    reasons: list[str] = field(default_factory=list)

    def value(self, score: Score | None) -> Cell:
        """The value alone, to three digits."""
        return self._cell(score, wording.number(score.value) if score else "")

    def measured(self, score: Score | None) -> Cell:
        """Value and interval to two digits, so that many columns fit beside each other."""
        return self._cell(score, wording.measured(score, 2) if score else "")

    def _cell(self, score: Score | None, text: str) -> Cell:
        if score is None or score.value is not None:
            return Cell(text)
        reason = wording.plain(score.undefined) or "not defined; the result gives no reason"
        if reason not in self.reasons:
            self.reasons.append(reason)
        return Cell(wording.DASH, letter(self.reasons.index(reason)))


def letter(place: int) -> str:
    """Letter of a note: a to z, then aa, ab, ..."""
    text = ""
    place += 1
    while place:
        place, digit = divmod(place - 1, 26)
        text = chr(ord("a") + digit) + text
    return text


def tables(evidence: Evidence) -> list[Table]:
    """All tables for which the result has scores."""
    made = (
        _summary(evidence),
        _recall(evidence),
        _outcome(evidence),
        _differences(evidence),
        _headline(evidence),
    )
    return [table for table in made if table.scores]


def _summary(evidence: Evidence) -> Table:
    notes, groups, scores = Notes(), [], []
    for condition, within in itertools.product(evidence.conditions, evidence.withins):
        rows = []
        for key in (*evidence.comparisons, _EXCESS):
            found = [_summed(evidence, key, name, condition, within) for name in evidence.shown]
            if any(found):
                scores += [s for s in found if s is not None]
                label = wording.comparison_label(key)
                rows.append([Cell(label), *map(notes.measured, found)])
        if rows:
            where = f"{wording.condition_label(condition)}, {wording.within_label(within)}"
            groups.append(Group(_capital(where), rows))
    columns = ["Comparison", *(wording.measure_axis(name) for name in evidence.shown)]
    caption = (
        f"The headline measures at the declared layers, {evidence.x} first and {evidence.y}"
        f" second. In brackets: {wording.intervals(scores) or 'no intervals'}."
    )
    return Table("summary", "In short", caption, columns, groups, notes.reasons, scores)


def _summed(evidence: Evidence, key: str, name: str, condition: str, within: str) -> Score | None:
    if key == _EXCESS:
        return evidence.difference(TRAINED, "best control", name, condition, within)
    return evidence.one(key, name, condition, within)


def _headline(evidence: Evidence) -> Table:
    notes, groups, scores = Notes(), [], []
    for name, condition, within in _places(evidence):
        found = [(k, evidence.one(k, name, condition, within)) for k in evidence.comparisons]
        known = [(key, score) for key, score in found if score is not None]
        rows = []
        for key, score in known:
            scores.append(score)
            rows.append(
                [
                    Cell(wording.comparison_label(key)),
                    Cell(_role(score)),
                    notes.value(score),
                    Cell(wording.bracket(score)),
                    Cell(wording.number(score.null.mean if score.null else None)),
                    Cell(wording.probability(score.p_value)),
                    Cell(wording.probability(score.p_max)),
                    Cell(str(score.n)),
                ]
            )
        if rows:
            groups.append(Group(_heading(name, condition, within, known[0][1]), rows))
    columns = ["Comparison", "Role", "Value", "Interval", "Null mean", "p", "p max", "n"]
    layers = evidence.layers
    where = f" at layers {layers.x} and {layers.y}" if layers.x else ""
    caption = (
        f"Every comparison in every measure{wording.plain(where)}, {evidence.x} first and"
        f" {evidence.y} second. Interval: {wording.intervals(scores) or 'none in the result'}."
        " Null mean: what no relation gives. p: one-sided, of this value alone; p max: corrected"
        " for the maximum over all layer pairs. n: episodes."
    )
    title = "Every comparison in every measure"
    return Table("headline", title, caption, columns, groups, notes.reasons, scores)


def _differences(evidence: Evidence) -> Table:
    notes, groups, scores = Notes(), [], []
    plain = [s for s in evidence.differences if not is_outcome(s) and s.seed is None]
    for name, condition, within in _places(evidence):
        found = [
            s for s in plain if (measure(s), s.condition, s.within) == (name, condition, within)
        ]
        rows = []
        for score in found:
            scores.append(score)
            best = score.parameters.get("best")
            against = wording.comparison_label(str(score.parameters.get("against", "")))
            rows.append(
                [
                    Cell(wording.comparison_label(comparison(score))),
                    Cell(f"{against} ({wording.comparison_label(str(best))})" if best else against),
                    notes.value(score),
                    Cell(wording.bracket(score)),
                    Cell(wording.probability(score.p_value)),
                    Cell(str(score.n)),
                ]
            )
        if rows:
            groups.append(Group(_heading(name, condition, within, found[0]), rows))
    columns = ["Comparison", "Less", "Difference", "Interval", "p", "n"]
    caption = (
        "Differences on the same episodes."
        f" Interval: {wording.intervals(scores) or 'none in the result'}."
        " An interval above 0 means more agreement than in what is taken away."
    )
    title = "Excess over controls"
    return Table("differences", title, caption, columns, groups, notes.reasons, scores)


def _recall(evidence: Evidence) -> Table:
    notes, groups, scores = Notes(), [], []
    for condition in evidence.conditions:
        for within in evidence.withins:
            rows = []
            sizes = set()
            for key in evidence.comparisons:
                found = [evidence.recall(key, k, condition, within) for k in evidence.ks]
                known = [s for s in found if s is not None]
                scores += known
                sizes |= {s.parameters["gallery"] for s in known if "gallery" in s.parameters}
                if known:
                    cells = [notes.measured(s) for s in found]
                    rows.append([Cell(wording.comparison_label(key)), *cells])
            if rows:
                where = f"{wording.condition_label(condition)}, {wording.within_label(within)}"
                if len(sizes) == 1:
                    where += f", gallery of {sizes.pop()}"
                groups.append(Group(_capital(where), rows))
    columns = ["Comparison", *(f"k = {k}" for k in evidence.ks)]
    caption = (
        "Recall@k: share of episodes whose own representation in the other model is among the k"
        f" nearest of the gallery. In brackets: {wording.intervals(scores) or 'no intervals'}."
    )
    return Table("recall", "Retrieval", caption, columns, groups, notes.reasons, scores)


def _outcome(evidence: Evidence) -> Table:
    notes, groups, scores = Notes(), [], []
    for view, name, within in itertools.product(
        evidence.views, evidence.measures, evidence.withins
    ):
        rows = []
        for key in evidence.comparisons:
            found = evidence.outcomes(key, name, within, view)
            if any(found):
                scores += [s for s in found if s is not None]
                rows.append([Cell(wording.comparison_label(key)), *map(notes.measured, found)])
        for score in evidence.differences:
            at = (measure(score), score.condition, score.within, score.seed)
            against = str(score.parameters.get("against", ""))
            if at == (name, f"{CONTRAST}{view}", within, None) and against not in ("", "failure"):
                scores.append(score)
                label = wording.comparison_label(f"{comparison(score)} less {against}")
                rows.append([Cell(label), Cell(""), Cell(""), notes.measured(score)])
        if rows:
            heading = f"{wording.measure_axis(name)}, {wording.within_label(within)}{view}"
            groups.append(Group(wording.plain(heading), rows))
    columns = ["Comparison", "Success", "Failure", "Success less failure"]
    caption = (
        "Agreement by outcome of the episode. Last rows: the difference of the differences."
        f" In brackets: {wording.intervals(scores) or 'no intervals'}."
    )
    title = "Successful against failed episodes"
    return Table("outcome", title, caption, columns, groups, notes.reasons, scores)


def _places(evidence: Evidence) -> Iterator[tuple[str, str, str]]:
    for condition in evidence.conditions:
        for within in evidence.withins:
            for name in evidence.measures:
                yield name, condition, within


def _heading(name: str, condition: str, within: str, score: Score) -> str:
    skip = ("comparison", "against", "best", "debiased")
    settings = ", ".join(
        f"{wording.plain(k)} = {v:g}" if isinstance(v, float) else f"{wording.plain(k)} = {v}"
        for k, v in score.parameters.items()
        if k not in skip
    )
    label = wording.measure_axis(name) + (f" ({wording.plain(settings)})" if settings else "")
    ceiling = f", ceiling {wording.number(score.ceiling)}" if score.ceiling is not None else ""
    where = f"{wording.condition_label(condition)}, {wording.within_label(within)}"
    return f"{label}, {where}{ceiling}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _role(score: Score) -> str:
    return {"pair": "pair", "control": "matched", "reference": "reference"}.get(score.role, "")


_FIELDS = (
    "comparison", "against", "best", "role", "measure", "k", "gallery", "condition", "within",
    "x", "y", "x_layer", "y_layer", "value", "low", "high", "level", "null_mean", "null_sd",
    "p_value", "p_max", "ceiling", "n", "seed", "split", "stage", "undefined",
)  # fmt: skip
_WHERE_TOLD = ("task", "maps", "probe", "model", "shots", "setting")


def to_csv(table: Table) -> str:
    """The scores behind a table in full precision; a value that is not defined stays empty."""
    told = {name for score in table.scores for name in score.parameters}
    fields = [*_FIELDS, *(name for name in _WHERE_TOLD if name in told)]
    stream = io.StringIO()
    writer = csv.DictWriter(stream, fields, lineterminator="\n")
    writer.writeheader()
    writer.writerows(_record(score, fields) for score in table.scores)
    return stream.getvalue()


def _record(s: Score, fields: list[str]) -> dict[str, object]:
    record = {name: getattr(s, name, s.parameters.get(name)) for name in fields}
    record |= {"comparison": comparison(s)}
    if s.interval is not None:
        record |= {"low": s.interval.low, "high": s.interval.high, "level": s.interval.level}
    if s.null is not None:
        record |= {"null_mean": s.null.mean, "null_sd": s.null.sd}
    return record


def to_latex(table: Table) -> str:
    """A `longtable` with booktabs rules; needs the packages booktabs and longtable."""
    width = len(table.columns)
    head = " & ".join(wording.latex(c) for c in table.columns) + r" \\"
    lines = [
        r"% needs \usepackage{booktabs,longtable}",
        rf"\begin{{longtable}}{{l{'r' * (width - 1)}}}",
        rf"\caption{{{wording.latex(table.caption)}}}\label{{tab:{table.name}}}\\",
        *(r"\toprule", head, r"\midrule", r"\endfirsthead"),
        *(r"\toprule", head, r"\midrule", r"\endhead"),
        *(r"\bottomrule", r"\endfoot"),
    ]
    for place, group in enumerate(table.groups):
        if place:
            lines.append(r"\addlinespace")
        lines.append(rf"\multicolumn{{{width}}}{{l}}{{\textit{{{wording.latex(group.title)}}}}}\\*")
        lines += [" & ".join(_latex_cells(row)) + r" \\" for row in group.rows]
    for place, note in enumerate(table.notes):
        text = rf"\textsuperscript{{{letter(place)}}}\,{wording.latex(note)}"
        lines.append(rf"\multicolumn{{{width}}}{{l}}{{{text}}}\\")
    return "\n".join([*lines, r"\end{longtable}", ""])


def _latex_cells(row: Iterable[Cell]) -> Iterator[str]:
    for cell in row:
        mark = rf"\textsuperscript{{{cell.mark}}}" if cell.mark else ""
        yield wording.latex(cell.text) + mark

"""One self-contained page with the figures and tables of a result, and each of them as a file."""

from __future__ import annotations

import base64
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jinja2
from markupsafe import Markup

from mirror_analysis import catalog
from mirror_analysis.errors import MissingFileError
from mirror_analysis.reporting import files, style, wording
from mirror_analysis.reporting.evidence import Evidence, measure
from mirror_analysis.reporting.figures import FIGURES, Absent, Drawing
from mirror_analysis.reporting.methods import flat, methods
from mirror_analysis.reporting.tables import Table, letter, tables, to_csv, to_latex
from mirror_analysis.reporting.training_effects import methods as training_methods
from mirror_analysis.reporting.training_effects import tables as training_tables
from mirror_analysis.reporting.training_effects.evidence import TrainingEvidence
from mirror_analysis.reporting.training_effects.figures import FIGURES as TRAINING_FIGURES
from mirror_analysis.results import Finding, Result, Score, load_result
from mirror_analysis.writing import write_whole

_TEMPLATE = "report.html.j2"
_TABLES = ("summary", "recall", "outcome", "differences", "headline")
_LONG = 40  # rows above which a table starts folded


@dataclass(frozen=True)
class _Picture:
    """A figure as the page holds it."""

    name: str
    title: str
    caption: str
    alt: str
    width: float
    markup: Markup


@dataclass(frozen=True)
class _Claim:
    """A finding as the page states it.

    Attributes:
        title: its name in words.
        statement: the claim.
        verdict: whether it holds, in words; kind: the same as a class of the style sheet.
        number: what it rests on, with its interval.
        details: where the number comes from.
        bar: low end, value and high end as percentages of a scale that all claims share, with
            zero at 50; None where there is nothing to draw.
    """

    title: str
    statement: str
    verdict: str
    kind: str
    number: str
    details: str
    bar: tuple[float, float, float] | None


def render_report(result: Result | Path, *, out: Path) -> Path:
    """Writes a result as a page, figures and tables, from the result alone.

    The folder gets report.html (figures and style inside, no script, nothing fetched),
    figures/NAME.pdf, .svg and .png, and tables/NAME.csv and .tex. Parts whose scores the
    result lacks are left out and named on the page. Equal results give equal bytes with the
    same versions of the drawing library.

    Args:
        result: what a study found, or the path of its `result.json` or of the folder of it.
        out: folder to write to; made if it is not there.

    Returns:
        Path of the page.

    Raises:
        MissingFileError: if there is no result at the path, or the template is not installed.
        FormatError: if the file is not a result, or a file is where a folder has to be.
    """
    if isinstance(result, Path):
        result = load_result(result)
    template = _template()
    kind = _kind(result)
    evidence = kind.evidence
    pictures, absent = _figures(kind.figures, files.folder(out / "figures"))
    made = kind.tables
    place = files.folder(out / "tables")
    for table in made:
        write_whole(place / f"{table.name}.csv", to_csv(table).encode())
        write_whole(place / f"{table.name}.tex", to_latex(table).encode())
    for name in {*_TABLES, *training_tables.NAMES} - {table.name for table in made}:
        files.remove(place, name, ("csv", "tex"))
    page = template.render(
        title=wording.plain(result.title),
        question=_question(evidence),
        models=(evidence.x, evidence.y),
        claims=[_claim(finding, scale=_scale(result.findings)) for finding in result.findings],
        tally=_tally(result.findings),
        pictures=pictures,
        absent=absent,
        tables=made,
        long=_LONG,
        letter=letter,
        methods=kind.methods,
        notes=[wording.plain(note) for note in result.notes],
        data=list(flat(result.data)),
        definition=list(flat(result.definition)),
        provenance=_provenance(result),
        command=_command(result),
        version=wording.plain(result.provenance.version),
        study=wording.plain(result.study),
    )
    write_whole(out / "report.html", page.encode())
    return out / "report.html"


@dataclass(frozen=True, eq=False)
class _Kind:
    """What the page of a kind of study consists of.

    Attributes:
        evidence: the result with its scores in reach.
        figures: name -> what draws it, in reading order.
        tables: that the result has scores for.
        methods: paragraphs.
    """

    evidence: Evidence | TrainingEvidence
    figures: dict[str, Callable[[], Drawing | Absent]]
    tables: list[Table]
    methods: list[str]


def _kind(result: Result) -> _Kind:
    if TrainingEvidence.fits(result):
        trained = TrainingEvidence(result)
        return _Kind(
            trained,
            {name: partial(draw, trained) for name, draw in TRAINING_FIGURES.items()},
            training_tables.tables(trained),
            training_methods.methods(trained),
        )
    compared = Evidence(result)
    return _Kind(
        compared,
        {name: partial(draw, compared) for name, draw in FIGURES.items()},
        tables(compared),
        methods(compared),
    )


def _template() -> jinja2.Template:
    place = catalog.folder("reports") / "templates"
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(place),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    try:
        return environment.get_template(_TEMPLATE)
    except jinja2.TemplateNotFound:
        raise MissingFileError(
            f"no template {place / _TEMPLATE}; install mirror-analysis again"
        ) from None


def _figures(
    figures: Mapping[str, Callable[[], Drawing | Absent]], place: Path
) -> tuple[list[_Picture], list[Absent]]:
    pictures, absent = [], []
    for name in {*FIGURES, *TRAINING_FIGURES} - figures.keys():
        files.remove(place, name, files.FORMATS)
    with style.applied():
        for name, draw in figures.items():
            drawn = draw()
            if isinstance(drawn, Absent):
                files.remove(place, name, files.FORMATS)
                absent.append(drawn)
                continue
            made = files.encode(drawn.figure)
            for ending, data in made.items():
                write_whole(place / f"{name}.{ending}", data)
            pictures.append(_picture(drawn, made))
    return pictures, absent


def _picture(drawing: Drawing, made: dict[str, bytes]) -> _Picture:
    if drawing.dense:
        data = base64.b64encode(made["png"]).decode()
        # The page reads the numbers from the label around it, so the image itself stays silent.
        markup = Markup('<img alt="" src="data:image/png;base64,{}">').format(data)
    else:
        markup = Markup(files.inline_svg(made["svg"].decode(), drawing.name))
    return _Picture(
        drawing.name,
        drawing.title,
        drawing.caption,
        drawing.alt,
        float(drawing.figure.get_figwidth()),
        markup,
    )


def _question(evidence: Evidence | TrainingEvidence) -> str:
    asked = evidence.result.definition.get("question")
    if isinstance(asked, str) and asked.strip():
        return wording.plain(asked.strip())
    return (
        f"Do {evidence.x} and {evidence.y} represent the same episodes alike, and was that learned?"
    )


def _tally(findings: list[Finding]) -> str:
    """How many claims hold, as a sentence."""
    holds = [finding.holds for finding in findings]
    parts = (
        (holds.count(True), "holds", "hold"),
        (holds.count(False), "does not hold", "do not hold"),
        (holds.count(None), "is undecided", "are undecided"),
    )
    words = [f"{count} {one if count == 1 else more}" for count, one, more in parts if count]
    total = f"{len(holds)} claim{'s' if len(holds) > 1 else ''}"
    return f"Of {total}, {wording.listing(words)}." if words else ""


def _scale(findings: list[Finding]) -> float:
    """The largest distance from zero that the bars of all findings have to show."""
    ends = [
        abs(end)
        for score in (finding.score for finding in findings)
        if score.value is not None and not wording.in_nats(score.measure)
        for end in (
            score.value,
            *((score.interval.low, score.interval.high) if score.interval else ()),
        )
    ]
    return max(ends, default=0.0)


def _command(result: Result) -> str:
    """What makes the result again."""
    if result.study == "compare":
        return "mirror compare A B --episodes DIR --out DIR"
    return f"mirror run {shlex.quote(wording.plain(result.study))} --out DIR"


def _claim(finding: Finding, *, scale: float) -> _Claim:
    verdict, kind = {
        True: ("holds", "yes"),
        False: ("does not hold", "no"),
        None: ("undecided", "open"),
    }[finding.holds]
    score = finding.score
    name = wording.measure_label(measure(score))
    number = f"{name} {wording.measured(score)}"
    if score.role == "difference" and score.value is not None:
        number = f"Difference in {name}: {wording.signed(score.value)} {wording.bracket(score)}"
    words = []
    if score.value is None:
        words.append(f"not defined: {wording.plain(score.undefined)}")
    for label, p in (("p", score.p_value), ("p max", score.p_max)):
        if p is not None:
            shown = wording.probability(p)
            words.append(f"{label} {shown}" if shown.startswith("<") else f"{label} = {shown}")
    words += [wording.condition_label(score.condition), wording.within_label(score.within)]
    words.append(wording.units([score]))
    if score.interval is not None:
        words.append(wording.intervals([score]))
    return _Claim(
        wording.finding_label(finding.name),
        wording.plain(finding.statement),
        verdict,
        kind,
        number.strip(),
        "; ".join(words),
        _bar(score, scale),
    )


def _bar(score: Score, scale: float) -> tuple[float, float, float] | None:
    if score.value is None or score.interval is None or not scale:
        return None
    if wording.in_nats(score.measure):
        return None
    low, value, high = (
        round(50 + 46 * end / scale, 2)
        for end in (score.interval.low, score.value, score.interval.high)
    )
    return low, value, high


def _provenance(result: Result) -> list[tuple[str, str]]:
    record = result.provenance
    commit = record.commit or "not run from a source tree"
    rows = {
        "Completed": record.created,
        "mirror-analysis": record.version,
        "Commit": f"{commit}, with uncommitted changes" if record.dirty else commit,
        "Python": record.python,
        "Device": record.device,
        "Threads": str(record.threads),
        "Wall time": f"{record.seconds:,.1f} s",
    }
    groups: dict[str, dict[str, object]] = {
        "Version of": dict(record.packages),
        "Seeds for": dict(record.seeds),
        "sha256 of": dict(record.inputs),
    }
    plain = [(name, wording.plain(value)) for name, value in rows.items()]
    return plain + [
        (f"{prefix} {name}", text) for prefix, group in groups.items() for name, text in flat(group)
    ]

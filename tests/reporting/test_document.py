import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest
from synthetic_result import (
    EXECUTION,
    OBSERVATION,
    TASKS,
    Maker,
    embedding_maps,
    empty_result,
    small_result,
)

from mirror_analysis import catalog
from mirror_analysis.errors import FormatError, MissingFileError
from mirror_analysis.reporting import render_report
from mirror_analysis.reporting.figures import FIGURES
from mirror_analysis.results import EmbeddingMap, Finding, Result, save_result

TABLES = ("summary", "recall", "outcome", "differences", "headline")
VOID = {"meta", "img", "br", "link", "input", "hr"}
HOSTILE = '<script>alert(1)</script> & "x" $\\alpha_1$ %{}~^#\x00 100%'


class Page(HTMLParser):
    """Text, tags with attributes, and elements left open."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def page(report: Path) -> Page:
    return Page((report / "report.html").read_text())


def test_writes_every_figure_and_table_and_leaves_nothing_else(report: Path) -> None:
    figures = {f"figures/{n}.{e}" for n in FIGURES for e in ("pdf", "svg", "png")}
    tables = {f"tables/{n}.{e}" for n in TABLES for e in ("csv", "tex")}
    found = {str(p.relative_to(report)) for p in report.rglob("*") if p.is_file()}
    assert found == {"report.html", *figures, *tables}


@pytest.mark.parametrize("name", FIGURES)
def test_figure_files_are_what_they_are_called(report: Path, name: str) -> None:
    assert (report / "figures" / f"{name}.pdf").read_bytes().startswith(b"%PDF-")
    assert (report / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG\r\n")
    svg = ElementTree.parse(report / "figures" / f"{name}.svg").getroot()
    assert svg.tag == "{http://www.w3.org/2000/svg}svg"
    text = " ".join(svg.itertext())
    assert OBSERVATION in text
    assert EXECUTION in text


@pytest.mark.parametrize("name", FIGURES)
def test_no_text_is_smaller_than_seven_points_at_print_width(report: Path, name: str) -> None:
    svg = (report / "figures" / f"{name}.svg").read_text()
    # Sizes are written in px of a drawing whose user unit is one point.
    sizes = [float(s) for s in re.findall(r"font(?:-size)?: (?:[a-z\d]+ )*([\d.]+)px", svg)]
    assert len(sizes) == svg.count("<text")
    assert min(sizes) >= 7
    width = float(re.search(r'viewBox="0 0 ([\d.]+)', svg)[1])  # type: ignore[index]
    assert 3.5 * 72 - 1 <= width <= 7.2 * 72 + 1


def test_page_is_one_well_formed_document_that_fetches_nothing(report: Path, page: Page) -> None:
    assert page.open == []
    assert not [tag for tag, _ in page.tags if tag in ("script", "link", "iframe", "object")]
    for _, attributes in page.tags:
        for name in ("src", "href", "xlink:href", "srcset", "action", "poster"):
            value = attributes.get(name)
            assert value is None or value.startswith(("#", "data:image/png"))
    source = (report / "report.html").read_text()
    assert "@import" not in source
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", source))


def test_ids_are_unique_and_references_inside_figures_resolve(page: Page) -> None:
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    # The drawing library repeats definitions of one glyph inside one figure only.
    figures = [i for i in ids if i is not None and i.startswith("svg-")]
    assert sorted(figures) == sorted(f"svg-{name}" for name in FIGURES)
    for _, attributes in page.tags:
        target = attributes.get("xlink:href") or attributes.get("href")
        if target is not None and target.startswith("#"):
            assert target[1:] in ids


def test_page_states_question_findings_verdicts_methods_and_provenance(page: Page) -> None:
    for words in (
        "Do a model that watches and a model that acts come to represent episodes alike?",
        "agree more on the same episodes than those of untrained twins?",
        "Of 3 claims, 1 holds, 1 does not hold and 1 is undecided.",
        "holds Excess recall Difference in Recall@1: +0.",
        "] The trained pair exceeds its best control. p = ",
        "does not hold Excess plain",
        "undecided Outcome",
        "Cameras differ between the two models.",
        "n = 144–288 episodes",
        "999 permutations of episodes",
        "jackknife over 32 groups of episodes",
        "see what the declared layers see and have not learned both sides of it (trained –",
        "or are the trained pair itself with its fit pairs mixed (shuffled, shuffled within task,",
        "the least over all matched controls, so it is valid whichever of them is truly the best",
        "Whole episodes are permuted, with fitted maps held fixed.",
        "The p of averaged numbers is the largest of those averaged.",
        "they are means over 5 fits with seeds of their own",
        "the variance between the seeds is added, so they hold for new seeds too.",
        "Models were trained with seeds 0, 1 and 2; scores without a seed are means over them.",
        "Untrained twins are means over 3 initialisations for each training seed.",
        "alignment.temperature 0.1",
        "0123456789ab, with uncommitted changes",
        "mirror run spontaneous-alignment --out DIR",
    ):
        assert words in page.text


def test_every_figure_has_its_numbers_in_words_and_tables_have_scopes(
    page: Page, result: Result
) -> None:
    labels = [a["aria-label"] or "" for tag, a in page.tags if a.get("role") == "img"]
    assert len(labels) == len(FIGURES)
    assert all(re.search(r"\d", label) and len(label) > 80 for label in labels)
    cell = next(
        s for s in result.scores
        if s.role == "pair" and s.measure == "linear_cka" and s.condition == "nuisance"
        and s.parameters.get("comparison") and s.seed is None and not s.within
    )  # fmt: skip
    assert f"trained pair {cell.value:.2f} (" in labels[0]
    assert {a.get("scope") for tag, a in page.tags if tag == "th"} == {"col", "row", "rowgroup"}


def test_numbers_on_the_page_are_the_scores(report: Path, page: Page, result: Result) -> None:
    shown = [
        s for s in result.scores
        if "comparison" in s.parameters and s.role == "pair" and s.seed is None
        and s.measure == "recall_at_1" and s.condition == "plain"
    ]  # fmt: skip
    assert len(shown) == 2
    for s in shown:
        assert s.value is not None
        assert s.interval is not None
        assert f"{s.value:.2f} [{s.interval.low:.2f}, {s.interval.high:.2f}]" in page.text
        assert f" {s.value:.3f} [{s.interval.low:.3f}, {s.interval.high:.3f}]" in page.text


def test_equal_results_give_equal_bytes(tmp_path: Path) -> None:
    pages = [render_report(small_result(), out=tmp_path / name) for name in ("a", "b")]
    for one in (tmp_path / "a").rglob("*.*"):
        other = tmp_path / "b" / one.relative_to(tmp_path / "a")
        assert one.read_bytes() == other.read_bytes(), one
    assert pages[0].read_bytes() == pages[1].read_bytes()


def test_parts_that_are_missing_are_named_and_their_old_files_go(tmp_path: Path) -> None:
    (tmp_path / "figures").mkdir()
    stale = [tmp_path / "figures" / "recall.pdf", tmp_path / "figures" / "mine.pdf"]
    for file in stale:
        file.write_text("of an earlier result")
    text = Page(render_report(small_result(), out=tmp_path).read_text()).text
    figures = {p.name for p in (tmp_path / "figures").iterdir()}
    made = {f"{n}.{e}" for n in ("layers", "controls") for e in ("pdf", "svg", "png")}
    assert figures == {*made, "mine.pdf"}
    for reason in (
        "the result has no Recall@k of the trained pair at two k or more",
        "the result has no scores by outcome of the trained pair",
        "the result has no maps",
        "the result has no scores of single training seeds with controls",
    ):
        assert reason in text


def test_a_result_without_anything_is_still_a_page(tmp_path: Path) -> None:
    text = Page(render_report(empty_result(), out=tmp_path).read_text()).text
    assert "No figure can be drawn from this result." in text
    assert "The result states no findings." in text
    assert "The result has no scores for a table." in text
    assert "represent the same episodes alike, and was that learned?" in text


def test_one_training_seed_one_condition_and_no_outcomes_make_a_page(
    result: Result, tmp_path: Path
) -> None:
    scores = [
        msgspec.structs.replace(s, seed=0 if s.seed is not None else None)
        for s in result.scores
        if (s.condition, s.within) == ("plain", "")
        and s.seed in (None, 0)
        and s.measure in ("linear_cka", "recall_at_1", "recall_at_k")
    ]
    single = msgspec.structs.replace(result, scores=scores, maps=[], findings=[])
    page = Page(render_report(single, out=tmp_path).read_text())
    assert {p.stem for p in (tmp_path / "figures").iterdir()} == {"controls", "layers", "recall"}
    assert "Every training seed on its own: the result has one training seed." in page.text
    assert "they know nothing of how training seeds differ" in page.text
    assert "Models were trained with seed 0." in page.text
    assert "with nuisance" not in page.text
    labels = " ".join(ElementTree.parse(tmp_path / "figures" / "controls.svg").getroot().itertext())
    assert "plain videos" not in labels


def test_two_models_of_one_kind_keep_their_names(tmp_path: Path) -> None:
    names = {"x": "video model (a)", "y": "video model (b)"}
    text = Page(
        render_report(small_result(models=names, definition={}), out=tmp_path).read_text()
    ).text
    assert "Do video model (a) and video model (b) represent the same episodes alike" in text
    before = text[: text.index("Provenance Completed")]
    assert not re.search("observation|execution", before, re.IGNORECASE)


def test_a_model_against_itself_is_told_apart_by_its_place(tmp_path: Path) -> None:
    text = Page(render_report(small_result(models={"x": "m", "y": "m"}), out=tmp_path).read_text())
    assert "Compared: m (first) and m (second) ." in text.text


def test_findings_without_numbers_are_stated_without_bars(tmp_path: Path) -> None:
    score = msgspec.structs.replace(
        small_result().scores[0], value=None, interval=None, undefined="constant"
    )
    claim = Finding("excess-cka", "Nothing can be said.", None, score)
    page = Page(render_report(small_result(findings=[claim]), out=tmp_path).read_text())
    assert (
        "undecided Excess CKA Linear CKA – Nothing can be said. not defined: constant" in page.text
    )
    assert "one scale for all" not in page.text


def test_hostile_names_are_shown_and_never_run(tmp_path: Path) -> None:
    base = small_result()
    scores = [msgspec.structs.replace(s, within=HOSTILE) for s in base.scores] + base.scores
    pictured = embedding_maps(Maker(), per_task=2)[0]
    tasks = [HOSTILE if name == TASKS[0] else name for name in pictured.task]
    result = msgspec.structs.replace(
        base,
        title=HOSTILE,
        study=HOSTILE,
        models={"x": HOSTILE, "y": EXECUTION},
        scores=scores,
        findings=[Finding("f", HOSTILE, True, scores[0])],
        maps=[msgspec.structs.replace(pictured, task=tasks)],
        notes=[HOSTILE],
        data={HOSTILE: HOSTILE},
    )
    source = render_report(result, out=tmp_path).read_text()
    page = Page(source)
    shown = HOSTILE.replace("\x00", "\ufffd")
    assert page.open == []
    assert "script" not in {tag for tag, _ in page.tags}
    assert page.text.count(shown) > 10
    for name in ("layers", "controls", "maps"):
        svg = ElementTree.parse(tmp_path / "figures" / f"{name}.svg").getroot()
        assert shown in " ".join(svg.itertext())


def test_too_many_points_are_put_on_the_page_as_an_image(tmp_path: Path) -> None:
    count = 8002
    points = [(float(i), float(i % 7)) for i in range(count)]
    sides = ["observation", "execution"] * (count // 2)
    crowd = EmbeddingMap("umap", "after", points, sides, ["e"] * count, ["reach"] * count)
    result = msgspec.structs.replace(empty_result(), maps=[crowd])
    page = Page(render_report(result, out=tmp_path).read_text())
    images = [a for tag, a in page.tags if tag == "img"]
    assert len(images) == 1
    assert (images[0]["src"] or "").startswith("data:image/png;base64,iVBOR")


def test_reads_a_saved_result_from_its_file_or_folder(tmp_path: Path) -> None:
    save_result(empty_result(), tmp_path / "result.json")
    first = render_report(tmp_path, out=tmp_path / "a").read_bytes()
    assert render_report(tmp_path / "result.json", out=tmp_path / "b").read_bytes() == first


def test_says_where_no_result_is(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"no result at .*; `mirror run STUDY --out DIR`"):
        render_report(tmp_path / "nothing.json", out=tmp_path)


def test_says_that_a_file_is_no_result(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text('{"study": 3}')
    with pytest.raises(FormatError, match="is not a mirror-analysis result"):
        render_report(tmp_path, out=tmp_path)


def test_says_that_a_file_is_in_the_way_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(FormatError, match="file is in the way; name another folder or move"):
        render_report(empty_result(), out=tmp_path / "out")


def test_says_that_the_template_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "folder", lambda kind: tmp_path / kind)
    with pytest.raises(MissingFileError, match=r"no template .*; install mirror-analysis again"):
        render_report(empty_result(), out=tmp_path)

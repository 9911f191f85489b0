import csv
import io
import re

import msgspec
import pytest
from synthetic_result import small_result

from mirror_analysis.reporting.evidence import Evidence
from mirror_analysis.reporting.tables import Table, letter, tables, to_csv, to_latex
from mirror_analysis.results import Result, Score


@pytest.fixture(scope="module")
def made(result: Result) -> dict[str, Table]:
    return {table.name: table for table in tables(Evidence(result))}


def rows(table: Table) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(to_csv(table))))


def test_headline_holds_every_comparison_in_every_measure_once(made: dict[str, Table]) -> None:
    keys = [
        (r["comparison"], r["measure"], r["condition"], r["within"]) for r in rows(made["headline"])
    ]
    assert len(keys) == len(set(keys)) == (14 * 2 + 12 * 4) * 2 * 2


def test_csv_holds_the_scores_in_full_precision(made: dict[str, Table], result: Result) -> None:
    known = {
        (s.parameters["comparison"], s.measure, s.condition, s.within): s
        for s in result.scores
        if "comparison" in s.parameters and s.seed is None and s.role != "difference"
        and s.measure != "recall_at_k"
    }  # fmt: skip
    for r in rows(made["headline"]):
        s = known[r["comparison"], r["measure"], r["condition"], r["within"]]
        assert s.interval is not None
        assert s.null is not None
        assert (float(r["value"]), float(r["low"]), float(r["high"]), float(r["null_mean"])) == (
            s.value, s.interval.low, s.interval.high, s.null.mean,
        )  # fmt: skip
        assert (float(r["p_value"]), float(r["p_max"]), int(r["n"])) == (s.p_value, s.p_max, s.n)


def test_cells_are_the_rounded_scores_in_the_same_order(made: dict[str, Table]) -> None:
    table = made["headline"]
    cells = [row[2].text for group in table.groups for row in group.rows]
    assert cells == [f"{s.value:.3f}".replace("-", "−") for s in table.scores]


def test_recall_has_a_column_per_k_and_differences_name_the_best_control(
    made: dict[str, Table],
) -> None:
    assert made["recall"].columns[1:] == [f"k = {k}" for k in (1, 2, 3, 5, 10, 20, 32)]
    less = {row[1].text for group in made["differences"].groups for row in group.rows}
    assert "best control (pixels – pixels)" in less


def test_outcome_has_both_outcomes_and_the_difference_of_differences(
    made: dict[str, Table],
) -> None:
    first = made["outcome"].groups[0]
    assert first.title == "Linear CKA, over all episodes"
    names = [row[0].text for row in first.rows]
    assert names[0] == "trained – trained"
    assert names[-1] == "trained – trained less untrained – untrained"
    assert len(names) == len(set(names))
    success, failure, gap = (float(cell.text.split()[0]) for cell in first.rows[0][1:])
    assert success > failure
    assert gap > 0


def test_an_undefined_score_is_a_dash_with_its_reason_and_never_zero() -> None:
    base = small_result()
    undefined = msgspec.structs.replace(
        base.scores[-1], value=None, interval=None, p_value=None, undefined="constant_feature <9>"
    )
    result = msgspec.structs.replace(base, scores=[*base.scores[:-1], undefined])
    table = {t.name: t for t in tables(Evidence(result))}["headline"]
    cell = table.groups[0].rows[1][2]
    assert (cell.text, cell.mark, table.notes) == ("–", "a", ["constant_feature <9>"])
    last = rows(table)[-1]
    assert (last["value"], last["low"], last["undefined"]) == ("", "", "constant_feature <9>")
    latex = to_latex(table)
    assert r"--\textsuperscript{a}" in latex
    assert r"\textsuperscript{a}\,constant\_feature \textless{}9\textgreater{}" in latex


def test_latex_has_booktabs_rules_and_as_many_cells_as_columns(made: dict[str, Table]) -> None:
    for table in made.values():
        latex = to_latex(table)
        for word in (r"\toprule", r"\midrule", r"\bottomrule", r"\end{longtable}"):
            assert word in latex
        body = [line for line in latex.splitlines() if line.endswith(r" \\")]
        assert {line.count(" & ") for line in body} == {len(table.columns) - 1}
        assert latex.count("{") == latex.count("}")


def test_latex_escapes_what_means_something_to_it() -> None:
    hostile = r"50% & $x_1$ #3 {a} ~b^ \input{y}"
    scores = [msgspec.structs.replace(s, within=hostile) for s in small_result().scores]
    latex = to_latex(tables(Evidence(small_result(scores=scores)))[-1])
    assert r"50\% \& \$x\_1\$ \#3 \{a\} \textasciitilde{}b\textasciicircum{}" in latex
    assert r"\textbackslash{}input\{y\}" in latex
    assert r"\input" not in latex.replace(r"\textbackslash{}input", "")


def test_a_score_without_a_mean_over_seeds_stands_under_its_only_seed() -> None:
    def seeded(score: Score) -> Score:
        return msgspec.structs.replace(score, seed=3)

    scores = [seeded(s) for s in small_result().scores]
    headline = tables(Evidence(small_result(scores=scores)))[-1]
    assert [r["seed"] for r in rows(headline)] == ["3", "3"]


def test_letters_go_on_after_z() -> None:
    assert [letter(i) for i in (0, 25, 26, 27, 701, 702)] == ["a", "z", "aa", "ab", "zz", "aaa"]


def test_marks_of_one_reason_are_shared() -> None:
    base = small_result()
    bad = [
        msgspec.structs.replace(s, value=None, undefined=f"reason {i // 2}")
        for i, s in enumerate([base.scores[3], base.scores[4]] * 2)
    ]
    scores = [msgspec.structs.replace(s, condition=f"c{i // 2}") for i, s in enumerate(bad)]
    table = tables(Evidence(msgspec.structs.replace(base, scores=scores)))[-1]
    marks = re.findall(r"textsuperscript\{(\w)\}", to_latex(table))
    assert marks == ["a", "a", "b", "b", "a", "b"]

"""Figures, tables and the page of a study of training say the numbers of its result."""

import csv
import re

import msgspec
import pytest
import small_training as small

from mirror_analysis.reporting import render_report, style
from mirror_analysis.reporting.figures import Absent
from mirror_analysis.reporting.training_effects.evidence import (
    FITTED,
    RECOGNITION,
    SUCCESS,
    TrainingEvidence,
)
from mirror_analysis.reporting.training_effects.figures import FIGURES
from mirror_analysis.reporting.training_effects.methods import methods
from mirror_analysis.reporting.training_effects.points import in_points, spoken_points
from mirror_analysis.reporting.training_effects.tables import NAMES, tables
from mirror_analysis.results import Interval, Score, select

GAINS = {"instruction": (0.1, 0.1, 0.2), "episode": (0.05, 0.02, 0.1)}
SIZE = {
    "models": {"seeds": [0, 1]},
    "evaluation": {"folds": 8},
    "generalisation": {"shots": [1, "all"], "looks": ["camera-side"], "held_out": "side"},
}


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    return small.result(small.definition(**SIZE), GAINS, tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def rates(tmp_path_factory):
    definition = small.definition("pairing-and-temperature", **SIZE)
    return small.result(definition, GAINS, tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def evidence(result):
    return TrainingEvidence(result)


@pytest.fixture(scope="module")
def drawn(result, rates):
    with style.applied():
        return {
            **{name: draw(TrainingEvidence(result)) for name, draw in FIGURES.items()},
            "pairings": FIGURES["pairings"](TrainingEvidence(rates)),
        }


@pytest.fixture(scope="module")
def page(result, tmp_path_factory):
    return render_report(result, out=tmp_path_factory.mktemp("report"))


def value(result, **fields):
    (score,) = select(result.scores, seed=None, task=None, **fields)
    return score


# -- evidence -----------------------------------------------------------------------------------


def test_conditions_stand_by_role(evidence):
    assert list(evidence.conditions) == [
        "independent", "episode", "instruction", "task", "shuffled", "untrained", "noise"
    ]  # fmt: skip
    assert (evidence.baseline, evidence.headline) == ("independent", "instruction")
    found = evidence.conditions["episode"]
    assert (found.role, found.pairing, found.temperature) == ("pair", "episode", 0.1)
    assert evidence.title("noise") == "aligned to fixed noise"
    assert evidence.title("best control") == "best control"


def test_scores_are_found_where_they_are(evidence, result):
    expected = value(result, measure=SUCCESS, comparison="noise", against=None)
    assert evidence.one("noise", SUCCESS) == expected
    gain = value(result, measure=SUCCESS, comparison="noise", against="independent")
    assert evidence.gain("noise", SUCCESS) == gain and gain.role == "difference"
    maps = evidence.one("task", "recall_at_1", "nuisance", maps=FITTED)
    assert maps == value(result, measure="recall_at_1", comparison="task", condition="nuisance",
                         within="", maps=FITTED, against=None)  # fmt: skip
    assert evidence.one("task", "recall_at_1") is None  # which maps is not said
    assert evidence.one("task", SUCCESS, task="task-b").n == 16
    assert len(evidence.curve("task", "alignment_loss")) == 50


def test_published_numbers_are_apart(evidence):
    assert evidence.published_gain("instruction", RECOGNITION) == pytest.approx(0.033)
    assert evidence.published_gain("instruction", SUCCESS) == pytest.approx(0.035)
    assert evidence.published_gain("noise", SUCCESS) is None
    assert all("published" not in s.parameters for s in evidence.result.scores)


def test_points():
    score = Score(SUCCESS, 0.031, x="e", y="", n=9, interval=Interval(-0.004, 0.066))
    told = in_points(score)
    assert told.value == pytest.approx(3.1) and told.interval.high == pytest.approx(6.6)
    assert spoken_points(score) == "+3.1 (−0.4 to +6.6) points"
    gone = msgspec.structs.replace(score, value=None, interval=None)
    assert spoken_points(gone) == "not defined"
    assert spoken_points(msgspec.structs.replace(score, interval=None)) == "+3.1 points"


# -- figures ------------------------------------------------------------------------------------


def dots(axes):
    """Places of single markers along x."""
    single = [line for line in axes.lines if len(line.get_xdata()) == 1]
    other = ("|", "*", "None")  # nulls, published numbers, lines
    return [float(line.get_xdata()[0]) for line in single if line.get_marker() not in other]


def test_gains_are_drawn_where_they_are(drawn, evidence):
    figure = drawn["gains"].figure
    for axes, measure in zip(figure.axes, (RECOGNITION, SUCCESS), strict=True):
        expected = [
            100 * gain.value
            for views in ("plain", "nuisance")
            for name in list(evidence.conditions)[1:]
            if (gain := evidence.gain(name, measure, views)) is not None
        ]
        assert sorted(dots(axes)) == pytest.approx(sorted(expected))
        stars = [line.get_xdata()[0] for line in axes.lines if line.get_marker() == "*"]
        theirs = [100 * evidence.published_gain(n, measure) for n in ("episode", "instruction",
                                                                     "task")]  # fmt: skip
        assert sorted(stars) == pytest.approx(sorted(theirs))
    words = [t.get_text() for t in figure.axes[0].get_yticklabels()]
    assert "aligned by instruction (declared)" in words and "Controls" in words
    assert "for comparison only" in drawn["gains"].caption


def test_tasks_are_drawn_in_order_of_the_baseline(drawn, evidence):
    figure = drawn["tasks"].figure
    names = [t.get_text() for t in figure.axes[0].get_yticklabels()]
    values = [evidence.one("independent", SUCCESS, task=name).value for name in names]
    assert len(names) == 3 and values == sorted(values)
    expected = [100 * evidence.one(c, SUCCESS, task=t).value for c in ("independent", "instruction")
                for t in names]  # fmt: skip
    assert sorted(dots(figure.axes[1])) == pytest.approx(sorted(expected))


def test_losses_are_drawn_as_they_fell(drawn, evidence):
    axes = drawn["losses"].figure.axes
    assert [a.get_yscale() for a in axes] == ["log"] * 3 and len(axes[2].lines) == 7
    expected = [s.value for s in evidence.curve("independent", "observation_loss")]
    assert axes[0].lines[0].get_ydata() == pytest.approx(expected)
    assert len(axes[0].collections) == 7  # a band for each
    assert len({(line.get_color(), line.get_linestyle()) for line in axes[0].lines}) == 7


def test_agreement_has_every_condition_in_both_views(drawn, evidence):
    figure = drawn["agreement"].figure
    titles = [a.get_title(loc="left").replace("\n", " ") for a in figure.axes]
    assert titles == ["Recall@1, maps fitted anew", "Recall@1, maps of training", "Linear CKA",
                      "Linear CKA within task"]  # fmt: skip
    assert [len(dots(a)) for a in figure.axes] == [14, 12, 14, 14]  # noise has no maps of training
    expected = evidence.one("task", "linear_cka", "nuisance", "task").value
    assert min(abs(at - expected) for at in dots(figure.axes[3])) < 1e-9


def titles(figure):
    return [a.get_title(loc="left").replace("\n", " ") for a in figure.axes if a.get_visible()]


def test_probes_are_drawn_apart_from_those_put_elsewhere(drawn, evidence):
    assert titles(drawn["probes"].figure) == ["side, observation", "side, execution"]
    figure = drawn["elsewhere"].figure
    assert titles(figure) == ["probe, observation → execution", "the same, maps of shuffled pairs",
                              "probe of its own, execution", "new tasks, observation"]  # fmt: skip
    told = {"model": "execution", "setting": "fitted on the other model"}
    expected = [evidence.one(c, "probe_accuracy", views, **told).value
                for c in evidence.conditions for views in ("plain", "nuisance")]  # fmt: skip
    assert sorted(dots(figure.axes[0])) == pytest.approx(sorted(expected))
    for axes in figure.axes[:3]:  # no end of an interval is cut off
        ends = [x for line in axes.lines if len(line.get_xdata()) == 2 for x in line.get_xdata()]
        assert axes.get_xlim()[0] <= min(ends) and max(ends) <= axes.get_xlim()[1]


def test_curves_from_few_labels_rise_as_they_do(drawn, evidence):
    figure = drawn["few-shot"].figure
    assert titles(figure) == [
        f"{model} model, {views}"
        for model in ("observation", "execution")
        for views in ("plain videos", "with nuisance")
    ]
    axes = figure.axes[3]
    assert [t.get_text() for t in axes.get_xticklabels()] == ["1", "all"]
    lines = {tuple(line.get_ydata()) for line in axes.lines}
    expected = {
        tuple(100 * evidence.one(c, "few_shot_accuracy", "nuisance", model="execution",
                                 shots=count).value for count in (1, "all"))
        for c in evidence.conditions
    }  # fmt: skip
    assert lines == expected and len(axes.collections) == 2  # bands of the two compared
    assert not figure.axes[0].lines  # the observation model was not asked


def test_looks_are_drawn_where_they_are(drawn, evidence):
    figure = drawn["looks"].figure
    assert titles(figure) == ["Recognition, observation", "Probe, observation"]
    told = {"model": "observation", "setting": "fitted on plain videos"}
    expected = [100 * evidence.one(c, "probe_accuracy", look, "", **told).value
                for c in evidence.conditions for look in ("plain", "camera-side")]  # fmt: skip
    assert sorted(dots(figure.axes[1])) == pytest.approx(sorted(expected))
    words = [t.get_text() for t in figure.axes[0].get_yticklabels()]
    assert words == ["plain videos", "camera-side"]


def test_pairings_and_temperatures_have_a_cell_each(drawn, rates):
    found = TrainingEvidence(rates)
    axes = drawn["pairings"].figure.axes
    assert [t.get_text() for t in axes[0].get_xticklabels()] == ["0.02", "0.1", "0.2"]
    assert [t.get_text() for t in axes[0].get_yticklabels()] == ["episode", "instruction", "task"]
    cells = {t.get_position(): t.get_text() for t in axes[1].texts}
    assert set(cells) == {(0, 1), (1, 0), (1, 1), (1, 2), (2, 1)}
    gain = 100 * found.gain("instruction-0.2", SUCCESS).value
    told = cells[2, 1].splitlines()
    assert told[0].replace("−", "-") == (f"{gain:+.1f}" if round(gain, 1) else "0.0")
    assert told[2] == "published +1.7"


def test_every_picture_has_its_numbers_in_words(drawn):
    for drawing in drawn.values():
        assert drawing.caption.endswith(".") and len(re.findall(r"\d\.\d", drawing.alt)) >= 10


def test_what_cannot_be_drawn_says_why(result):
    bare = TrainingEvidence(msgspec.structs.replace(result, scores=[]))
    for name, draw in FIGURES.items():
        absent = draw(bare)
        assert isinstance(absent, Absent) and absent.reason.startswith("the result "), name


# -- tables and page ----------------------------------------------------------------------------


def test_tables_say_the_scores(evidence, result):
    made = {table.name: table for table in tables(evidence)}
    assert tuple(made) == NAMES
    rows = {row[0].text: [cell.text for cell in row] for group in made["conditions"].groups
            for row in group.rows}  # fmt: skip
    own = evidence.one("instruction", SUCCESS)
    assert rows["aligned by instruction"][3].startswith(f"{own.value:.3f} [")
    assert rows["aligned by instruction"][4:] == ["0.749", "0.888"]
    assert rows["aligned to fixed noise"][4:] == ["", ""]
    gains = [row for group in made["gains"].groups for row in group.rows]
    assert len(gains) == len([s for s in result.scores if s.role == "difference"
                              and "task" not in s.parameters])  # fmt: skip
    assert any(row[1].text.startswith("best control (aligned to") for row in gains)
    assert [row[0].text for group in made["tasks"].groups for row in group.rows] == [
        "task-a", "task-b", "task-c"
    ]  # fmt: skip
    probed = made["probes"]
    assert probed.columns[1:] == ["side, observation", "side, execution"]
    own = value(result, measure="probe_accuracy", comparison="task", condition="nuisance",
                model="execution", setting=None, against=None)  # fmt: skip
    (row,) = [r for r in probed.groups[1].rows if r[0].text == "aligned by task"]
    assert row[2].text.startswith(f"{own.value:.2f} [")
    assert made["elsewhere"].columns[1:] == [
        "probe, observation → execution", "the same, maps of shuffled pairs",
        "probe of its own, execution", "new tasks, observation",
    ]  # fmt: skip
    assert made["few-shot"].columns[1:] == ["1 per class", "all per class"]
    assert [group.title for group in made["few-shot"].groups] == [
        "execution model, plain videos", "execution model, with nuisance"
    ]  # fmt: skip
    assert made["looks"].columns[1:] == ["plain videos", "camera-side"]
    away = value(result, measure="probe_accuracy", comparison="task", condition="camera-side",
                 against=None)  # fmt: skip
    row = row_of(made["looks"].groups[1], "aligned by task")
    assert row[2].text.startswith(f"{away.value:.2f} [")
    few = value(result, measure="few_shot_accuracy", comparison="noise", condition="nuisance",
                shots="all", against=None)  # fmt: skip
    row = row_of(made["few-shot"].groups[1], "aligned to fixed noise")
    assert row[2].text.startswith(f"{few.value:.2f} [")
    assert tables(TrainingEvidence(msgspec.structs.replace(result, scores=[]))) == []


def row_of(group, title):
    (row,) = [r for r in group.rows if r[0].text == title]
    return row


def test_undefined_numbers_have_a_note(result):
    scores = [
        msgspec.structs.replace(s, value=None, interval=None, undefined="policy never moved")
        if s.measure == SUCCESS and s.parameters["comparison"] == "noise" else s
        for s in result.scores
    ]  # fmt: skip
    changed = TrainingEvidence(msgspec.structs.replace(result, scores=scores))
    table = tables(changed)[0]
    assert table.notes == ["policy never moved"]
    with style.applied():
        assert all(not isinstance(draw(changed), Absent) for draw in FIGURES.values())


def test_methods_and_controls(evidence, rates):
    text = " ".join(methods(evidence))
    assert "“aligned to shuffled pairs”" in text and "pairing instruction" in text
    assert "new training runs" in text and "penultimate" in text
    assert "Controls (" not in " ".join(methods(TrainingEvidence(rates)))


def test_the_page_holds_everything(page, result, evidence):
    text = page.read_text()
    for name in FIGURES:
        assert f'id="figure-{name}"' in text
    for name in NAMES:
        assert f'id="table-{name}"' in text
        assert {(page.parent / "tables" / f"{name}.{e}").is_file() for e in ("csv", "tex")} == {
            True
        }
    assert "mirror run explicit-alignment --out DIR" in text
    assert "Recognition gain beyond controls" in text and "camera A" in text
    for finding in result.findings:
        assert finding.statement.split(".")[0][:40].replace("'", "&#39;") in text
    rows = list(csv.DictReader((page.parent / "tables" / "tasks.csv").read_text().splitlines()))
    own = evidence.one("instruction", SUCCESS, task="task-b")
    (found,) = [r for r in rows if (r["comparison"], r["measure"], r["task"])
                == ("instruction", SUCCESS, "task-b")]  # fmt: skip
    assert float(found["value"]) == own.value


def test_a_page_of_another_kind_takes_the_place_of_what_was_there(page, result, tmp_path):
    import synthetic_result

    render_report(synthetic_result.small_result(), out=tmp_path)
    assert (tmp_path / "tables" / "summary.csv").is_file()
    render_report(result, out=tmp_path)
    names = {p.stem for p in (tmp_path / "tables").iterdir()}
    assert names == set(NAMES)
    assert {p.stem for p in (tmp_path / "figures").iterdir()} == set(FIGURES)
    assert (tmp_path / "report.html").read_bytes() == page.read_bytes()

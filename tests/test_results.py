"""A result survives the disk, its tables hold its numbers, and a foreign file is refused."""

import math

import msgspec
import pandas as pd
import pytest

from mirror_analysis.errors import FormatError, MissingFileError, UnknownNameError
from mirror_analysis.provenance import record
from mirror_analysis.results import (
    Comparison,
    EmbeddingMap,
    Finding,
    Interval,
    Null,
    Result,
    Score,
    frame,
    load_result,
    save_result,
    select,
)


def score(value, x_layer="conv1", y_layer="vision", measure="linear_cka", **more):
    return Score(
        measure=measure,
        value=value,
        x="obs",
        y="exe",
        n=8,
        x_layer=x_layer,
        y_layer=y_layer,
        **more,
    )


FULL = score(
    0.5,
    interval=Interval(low=0.4, high=0.6, method="jackknife"),
    null=Null(mean=0.01, sd=0.02, draws=99, scheme="episodes"),
    p_value=0.01,
    p_max=0.04,
    ceiling=4.2,
    parameters={"k": 10, "debiased": True},
    within="task",
    condition="nuisance",
    role="control",
    seed=2,
)
UNDEFINED = score(None, x_layer="conv2", undefined="constant features")


def result():
    return Result(
        study="s",
        title="T",
        models={"x": "observation", "y": "execution"},
        definition={"models": {"seeds": [0, 1]}},
        provenance=record(device="cpu", seeds={}, inputs={}, seconds=1.0),
        data={"test": 8},
        findings=[Finding(name="f", statement="It is so.", holds=None, score=FULL)],
        scores=[FULL, UNDEFINED],
        maps=[EmbeddingMap("umap", "after", [(0.5, -1.0)], ["obs"], ["e1"], ["push"])],
        notes=["one"],
    )


def test_result_survives_the_disk(tmp_path):
    save_result(result(), tmp_path / "result.json")
    assert load_result(tmp_path / "result.json") == load_result(tmp_path)
    found = load_result(tmp_path)
    assert found.scores == [FULL, UNDEFINED]
    assert (found.maps, found.findings) == (result().maps, result().findings)
    assert found.definition == {"models": {"seeds": [0, 1]}}
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


def test_failed_writing_leaves_the_old_result(tmp_path, monkeypatch):
    path = tmp_path / "result.json"
    save_result(result(), path)
    before = path.read_bytes()

    def full_disk(*_):
        raise OSError("no space left")

    monkeypatch.setattr(type(path), "replace", full_disk)
    with pytest.raises(OSError, match="no space left"):
        save_result(msgspec.structs.replace(result(), title="new"), path)
    assert path.read_bytes() == before


def test_missing_result_says_what_writes_one(tmp_path):
    with pytest.raises(MissingFileError, match=r"^no result at .*result\.json; `mirror run STUDY"):
        load_result(tmp_path)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"study": "s"}', "missing required field"),
        ("not json", "malformed"),
        (None, "unknown field `extra`"),
    ],
)
def test_foreign_file_is_refused(tmp_path, text, reason):
    path = tmp_path / "result.json"
    whole = msgspec.to_builtins(result()) | {"extra": 1}
    path.write_bytes(text.encode() if text else msgspec.json.encode(whole))
    with pytest.raises(FormatError, match=rf"result\.json is not a mirror-analysis .*{reason}"):
        load_result(path)


def test_frame_has_one_row_per_score():
    table = frame([FULL, UNDEFINED])
    first, second = table.to_dict("records")
    assert [first[c] for c in ("value", "low", "high", "null_mean")] == [0.5, 0.4, 0.6, 0.01]
    assert [first[c] for c in ("p_value", "p_max", "ceiling", "n")] == [0.01, 0.04, 4.2, 8]
    assert [first[c] for c in ("within", "condition", "role", "k")] == [
        "task", "nuisance", "control", 10,
    ]  # fmt: skip
    assert math.isnan(second["value"]) and math.isnan(second["low"]) and math.isnan(second["k"])
    assert result().frame.equals(table)
    assert Comparison((FULL, UNDEFINED)).frame.equals(table)


def test_frame_of_nothing_has_its_columns():
    assert list(frame([]).columns) == list(frame([score(0.1)]).columns)


def test_frame_keeps_columns_that_a_parameter_shares_the_name_of():
    table = frame([score(0.1, parameters={"n": 99})])
    assert table["n"].tolist() == [8]


def test_select_by_attribute_and_parameter():
    scores = [FULL, UNDEFINED, score(0.2, measure="rsa", parameters={"k": 5})]
    assert select(scores, measure="linear_cka") == [FULL, UNDEFINED]
    assert select(scores, k=10) == [FULL]
    assert select(scores, k=5, measure="linear_cka") == []
    assert select(scores, k=None) == [UNDEFINED]


CELLS = Comparison(
    (
        score(0.3, "b", "v", p_max=0.5),
        score(0.4, "b", "u", p_max=0.2),
        score(None, "a", "v"),
        score(0.1, "a", "u"),
        score(9.0, "a", "u", "rsa"),
    )
)


def test_grid_keeps_the_order_of_layers():
    table = CELLS.grid("linear_cka")
    assert (list(table.index), list(table.columns)) == (["b", "a"], ["v", "u"])
    assert table.loc["b"].tolist() == [0.3, 0.4]
    assert math.isnan(table.loc["a", "v"])
    assert CELLS.grid("linear_cka", "p_max").loc["b", "u"] == 0.2
    assert isinstance(table, pd.DataFrame)


def test_grid_of_an_unknown_measure():
    with pytest.raises(UnknownNameError, match=r"did you mean 'linear_cka'\? \(known: linear_cka,"):
        CELLS.grid("linear_cak")


def test_best_is_the_largest_that_is_defined():
    best = CELLS.best("linear_cka")
    assert (best.x_layer, best.y_layer, best.value) == ("b", "u", 0.4)


def test_best_of_nothing():
    with pytest.raises(
        UnknownNameError, match=r"^unknown measure 'xyz' \(known: linear_cka, rsa\)"
    ):
        CELLS.best("xyz")


def test_notebook_shows_the_table():
    shown = CELLS._repr_html_()
    assert shown.startswith("<table") and "linear_cka" in shown and "0.400" in shown


def test_scores_are_frozen_and_closed():
    with pytest.raises(AttributeError, match="immutable"):
        FULL.value = 1.0
    with pytest.raises(msgspec.ValidationError, match="unknown field `valu`"):
        msgspec.convert({"valu": 1.0}, Score)

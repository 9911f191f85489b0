import subprocess
import sys

import numpy as np
import pytest
import torch

import mirror_analysis as ma
from mirror_analysis.comparison import compare, difference
from mirror_analysis.errors import DegenerateError, PairingError, UnknownNameError
from mirror_analysis.features import FeatureKey, Features, Index
from mirror_analysis.inference import Estimate
from mirror_analysis.similarity.measures import DEFAULT
from mirror_analysis.similarity.neighbors.sets import MutualKNN

FEW = {"measures": ["linear_cka"], "draws": 19, "folds": 5}


def arrays(seed=0, n=40):
    g = np.random.default_rng(seed)
    x = g.standard_normal((n, 5)).astype(np.float32)
    return x, (x[:, :3] + g.standard_normal((n, 3))).astype(np.float32)


def features(values, checkpoint, layer, order=slice(None)):
    n = len(values)
    episode = np.array([f"e{i // 2:02d}" for i in range(n)])
    task = np.array([f"t{i // 10}" for i in range(n)])
    index = Index(episode[order], (np.arange(n, dtype=np.int64) % 2)[order], {"task": task[order]})
    return Features(FeatureKey(checkpoint, "0", layer, "mean", "f"), values[order], index)


def test_two_arrays():
    x, y = arrays()
    found = compare(x, torch.tensor(y), x_name="watcher", y_name="actor", **FEW)
    score = found.scores[0]
    assert (score.x, score.y, score.x_layer, score.y_layer) == ("watcher", "actor", "", "")
    assert score.n == 40 and score.p_value == 0.05 and score.within == ""
    assert ma.compare is compare
    assert found.frame.loc[0, "null_mean"] == score.null.mean
    listed = compare(x.tolist(), y, **FEW).scores[0]
    assert listed.value == score.value


def test_dicts_of_layers_in_order():
    x, y = arrays()
    found = compare({"b": x, "a": x[:, :2]}, y, **FEW)
    assert list(found.grid("linear_cka").index) == ["b", "a"]


def test_all_default_measures():
    x, y = arrays()
    found = compare(x, y, draws=5, folds=4)
    assert [s.measure for s in found.scores] == list(DEFAULT)


def test_features_are_matched_by_episode_and_step_and_episodes_are_the_units():
    x, y = arrays()
    order = np.random.default_rng(1).permutation(40)
    a = {"conv": features(x, "u", "conv")}
    b = {"fc": features(y, "e", "fc", order)}
    found = compare(a, b, within="task", **FEW)
    score = found.scores[0]
    task = np.array([f"t{i // 10}" for i in range(40)])
    direct = compare(x, y, within=task, units=np.arange(40) // 2, **FEW).scores[0]
    assert score.value == pytest.approx(direct.value, abs=1e-12)
    assert score.interval.low == pytest.approx(direct.interval.low, abs=1e-12)
    assert score.p_value == direct.p_value
    assert (score.n, score.within, score.null.scheme) == (20, "task", "units within task")
    assert (direct.within, direct.null.scheme) == ("groups", "units within groups")
    assert (score.x_layer, score.y_layer) == ("conv", "fc")
    single = compare(a["conv"], b["fc"], within="task", **FEW).scores[0]
    assert single == score


def test_progress_is_passed_on():
    x, y = arrays()
    seen = []
    compare(x, y, progress=lambda done, total: seen.append(done / total), **FEW)
    assert seen[-1] == 1


def test_how_rows_trade_places_and_what_the_null_is_are_passed_on():
    x, y = arrays()
    episode = np.arange(40) // 8
    found = compare(x, y, units=episode, exchange="steps", **FEW).scores[0]
    assert found.null.scheme == "steps shifted inside units"
    labelled = compare(features(x, "u", "a"), features(y, "e", "a"), exchange="steps", **FEW)
    assert labelled.scores[0].null.scheme == "steps shifted inside units"
    exact = compare(x, y, null="moments", **FEW).scores[0]
    assert (exact.null.draws, exact.null.scheme) == (0, "rows, exact moments")
    assert exact.q_value == exact.p_value
    blocks = compare(x, y, memory=0, **FEW)
    assert blocks.scores[0].value == pytest.approx(compare(x, y, **FEW).scores[0].value, abs=1e-12)


def test_a_difference_is_that_of_paired_estimates():
    x, y = arrays()
    twin = np.random.default_rng(5).standard_normal((40, 5))
    few = {**FEW, "measures": ["linear_cka", "mutual_knn"]}
    first = compare({"a": x, "b": x[:, :2]}, y, x_name="trained", y_name="actor", **few)
    second = compare({"a": twin, "b": twin[:, :2]}, y, x_name="twin", y_name="actor", **few)
    found = difference(first, second)
    assert len(found.scores) == 4
    for a, b, s in zip(first.scores, second.scores, found.scores, strict=True):
        one, other = (
            Estimate.over_draws([z.value], [c.replicates[z.measure, z.x_layer, z.y_layer]])
            for z, c in ((a, first), (b, second))
        )
        expected = one - other
        assert s.value == pytest.approx(expected.mean, abs=1e-15)
        assert s.interval.low == pytest.approx(expected.interval().low, abs=1e-12)
        assert s.interval.high == pytest.approx(expected.interval().high, abs=1e-12)
        assert (s.role, s.null, s.p_value, s.p_max) == ("difference", None, None, None)
        assert (s.x, s.y) == ("trained less twin", "actor less actor")
        assert (s.measure, s.x_layer, s.parameters, s.n) == (a.measure, a.x_layer, a.parameters, 40)
    itself = difference(first, first)
    assert all(s.value == 0 == s.interval.low for s in itself.scores)
    twice = difference(found, found)  # it can be subtracted again
    assert all(s.interval is not None for s in twice.scores)


def test_layers_of_a_difference_are_matched_by_name_or_else_by_place():
    x, y = arrays()
    first = compare({"a": x, "b": x[:, :2]}, y, **FEW)
    turned = compare({"b": x[:, :2], "a": x}, y, **FEW)
    assert [s.value for s in difference(first, turned).scores] == [0, 0]
    renamed = compare({"p": x, "q": x[:, :2]}, y, **FEW)
    assert [s.value for s in difference(first, renamed).scores] == [0, 0]
    assert [s.x_layer for s in difference(first, renamed).scores] == ["a", "b"]


def test_a_difference_keeps_what_is_not_defined_and_what_has_no_interval():
    x, y = arrays()
    first = compare({"a": x, "b": x}, y, **FEW)
    second = compare({"a": x * 0, "b": x[:, :2]}, y, **FEW)
    for one, other in ((first, second), (second, first)):
        undefined, known = difference(one, other).scores
        assert undefined.value is None and "'a' of x is constant over its 40" in undefined.undefined
        assert known.value is not None and known.undefined == ""
    bare = compare({"a": x, "b": x}, y, measures=["linear_cka"], draws=0, folds=0)
    assert all(s.interval is None for s in difference(first, bare).scores)


def test_settings_of_one_measure_are_told_apart():
    x, y = arrays()
    found = compare(x, y, measures=[MutualKNN(3), MutualKNN(9)], draws=0, folds=5)
    assert [s.measure for s in found.scores] == ["mutual_knn (k 3)", "mutual_knn (k 9)"]
    assert [s.value for s in difference(found, found).scores] == [0, 0]
    assert len(found.replicates) == 2
    assert found.best("mutual_knn (k 9)").parameters["k"] == 9
    with pytest.raises(DegenerateError, match="mutual_knn is asked for twice; ask once, or change"):
        compare(x, y, measures=["mutual_knn", MutualKNN()])


def test_a_difference_says_what_does_not_correspond():
    x, y = arrays()
    first = compare({"a": x, "b": x}, y, **FEW)
    with pytest.raises(PairingError, match="the comparisons have 2 and 1 scores; needed the same"):
        difference(first, compare({"a": x}, y, **FEW))
    other = {**FEW, "measures": ["mutual_knn"]}
    with pytest.raises(
        PairingError, match=r"linear_cka .* meets mutual_knn .*; compare both pairs"
    ):
        difference(first, compare({"a": x, "b": x}, y, **other))
    within = compare({"a": x, "b": x}, y, within=np.arange(40) // 10, **FEW)
    with pytest.raises(
        PairingError, match=r"within '' meets linear_cka .* within 'groups'; compare"
    ):
        difference(first, within)
    with pytest.raises(PairingError, match="linear_cka is over 40 units in one comparison and 30"):
        difference(first, compare({"a": x[:30], "b": x[:30]}, y[:30], **FEW))
    with pytest.raises(PairingError, match="the comparisons have 5 and 4 folds; needed the same"):
        difference(first, compare({"a": x, "b": x}, y, **{**FEW, "folds": 4}))


def test_a_notebook_shows_every_measure():
    x, y = arrays()
    few = {**FEW, "measures": ["linear_cka", "mutual_knn"]}
    found = compare({"conv<1>": x, "dead": x * 0}, {"fc": y, "out": y[:, :1]}, **few)
    page = found._repr_html_()
    assert page.count("<table>") == 2
    assert "conv&lt;1&gt;" in page and "<1>" not in page
    assert page.count(">not defined</td>") == 4
    for s in found.scores[:2]:
        assert f">{s.value:.3f}</td>" in page
    best = found.best("linear_cka")
    assert f"best: conv&lt;1&gt; x {best.y_layer}: {best.value:.3f} [" in page
    nothing = compare({"dead": x * 0}, y, **FEW)._repr_html_()
    assert "not defined: layer &#x27;dead&#x27; of x is constant over its 40 samples" in nothing


def test_says_what_is_wrong():
    x, y = arrays()
    a = {"conv": features(x, "u", "conv")}
    with pytest.raises(PairingError, match="x is features but y is arrays, so rows cannot be mat"):
        compare(a, y)
    with pytest.raises(PairingError, match="y is features but x is arrays"):
        compare({"l": x}, a["conv"])
    with pytest.raises(PairingError, match="x mixes features and arrays"):
        compare({**a, "other": x}, a)
    with pytest.raises(UnknownNameError, match=r"unknown label 'taks'; did you mean 'task'"):
        compare(a, a, within="taks")
    with pytest.raises(UnknownNameError, match=r"unknown label 'task' \(known: none\)"):
        compare(x, y, within="task")


def test_importing_the_packages_loads_no_torch():
    code = (
        "import sys, mirror_analysis.similarity, mirror_analysis.information,"
        " mirror_analysis.inference, mirror_analysis.similarity.measures,"
        " mirror_analysis.comparison; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

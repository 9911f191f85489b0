import subprocess
import sys

import numpy as np
import pytest
import torch

import mirror_analysis as ma
from mirror_analysis.comparison import compare
from mirror_analysis.errors import PairingError, UnknownNameError
from mirror_analysis.features import FeatureKey, Features, Index

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
    assert [s.measure for s in found.scores] == ["linear_cka", "mutual_knn", "cknna", "svcca"]


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

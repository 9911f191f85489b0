import math

import numpy as np
import oracles_information as slow
import pytest
import torch

from mirror_analysis.errors import DegenerateError, ShapeError
from mirror_analysis.information import TASKS, ksg, ksg_mi


def pair(n, d=2, e=1, seed=0):
    g = np.random.default_rng(seed)
    x = g.standard_normal((n, d))
    return x, x[:, :1] + 0.5 * g.standard_normal((n, e))


@pytest.mark.parametrize("algorithm", [1, 2])
@pytest.mark.parametrize(("k", "d", "e"), [(1, 1, 1), (3, 2, 1), (5, 3, 2), (3, 6, 5)])
def test_equals_the_slow_formula(algorithm, k, d, e):
    x, y = pair(60, d, e, seed=k)
    expected = slow.ksg_mi(x.tolist(), y.tolist(), k, algorithm)
    found = ksg_mi(x, y, k=k, algorithm=algorithm, standardise=False)
    assert found == pytest.approx(expected, abs=1e-9)
    scaled = [(v - v.mean(axis=0)) / v.std(axis=0) for v in (x, y)]
    assert ksg_mi(x, y, k=k, algorithm=algorithm) == pytest.approx(
        slow.ksg_mi(*(v.tolist() for v in scaled), k, algorithm), abs=1e-9
    )


# With equal distances algorithm 2 does not say which neighbour is the k-th.
@pytest.mark.parametrize(("boxes", "rounded"), [(False, False), (False, True), (True, False)])
def test_trees_and_plain_distances_count_alike(monkeypatch, boxes, rounded):
    monkeypatch.setattr(ksg, "_BLOCK", 7 * 300)  # blocks of 7 rows
    x, y = pair(300, 2, 2)
    if rounded:  # many distances are then exactly equal, where < and <= part
        x, y = np.round(x * 64) / 64, np.round(y * 64) / 64
    a, b = torch.tensor(x), torch.tensor(y)
    trees = ksg._by_trees(a, b, 3, boxes=boxes)
    assert np.array_equal(trees, ksg._by_blocks(a, b, 3, boxes=boxes))


def test_neighbours_on_the_edge_are_not_counted():
    # Every gap is the same number in floating point, so all nearest neighbours lie on an edge.
    x = np.arange(8.0)[:, None]
    found = ksg_mi(x, x, k=1, standardise=False)
    assert found == pytest.approx(slow.ksg_mi(x.tolist(), x.tolist(), 1, 1), abs=1e-12)
    # psi(1) + psi(8) - 2 psi(1): nobody is strictly nearer than the nearest.
    assert found == pytest.approx(sum(1 / i for i in range(1, 8)), abs=1e-12)


@pytest.mark.parametrize(
    ("name", "tolerance"),
    [
        ("normal-bivariate-0.75", 0.03),
        ("normal-bivariate-0.75-swiss-roll", 0.03),
        ("normal-sparse-2x2-2-pairs-0.8", 0.05),
        ("student-identity-1x1-dof1-asinh", 0.04),
        ("uniform-additive-0.1", 0.08),
        ("uniform-additive-0.75", 0.04),
    ],
)
def test_finds_the_information_of_known_tasks(name, tolerance):
    values = [ksg_mi(*TASKS[name].sample(2000, seed)) for seed in range(3)]
    assert np.mean(values) == pytest.approx(TASKS[name].exact, abs=tolerance)


def test_unrelated_data_average_to_0():
    g = np.random.default_rng(0)
    values = [
        ksg_mi(g.standard_normal((200, 1)), g.standard_normal((200, 1)), algorithm=a)
        for a in (1, 2)
        for _ in range(40)
    ]
    assert abs(np.mean(values)) < 4 * np.std(values) / math.sqrt(80) + 0.01


def test_what_it_is_invariant_to():
    x, y = pair(1500, 1, 1)
    value = ksg_mi(x, y)
    assert ksg_mi(y, x) == pytest.approx(value, abs=1e-12)
    assert ksg_mi(x * 1000 + 7, y) == pytest.approx(value, abs=1e-9)
    order = np.random.default_rng(1).permutation(1500)
    assert ksg_mi(x[order], y[order]) == pytest.approx(value, abs=1e-12)
    # Information does not change under monotone maps; the estimate hardly does.
    assert ksg_mi(np.exp(x), np.cbrt(y)) == pytest.approx(value, abs=0.05)
    assert ksg_mi(x, y[order]) < 0.1 < value


def test_a_constant_feature_stands_in_nobodys_way():
    x, y = pair(100)
    with_constant = np.hstack([np.full((100, 1), 3.0), x])
    assert ksg_mi(with_constant, y) == pytest.approx(ksg_mi(x, y), abs=1e-12)


def test_takes_torch_and_half_precision():
    x, y = pair(200)
    assert ksg_mi(torch.tensor(x), torch.tensor(y)) == ksg_mi(x, y)
    half = ksg_mi(torch.tensor(x).half(), torch.tensor(y).half())
    assert half == pytest.approx(ksg_mi(x, y), abs=0.02)


def test_says_what_is_wrong():
    x, y = pair(20)
    for k in (0, 20):
        with pytest.raises(DegenerateError, match=f"got k {k} and 20 samples; needed k of at"):
            ksg_mi(x, y, k=k)
    with pytest.raises(DegenerateError, match="got algorithm 3; needed 1 or 2"):
        ksg_mi(x, y, algorithm=3)
    with pytest.raises(ShapeError, match="x has 20 samples but y has 19"):
        ksg_mi(x, y[:19])
    repeated = x.copy()
    repeated[:4] = x[0]
    with pytest.raises(
        DegenerateError, match="x has the same values in 4 samples, more than k = 3"
    ):
        ksg_mi(repeated, y)
    assert math.isfinite(ksg_mi(repeated, y, k=4))
    with pytest.raises(DegenerateError, match="y has the same values in 10 samples"):
        ksg_mi(x, (y > np.median(y)).astype(float))


@pytest.mark.gpu
def test_agrees_between_devices():
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    x, y = (torch.tensor(v) for v in pair(500))
    for algorithm in (1, 2):
        there = ksg_mi(x.cuda(), y.cuda(), algorithm=algorithm)
        assert there == pytest.approx(ksg_mi(x, y, algorithm=algorithm), rel=1e-6)

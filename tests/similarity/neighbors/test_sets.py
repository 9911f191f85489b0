import itertools

import numpy as np
import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mirror_analysis.errors import DegenerateError, ShapeError
from mirror_analysis.similarity import cknna, cycle_knn, knn_jaccard, mutual_knn
from mirror_analysis.similarity.measures import Layer
from mirror_analysis.similarity.neighbors.aligned import CKNNA
from mirror_analysis.similarity.neighbors.sets import KNNJaccard, MutualKNN


def random_pair(seed, n=25, d=6, e=4):
    g = np.random.default_rng(seed)
    x = g.standard_normal((n, d))
    return x, x[:, :e] + 0.7 * g.standard_normal((n, e))


@pytest.mark.parametrize("k", [1, 3, 7])
def test_equals_the_textbook_formulas(k):
    x, y = random_pair(k)
    assert mutual_knn(x, y, k=k) == pytest.approx(oracles.mutual_knn(x, y, k), abs=1e-12)
    forms = ["elementwise"] if k == 1 else ["elementwise", "reciprocal"]
    for form in forms:
        expected = oracles.cknna(x, y, k, form)
        assert cknna(x, y, k=k, form=form) == pytest.approx(expected, abs=1e-12)


def test_reproduces_published_implementations():
    x, y = oracles.pair(1000)
    assert mutual_knn(x, y) == pytest.approx(0.2615, abs=1e-9)
    assert cknna(x, y) == pytest.approx(0.26824, abs=1e-6)
    assert cknna(x, y, form="elementwise") == pytest.approx(0.287441, abs=1e-6)
    assert knn_jaccard(x, y) == pytest.approx(0.15736623, abs=1e-8)
    assert cycle_knn(x, y) == pytest.approx(0.911, abs=1e-9)


@given(seed=st.integers(0, 10**6), scale=st.floats(1e-6, 1e6))
@settings(deadline=None, max_examples=20)
def test_invariant_to_rotation_and_scale(seed, scale):
    x, y = random_pair(seed)
    rotation = np.linalg.qr(np.random.default_rng(seed + 1).standard_normal((6, 6)))[0]
    for measure in (mutual_knn, cknna):
        assert measure(x @ rotation * scale, y) == pytest.approx(measure(x, y), abs=1e-9)
    assert mutual_knn(y, x) == pytest.approx(mutual_knn(x, y), abs=1e-12)


@pytest.mark.parametrize("measure", [mutual_knn, cknna])
def test_centred_a_common_offset_changes_nothing_and_otherwise_it_does(measure):
    x, y = random_pair(0, n=80)
    before = measure(x, y, centred=True)
    assert measure(x + 1000, y, centred=True) == pytest.approx(before, abs=1e-6)
    assert abs(measure(x + 1000, y) - measure(x, y)) > 0.02


def test_cknna_does_not_drift_with_the_scale_of_kernels():
    # A constant in the denominator would shrink this one by tens of percent.
    x, _ = random_pair(1, n=200)
    assert cknna(x, x) == pytest.approx(1, abs=1e-12)


def test_ties_agree_by_chance_and_not_by_the_order_of_rows():
    # Both sides know the class only, and different classes: sorted by row number, tied
    # neighbours would be the same ones on both sides.
    x = np.eye(2)[np.arange(40) % 2]
    y = np.eye(2)[np.arange(40) // 20]
    value = mutual_knn(x, y, k=4)
    shared, others = 9, 19  # samples of the same class in both, and in one
    assert value == pytest.approx(shared * (4 / others) ** 2 / 4)
    order = np.random.default_rng(0).permutation(40)
    assert mutual_knn(x[order], y[order], k=4) == pytest.approx(value)


def test_a_row_of_zeros_is_near_to_all_alike():
    x, y = random_pair(2)
    x[4] = 0
    other = [mutual_knn(np.delete(x, 4, 0), np.delete(y, 4, 0), k=3)]
    assert np.isfinite(mutual_knn(x, y, k=3)) and np.isfinite(other[0])
    state = MutualKNN(3).prepare(Layer("x", torch.tensor(x)))
    from_zero = state.key // 25 == 4
    assert int(from_zero.sum()) == 24
    assert float(state.weight[from_zero].sum()) == pytest.approx(3)


def test_unrelated_layers_share_k_of_the_others():
    g = np.random.default_rng(0)
    values = [
        mutual_knn(g.standard_normal((60, 8)), g.standard_normal((60, 8)), k=5) for _ in range(40)
    ]
    assert np.mean(values) == pytest.approx(5 / 59, abs=0.006)


def test_chance_of_jaccard_is_the_mean_over_all_sets_of_neighbours():
    # Every set of 3 of 6 others, against the first three.
    sets = [len({0, 1, 2} & set(s)) for s in itertools.combinations(range(6), 3)]
    expected = np.mean([s / (6 - s) for s in sets])
    assert KNNJaccard(3).chance(7) == pytest.approx(expected, abs=1e-12)


def test_tied_neighbours_close_a_cycle_as_often_as_ties_broken_at_random():
    # All samples of x are equally near: each has every other as a neighbour with share k / (n-1).
    x = np.eye(30)
    y = np.random.default_rng(0).standard_normal((30, 3))
    share = 4 / 29
    assert cycle_knn(x, y, k=4) == pytest.approx(1 - (1 - share) ** 4, abs=1e-9)


@pytest.mark.parametrize("layers", [3, 12, 40])
def test_any_number_of_layers_is_looked_up_alike(layers, monkeypatch):
    g = np.random.default_rng(layers)
    values = [torch.tensor(g.standard_normal((25, 4))) for _ in range(layers)]
    measure = MutualKNN(3)
    states = [measure.prepare(Layer("l", v)) for v in values]
    orders = torch.tensor(np.stack([g.permutation(25) for _ in range(4)]))
    found = measure.null(states[:2], states, orders)
    monkeypatch.setattr("mirror_analysis.similarity.neighbors.shared_edges._BUDGET", 0)
    assert torch.equal(measure.null(states[:2], states, orders), found)
    assert torch.equal(measure.null(states[:2], states[-1:], orders)[:, :, 0], found[:, :, -1])


@pytest.mark.parametrize("measure", [MutualKNN(3), CKNNA(4), CKNNA(4, "elementwise")])
def test_grid_form_equals_the_function_and_permutes_rows_of_y(measure):
    x, y = random_pair(7)
    settings = {k: v for k, v in measure.parameters.items()}
    function = {"mutual_knn": mutual_knn, "cknna": cknna}[measure.name]
    layers = [x, y, x[:, 2:], y[:, 1:]]
    a, b, c, d = (measure.prepare(Layer("l", torch.tensor(z))) for z in layers)
    orders = np.stack([np.random.default_rng(s).permutation(25) for s in range(3)])
    null = measure.null([a, c], [b, d, b], torch.tensor(orders))
    assert null.shape == (3, 2, 3)
    for draw, order in enumerate(orders):
        for i, left in enumerate((x, x[:, 2:])):
            for j, right in enumerate((y, y[:, 1:], y)):
                expected = function(left, right[order], **settings)
                assert float(null[draw, i, j]) == pytest.approx(expected, abs=1e-12)
    assert torch.equal(measure.values([a], [b, d]), measure.values([a], [b, d, d])[:, :2])


def test_says_what_is_wrong():
    x, y = random_pair(3)
    for function, name in ((mutual_knn, "mutual_knn"), (cknna, "cknna")):
        with pytest.raises(DegenerateError, match=f"{name} got 11 samples; needed at least 12"):
            function(x[:11], y[:11])
        with pytest.raises(DegenerateError, match=f"{name} got k 0; needed at least 1"):
            function(x, y, k=0)
        with pytest.raises(DegenerateError, match="x is constant over its 25 samples"):
            function(np.ones((25, 2)), y)
        with pytest.raises(ShapeError, match="x has 25 samples but y has 24"):
            function(x, y[:24])
        with pytest.raises(DegenerateError, match="y holds NaN or infinity in 25 of 25 rows"):
            function(x, y * np.nan)
    # On a one-way chain of neighbours no edge runs both ways.
    angles = np.cumsum(0.9 ** np.arange(12))
    chain = np.stack([np.cos(angles / 8), np.sin(angles / 8)], axis=1)
    assert np.isfinite(cknna(chain, chain, k=1, form="elementwise"))

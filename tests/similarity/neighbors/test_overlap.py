"""What all neighbour measures have in common."""

import numpy as np
import oracles_neighbors
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mirror_analysis.errors import DegenerateError, UnknownNameError
from mirror_analysis.similarity.measures import Layer
from mirror_analysis.similarity.neighbors.aligned import CKNNA, cknna
from mirror_analysis.similarity.neighbors.lists import (
    KNNEdit,
    KNNSubsequence,
    knn_edit_similarity,
    knn_lcs,
)
from mirror_analysis.similarity.neighbors.ranks import KNNRank, knn_rank_similarity
from mirror_analysis.similarity.neighbors.sets import (
    CycleKNN,
    KNNJaccard,
    MutualKNN,
    cycle_knn,
    knn_jaccard,
    mutual_knn,
)
from mirror_analysis.testing import check_measure

FUNCTIONS = {
    f.__name__: f
    for f in (
        cknna, cycle_knn, knn_edit_similarity, knn_jaccard, knn_lcs, knn_rank_similarity,
        mutual_knn,
    )
}  # fmt: skip
MEASURES = [
    CKNNA(4), CKNNA(5, "elementwise"), CycleKNN(2), KNNEdit(5), KNNJaccard(4), KNNRank(2),
    KNNRank(3, "cosine"), KNNSubsequence(4, metric="euclidean"), MutualKNN(3),
    MutualKNN(4, metric="euclidean"),
]  # fmt: skip


def random_pair(seed, n=25, d=6, e=4):
    g = np.random.default_rng(seed)
    x = g.standard_normal((n, d))
    return x, x[:, :e] + 0.7 * g.standard_normal((n, e))


def state(measure, values):
    return measure.prepare(Layer("layer", torch.tensor(np.asarray(values))))


def value(measure, x, y):
    return float(measure.values([state(measure, x)], [state(measure, y)])[0, 0])


def identify(measure):
    return f"{measure.name}-{'-'.join(str(v) for v in measure.parameters.values())}"


@pytest.mark.parametrize("measure", MEASURES, ids=identify)
def test_keeps_what_it_declares(measure):
    check_measure(measure)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("name", sorted(set(FUNCTIONS) - {"cknna"}))
@pytest.mark.parametrize("k", [1, 4, 7])
def test_equals_the_textbook_formulas(name, metric, k):
    x, y = random_pair(k)
    expected = getattr(oracles_neighbors, name)(x, y, k, metric)
    assert FUNCTIONS[name](x, y, k=k, metric=metric) == pytest.approx(expected, abs=1e-12)
    expected = getattr(oracles_neighbors, name)(y, x, k, metric)
    assert FUNCTIONS[name](y, x, k=k, metric=metric) == pytest.approx(expected, abs=1e-12)


def tied_layers(seed, n=40):
    """Layers with duplicated rows, classes only, a row of zeros, and none of these."""
    g = np.random.default_rng(seed)
    plain = g.standard_normal((n, 5))
    doubled = plain[:, :3].copy()
    doubled[n // 2 :] = doubled[: n // 2]
    doubled[3] = 0
    return plain, doubled, np.eye(5)[g.integers(0, 5, n)]


@pytest.mark.parametrize("measure", MEASURES, ids=identify)
def test_null_is_the_measure_of_permuted_rows_with_ties_too(measure):
    layers = tied_layers(0)
    g = np.random.default_rng(1)
    orders = np.stack([g.permutation(40) for _ in range(3)])
    states = [state(measure, v) for v in layers]
    null = measure.null(states, states, torch.tensor(orders))
    assert null.shape == (3, 3, 3)
    for d, order in enumerate(orders):
        for i, x in enumerate(layers):
            for j, y in enumerate(layers):
                again = value(measure, x, y[order])
                assert float(null[d, i, j]) == pytest.approx(again, abs=1e-9)


@pytest.mark.parametrize("measure", MEASURES, ids=identify)
@pytest.mark.parametrize("folds", [2, 13])
def test_leaving_out_equals_preparing_anew(measure, folds):
    layers = tied_layers(2)
    fold = np.random.default_rng(3).permutation(40) % folds
    states = [state(measure, v) for v in layers]
    given_ = measure.leave_out(states, states[:2], torch.tensor(fold))
    assert given_.shape == (folds, 3, 2)
    for f in range(0, folds, 6):
        keep = fold != f
        for i, x in enumerate(layers):
            for j, y in enumerate(layers[:2]):
                try:
                    again = value(measure, x[keep], y[keep])
                except DegenerateError:
                    again = np.nan
                assert float(given_[f, i, j]) == pytest.approx(again, abs=1e-9, nan_ok=True)


@pytest.mark.parametrize("measure", MEASURES, ids=identify)
def test_leaving_out_says_where_nothing_is_defined(measure):
    x, y = random_pair(5)
    flat = np.ones_like(x)
    flat[:3] += np.random.default_rng(0).standard_normal((3, 6))
    fold = torch.tensor([0] * 3 + [1] * 22)
    sides = [state(measure, x), state(measure, flat)], [state(measure, y)]
    out = measure.leave_out(*sides, fold)
    # Without the first fold nothing varies; without the second too few are left.
    assert torch.isnan(out[0, 1, 0]) and torch.isfinite(out[0, 0, 0])
    assert torch.isnan(out[1]).all()


def test_leaving_out_is_refused_where_means_were_removed():
    x, y = (torch.tensor(v) for v in random_pair(6))
    fold, groups = torch.arange(25) % 5, torch.arange(25) % 2
    for measure in (CKNNA(3), MutualKNN(3), KNNRank(1)):
        grouped = [measure.prepare(Layer("l", v, groups)) for v in (x, y)]
        assert measure.leave_out(grouped[:1], grouped[1:], fold) is None
        assert torch.isfinite(measure.values(grouped[:1], grouped[1:])).all()
    centred = MutualKNN(3, centred=True)
    states = [centred.prepare(Layer("l", v)) for v in (x, y)]
    assert centred.leave_out(states[:1], states[1:], fold) is None


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
@given(seed=st.integers(0, 10**6), scale=st.floats(1e-6, 1e6))
@settings(deadline=None, max_examples=8)
def test_rotation_and_scale_change_nothing(name, seed, scale):
    measure = FUNCTIONS[name]
    x, y = random_pair(seed, n=40)
    rotation = np.linalg.qr(np.random.default_rng(seed + 1).standard_normal((6, 6)))[0]
    assert measure(x @ rotation * scale, y, k=5) == pytest.approx(measure(x, y, k=5), abs=1e-9)


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_a_stretch_of_one_feature_changes_the_value(name):
    x, y = random_pair(1, n=80)
    before = FUNCTIONS[name](x, y, k=5)
    assert abs(FUNCTIONS[name](x * [1, 1, 1, 1, 1, 50], y, k=5) - before) > 1e-3


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_an_offset_matters_to_cosines_only(name):
    x, y = random_pair(0, n=60)
    measure = FUNCTIONS[name]
    if name != "cknna":
        before = measure(x, y, k=5, metric="euclidean")
        assert measure(x + 1000, y, k=5, metric="euclidean") == pytest.approx(before, abs=1e-9)
    cosine = {} if name == "cknna" else {"metric": "cosine"}
    before = measure(x, y, k=5, **cosine)
    assert abs(measure(x + 1000, y, k=5, **cosine) - before) > 1e-3
    if name != "knn_rank_similarity":
        before = measure(x, y, k=5, centred=True)
        assert measure(x + 1000, y, k=5, centred=True) == pytest.approx(before, abs=1e-6)


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_the_order_of_tied_rows_does_not_matter(name):
    _, x, y = tied_layers(4)
    order = np.random.default_rng(0).permutation(40)
    before = FUNCTIONS[name](x, y, k=4)
    assert FUNCTIONS[name](x[order], y[order], k=4) == pytest.approx(before, abs=1e-9)
    assert np.isfinite(before)


def test_types_of_input_agree():
    x, y = random_pair(8, n=60)
    x, y = np.float32(x), np.float32(y)
    for name, measure in FUNCTIONS.items():
        before = measure(np.float64(x), np.float64(y), k=5)
        assert measure(x, torch.tensor(y), k=5) == pytest.approx(before, abs=1e-9), name
        half = np.float16(x)
        again = measure(half.astype(np.float64), y, k=5)
        assert measure(half, y, k=5) == pytest.approx(again, abs=1e-9), name


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_says_what_is_wrong(name):
    x, y = random_pair(3)
    measure = FUNCTIONS[name]
    with pytest.raises(DegenerateError, match=f"{name} got 11 samples; needed at least 12"):
        measure(x[:11], y[:11], k=10)
    with pytest.raises(DegenerateError, match=f"{name} got k 0; needed at least 1"):
        measure(x, y, k=0)
    with pytest.raises(DegenerateError, match="x is constant over its 25 samples"):
        measure(np.ones((25, 2)), y)
    with pytest.raises(DegenerateError, match="y holds NaN or infinity in 25 of 25 rows"):
        measure(x, y * np.nan)
    if name == "cknna":
        with pytest.raises(UnknownNameError, match="unknown form of cknna 'reciprocl'; did you"):
            measure(x, y, form="reciprocl")
    else:
        with pytest.raises(UnknownNameError, match="unknown metric 'cosin'; did you mean 'cosine'"):
            measure(x, y, metric="cosin")

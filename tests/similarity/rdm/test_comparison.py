import math

import numba
import numpy as np
import oracles
import oracles_rsa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import pdist, squareform
from scipy.stats import kendalltau, rankdata, spearmanr

from mirror_analysis.errors import DegenerateError, ShapeError, UnknownNameError
from mirror_analysis.inference.moments import exact_null
from mirror_analysis.similarity.grid import grid
from mirror_analysis.similarity.measures import Layer
from mirror_analysis.similarity.rdm import concordance
from mirror_analysis.similarity.rdm import ranks as pair_ranks
from mirror_analysis.similarity.rdm.comparison import RSA, dissimilarities, rsa
from mirror_analysis.testing import check_measure

DISTANCES = ["correlation", "cosine", "euclidean", "squared_euclidean"]
COMPARISONS = ["pearson", "spearman", "kendall", "cosine"]
SCIPY = {"squared_euclidean": "sqeuclidean"}


def random_pair(seed, n=14, d=7, e=5):
    g = np.random.default_rng(seed)
    x = g.standard_normal((n, d))
    return x, x @ g.standard_normal((d, e)) + g.standard_normal((n, e))


def state(measure, values, **settings):
    return measure.prepare(Layer("layer", torch.as_tensor(values), **settings))


def value(measure, x, y, **settings):
    one = measure.values([state(measure, x, **settings)], [state(measure, y, **settings)])
    return float(one[0, 0])


def whole_numbers(seed, n, d):
    return np.random.default_rng(seed).integers(0, 3, (n, d)).astype(float)


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("comparison", COMPARISONS)
def test_equals_the_textbook_formula(distance, comparison):
    x, y = random_pair(3)
    expected = oracles_rsa.rsa(x, y, distance, comparison)
    found = rsa(x, y, distance=distance, comparison=comparison)
    assert found == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("distance", ["euclidean", "squared_euclidean", "correlation"])
@pytest.mark.parametrize("comparison", ["spearman", "kendall"])
def test_ties_get_average_ranks_and_no_score(distance, comparison):
    x, y = whole_numbers(0, 16, 6), whole_numbers(1, 16, 5)
    y[:8, :4] = x[:8, :4]
    expected = oracles_rsa.rsa(x, y, distance, comparison)
    found = rsa(x + 100, 7 * y, distance=distance, comparison=comparison)
    assert found == pytest.approx(expected, abs=1e-12)


def test_whole_numbers_tie_in_single_precision_too():
    x, y = whole_numbers(0, 600, 9), whole_numbers(1, 600, 9)
    y[:, :5] = x[:, :5]
    measure = RSA("euclidean")
    found = value(measure, x.astype(np.float32) / 3, y.astype(np.float32) / 7)
    expected = spearmanr(pdist(x, "sqeuclidean"), pdist(y, "sqeuclidean"))[0]
    assert found == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("distance", DISTANCES)
def test_single_precision_and_blocks_of_rows_give_what_scipy_gives(distance):
    x, y = oracles.pair(600, d=96, e=64)
    x[:, 0] += 30  # all rows point nearly the same way
    a, b = (pdist(v.astype(float), SCIPY.get(distance, distance)) for v in (x, y))
    expected = {"spearman": spearmanr(a, b)[0], "pearson": np.corrcoef(a, b)[0, 1]}
    for comparison, right in expected.items():
        measure = RSA(distance, comparison)
        assert value(measure, x, y) == pytest.approx(right, abs=2e-6)
        assert value(measure, x, y, budget=1000) == pytest.approx(right, abs=2e-6)
    assert rsa(x, y, distance=distance) == pytest.approx(expected["spearman"], abs=1e-12)


def test_reproduces_published_implementations():
    x, y = oracles.pair(1000)
    assert rsa(x, y) == pytest.approx(0.68847148, abs=1e-8)
    assert rsa(x, y, comparison="pearson") == pytest.approx(0.70568365, abs=1e-8)
    squared = rsa(x, y, distance="squared_euclidean", comparison="pearson")
    assert squared == pytest.approx(0.7044, abs=5e-5)  # what rsatoolbox calls euclidean
    assert value(RSA(), x, y) == pytest.approx(0.68847148, abs=1e-6)


def test_kendall_is_scipys_with_its_factors_for_ties_undone():
    x, y = whole_numbers(3, 90, 8), whole_numbers(4, 90, 8)
    y[:, :6] = x[:, :6]
    a, b = pdist(x, "sqeuclidean"), pdist(y, "sqeuclidean")
    ties = 1.0
    for v in (a, b):
        counts = np.unique(v, return_counts=True)[1]
        ties *= 1 - sum(counts * (counts - 1)) / (len(v) * (len(v) - 1))
    expected = kendalltau(a, b)[0] * math.sqrt(ties)
    found = rsa(x, y, distance="squared_euclidean", comparison="kendall")
    assert found == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("distance", DISTANCES)
def test_dissimilarities_are_the_distances_themselves(distance):
    x, _ = random_pair(5, n=9)
    found = dissimilarities(300 * x, distance=distance)
    slow = squareform(oracles_rsa.distances(300 * x, distance))
    np.testing.assert_allclose(found, slow, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(found, found.T, rtol=0, atol=0)
    assert dissimilarities(np.ones((3, 2)) * [[1], [2], [2]], distance="euclidean")[1, 2] == 0


@given(
    seed=st.integers(0, 10**6), scale=st.floats(1e-6, 1e6), comparison=st.sampled_from(COMPARISONS)
)
@settings(deadline=None, max_examples=15)
def test_what_each_distance_does_not_see(seed, scale, comparison):
    x, y = random_pair(seed)
    g = np.random.default_rng(seed + 1)
    rotation = np.linalg.qr(g.standard_normal((7, 7)))[0]
    size, mean = g.uniform(0.1, 10, (14, 1)), 5 * g.standard_normal((14, 1))
    same = {
        "correlation": size * x + mean,
        "cosine": size * x @ rotation,
        "euclidean": x @ rotation + g.standard_normal(7),
        "squared_euclidean": x @ rotation + g.standard_normal(7),
    }
    for distance, changed in same.items():
        before = rsa(x, y, distance=distance, comparison=comparison)
        after = rsa(scale * changed, y, distance=distance, comparison=comparison)
        assert after == pytest.approx(before, abs=1e-9)
        assert rsa(y, x, distance=distance, comparison=comparison) == pytest.approx(before)


@pytest.mark.parametrize(
    ("distance", "change"),
    [
        ("correlation", lambda x: x + np.arange(7.0)),
        (
            "correlation",
            lambda x: x @ np.linalg.qr(np.random.default_rng(0).normal(size=(7, 7)))[0],
        ),
        ("cosine", lambda x: x + 1),
        ("euclidean", lambda x: x * np.linspace(0.1, 3, len(x))[:, None]),
        ("euclidean", lambda x: x * [9, 1, 1, 1, 1, 1, 1]),
    ],
)
def test_what_each_distance_does_see(distance, change):
    x, y = random_pair(0, n=60)
    assert abs(rsa(change(x), y, distance=distance) - rsa(x, y, distance=distance)) > 0.02


def test_a_rising_map_of_distances_changes_pearson_only():
    x, y = random_pair(1, n=40)
    for comparison, same in (("spearman", True), ("kendall", True), ("pearson", False)):
        found = [rsa(x, y, distance=d, comparison=comparison) for d in DISTANCES[2:]]
        assert (abs(found[0] - found[1]) < 1e-12) is same


@pytest.mark.parametrize("comparison", COMPARISONS)
@pytest.mark.parametrize("distance", ["correlation", "euclidean"])
def test_keeps_to_what_it_declares(distance, comparison):
    check_measure(RSA(distance, comparison))


@pytest.mark.parametrize("comparison", ["pearson", "spearman", "cosine"])
@pytest.mark.parametrize("distance", ["correlation", "euclidean"])
def test_exact_moments_give_the_p_of_many_permutations(distance, comparison):
    x, _ = random_pair(8, n=44)
    y = 0.12 * x[:, :5] + np.random.default_rng(10).standard_normal((44, 5))
    measure = RSA(distance, comparison)
    xs, ys = [state(measure, x)], [state(measure, y)]
    law, observed = exact_null(*measure.invariants(xs, ys)), measure.values(xs, ys).numpy()
    g = np.random.default_rng(0)
    orders = torch.from_numpy(np.stack([g.permutation(44) for _ in range(20000)]))
    null = measure.null(xs, ys, orders)[:, 0, 0].numpy()
    assert law.mean[0, 0] == pytest.approx(null.mean(), abs=5 * null.std() / 20000**0.5)
    assert law.sd[0, 0] == pytest.approx(null.std(), rel=0.03)
    p = np.mean(null >= observed[0, 0])
    assert 0.01 < p < 0.99
    assert law.p_value(observed)[0, 0] == pytest.approx(p, abs=0.01)


@pytest.mark.parametrize("comparison", COMPARISONS)
@pytest.mark.parametrize("discrete", [False, True])
def test_leaving_folds_out_is_measuring_without_them(comparison, discrete):
    x, y = random_pair(4, n=45)
    if discrete:
        x, y = np.round(x), np.round(y)
    measure = RSA("euclidean", comparison)
    folds = torch.from_numpy(np.random.default_rng(0).integers(0, 6, 45))
    xs, ys = [state(measure, v) for v in (x, x[::-1].copy())], [state(measure, y)]
    found = measure.leave_out(xs, ys, folds)
    assert found.shape == (6, 2, 1)
    for fold in range(6):
        keep = (folds != fold).numpy()
        for i, side in enumerate((x, x[::-1])):
            again = value(measure, side[keep], y[keep])
            assert float(found[fold, i, 0]) == pytest.approx(again, abs=1e-9)
    own = measure.leave_out(xs, xs, folds)
    again = value(measure, x[keep], x[::-1][keep].copy())
    assert float(own[5, 0, 1]) == pytest.approx(again, abs=1e-9)


def test_ranks_without_a_fold_hold_where_there_are_many_pairs_in_single_precision():
    x, y = oracles.pair(520, d=40, e=30)
    measure = RSA()
    folds = torch.arange(520) % 26
    found = measure.leave_out([state(measure, x)], [state(measure, y)], folds)[3]
    keep = (folds != 3).numpy()
    assert float(found[0, 0]) == pytest.approx(rsa(x[keep], y[keep]), abs=1e-7)


@pytest.mark.parametrize("comparison", ["spearman", "kendall"])
def test_a_fold_whose_rest_is_all_alike_has_no_value(comparison):
    x = np.eye(6)
    x[5] = [3, 1, 0, 0, 0, 0]
    y = np.random.default_rng(0).standard_normal((6, 3))
    measure = RSA("euclidean", comparison)
    found = measure.leave_out([state(measure, x)], [state(measure, y)], torch.arange(6))
    assert torch.isfinite(found[:5]).all() and torch.isnan(found[5]).all()


def test_kendall_is_refused_where_the_order_would_not_fit_and_spearman_measured_anew():
    x, _ = random_pair(0, n=20)
    with pytest.raises(DegenerateError, match=r"rsa got 20 samples .* than the 1000 bytes .* use"):
        state(RSA(comparison="kendall"), x, budget=1000)
    states = [state(RSA(), x, budget=1000)]
    assert RSA().leave_out(states, states, torch.arange(20)) is None


def test_ranks_are_those_of_a_sort_and_can_be_made_again_by_rows():
    g = np.random.default_rng(0)
    distances = np.abs(g.standard_normal(300_000).round(4)).astype(np.float32)
    codes, counts = pair_ranks.ordered(torch.from_numpy(distances), near=False)
    _, places, sizes = np.unique(distances, return_inverse=True, return_counts=True)
    np.testing.assert_array_equal(codes, places)
    np.testing.assert_array_equal(counts, sizes)
    kept = pair_ranks.Order("layer", 775, codes, counts)
    expected = rankdata(distances) - (len(distances) + 1) / 2
    np.testing.assert_array_equal(kept.ranks()[codes], expected)
    ranked = state(RSA(), random_pair(0, n=30)[0])
    again = pair_ranks.replace(ranked.pairs, made=None).rows(0, 30)
    torch.testing.assert_close(again, ranked.pairs.whole)


def test_a_grid_has_p_and_interval_for_every_cell():
    x, y = random_pair(2, n=40)
    found = grid(
        {"a": x, "b": x**2}, {"c": y}, measures=[RSA(), RSA(comparison="kendall")], folds=5
    )
    assert [s.null.draws for s in found.scores] == [999, 999, 99, 99]
    assert all(s.interval.low < s.value < s.interval.high for s in found.scores)
    assert found.scores[0].p_value == 0.001


def test_a_grid_by_moments_agrees_with_one_by_permutations():
    x = np.random.default_rng(0).standard_normal((64, 7))
    y = 0.4 * x[:, :4] + np.random.default_rng(1).standard_normal((64, 4))
    kinds = [RSA(), RSA("euclidean", "pearson")]
    settings = {"measures": kinds, "folds": 0, "draws": 4999}
    drawn = grid({"a": x}, {"c": y}, null="permutation", **settings)
    exact = grid({"a": x}, {"c": y}, null="moments", **settings)
    for a, b in zip(exact.scores, drawn.scores, strict=True):
        assert (a.value, a.null.draws) == (b.value, 0)
        assert a.p_value == pytest.approx(b.p_value, abs=0.015)
    with pytest.raises(DegenerateError, match="rsa has no exact moments"):
        grid({"a": x}, {"c": y}, null="moments", measures=[RSA(comparison="kendall")], folds=0)


def test_unrelated_layers_score_zero():
    g = np.random.default_rng(0)
    for comparison in ("pearson", "spearman", "kendall"):
        pairs = [(g.standard_normal((40, 9)), g.standard_normal((40, 6))) for _ in range(30)]
        scores = [rsa(a, b, comparison=comparison) for a, b in pairs]
        assert np.mean(scores) == pytest.approx(0, abs=4 * np.std(scores) / 30**0.5)


@pytest.mark.parametrize(
    ("bad", "options", "words"),
    [
        (np.ones((5, 3)), {}, r"x has 5 of 5 rows with the same value in every feature"),
        (
            np.diag([0, 1.0, 2, 3, 4]),
            {"distance": "cosine"},
            r"1 of 5 rows with zeros only .*row 0",
        ),
        (np.ones((5, 3)), {"distance": "euclidean"}, "x is constant over its 5 samples"),
        (np.eye(5), {"distance": "euclidean"}, "x has no spread"),
        (np.eye(5), {"comparison": "kendall"}, "x has no spread"),
        (np.eye(5), {"comparison": "pearson"}, "x has no spread"),
        (np.full((5, 2), np.nan), {}, "x holds NaN"),
    ],
)
def test_refuses_what_has_no_order(bad, options, words):
    with pytest.raises(DegenerateError, match=words):
        rsa(bad, np.random.default_rng(0).standard_normal((5, 4)), **options)


def test_refuses_too_few_samples_and_unknown_names():
    x, y = random_pair(0)
    with pytest.raises(DegenerateError, match="rsa got 3 samples; needed at least 4"):
        rsa(x[:3], y[:3])
    with pytest.raises(ShapeError, match="x has 14 samples but y has 9"):
        rsa(x, y[:9])
    measure, layer = RSA(), Layer("x", torch.from_numpy(x))
    object.__setattr__(measure, "distance", "pearson")
    with pytest.raises(UnknownNameError, match="unknown distance 'pearson'"):
        measure.prepare(layer)
    object.__setattr__(measure, "comparison", "tau")
    with pytest.raises(UnknownNameError, match="unknown comparison 'tau'"):
        measure.prepare(layer)
    with pytest.raises(DegenerateError, match="has no spread"):
        state(RSA("euclidean"), np.eye(20), budget=1000)


def test_a_folder_that_cannot_be_written_only_costs_the_cache(monkeypatch):
    def compile_(**settings):
        if settings.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        return lambda function: function

    x, y = random_pair(0, n=8)
    before = rsa(x, y, comparison="kendall")
    monkeypatch.setattr(numba, "njit", compile_)
    concordance._compiled.cache_clear()
    assert rsa(x, y, comparison="kendall") == before  # counted in plain Python this time
    concordance._compiled.cache_clear()

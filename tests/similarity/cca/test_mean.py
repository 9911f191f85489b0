import warnings

import numpy as np
import oracles
import oracles_cca as slow
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mirror_analysis.errors import (
    DegenerateError,
    ShapeError,
    SmallSampleWarning,
    UnknownNameError,
)
from mirror_analysis.inference.moments import exact_null
from mirror_analysis.similarity.cca.bases import whole_basis
from mirror_analysis.similarity.cca.mean import (
    SVCCA,
    MeanCCA,
    canonical_correlations,
    mean_cca,
    svcca,
)
from mirror_analysis.similarity.cca.nuclear import nuclear_norms
from mirror_analysis.similarity.cca.regularised import RidgeCCA, ridge_cca
from mirror_analysis.similarity.cca.squared import MeanSquaredCCA, mean_squared_cca
from mirror_analysis.similarity.cca.weighted import PWCCA, pwcca
from mirror_analysis.similarity.measures import Layer
from mirror_analysis.testing import check_measure

MEASURES = [
    MeanCCA(),
    MeanSquaredCCA(),
    SVCCA(0.9),
    SVCCA(dimensions=3),
    PWCCA("x"),
    PWCCA("y"),
    RidgeCCA(0.3),
]


def random_pair(seed, n=40, d=7, e=5):
    g = np.random.default_rng(seed)
    x = g.standard_normal((n, d)) * np.linspace(3, 0.1, d)
    return x, x[:, :e] @ g.standard_normal((e, e)) + 2 * g.standard_normal((n, e))


def mixing(seed, d):
    return np.random.default_rng(seed).standard_normal((d, d)) + 2 * np.eye(d)


def rotation(seed, d):
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((d, d)))[0]


def state(measure, values, name="layer"):
    return measure.prepare(Layer(name, torch.as_tensor(values)))


@pytest.mark.parametrize("measure", MEASURES, ids=str)
def test_keeps_the_contract(measure):
    check_measure(measure)


@pytest.mark.parametrize("shape", [(40, 7, 5), (40, 5, 7), (60, 5, 5), (30, 1, 4)])
def test_equal_their_definitions(shape):
    g = np.random.default_rng(0)
    x = g.standard_normal(shape[:2]) * np.linspace(3, 0.1, shape[1])
    y = x @ g.standard_normal(shape[1:]) + 2 * g.standard_normal((shape[0], shape[2]))
    expected = slow.correlations(x, y)
    assert canonical_correlations(x, y).numpy() == pytest.approx(expected, abs=1e-8)
    assert mean_cca(x, y) == pytest.approx(expected.mean(), abs=1e-8)
    assert mean_squared_cca(x, y) == pytest.approx(np.square(expected).mean(), abs=1e-10)
    assert pwcca(x, y) == pytest.approx(slow.pwcca(x, y), abs=1e-8)
    assert pwcca(x, y, weights="x") == pytest.approx(slow.pwcca(y, x), abs=1e-8)
    for r in (0.01, 1.0):
        found = ridge_cca(x, y, relative_ridge=r) * min(shape[1:])
        assert found == pytest.approx(slow.ridge_cca(x, y, r) * min(shape[1:]), abs=1e-9)


@pytest.mark.parametrize("variance", [0.5, 0.9, 0.99, 1.0])
@pytest.mark.parametrize("shape", [(40, 7, 5), (40, 5, 7)])
def test_svcca_equals_the_textbook_formula(variance, shape):
    g = np.random.default_rng(0)
    x = g.standard_normal((shape[0], shape[1])) * np.linspace(3, 0.1, shape[1])
    y = x @ g.standard_normal(shape[1:]) + 2 * g.standard_normal((shape[0], shape[2]))
    # At 1.0 rounding may leave the textbook's last share just under 1.
    expected = oracles.svcca(x, y, min(variance, 1 - 1e-12))
    assert svcca(x, y, variance=variance) == pytest.approx(expected, abs=1e-8)


def test_svcca_of_a_fixed_number_of_dimensions_is_the_cca_of_so_many_components():
    x, y = random_pair(0)
    leading = []
    for z in (x, y):
        z = z - z.mean(axis=0)
        leading.append(z @ np.linalg.svd(z)[2].T[:, :3])
    assert svcca(x, y, dimensions=3) == pytest.approx(mean_cca(*leading), abs=1e-10)
    assert SVCCA(dimensions=3).parameters == {"dimensions": 3}
    assert SVCCA(0.9).parameters == {"variance": 0.9}


def test_reproduce_published_implementations():
    x, y = oracles.pair(1000)
    with pytest.warns(SmallSampleWarning, match="281 canonical correlations are 1 whatever"):
        assert mean_cca(x, y) == pytest.approx(0.86017763, abs=1e-8)
    with pytest.warns(SmallSampleWarning, match="x has 768 and y 512 directions"):
        assert mean_squared_cca(x, y) == pytest.approx(0.77932844, abs=1e-8)
    with pytest.warns(SmallSampleWarning, match="69 canonical correlations"):
        assert svcca(x, y) == pytest.approx(0.76407213, abs=1e-8)
    assert [state(SVCCA(), z).scores.shape[1] for z in (x, y)] == [616, 452]
    # 281 correlations are 1 here, and their variates any basis of what they span: the published
    # 0.8929 and 0.8989 are those of one such basis.
    with pytest.warns(SmallSampleWarning):
        assert pwcca(x, y) == pytest.approx(0.89289, abs=1e-3)
    with pytest.warns(SmallSampleWarning):
        assert pwcca(x, y, weights="x") == pytest.approx(0.89888, abs=1e-3)


def test_forced_correlations_of_1_weigh_the_same_whatever_their_basis():
    g = np.random.default_rng(3)
    x, y = g.standard_normal((30, 20)), g.standard_normal((30, 18)) * np.linspace(1, 9, 18)
    with pytest.warns(SmallSampleWarning, match="9 canonical correlations are 1"):
        value = pwcca(x, y)
    for seed in range(3):
        with pytest.warns(SmallSampleWarning):
            assert pwcca(x @ mixing(seed, 20), y) == pytest.approx(value, abs=1e-9)
    # The mean over bases, drawn: rotate the variates that tie.
    q = [np.linalg.svd(z - z.mean(0), full_matrices=False)[0] for z in (x, y)]
    _, r, v = np.linalg.svd(q[0].T @ q[1], full_matrices=False)
    found = []
    for seed in range(400):
        turned = v.copy()
        turned[:9] = rotation(seed, 9) @ v[:9]
        weights = np.abs(turned @ q[1].T @ (y - y.mean(0))).sum(axis=1)
        found.append([weights @ r, weights.sum()])
    above, below = np.mean(found, axis=0)
    assert value == pytest.approx(above / below, abs=2e-4)


def test_ill_conditioned_and_dependent_features_are_exact():
    g = np.random.default_rng(1)
    x = g.standard_normal((50, 4))
    stretched = x @ np.diag([1, 1e-3, 1e-5, 1e-7]) @ rotation(2, 4)
    y = x @ g.standard_normal((4, 3)) + g.standard_normal((50, 3))
    assert svcca(stretched, y, variance=1.0) == pytest.approx(svcca(x, y, variance=1.0), abs=1e-7)
    doubled = x @ g.standard_normal((4, 9))  # of rank 4
    for side in (y, g.standard_normal((50, 12))):
        for measure in (mean_cca, mean_squared_cca, pwcca):
            assert measure(doubled, side) == pytest.approx(measure(x, side), abs=1e-9)
    assert len(canonical_correlations(doubled, y)) == 3
    # In float32 the sum of features that add up to 0 is rounding, not a direction.
    summed = np.float32(np.hstack([x, -x.sum(axis=1, keepdims=True)]))
    assert whole_basis(Layer("l", torch.tensor(summed))).scores.shape == (50, 4)


def test_a_sum_of_tiny_singular_values_is_right():
    sizes = np.array([1.0, 1e-7, 1e-8, 1e-9])
    block = rotation(0, 6)[:, :4] * sizes @ rotation(1, 4)
    found = nuclear_norms(torch.tensor(np.stack([block, rotation(2, 6)[:, :4]])))
    assert found.numpy() == pytest.approx([sizes.sum(), 4], abs=1e-12)


def test_more_directions_than_samples_force_ones_and_say_so():
    g = np.random.default_rng(2)
    x, y = g.standard_normal((30, 40)), g.standard_normal((30, 40))
    for measure in (mean_cca, mean_squared_cca, pwcca):
        with pytest.warns(SmallSampleWarning, match=r"29 canonical .* Add samples or keep fewer"):
            assert measure(x, y) == pytest.approx(1, abs=1e-9)
    with pytest.warns(SmallSampleWarning):
        forced = canonical_correlations(x[:, :20], y[:, :15])
    assert int((forced > 1 - 1e-9).sum()) == 20 + 15 - 29
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert mean_cca(x[:, :15], y[:, :14]) < 1 - 1e-6
        assert ridge_cca(x, y) < 0.99
        state(MeanCCA(), x)


@given(seed=st.integers(0, 10**6), scale=st.floats(1e-6, 1e6), offset=st.floats(-1e3, 1e3))
@settings(deadline=None, max_examples=15)
def test_invariances(seed, scale, offset):
    x, y = random_pair(seed)
    linear = x @ mixing(seed, 7) * scale + offset * scale
    rotated = x @ rotation(seed, 7) * scale + offset * scale
    for measure in (mean_cca, mean_squared_cca, pwcca):
        assert measure(linear, y) == pytest.approx(measure(x, y), abs=1e-7)
    for measure in (lambda a, b: svcca(a, b, variance=0.9), ridge_cca):
        assert measure(rotated, y) == pytest.approx(measure(x, y), abs=1e-7)
    for measure in (mean_cca, mean_squared_cca, svcca, ridge_cca):
        assert measure(y, x) == pytest.approx(measure(x, y), abs=1e-9)
    assert pwcca(y, x, weights="x") == pytest.approx(pwcca(x, y), abs=1e-9)


def test_what_they_must_see():
    x, y = random_pair(3, n=200)
    stretched = x.copy()
    stretched[:, -1] *= 1000
    assert svcca(stretched, y) < svcca(x, y) - 0.1
    assert ridge_cca(stretched, y) < ridge_cca(x, y) - 0.1
    assert abs(pwcca(x, y @ mixing(0, 5)) - pwcca(x, y)) > 1e-3
    assert abs(pwcca(x, y) - pwcca(x, y, weights="x")) > 1e-3
    bent = np.where(x > 0, x, 0)
    for measure in (mean_cca, mean_squared_cca, svcca, pwcca, ridge_cca):
        assert measure(x, bent) < 0.97 * measure(x, x)


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, torch.float16])
def test_take_every_float_and_large_offsets(kind):
    x, y = (np.float16(z) for z in random_pair(6))
    plain = [m(np.float64(x), np.float64(y)) for m in (mean_cca, mean_squared_cca, svcca, pwcca)]
    if isinstance(kind, torch.dtype):
        x, y = (torch.tensor(z).to(kind) for z in (x, y))
    else:
        x, y = x.astype(kind), y.astype(kind)
    found = [m(x, y) for m in (mean_cca, mean_squared_cca, svcca, pwcca)]
    assert found == pytest.approx(plain, abs=1e-9)
    moved = np.float64(x) + 1000
    for measure in (mean_cca, mean_squared_cca, svcca, pwcca, ridge_cca):
        assert measure(moved, y) == pytest.approx(measure(x, y), abs=1e-9)


@pytest.mark.parametrize("measure", MEASURES, ids=str)
def test_grid_forms_measure_and_permute_every_pair(measure):
    x, y = random_pair(4)
    a, b, c = (state(measure, z) for z in (x, y, y[:, :4]))
    order = np.random.default_rng(0).permutation(40)
    null = measure.null([b, a], [b, c, a], torch.tensor(np.stack([np.arange(40), order])))
    assert null.shape == (2, 2, 3)

    def alone(p, q):
        return float(measure.values([state(measure, p)], [state(measure, q)])[0, 0])

    values = measure.values([b, a], [b, c, a])
    assert null[0].numpy() == pytest.approx(values.numpy(), abs=1e-9)
    assert float(values[1, 1]) == pytest.approx(alone(x, y[:, :4]), abs=1e-12)
    assert float(null[1, 1, 0]) == pytest.approx(alone(x, y[order]), abs=1e-9)
    assert float(null[1, 0, 2]) == pytest.approx(alone(y, x[order]), abs=1e-9)


def test_null_of_the_mean_square_is_known_exactly():
    g = np.random.default_rng(5)
    xs = [g.standard_normal((24, d)) ** 3 for d in (6, 7)]
    ys = [g.standard_normal((24, d)) ** 3 for d in (3, 6)]
    measure = MeanSquaredCCA()
    a, b = ([state(measure, z) for z in side] for side in (xs, ys))
    orders = torch.tensor(np.stack([g.permutation(24) for _ in range(4000)]))
    drawn = measure.null(a, b, orders).numpy()
    ranks = np.array([[max(p.rank, q.rank) for q in b] for p in a])
    exact, factor = exact_null(*measure.invariants(a, b)), measure.factor(a, b).numpy()
    assert exact.mean * factor == pytest.approx(ranks / 23, abs=1e-9)
    error = drawn.std(axis=0) / 4000**0.5
    assert (abs(drawn.mean(axis=0) - exact.mean * factor) < 4.5 * error).all()
    assert exact.sd * factor == pytest.approx(drawn.std(axis=0), rel=0.06)
    turned = exact_null(*measure.invariants(b, a))
    assert turned.sd == pytest.approx(exact.sd.T, abs=1e-12)


def test_unrelated_layers_score_what_too_many_features_give_them():
    g = np.random.default_rng(7)
    found = [
        mean_squared_cca(g.standard_normal((100, 20)), g.standard_normal((100, 10)))
        for _ in range(200)
    ]
    assert np.mean(found) == pytest.approx(20 / 99, abs=4.5 * np.std(found) / 200**0.5)


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("measure", [m for m in MEASURES if not isinstance(m, PWCCA)], ids=str)
def test_replicates_follow_the_true_jackknife(measure, wide):
    g = np.random.default_rng(8)
    z = g.standard_normal((400, 4))
    x, y = (z @ g.standard_normal((4, d)) + g.standard_normal((400, d)) for d in (7, 6))
    if wide:
        x, y = y, x
    folds = g.permutation(400) % 20
    found = measure.leave_out(*([state(measure, v)] for v in (x, y)), torch.tensor(folds))
    assert found.shape == (20, 1, 1)

    def alone(p, q):
        return float(measure.values([state(measure, p)], [state(measure, q)])[0, 0])

    true = slow.jackknife(alone, x, y, folds)
    found = found[:, 0, 0].numpy()
    assert np.corrcoef(found, true)[0, 1] > 0.95
    assert 0.75 < found.var() / true.var() < 1.2
    assert found.mean() == pytest.approx(true.mean(), abs=0.5 * true.std() + 0.003)


def test_replicates_of_a_share_count_the_components_anew():
    g = np.random.default_rng(12)
    # Three components hold .9302 of the variance, so some folds need the one y depends on.
    x = g.standard_normal((400, 5))
    x = np.linalg.qr(x - x.mean(axis=0))[0] * 20 * np.sqrt([60, 26, 4.02, 7, 2.98])
    y = x[:, [2]] + g.standard_normal((400, 1))
    measure, folds = SVCCA(0.93), torch.tensor(np.arange(400) % 12)
    a, b = state(measure, x), state(measure, y)
    found = measure.leave_out([a], [b], folds)[:, 0, 0].numpy()
    true = slow.jackknife(lambda p, q: svcca(p, q, variance=0.93), x, y, folds.numpy())
    assert 2 < (true > 0.5).sum() < 10
    assert ((found > 0.5) == (true > 0.5)).all()
    assert found == pytest.approx(true, abs=0.1)


@pytest.mark.parametrize("function", [mean_cca, mean_squared_cca, svcca, pwcca, ridge_cca])
def test_say_what_is_wrong(function):
    x, y = random_pair(5)
    with pytest.raises(DegenerateError, match=f"{function.__name__} got 2 samples; needed at"):
        function(x[:2], y[:2])
    with pytest.raises(DegenerateError, match="x is constant over its 40 samples"):
        function(np.full((40, 2), 0.3), y)
    with pytest.raises(ShapeError, match="x has 40 samples but y has 39"):
        function(x, y[:39])
    with pytest.raises(DegenerateError, match="y holds NaN or infinity in 1 of 40 rows"):
        function(x, np.where(np.arange(200).reshape(40, 5) == 7, np.nan, y))


def test_say_what_is_wrong_with_a_setting():
    x, y = random_pair(5)
    with pytest.raises(DegenerateError, match=r"variance 1.5; needed a share in \(0, 1\]"):
        svcca(x, y, variance=1.5)
    with pytest.raises(DegenerateError, match="dimensions 0; needed at least 1"):
        svcca(x, y, dimensions=0)
    with pytest.raises(DegenerateError, match="dimensions 6 but y has only 5 directions"):
        svcca(x, y, dimensions=6)
    with pytest.raises(DegenerateError, match="relative_ridge 0; needed a number above 0"):
        ridge_cca(x, y, relative_ridge=0)
    with pytest.raises(UnknownNameError, match=r"unknown side for the weights 'z' \(known: x, y\)"):
        PWCCA("z").prepare(Layer("l", torch.tensor(x)))

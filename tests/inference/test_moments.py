import itertools

import numpy as np
import pytest
import torch
from oracles_moments import centred, draws_of, largest_of, u_centred

from mirror_analysis.errors import DegenerateError, ShapeError
from mirror_analysis.inference.leading import drawn, strongest
from mirror_analysis.inference.moments import ExactNull, Invariants, exact_null
from mirror_analysis.inference.pearson import from_normal, upper_tail

KINDS = ("unbiased", "biased", "grand", "uncentred")
PAIRS = [(k, k) for k in KINDS] + [("unbiased", k) for k in KINDS[1:]]
PAIRS += [(k, "unbiased") for k in KINDS[1:]]


def matrices(g, n, layers):
    """Dense, low rank and skewed, heavy-tailed in turn."""
    out = []
    for layer in range(layers):
        a = g.standard_normal((n, n))
        if layer % 3 == 1:
            z = np.exp(g.standard_normal((n, 2)))
            a = z @ z.T
        out.append(a + a.T if layer % 3 < 2 else a**3 + (a**3).T)
    return np.stack(out)


@pytest.mark.parametrize("n", [4, 5, 6, 7])
@pytest.mark.parametrize(("x_kind", "y_kind"), PAIRS)
def test_moments_are_those_of_all_permutations(n, x_kind, y_kind):
    g = np.random.default_rng(n)
    a, b = matrices(g, n, 3), matrices(g, n, 2)
    x, y = (np.stack([centred(m, k) for m in s]) for s, k in ((a, x_kind), (b, y_kind)))
    orders = np.array(list(itertools.permutations(range(n))))
    t = np.stack([np.einsum("ist,jst->ij", x, y[:, p][:, :, p]) for p in orders])
    null = exact_null(Invariants.of(a, kind=x_kind), Invariants.of(b, kind=y_kind))
    mean, away = t.mean(axis=0), t - t.mean(axis=0)
    sd = np.sqrt((away**2).mean(axis=0))
    skewness = (away**3).mean(axis=0) / sd**3
    assert np.allclose(null.mean, mean, rtol=1e-10, atol=1e-10 * sd.min())
    assert np.allclose(null.sd, sd, rtol=1e-10, atol=0)
    assert np.allclose(null.skewness, skewness, rtol=1e-10, atol=1e-12)
    assert np.abs(skewness).max() > 0.04


@pytest.mark.parametrize("kind", KINDS)
def test_covariance_between_cells_is_that_of_all_permutations(kind):
    n, g = 6, np.random.default_rng(0)
    a, b = matrices(g, n, 3), matrices(g, n, 2)
    x, y = (np.stack([centred(m, kind) for m in s]) for s in (a, b))
    orders = np.array(list(itertools.permutations(range(n))))
    t = np.stack([np.einsum("ist,jst->ij", x, y[:, p][:, :, p]) for p in orders]).reshape(720, 6)
    left, right = Invariants.of(a, kind=kind), Invariants.of(b, kind=kind)
    expected = np.kron(left.quadratic, right.quadratic) * 2 / (n * (n - 3))
    expected += np.kron(left.linear, right.linear) / (n - 1)
    assert np.allclose(np.cov(t.T, bias=True), expected, rtol=1e-9, atol=1e-9)


def features(name, g, n):
    if name == "dense":
        return g.standard_normal((n, 20))
    if name == "low rank, skewed":
        return np.exp(g.standard_normal((n, 2))) @ g.standard_normal((2, 10))
    if name == "heavy tails":
        return g.standard_t(2, (n, 20))
    return g.standard_normal((n, 300))


def layers(name, g, n, count):
    grams = (u_centred(f @ f.T) for f in (features(name, g, n) for _ in range(count)))
    return np.stack([k / np.linalg.norm(k) for k in grams])


# How far p may be from that of 20,000 permutations, of which 0.008 is theirs and ours by chance:
# where p is small, and anywhere. Two degrees of freedom are the hard case.
@pytest.mark.parametrize(
    ("name", "small", "anywhere"),
    [
        ("dense", 0.01, 0.02),
        ("fewer samples than features", 0.01, 0.02),
        ("low rank, skewed", 0.01, 0.025),
        ("heavy tails", 0.012, 0.04),
    ],
)
def test_p_of_a_cell_and_of_a_grid_agree_with_permutations(name, small, anywhere):
    g = np.random.default_rng(1)
    x, y = layers(name, g, 60, 4), layers(name, g, 60, 3)
    t = draws_of(x, y, 20000)
    null = exact_null(Invariants.of(x, kind="unbiased"), Invariants.of(y, kind="unbiased"))
    largest = largest_of(t)
    for p in (0.5, 0.2, 0.1, 0.05, 0.01):
        allowed = anywhere if p > 0.05 else small
        cells = null.p_value(np.quantile(t, 1 - p, axis=0))
        assert np.abs(cells - p).max() < allowed
        grid = null.p_max(null.mean + null.sd * np.quantile(largest, 1 - p))
        assert np.abs(grid - p).max() < min(allowed, 0.02) + 0.005 * (p > 0.2)


def test_three_moments_are_not_enough_where_few_samples_carry_a_matrix():
    g = np.random.default_rng(1)
    x, y = layers("heavy tails", g, 60, 4), layers("heavy tails", g, 60, 3)
    t = draws_of(x, y, 3000)
    observed = np.quantile(t, 0.8, axis=0)
    sides = [[Invariants.of(m, kind="unbiased", rank=r) for m in (x, y)] for r in (0, 12)]
    plain, led = (exact_null(*s).p_value(observed) for s in sides)
    assert np.abs(plain - 0.2).max() > 0.1 > 0.04 > np.abs(led - 0.2).max()


@pytest.mark.parametrize("rank", [0, 12])
@pytest.mark.parametrize("kind", ["unbiased", "biased", "grand"])
def test_p_is_uniform_where_there_is_no_relation(kind, rank):
    g = np.random.default_rng(2)
    p = []
    for _ in range(40):
        x, y = (
            np.stack([f @ f.T for f in (g.standard_normal((30, 4)) for _ in range(4))])
            for _ in range(2)
        )
        sides = [Invariants.of(m, kind=kind, rank=rank) for m in (x, y)]
        centres = [np.stack([centred(m, kind) for m in side]) for side in (x, y)]
        observed = np.einsum("ist,jst->ij", *centres)
        p.append(exact_null(*sides).p_value(observed, draws=299).reshape(-1))
    p = np.concatenate(p)
    # 640 p, of which 160 independent: 3 standard errors of a share of 0.05 are 0.05.
    assert 0.015 < (p <= 0.05).mean() < 0.1
    assert 0.4 < p.mean() < 0.6 and 0.38 < np.median(p) < 0.62


def test_a_relation_is_found_and_the_grid_is_no_easier_than_a_cell():
    g = np.random.default_rng(3)
    shared = g.standard_normal((50, 5))
    side = [
        np.stack([k @ k.T for k in (g.standard_normal((50, 6)), z @ g.standard_normal((5, 6)))])
        for z in (shared, shared)
    ]
    left, right = (Invariants.of(s, kind="unbiased") for s in side)
    observed = np.einsum("ist,jst->ij", *(np.stack([u_centred(m) for m in s]) for s in side))
    null = exact_null(left, right)
    cell, grid = null.p_value(observed), null.p_max(observed)
    assert cell[1, 1] == grid[1, 1] == 1e-4
    assert (grid >= cell - 0.01).all() and (np.delete(cell.reshape(-1), 3) > 0.01).all()
    plain = ExactNull(*(Invariants.of(s, kind="unbiased", rank=0) for s in side),
                      null.mean, null.sd, null.skewness)  # fmt: skip
    assert plain.p_value(observed)[1, 1] == 1e-6


def test_what_no_permutation_changes_is_no_evidence_and_nan_stays():
    ring = np.ones((2, 5, 5))
    ring[1] = np.add.outer(np.arange(5.0), np.arange(5.0)) ** 2
    side = Invariants.of(ring, kind="uncentred")
    for x in (side, Invariants.of(ring, kind="uncentred", rank=0)):
        null = exact_null(x, x)
        observed = null.mean + 3 * null.sd
        observed[1, 0] = np.nan
        p, grid = null.p_value(observed, draws=99), null.p_max(observed, draws=99)
        assert p[0, 0] == grid[0, 0] == 1 and p[1, 1] < 0.1
        assert np.isnan(p[1, 0]) and np.isnan(grid[1, 0])
        assert null.skewness[0, 0] == 0


def test_a_factor_per_layer_moves_the_moments_and_no_p():
    g = np.random.default_rng(4)
    a, factor = matrices(g, 12, 3), np.array([1e-25, -2.0, 30.0])
    x, y = Invariants.of(a, kind="biased"), Invariants.of(matrices(g, 12, 2), kind="biased")
    scaled, again = x.scaled(factor), Invariants.of(a * factor[:, None, None], kind="biased")
    for name in ("level", "linear", "linear_cubed", "quadratic", "triangles", "cubes", "bent"):
        assert np.allclose(getattr(scaled, name), getattr(again, name), rtol=1e-9, atol=0)
    assert np.allclose(scaled.held, again.held, rtol=1e-9, atol=0)
    null, moved = exact_null(x, y), exact_null(scaled, y)
    z = np.array([[1.0, 0.0], [1.0, 0.0], [2.0, -1.0]])
    p, other = (e.p_value(e.mean + z * e.sd, draws=999) for e in (null, moved))
    assert np.allclose(p[[0, 2]], other[[0, 2]], atol=1e-4)
    assert not np.allclose(p[1], other[1], atol=1e-3)  # a sign turns the law round


def test_tensors_are_taken_and_sides_are_not_changed():
    a = matrices(np.random.default_rng(5), 8, 2)
    before = a.copy()
    x, y = Invariants.of(a, kind="grand"), Invariants.of(torch.from_numpy(a), kind="grand")
    assert (a == before).all()
    assert len(x) == 2 and np.array_equal(x.quadratic, y.quadratic)


def test_pearson_law_has_its_tails_and_quantiles():
    t = np.linspace(-2.5, 4, 50)
    for skewness in (-1.5, -0.3, 0.0, 0.3, 1.5):
        p = upper_tail(t, np.array(skewness))
        assert (np.diff(p) <= 0).all()
        z = from_normal(np.linspace(-5, 5, 40), np.array(skewness))
        assert (np.diff(z) > 0).all()
        # Mean, variance and skewness of the law itself, by quadrature over its quantiles.
        grid = np.linspace(-8, 8, 4001)
        x, w = from_normal(grid, np.array(skewness)), np.exp(-(grid**2) / 2)
        w /= w.sum()
        moments = [w @ x, w @ x**2, w @ x**3]
        assert np.allclose(moments, [0, 1, skewness], atol=1e-5)
    close = [upper_tail(t, np.array(s)) for s in (-1.1e-5, 0.0, 1.1e-5)]
    assert np.allclose(close[0], close[1], atol=1e-5) and np.allclose(close[2], close[1], atol=1e-5)


def test_strongest_finds_the_eigenpairs_of_either_sign():
    g = np.random.default_rng(6)
    basis = np.linalg.qr(g.standard_normal((40, 40)))[0]
    values = np.concatenate([[9.0, -7.0, 5.0], 0.1 * g.standard_normal(37)])
    matrix = torch.from_numpy((basis * values) @ basis.T)
    weights, vectors = strongest(matrix.matmul, 40, 3, like=matrix)
    assert np.allclose(weights, values[:3], atol=1e-6)
    assert np.allclose(np.abs(vectors.numpy().T @ basis[:, :3]), np.eye(3), atol=1e-4)
    weights, vectors = strongest(matrix.float().matmul, 40, 3, like=matrix.float())
    assert weights.dtype == torch.float64 and np.allclose(weights, values[:3], atol=1e-4)


def test_says_what_is_wrong():
    a = matrices(np.random.default_rng(0), 6, 1)
    with pytest.raises(ShapeError, match=r"matrices have shape \(6, 6\); needed \[layer, sample"):
        Invariants.of(a[0], kind="biased")
    with pytest.raises(DegenerateError, match="moments got 3 samples; needed at least 4"):
        Invariants.of(a[:, :3, :3], kind="biased")
    x, y = Invariants.of(a, kind="biased"), Invariants.of(a[:, :5, :5], kind="biased")
    with pytest.raises(ShapeError, match="x has 6 samples but y has 5; pair"):
        exact_null(x, y)
    null = exact_null(x, x)
    with pytest.raises(ShapeError, match=r"observed has shape \(2,\) but the null is of \(1, 1\)"):
        null.p_value([1.0, 2.0])
    for ask in (null.p_value, null.p_max):
        with pytest.raises(DegenerateError, match="the null got 0 draws; needed at least 1"):
            ask([[1.0]], draws=0)


def whole(leading):
    pairs = zip(leading.vectors, leading.weights, strict=True)
    return np.stack([u_centred((v * w) @ v.T) for v, w in pairs])


@pytest.mark.parametrize("rank", [2, 6])
@pytest.mark.parametrize("kind", KINDS)
def test_leading_parts_are_permuted_as_the_matrices_they_stand_for(kind, rank):
    g, n = np.random.default_rng(7), 6
    a, b = matrices(g, n, 3), matrices(g, n, 2)
    x, y = (Invariants.of(m, kind=kind, rank=rank).leading for m in (a, b))
    orders = np.array(list(itertools.permutations(range(n))))
    left, right = whole(x), whole(y)
    t = np.stack([np.einsum("ist,jst->ij", left, right[:, p][:, :, p]) for p in orders])
    t += np.stack([x.linear @ y.linear[:, p].T for p in orders])
    found = drawn(x, y, draws=50, seed=0)
    away = np.abs(found[:, None] - t).max(axis=(2, 3)) / np.abs(t).max()
    assert (away.min(axis=1) < 1e-5).all()  # each draw is some one permutation, for all cells
    assert len(set(away.argmin(axis=1))) > 30
    if rank == n:
        left, right = (np.stack([centred(m, kind) for m in s]) for s in (a, b))
        full = np.stack([np.einsum("ist,jst->ij", left, right[:, p][:, :, p]) for p in orders])
        assert np.allclose(full - full.mean(axis=0), t, atol=1e-9 * np.abs(t).max())


def test_what_stands_for_a_matrix_is_u_centred():
    g = np.random.default_rng(8)
    parts = Invariants.of(matrices(g, 9, 3), kind="grand", rank=2).leading
    left = whole(parts)
    assert np.allclose(parts.quadratic(), np.einsum("ist,kst->ik", left, left))
    with pytest.raises(ShapeError, match="x has 9 samples but y has 8; pair"):
        other = Invariants.of(matrices(g, 8, 1), kind="grand", rank=2).leading
        drawn(parts, other, draws=1, seed=0)

import numpy as np
import pytest
import torch
from scipy.linalg import orthogonal_procrustes
from sklearn.linear_model import Ridge

from mirror_analysis.alignment import info_nce, recall_at_k
from mirror_analysis.alignment.closed_form import METHODS, align_closed_form
from mirror_analysis.errors import DefinitionError, DegenerateError, ShapeError, UnknownNameError
from mirror_analysis.similarity import mean_cca

FITTED = sorted(set(METHODS) - {"raw"})


def views(count, seed, *, widths=(12, 9), noise=0.1, related=True):
    """Two noisy linear views of five latent numbers, or of five each."""
    g, maps = np.random.default_rng(seed), np.random.default_rng(99)
    z = g.standard_normal((count, 5))
    other = z if related else g.standard_normal((count, 5))
    sides = []
    for latent, width in zip((z, other), widths, strict=True):
        mixed = latent @ maps.standard_normal((5, width)) + 3 * maps.standard_normal(width)
        sides.append(mixed + noise * g.standard_normal(mixed.shape))
    return sides


def scaled(values, fit):
    """By the moments of the rows that are fitted on."""
    return (values - fit.mean(0)) / fit.std(0)


def cosines(a, b):
    a, b = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (a, b))
    return a @ b.T


@pytest.mark.parametrize("method", FITTED)
def test_a_planted_relation_is_found_and_none_is_not_invented(method):
    found = align_closed_form(*views(200, 1), *views(60, 2), method=method)
    assert (found.method, found.curve) == (method, None)
    recall = recall_at_k(found.similarity(*views(128, 3)))
    # A rotation cannot undo a linear mixing, and the others can.
    assert recall > (0.5 if method == "procrustes" else 0.95)
    none = [views(n, s, related=False) for n, s in ((200, 1), (60, 2), (128, 3))]
    chance = recall_at_k(align_closed_form(*none[0], *none[1], method=method).similarity(*none[2]))
    assert chance < 5 / 64  # chance is 1 / 64


@pytest.mark.parametrize("widths", [(7, 7), (5, 9), (9, 5)])
def test_procrustes_is_that_of_scipy(widths):
    (x, y), (u, v), (s, t) = (views(n, k, widths=widths) for n, k in ((80, 1), (40, 2), (30, 3)))
    found = align_closed_form(x, y, u, v, method="procrustes")
    wide = max(widths)

    def padded(values, fit):
        made = scaled(values, fit)
        return np.pad(made, ((0, 0), (0, wide - made.shape[1])))

    turn, _ = orthogonal_procrustes(padded(x, x), padded(y, y))
    expected = cosines(padded(s, x) @ turn, padded(t, y))
    np.testing.assert_allclose(found.similarity(s, t), expected, atol=2e-6)
    assert found.config.dimensions == wide


def test_a_known_rotation_is_found():
    g = np.random.default_rng(0)
    turn = np.linalg.qr(g.standard_normal((6, 6)))[0]
    x = scaled(*[g.standard_normal((400, 6))] * 2)
    x = x @ np.linalg.inv(np.linalg.cholesky(np.cov(x.T, bias=True))).T  # white, and stays so
    found = align_closed_form(x, x @ turn, x[:50], x[:50] @ turn, method="procrustes")
    np.testing.assert_allclose(found.x_weight.numpy(), turn, atol=1e-6)
    assert np.diag(found.similarity(x, x @ turn)) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("strength", [1e-4, 0.3, 20.0])
def test_ridge_is_that_of_scikit_learn(strength):
    (x, y), (u, v), (s, t) = (views(n, k) for n, k in ((80, 1), (40, 2), (30, 3)))
    a, b = scaled(x, x), scaled(y, y)
    # The mean variance of standardised features is 1, and sklearn sums where we average.
    model = Ridge(alpha=strength * len(x), fit_intercept=False)
    forward = align_closed_form(x, y, u, v, method="ridge_x_to_y", strengths=[strength])
    expected = cosines(model.fit(a, b).predict(scaled(s, x)), scaled(t, y))
    np.testing.assert_allclose(forward.similarity(s, t), expected, atol=2e-6)
    back = align_closed_form(x, y, u, v, method="ridge_y_to_x", strengths=[strength])
    expected = cosines(scaled(s, x), model.fit(b, a).predict(scaled(t, y)))
    np.testing.assert_allclose(back.similarity(s, t), expected, atol=2e-6)


def test_cca_is_that_of_the_textbook():
    x, y = views(300, 1, noise=1.5)
    found = align_closed_form(x, y, x, y, method="cca", strengths=[0.0])
    kept = found.config.dimensions
    # Singular values of the product of orthonormal bases are the canonical correlations.
    q, r = (np.linalg.qr(v - v.mean(0))[0] for v in (x, y))
    left, correlations, right = np.linalg.svd(q.T @ r)
    expected = cosines(q @ left[:, :kept], r @ right.T[:, :kept])
    np.testing.assert_allclose(found.similarity(x, y), expected, atol=2e-5)
    a, b = (
        values @ weight.double().numpy() + bias.double().numpy()
        for values, weight, bias in (
            (x, found.x_weight, found.x_bias),
            (y, found.y_weight, found.y_bias),
        )
    )
    np.testing.assert_allclose(a.T @ a / len(x), np.eye(kept), atol=1e-4)
    np.testing.assert_allclose(a.T @ b / len(x), np.diag(correlations[:kept]), atol=1e-4)
    full = [t for t in found.config.tried if t[1] == 9]
    assert len(full) == 1
    assert correlations[:9].mean() == pytest.approx(mean_cca(x, y), abs=1e-6)


def test_fewer_rows_than_features_are_no_obstacle():
    (x, y), held = views(20, 1, widths=(60, 50)), views(15, 2, widths=(60, 50))
    for method in FITTED:
        found = align_closed_form(x, y, *held, method=method)
        assert torch.isfinite(found.x_weight).all() and torch.isfinite(found.y_weight).all()
        # In the span of 20 centred rows the ridge has the same solution in either form.
        if method == "ridge_x_to_y":
            a, b = scaled(x, x), scaled(y, y)
            model = Ridge(alpha=found.config.strength * 20, fit_intercept=False).fit(a, b)
            expected = cosines(model.predict(scaled(held[0], x)), scaled(held[1], y))
            np.testing.assert_allclose(found.similarity(*held), expected, atol=1e-5)


def test_strength_and_dimensions_are_those_best_on_validation():
    fit, held = views(40, 1, widths=(30, 30), noise=1.0), views(300, 2, widths=(30, 30), noise=1.0)
    found = align_closed_form(*fit, *held, method="cca")
    tried = found.config.tried
    assert len({t[0] for t in tried}) > 3 and len({t[1] for t in tried}) > 3
    best = min(tried, key=lambda t: t[2])
    assert (found.config.strength, found.config.dimensions) == best[:2]
    assert best[2] < max(t[2] for t in tried) - 0.5
    # 300 rows are one block, so the loss is that of all.
    loss = info_nce(
        found.embed_x(held[0]), found.embed_y(held[1]), temperature=found.config.temperature
    )
    assert float(loss) == pytest.approx(best[2], rel=1e-3)


def test_rows_of_a_label_are_fitted_to_the_mean_of_their_partners():
    x, y = views(60, 1)
    labels = np.arange(60) % 12
    both = [np.concatenate([labels, labels])]
    found = align_closed_form(x, y, x, y, method="ridge_x_to_y", pairing=both[0], strengths=[0.1])
    a, b = scaled(x, x), scaled(y, y)
    means = np.stack([b[labels == label].mean(0) for label in labels])
    model = Ridge(alpha=0.1 * 60, fit_intercept=False).fit(a, means)
    expected = cosines(model.predict(a), b)
    np.testing.assert_allclose(found.similarity(x, y), expected, atol=2e-6)
    loss = info_nce(
        found.embed_x(x),
        found.embed_y(y),
        temperature=found.config.temperature,
        positives=torch.from_numpy(labels),
    )
    assert found.config.tried[0][2] == pytest.approx(float(loss), rel=1e-3)
    plain = align_closed_form(x, y, x, y, method="procrustes").y_weight
    turned = align_closed_form(x, y, x, y, method="procrustes", pairing=both[0]).y_weight
    assert not torch.allclose(plain, turned)


def test_raw_features_are_compared_as_they_are():
    (x, y), (s, t) = views(50, 1, widths=(6, 6)), views(20, 3, widths=(6, 6))
    found = align_closed_form(x, y, x, y, method="raw")
    np.testing.assert_allclose(
        found.similarity(s, t), cosines(scaled(s, x), scaled(t, y)), atol=2e-6
    )
    with pytest.raises(ShapeError, match="x has 12 features and y 9, which are not comparable as"):
        align_closed_form(*views(50, 1), method="raw")


def test_without_validation_rows_a_fifth_is_held_out():
    found = align_closed_form(*views(100, 1), method="cca")
    assert recall_at_k(found.similarity(*views(128, 3))) > 0.95


def test_what_cannot_be_solved_is_refused():
    x, y = views(20, 1)
    with pytest.raises(UnknownNameError, match="unknown closed form 'pca'; did you mean 'cca'"):
        align_closed_form(x, y, method="pca")
    for strengths in ([], [0.1, -1.0], [float("nan")]):
        with pytest.raises(DefinitionError, match=r"strengths are .*; needed some, each 0 or more"):
            align_closed_form(x, y, method="cca", strengths=strengths)
    with pytest.raises(DegenerateError, match="y is constant over its 20 samples or not finite"):
        align_closed_form(x, np.ones((20, 3)), x, np.ones((20, 3)), method="cca")
    with pytest.raises(DegenerateError, match="1 fit and 20 validation pairs"):
        align_closed_form(x[:1], y[:1], x, y, method="cca")

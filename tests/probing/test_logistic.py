"""Logistic regression against scikit-learn, against itself in batches, and against autograd."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from mirror_analysis.errors import DegenerateError
from mirror_analysis.probing.logistic import logistic_path
from mirror_analysis.probing.span import span

STRENGTHS = (1.0, 1e-1, 1e-2, 1e-3)


def drawn(rows, features, classes, seed=0):
    """Standardised features that are correlated with one another and with the labels."""
    rng = np.random.default_rng(seed)
    y = np.arange(rows) % classes
    mixing = rng.normal(size=(features, features)) * np.geomspace(1, 0.02, features)
    x = (rng.normal(size=(rows, features)) + 0.6 * rng.normal(size=(classes, features))[y]) @ mixing
    x -= x.mean(axis=0)
    return x / x.std(axis=0), y


def solved(x, y, classes, *, dtype=torch.float64, **settings):
    basis = span(torch.from_numpy(x)[None], torch.ones(1, len(x), dtype=torch.bool), dtype=dtype)
    strengths = torch.tensor([settings.pop("strengths", STRENGTHS)])
    path = logistic_path(basis, torch.from_numpy(y)[None], strengths, classes=classes, **settings)
    return basis, path


def objective(w, b, x, y, strength):
    logits = x @ w + b
    loss = (np.logaddexp.reduce(logits, axis=1) - logits[np.arange(len(y)), y]).mean()
    # Two classes: the penalty is of the one vector that scikit-learn has, the difference.
    return loss + strength / 2 * (w**2).sum() * (2 if w.shape[1] == 2 else 1)


@pytest.mark.parametrize(
    ("rows", "features", "classes"),
    [(90, 6, 2), (90, 6, 5), (40, 70, 3), (40, 70, 2), (330, 20, 4)],
    ids=["two", "five", "wide", "wide two", "tall"],
)
def test_coefficients_and_loss_are_those_of_scikit_learn(rows, features, classes):
    x, y = drawn(rows, features, classes)
    basis, path = solved(x, y, classes, tolerance=1e-10)
    assert path.converged.all()
    for number, strength in enumerate(STRENGTHS):
        oracle = LogisticRegression(C=1 / (strength * rows), solver="newton-cholesky", tol=1e-12)
        oracle.fit(x, y)
        w, b = (part[0].numpy() for part in basis.weights(path.v[:, number]))
        ours = objective(w, b, x, y, strength)
        if classes == 2:
            theirs_w = np.concatenate([-oracle.coef_, oracle.coef_]).T / 2
            theirs_b = np.array([-1, 1]) * oracle.intercept_[0] / 2
        else:
            theirs_w = oracle.coef_.T
            theirs_b = oracle.intercept_ - oracle.intercept_.mean()
        theirs = objective(theirs_w, theirs_b, x, y, strength)
        assert ours <= theirs + 1e-12
        assert ours == pytest.approx(theirs, abs=1e-9)
        np.testing.assert_allclose(w, theirs_w, atol=2e-5 * np.abs(theirs_w).max())
        np.testing.assert_allclose(b, theirs_b, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_weights_are_as_near_to_the_best_as_asked(dtype):
    """And the gradient is as small as promised, by autograd."""
    x, y = drawn(120, 30, 4)
    basis, path = solved(x, y, 4, dtype=dtype, tolerance=1e-3)
    assert path.converged.all() and path.v.dtype == dtype
    _, best = solved(x, y, 4, tolerance=1e-10)
    z, labels = torch.from_numpy(x), torch.from_numpy(y)
    for number, strength in enumerate(STRENGTHS):
        w, b = (part[0].double().requires_grad_() for part in basis.weights(path.v[:, number]))
        loss = torch.nn.functional.cross_entropy(z @ w + b, labels)
        loss = loss + strength / 2 * w.square().sum()
        gradients = torch.cat([g.flatten() for g in torch.autograd.grad(loss, [w, b])])
        length = float(w.detach().norm())
        assert float(gradients.norm()) <= 1.01e-3 * strength * length
        exact, _ = basis.weights(best.v[:, number].to(dtype))
        assert float((w.detach() - exact[0]).norm()) <= 1e-3 * length


def test_the_way_does_not_change_the_end():
    """Alone, from stronger ones, on an uneven grid, and with a strength given twice."""
    x, y = drawn(80, 12, 4)
    _, alone = solved(x, y, 4, strengths=(1e-3,), tolerance=1e-9)
    for strengths in ((1.0, 1e-1, 1e-2, 1e-3), (1.0, 0.99, 1e-3), (0.1, 0.1, 1e-3)):
        _, path = solved(x, y, 4, strengths=strengths, tolerance=1e-9)
        assert path.converged.all()
        torch.testing.assert_close(path.v[:, -1], alone.v[:, 0], rtol=1e-7, atol=1e-7)


def test_a_path_is_followed_ahead():
    """A weaker strength of separable classes takes fewer steps than one solved alone."""
    x, y = drawn(40, 70, 3)
    strengths = (1e-2, 1e-3, 1e-4, 1e-5)
    _, path = solved(x, y, 3, strengths=strengths, tolerance=1e-4)
    _, alone = solved(x, y, 3, strengths=strengths[-1:], tolerance=1e-4)
    assert path.steps[0, -1] < alone.steps[0, 0] / 2


def test_what_rounding_allows_is_enough():
    """In float32 the gradient at the weakest penalties is rounding before it is small."""
    x, y = drawn(120, 130, 6)
    strengths = (1e-2, 1e-4, 1e-6, 1e-8)
    _, path = solved(x, y, 6, strengths=strengths, dtype=torch.float32, tolerance=1e-3)
    assert path.converged.all() and path.v.isfinite().all()


def test_a_batch_gives_what_each_problem_gives_alone():
    """Of other lengths, other classes and other paths; one lacks a class."""
    parts = [drawn(80, 12, 4, seed=1), drawn(57, 12, 4, seed=2), drawn(66, 12, 3, seed=3)]
    parts[2] = (parts[2][0], parts[2][1] + (parts[2][1] >= 1))  # classes 0, 2 and 3
    x, y = torch.zeros(3, 80, 12, dtype=torch.float64), torch.full((3, 80), -1)
    for number, (own_x, own_y) in enumerate(parts):
        x[number, : len(own_x)] = torch.from_numpy(own_x)
        y[number, : len(own_y)] = torch.from_numpy(own_y)
    strengths = torch.tensor([[1.0, 0.01], [0.1, 0.001], [0.5, 0.02]])
    basis = span(x, y >= 0)
    path = logistic_path(basis, y, strengths, classes=4, tolerance=1e-10)
    assert path.classes.tolist()[2] == [True, False, True, True]
    for number, (own_x, own_y) in enumerate(parts):
        own = strengths[number].tolist()
        alone_basis, alone = solved(own_x, own_y, 4, strengths=own, tolerance=1e-10)
        for at in range(2):
            w, b = basis.weights(path.v[:, at])
            alone_w, alone_b = alone_basis.weights(alone.v[:, at])
            torch.testing.assert_close(w[number], alone_w[0], atol=1e-7, rtol=0)
            torch.testing.assert_close(b[number], alone_b[0], atol=1e-7, rtol=0)
    oracle = LogisticRegression(C=1 / (0.02 * 66), solver="newton-cholesky", tol=1e-12).fit(
        *parts[2]
    )
    w, _ = basis.weights(path.v[:, 1])
    np.testing.assert_allclose(w[2][:, [0, 2, 3]].numpy(), oracle.coef_.T, atol=1e-5)
    logits = path.logits(basis.rows)
    assert logits[2, :, :, 1].isneginf().all() and logits[0].isfinite().all()


def test_starting_at_the_solution_takes_no_step():
    x, y = drawn(80, 12, 4)
    _, path = solved(x, y, 4, strengths=(0.01,), tolerance=1e-6)
    assert path.steps[0, 0] > 3
    _, again = solved(x, y, 4, strengths=(0.01,), tolerance=1.1e-6, start=path.v[:, 0])
    assert again.steps[0, 0] == 0
    torch.testing.assert_close(again.v, path.v)


def test_a_limit_of_steps_is_kept_and_told():
    x, y = drawn(80, 12, 4)
    _, path = solved(x, y, 4, tolerance=1e-12, limit=2)
    assert path.steps.tolist() == [[2, 2, 2, 2]] and not path.converged.any()


def test_separable_classes_have_a_solution():
    x = np.concatenate([np.full((10, 1), -1.0), np.full((10, 1), 1.0)])
    _, path = solved(x, np.repeat([0, 1], 10), 2, strengths=(1e-2, 1e-6), tolerance=1e-9)
    assert path.converged.all()
    # The difference w of the two weights solves 1 / (1 + exp w) = strength w.
    w = (path.v[0, :, 0, 1] - path.v[0, :, 0, 0]).numpy() / np.sqrt(20)
    np.testing.assert_allclose(1 / (1 + np.exp(w)), np.array([1e-2, 1e-6]) * w, rtol=1e-2)


def test_errors():
    x, y = drawn(20, 3, 2)
    with pytest.raises(
        DegenerateError, match=r"^a strength of the penalty is not positive; needed"
    ):
        solved(x, y, 2, strengths=(1.0, 0.0))
    with pytest.raises(DegenerateError, match=r"^the rows of a problem are all of one class;"):
        solved(x, np.zeros(20, dtype=np.int64), 2)

"""Nested choice against scikit-learn's loops, and no look at what is held out."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsClassifier

from mirror_analysis.errors import DegenerateError
from mirror_analysis.probing import nested
from mirror_analysis.probing.folds import Fold, grouped_folds
from mirror_analysis.probing.nested import (
    knn_predictions,
    logistic_predictions,
    ridge_predictions,
)
from mirror_analysis.probing.settings import Probe

STRENGTHS = (1.0, 0.1, 0.01, 0.001)


def drawn(rows=96, features=10, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    y = np.arange(rows) % classes
    centers = rng.normal(size=(classes, features))
    x = (0.7 * centers[y] + rng.normal(size=(rows, features))) * rng.uniform(0.1, 9, features) + 4
    return x.astype(np.float32), y, grouped_folds(np.arange(rows) // 2, count=4)


def standardised(x, fit):
    x = x.astype(np.float64)
    return (x - x[fit].mean(axis=0)) / x[fit].std(axis=0)


def scikit_learn(x, y, folds, make, settings, better):
    """The loop anybody would write: folds x settings, the first of the best, fitted again."""
    found, chosen = np.zeros_like(y), []
    for fold in folds:
        z = standardised(x, fold.fit)
        scores = [
            make(s, len(fold.fit))
            .fit(z[fold.fit], y[fold.fit])
            .score(z[fold.validation], y[fold.validation])
            for s in settings
        ]
        chosen.append(settings[better(scores)])
        z = standardised(x, fold.known)
        best = make(chosen[-1], len(fold.known)).fit(z[fold.known], y[fold.known])
        found[fold.test] = best.predict(z[fold.test])
    return found, chosen


def test_logistic_is_scikit_learns_loop():
    layers = [drawn(seed=s)[0] for s in (0, 1)] + [drawn(features=150, seed=2)[0]]
    _, y, folds = drawn()
    told = []
    found = logistic_predictions(
        layers, y, folds, classes=3, probe=Probe(strengths=STRENGTHS, tolerance=1e-8),
        told=lambda done, total: told.append((done, total)),
    )  # fmt: skip
    make = lambda s, n: LogisticRegression(C=1 / (s * n), tol=1e-8, max_iter=10_000)  # noqa: E731
    for x, one in zip(layers, found, strict=True):
        values, chosen = scikit_learn(x, y, folds, make, STRENGTHS, np.argmax)
        assert one.chosen.tolist() == chosen
        assert one.values[0].tolist() == values.tolist()
    assert told == [(8, 12), (12, 12)]


def test_the_default_tolerance_chooses_and_predicts_as_converged_fits_do():
    x, y, folds = drawn(rows=240, features=60, classes=6)
    found = logistic_predictions([x], y, folds, classes=6, probe=Probe())[0]
    make = lambda s, n: LogisticRegression(C=1 / (s * n), tol=1e-8, max_iter=10_000)  # noqa: E731
    values, chosen = scikit_learn(x, y, folds, make, Probe().penalties("logistic"), np.argmax)
    assert found.chosen.tolist() == chosen
    assert found.values[0].tolist() == values.tolist()


def test_problems_are_the_same_in_small_batches(monkeypatch):
    x, y, folds = drawn()
    whole = logistic_predictions([x, x], y, folds, classes=3, probe=Probe())
    monkeypatch.setitem(nested._BYTES, "cpu", 1)
    single = logistic_predictions([x, x], y, folds, classes=3, probe=Probe())
    for a, b in zip(whole, single, strict=True):
        assert a.values.tolist() == b.values.tolist() and a.chosen.tolist() == b.chosen.tolist()


def test_balanced_choice_counts_classes_alike():
    """Ten rows of one class and two of the other: the choice depends on what counts."""
    weights = nested._row_weights(nested.torch.tensor([[0, 0, 0, 1, -1]]), 2, True)
    assert weights.tolist() == pytest.approx(np.array([[1 / 6, 1 / 6, 1 / 6, 1 / 2, 0]]))
    weights = nested._row_weights(nested.torch.tensor([[0, 0, 0, 1, -1]]), 2, False)
    assert weights.tolist() == [[0.25, 0.25, 0.25, 0.25, 0.0]]


def test_ridge_is_scikit_learns_loop_for_every_labelling():
    x, _, folds = drawn(features=40)
    rng = np.random.default_rng(3)
    ys = np.stack([x[:, :1] * 2 + rng.normal(size=(len(x), 1)), rng.normal(size=(len(x), 1))])
    ys = ys.astype(np.float64)
    found = ridge_predictions(x, ys, folds, probe=Probe(strengths=STRENGTHS))
    make = lambda s, n: Ridge(alpha=s * n, solver="svd")  # noqa: E731
    for draw in range(2):
        values, chosen = scikit_learn(x, ys[draw, :, 0], folds, make, STRENGTHS, np.argmax)
        np.testing.assert_allclose(found.values[draw, :, 0], values, atol=1e-7)
        if draw == 0:
            assert found.chosen.tolist() == chosen


def test_neighbours_are_scikit_learns_loop_for_every_labelling():
    x, y, folds = drawn()
    ys = np.stack([y, np.random.default_rng(4).permutation(y)])
    ks = (1, 3, 9)
    found = knn_predictions(x, ys, folds, classes=3, probe=Probe(neighbours=ks))
    last = lambda scores: len(ks) - 1 - int(np.argmax(scores[::-1]))  # noqa: E731
    for draw in range(2):
        values, _ = scikit_learn(
            x, ys[draw], folds, lambda k, n: KNeighborsClassifier(k, algorithm="brute"), ks, last
        )
        assert found.values[draw].tolist() == values.tolist()


def test_neighbours_of_quantities():
    x, _, folds = drawn(rows=240)
    y = x[:, :2].astype(np.float64)[None]
    found = knn_predictions(x, y, folds, classes=0, probe=Probe()).values[0]
    assert np.corrcoef(found[:, 0], y[0, :, 0])[0, 1] > 0.5
    one = knn_predictions(x, y, folds, classes=0, probe=Probe(neighbours=(1,))).values[0]
    assert set(one[:, 0].tolist()) <= set(y[0, :, 0].tolist())


def predicted(kind, x, y, folds):
    if kind == "ridge":
        return ridge_predictions(x, y[None, :, None] * 1.0, folds, probe=Probe()).values[0]
    if kind == "knn":
        return knn_predictions(x, y[None], folds, classes=3, probe=Probe()).values[0]
    return logistic_predictions([x], y, folds, classes=3, probe=Probe())[0].values[0]


@pytest.mark.parametrize("kind", ["logistic", "ridge", "knn"])
def test_what_is_held_out_is_not_looked_at(kind):
    """Answers stay when other test rows, and all labels of the test part, change."""
    x, y, folds = drawn()
    rng = np.random.default_rng(5)
    fold = folds[0]
    before = predicted(kind, x, y, [fold])
    kept, others = np.array_split(fold.test, 2)
    spoilt, relabelled = x.copy(), y.copy()
    # Each feature by another factor: who is near to whom would change, too.
    spoilt[others] *= 10.0 ** rng.uniform(0, 4, x.shape[1])
    relabelled[fold.test] = rng.permutation(y[fold.test])
    after = predicted(kind, spoilt, relabelled, [fold])
    assert after[kept].tolist() == before[kept].tolist()
    untested = np.setdiff1d(np.arange(len(y)), fold.test)
    assert (after[untested] == -1).all() or np.isnan(after[untested]).all()


@pytest.mark.parametrize("kind", ["logistic", "ridge", "knn"])
def test_a_layer_that_is_constant_where_it_is_fitted(kind):
    x, y, folds = drawn()
    x[folds[2].fit] = 1.5
    if kind == "ridge":
        found = ridge_predictions(x, y[None, :, None] * 1.0, folds, probe=Probe())
    elif kind == "knn":
        found = knn_predictions(x, y[None], folds, classes=3, probe=Probe())
    else:
        found, other = logistic_predictions(
            [x, drawn(seed=1)[0]], y, folds, classes=3, probe=Probe()
        )
        assert other.constant is None and (other.values >= 0).all()
    assert found.constant == 2


def test_fewer_fit_rows_than_neighbours():
    x, y, _ = drawn(rows=6)
    fold = Fold(np.array([0, 1, 2]), np.array([3]), np.array([4, 5]))
    with pytest.raises(DegenerateError, match=r"^3 fit rows have no 4 neighbours; ask for fewer"):
        knn_predictions(x, y[None], [fold], classes=3, probe=Probe(neighbours=(4, 9)))

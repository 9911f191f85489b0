import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from mirror_analysis.errors import DegenerateError
from mirror_analysis.generalisation.decoding import decode_folds, estimator_of
from mirror_analysis.probing.folds import Fold
from mirror_analysis.probing.settings import Probe

FIT, VALIDATION, TEST = np.arange(100), np.arange(100, 200), np.arange(200, 300)
FOLD = Fold(FIT, VALIDATION, TEST)
KNOWN = np.arange(200)


@pytest.fixture
def rows():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((300, 6)) * np.array([1, 2, 5, 0.1, 1, 1])
    noisy = x[:, [0, 4, 5]] + 0.7 * rng.standard_normal((300, 3))
    label = np.array(["a", "b", "c"])[np.argmax(noisy, axis=1)]
    amount = x[:, 0] - x[:, 2] + rng.standard_normal(300)
    return x, label, amount


@pytest.mark.parametrize("strength", [1e-3, 1e-1])
def test_it_is_the_probe_of_scikit_learn(rows, strength):
    x, label, amount = rows
    z = StandardScaler().fit(x[KNOWN]).transform(x)
    said = decode_folds(x, label, [FOLD], probe=Probe(strengths=(strength,)))
    oracle = LogisticRegression(C=1 / (200 * strength), max_iter=5000, tol=1e-8)
    expected = oracle.fit(z[KNOWN], label[KNOWN]).predict(z[TEST])
    assert (said[TEST] == expected).mean() > 0.985 and said.dtype == label.dtype
    assert np.array_equal(said[KNOWN], label[KNOWN])

    told = decode_folds(x, amount, [FOLD], probe=Probe(strengths=(strength,)))
    ridge = Ridge(alpha=200 * strength).fit(z[KNOWN], amount[KNOWN])
    assert told[TEST] == pytest.approx(ridge.predict(z[TEST]), abs=1e-6)

    near = decode_folds(x, label, [FOLD], probe=Probe("knn", neighbours=(1,)))
    oracle = KNeighborsClassifier(1).fit(z[KNOWN], label[KNOWN])
    assert np.array_equal(near[TEST], oracle.predict(z[TEST]))


def test_the_strength_is_chosen_on_validation_alone(rows):
    x, _, amount = rows
    strengths = (1e-4, 1e-1, 10.0)
    errors = []
    z = StandardScaler().fit(x[FIT]).transform(x)
    for strength in strengths:
        ridge = Ridge(alpha=100 * strength).fit(z[FIT], amount[FIT])
        errors.append(np.square(ridge.predict(z[VALIDATION]) - amount[VALIDATION]).sum())
    best = strengths[int(np.argmin(errors))]
    one = decode_folds(x, amount, [FOLD], probe=Probe(strengths=(best,)))
    several = decode_folds(x, amount, [FOLD], probe=Probe(strengths=strengths))
    assert np.array_equal(one, several)
    # Whatever the test rows are, the others are told the same.
    moved = x.copy()
    moved[TEST[50:]] += 100
    again = decode_folds(moved, amount, [FOLD], probe=Probe(strengths=strengths))
    assert again[TEST[:50]] == pytest.approx(several[TEST[:50]])


def test_folds_are_told_apart(rows):
    x, label, _ = rows
    folds = [Fold(FIT, VALIDATION, TEST), Fold(TEST, VALIDATION, FIT)]
    both = decode_folds(x, label, folds, probe=Probe(strengths=(1e-2,)))
    for fold in folds:
        one = decode_folds(x, label, [fold], probe=Probe(strengths=(1e-2,)))
        assert (both[fold.test] == one[fold.test]).mean() > 0.985


def test_which_estimator(rows):
    _, label, amount = rows
    assert estimator_of(label, Probe()) == "logistic"
    assert estimator_of(amount, Probe()) == "ridge"
    assert estimator_of(amount, Probe("knn")) == "knn"


def test_what_cannot_be_fitted_is_refused(rows):
    x, label, _ = rows
    with pytest.raises(DegenerateError, match="no feature varies over the 100 rows to fit on"):
        decode_folds(np.ones((300, 2)), label, [FOLD], probe=Probe())
    label[FIT] = "a"
    with pytest.raises(DegenerateError, match="all 100 rows to fit on have the label a; choose"):
        decode_folds(x, label, [FOLD], probe=Probe())

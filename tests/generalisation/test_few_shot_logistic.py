import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from mirror_analysis.generalisation.few_shot_logistic import logistic_shots

STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0)


@pytest.fixture
def world():
    rng = np.random.default_rng(0)
    codes = np.repeat([0, 1, 2], 20)
    pool = rng.standard_normal((60, 9)) + 1.2 * np.eye(9)[codes]
    test = rng.standard_normal((90, 9)) + 1.2 * np.eye(9)[np.repeat([0, 1, 2], 30)]
    shown = [
        np.concatenate([rng.choice(20, k, replace=False) + 20 * c for c in range(3)])
        for k in (4, 4, 7)
    ]
    folds = [np.tile(np.arange(len(rows) // 3), 3) % 4 for rows in shown]
    return pool, test, codes, shown, folds


def oracle(pool, codes, rows, strength):
    probe = LogisticRegression(C=1 / (strength * len(rows)), max_iter=5000, tol=1e-9)
    return probe.fit(pool[rows], codes[rows])


def told(world, strengths, folds=None):
    pool, test, codes, shown, dealt = world
    return logistic_shots(
        pool @ pool.T, test @ pool.T, shown, codes, folds or dealt, strengths=strengths
    )


@pytest.mark.parametrize("strength", STRENGTHS)
def test_each_set_is_that_of_scikit_learn(world, strength):
    pool, test, codes, shown, _ = world
    said = told(world, (strength,))
    for mine, rows in zip(said, shown, strict=True):
        expected = oracle(pool, codes, rows, strength).predict(test)
        assert (mine == expected).mean() > 0.97


def test_the_strength_with_the_least_log_loss_inside_the_shots_is_taken(world):
    pool, test, codes, shown, folds = world
    said = told(world, STRENGTHS)
    for mine, rows, fold in zip(said, shown, folds, strict=True):
        losses = [
            sum(
                log_loss(
                    codes[rows[fold == part]],
                    oracle(pool, codes, rows[fold != part], s).predict_proba(
                        pool[rows[fold == part]]
                    ),
                    labels=[0, 1, 2],
                    normalize=False,
                )
                for part in range(4)
            )
            for s in STRENGTHS
        ]
        best = STRENGTHS[int(np.argmin(losses))]
        assert (mine == oracle(pool, codes, rows, best).predict(test)).mean() > 0.97


def test_with_nothing_to_choose_on_the_strongest_is_taken(world):
    pool, test, codes, shown, folds = world
    single = [np.zeros_like(fold) for fold in folds]
    said = told(world, STRENGTHS, single)
    assert np.array_equal(said, told(world, (1.0,)))
    for mine, rows in zip(said, shown, strict=True):
        assert (mine == oracle(pool, codes, rows, 1.0).predict(test)).mean() > 0.97


def test_blocks_change_nothing(world, monkeypatch):
    whole = told(world, STRENGTHS)
    monkeypatch.setattr("mirror_analysis.generalisation.few_shot_logistic._BLOCK", 1)
    assert (told(world, STRENGTHS) == whole).mean() > 0.99


def test_only_what_is_shown_counts(world):
    pool, test, codes, shown, folds = world
    before = told(world, STRENGTHS)
    hidden = np.setdiff1d(np.arange(60), np.concatenate(shown))
    assert len(hidden)
    moved = pool.copy()
    moved[hidden] += 1000
    assert np.array_equal(told((moved, test, codes, shown, folds), STRENGTHS), before)

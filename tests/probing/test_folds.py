"""Held-out groups are never in the fit, whatever the groups; and the split that labels give."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirror_analysis.errors import DegenerateError, UnknownNameError
from mirror_analysis.features import Index
from mirror_analysis.probing.folds import constant_in, grouped_folds, split_fold


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 9), min_size=3, max_size=60).filter(lambda g: len(set(g)) >= 3),
    st.integers(2, 7),
    st.integers(0, 3),
)
def test_no_group_stands_in_two_parts_and_every_row_is_tested_once(groups, count, seed):
    groups = np.array(groups)
    folds = grouped_folds(groups, count=count, seed=seed)
    assert sorted(np.concatenate([f.test for f in folds]).tolist()) == list(range(len(groups)))
    for fold in folds:
        parts = [fold.fit, fold.validation, fold.test]
        assert sorted(np.concatenate(parts).tolist()) == list(range(len(groups)))
        assert fold.known.tolist() == sorted([*fold.fit, *fold.validation])
        for i, part in enumerate(parts):
            assert len(part)
            for other in parts[:i]:
                assert not set(groups[part]) & set(groups[other])


def test_spread_labels_are_in_every_part():
    groups = np.arange(40).repeat(2)
    label = groups % 4
    for fold in grouped_folds(groups, count=5, spread=label):
        for part in (fold.fit, fold.validation, fold.test):
            assert np.bincount(label[part]).tolist() == [len(part) // 4] * 4


def test_the_same_seed_gives_the_same_folds():
    groups = np.arange(30)
    first, again, other = (grouped_folds(groups, seed=s)[0].test.tolist() for s in (1, 1, 2))
    assert first == again != other


def test_too_few_groups():
    with pytest.raises(DegenerateError, match=r"^2 groups are to be held out in turn; needed at"):
        grouped_folds(np.array(["a", "b", "b"]))


def index(label, episode=None, **labels):
    episode = np.array([f"e{i}" for i in range(len(label))] if episode is None else episode)
    return Index(episode, np.arange(len(label)), {"split": np.array(label), **labels})


def test_a_split_is_taken_as_it_is_labelled():
    fold = split_fold(index(["test", "fit", "validation", "fit"]))
    assert [p.tolist() for p in (fold.fit, fold.validation, fold.test)] == [[1, 3], [2], [0]]


def test_validation_episodes_are_drawn_whole_and_from_every_task():
    label = ["fit"] * 40 + ["test"] * 4
    episodes = [f"e{i // 2}" for i in range(44)]
    task = np.array([i // 2 % 2 for i in range(44)])
    fold = split_fold(index(label, episodes, task=task))
    assert len(fold.validation) == 8 and len(fold.fit) == 32
    held = {episodes[i] for i in fold.validation}
    assert not held & {episodes[i] for i in fold.fit}
    assert np.bincount(task[fold.validation]).tolist() == [4, 4]


@pytest.mark.parametrize(
    ("label", "episodes", "words"),
    [
        (["fit", "fit"], None, r"^no row is labelled 'test' by 'split'; give episodes of both"),
        (["test"], None, r"^no row is labelled 'fit' by 'split'"),
        (["fit", "test"], ["a", "a"], r"^episode a has rows in fit and in test; label whole"),
        (["fit", "test"], ["a", "b"], r"^1 episode is labelled 'fit'; needed at least 2"),
    ],
    ids=["no test", "no fit", "both", "one"],
)
def test_splits_that_cannot_be_fitted_and_tested(label, episodes, words):
    with pytest.raises(DegenerateError, match=words):
        split_fold(index(label, episodes))


def test_other_values_and_no_label_at_all():
    with pytest.raises(UnknownNameError, match=r"^unknown value of the label 'split' 'train'"):
        split_fold(index(["train", "test"]))
    with pytest.raises(UnknownNameError, match=r"^unknown label 'part'"):
        split_fold(index(["fit", "test"]), by="part")


def test_constant_in():
    episodes = np.array(["a", "a", "b"])
    assert constant_in(np.array([1, 1, 2]), episodes)
    assert not constant_in(np.array([1, 2, 2]), episodes)

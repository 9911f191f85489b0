import numpy as np
import pytest

from mirror_analysis.errors import DegenerateError
from mirror_analysis.generalisation.shots import labelled_pool


@pytest.fixture
def labelled(index):
    which = np.repeat(["a", "b", "c"], [8, 6, 7])
    return index(21, rows=2, which=which)


def test_a_draw_has_whole_episodes_of_every_class(labelled):
    pool = labelled_pool(labelled, "which")
    assert pool.classes.tolist() == ["a", "b", "c"] and pool.smallest == 6
    rows = pool.draw(4, 0, 0)
    assert len(rows) == 3 * 4 * 2
    names, counts = np.unique(labelled.episode[rows], return_counts=True)
    assert len(names) == 12 and set(counts) == {2}
    assert np.unique(labelled.label("which")[rows], return_counts=True)[1].tolist() == [8, 8, 8]


def test_draws_depend_on_names_and_not_on_the_order_of_rows(labelled):
    order = np.random.default_rng(0).permutation(len(labelled))
    mixed = labelled.take(order)
    first, second = labelled_pool(labelled, "which"), labelled_pool(mixed, "which")
    for number in range(3):
        a, b = first.draw(2, number, 5), second.draw(2, number, 5)
        assert set(labelled.episode[a]) == set(mixed.episode[b])
    assert set(labelled.episode[first.draw(2, 0, 5)]) != set(labelled.episode[first.draw(2, 1, 5)])
    assert set(labelled.episode[first.draw(2, 0, 5)]) != set(labelled.episode[first.draw(2, 0, 6)])


def test_every_episode_is_left_out_once(labelled):
    pool = labelled_pool(labelled, "which")
    left = []
    for fold in range(5):
        kept = set(labelled.episode[pool.without(fold, 5, 0)])
        left += sorted(set(labelled.episode) - kept)
        assert 16 <= len(kept) <= 17
    assert sorted(left) == sorted(set(labelled.episode))


def test_inner_folds_hold_whole_episodes_of_every_class(labelled):
    pool = labelled_pool(labelled, "which")
    rows = pool.draw(5, 0, 0)
    fold = pool.deal(rows, 5)
    for part in range(5):
        shown = labelled.episode[rows][fold == part]
        assert len(np.unique(shown)) == 3 and len(shown) == 6
        assert len(np.unique(labelled.label("which")[rows][fold == part])) == 3
    assert set(pool.deal(rows, 1)) == {0}
    # No more parts than a class has episodes: one shot leaves one part.
    assert set(pool.deal(rows, 9)) == {0, 1, 2, 3, 4}
    assert set(pool.deal(pool.draw(1, 0, 0), 5)) == {0}


def test_labels_that_change_inside_an_episode_are_refused(index):
    changing = index(4, rows=2, which=np.array(["a", "a", "b", "b"]))
    changing.labels["which"][3] = "b"
    with pytest.raises(DegenerateError, match="'which' varies inside episode e0001; shots are"):
        labelled_pool(changing, "which")

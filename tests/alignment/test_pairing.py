import numpy as np
import pytest

from mirror_analysis.alignment.pairing import Pairs, hold_out, layer_pairs, match
from mirror_analysis.errors import DegenerateError, PairingError, ShapeError, UnknownNameError
from mirror_analysis.features import FeatureKey, Features, Index, pair


def features(episodes, *, steps=1, width=3, shift=0.0, order=None, tasks=2) -> Features:
    """Row values say which episode and step they are of."""
    ids = np.repeat([f"e{i}" for i in range(episodes)], steps)
    step = np.tile(np.arange(steps), episodes)
    task = np.array([f"t{int(name[1:]) % tasks}" for name in ids])
    values = np.stack([np.array([int(n[1:]) for n in ids]), step, np.full(len(ids), shift)], 1)
    index = Index(ids, step, {"task": task})
    key = FeatureKey("m", "0", "layer", "mean", "f")
    made = Features(key, values[:, :width].astype(np.float32), index)
    return made if order is None else made.take(order)


def groups(pairs: Pairs) -> set[frozenset[int]]:
    """Which rows are partners of one another."""
    if pairs.positives is None:
        return {frozenset([i]) for i in range(len(pairs))}
    return {
        frozenset(np.flatnonzero(pairs.positives == p).tolist()) for p in np.unique(pairs.positives)
    }


def test_features_are_matched_by_episode_and_step_and_not_by_place():
    order = np.random.default_rng(0).permutation(12)
    found = match(features(4, steps=3), features(4, steps=3, shift=9.0, order=order))
    np.testing.assert_array_equal(found.x[:, :2], found.y[:, :2])
    assert set(found.y[:, 2]) == {9.0} and set(found.x[:, 2]) == {0.0}
    with pytest.raises(PairingError, match="3 of 12 rows of x are missing in y"):
        match(features(4, steps=3), features(3, steps=3))


@pytest.mark.parametrize(
    ("pairing", "expected"),
    [
        ("step", [[0], [1], [2], [3], [4], [5], [6], [7]]),
        ("episode", [[0, 1], [2, 3], [4, 5], [6, 7]]),
        ("task", [[0, 1, 4, 5], [2, 3, 6, 7]]),
        (np.array([5, 5, 5, 5, 5, 5, 5, 6]), [[0, 1, 2, 3, 4, 5, 6], [7]]),
    ],
    ids=["step", "episode", "task", "labels"],
)
def test_pairing_says_which_rows_are_partners(pairing, expected):
    x, y = features(4, steps=2), features(4, steps=2, shift=1.0)
    found = match(x, y, pairing=pairing)
    assert groups(found) == {frozenset(rows) for rows in expected}
    again = layer_pairs(pair({"a": x}, {"b": y}), ("a", "b"), pairing=pairing)
    assert groups(again) == groups(found)
    np.testing.assert_array_equal(again.y, found.y)
    # Partners stay partners in whatever rows are taken.
    part = found.take(np.array([0, 1, 7, 6]))
    kept = {frozenset(np.array([0, 1, 7, 6])[list(g)].tolist()) for g in groups(part)}
    assert kept == {frozenset(g & {0, 1, 6, 7}) for g in groups(found)} - {frozenset()}


def test_rows_with_their_own_partner_only_are_told_apart_without_labels():
    one = features(4)
    assert match(one, one, pairing="episode").positives is None
    assert match(one, one, pairing=np.array(["b", "a", "d", "c"])).positives is None
    assert match(one, one, pairing="task").positives.tolist() == [0, 1, 0, 1]


def test_rows_of_arrays_are_an_episode_each():
    x, y = np.eye(4), np.ones((4, 2))
    for name in ("step", "episode"):
        found = match(x, y, pairing=name)
        assert found.positives is None and len(set(found.episode)) == 4 and found.task is None
    labels = np.array(["a", "b", "a", "b"])
    assert match(x, y, pairing=labels).positives.tolist() == [0, 1, 0, 1]


def test_whole_episodes_are_held_out_of_every_task():
    both = match(features(40, steps=3, tasks=4), features(40, steps=3, tasks=4))
    fit, held = hold_out(both, 0.3, seed=1)
    assert len(fit) + len(held) == 120
    assert not set(fit.episode) & set(held.episode)
    for task in np.unique(both.task):
        assert len(set(held.episode[held.task == task])) == 3  # of 10
    np.testing.assert_array_equal(held.x[:, :2], held.y[:, :2])
    again = hold_out(both, 0.3, seed=1)[1]
    assert again.episode.tolist() == held.episode.tolist()
    assert hold_out(both, 0.3, seed=2)[1].episode.tolist() != held.episode.tolist()


def test_without_tasks_rows_are_drawn_from_all():
    both = match(np.arange(20.0)[:, None], np.arange(20.0)[:, None])
    fit, held = hold_out(both, 0.25)
    assert (len(fit), len(held)) == (15, 5)
    assert held.x.ravel().tolist() != list(range(5))


def test_what_cannot_be_paired_is_refused():
    one, x = features(4), np.ones((4, 2))
    for first, second, text in ((one, x, "x is features but y is an"), (x, one, "y is features")):
        with pytest.raises(PairingError, match=text):
            match(first, second)
    with pytest.raises(PairingError, match="pairing 'task' is the name of a label but x and y are"):
        match(x, x, pairing="task")
    with pytest.raises(UnknownNameError, match="unknown label 'tusk'; did you mean 'task'"):
        match(one, one, pairing="tusk")
    with pytest.raises(ShapeError, match="x has 4 rows but y has 3; pair"):
        match(x, x[:3])
    with pytest.raises(ShapeError, match=r"pairing has shape \(3,\); needed one label for each of"):
        match(x, x, pairing=np.arange(3))
    with pytest.raises(DegenerateError, match="all 4 rows have the label t0, so every row is a pa"):
        match(features(4, tasks=1), features(4, tasks=1), pairing="task")


@pytest.mark.parametrize(("count", "share", "text"), [
    (3, 0.1, "holding out 0.1 of 3 episodes leaves 3 to fit on and 0 to validate on"),
    (3, 0.9, "holding out 0.9 of 3 episodes leaves 0 to fit on and 3 to validate on"),
])  # fmt: skip
def test_an_empty_part_is_refused(count, share, text):
    with pytest.raises(DegenerateError, match=text):
        hold_out(match(np.ones((count, 1)), np.ones((count, 1))), share)

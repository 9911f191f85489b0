"""Rows are matched by their labels, whole episodes go to one part, and misfits are refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirror_analysis.errors import DegenerateError, PairingError, ShapeError, UnknownNameError
from mirror_analysis.features import FeatureKey, Features, Index, pair, split


def index_of(episodes, steps, **labels):
    return Index(
        np.array(episodes, dtype=np.str_),
        np.array(steps, dtype=np.int64),
        {name: np.array(values) for name, values in labels.items()},
    )


def features(values, index, layer="conv1"):
    key = FeatureKey(checkpoint="m", weights="0", layer=layer, pooling="mean", episodes="e")
    return Features(key, np.array(values, dtype=np.float32), index)


ABC = index_of(["a", "a", "b", "c"], [0, 1, 0, 0], task=["p", "p", "q", "q"])
COLUMN = np.array([[10.0], [11.0], [20.0], [30.0]])


def test_index_takes_positions_and_masks():
    taken = ABC.take(np.array([3, 0]))
    assert taken.episode.tolist() == ["c", "a"]
    assert taken.label("task").tolist() == ["q", "p"]
    assert ABC.take(np.array([False, True, False, False])).step.tolist() == [1]
    assert len(ABC) == 4


def test_index_without_the_label():
    with pytest.raises(UnknownNameError, match=r"^unknown label 'tusk'; did you mean 'task'\?"):
        ABC.label("tusk")


def test_features_take_rows_with_their_labels():
    taken = features(COLUMN, ABC).take(np.array([2]))
    assert taken.values.tolist() == [[20.0]]
    assert taken.index.episode.tolist() == ["b"]


def test_features_of_three_axes_are_refused():
    message = r"features of layer 'conv1' of m have shape \(4, 1, 1\); needed \[sample, feature\]"
    with pytest.raises(ShapeError, match=message):
        features(COLUMN[:, :, None], ABC)


def test_features_with_too_few_labels_are_refused():
    with pytest.raises(ShapeError, match="have 3 rows but 4 labels"):
        features(COLUMN[:3], ABC)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_features_that_are_not_finite_are_refused(bad):
    values = COLUMN.copy()
    values[2] = bad
    with pytest.raises(DegenerateError, match=r"in 1 of 4 rows \(first in episode b\); check"):
        features(values, ABC)


@settings(deadline=None, max_examples=20)
@given(st.permutations(range(4)))
def test_pair_matches_rows_in_any_order(order):
    y = {"out": features(COLUMN, ABC).take(np.array(order))}
    paired = pair({"in": features(COLUMN, ABC)}, y)
    assert paired.index.episode.tolist() == ABC.episode.tolist()
    assert paired.x["in"].tolist() == paired.y["out"].tolist() == COLUMN.tolist()


def test_pair_keeps_all_layers_and_joins_labels():
    other = index_of(["c", "b", "a", "a"], [0, 0, 1, 0], success=[3, 2, 1, 0])
    x = {"one": features(COLUMN, ABC), "two": features(-COLUMN, ABC)}
    paired = pair(x, {"out": features(COLUMN[::-1], other)})
    assert list(paired.x) == ["one", "two"]
    assert paired.y["out"].tolist() == [[10.0], [11.0], [20.0], [30.0]]
    assert paired.index.label("success").tolist() == [0, 1, 2, 3]
    assert paired.index.label("task").tolist() == ["p", "p", "q", "q"]
    assert len(paired) == 4


@pytest.mark.parametrize(("shorter", "side", "other"), [("y", "x", "y"), ("x", "y", "x")])
def test_pair_refuses_a_row_the_other_lacks(shorter, side, other):
    whole = {"in": features(COLUMN, ABC)}
    part = {"in": features(COLUMN, ABC).take(np.array([0, 2, 3]))}
    message = f"^1 of 4 rows of {side} are missing in {other}, first episode a step 1; extract"
    with pytest.raises(PairingError, match=message):
        pair(*((whole, part) if shorter == "y" else (part, whole)))


@pytest.mark.parametrize("side", ["x", "y"])
def test_pair_refuses_repeated_rows(side):
    once = {"in": features(COLUMN, ABC)}
    twice = {"in": features(COLUMN, index_of(["a", "a", "b", "c"], [0, 0, 0, 0]))}
    with pytest.raises(PairingError, match=rf"^{side} has 1 repeated \(episode, step\) rows; give"):
        pair(*((twice, once) if side == "x" else (once, twice)))


def test_pair_refuses_labels_that_disagree():
    other = index_of(["a", "a", "b", "c"], [0, 1, 0, 0], task=["p", "p", "p", "q"])
    with pytest.raises(PairingError, match=r"^x and y disagree on the label 'task' of the same"):
        pair({"in": features(COLUMN, ABC)}, {"in": features(COLUMN, other)})


def test_pair_refuses_no_layers():
    with pytest.raises(PairingError, match=r"^y has no layers; needed at least one"):
        pair({"in": features(COLUMN, ABC)}, {})


def test_pair_refuses_layers_of_other_rows():
    x = {
        "one": features(COLUMN, ABC),
        "two": features(COLUMN, index_of(["a", "a", "b", "d"], [0, 1, 0, 0]), "two"),
    }
    with pytest.raises(PairingError, match=r"^layer 'two' of x has other rows than its first"):
        pair(x, {"in": features(COLUMN, ABC)})


def many(test_share=0.5, tasks=("p", "q"), per_task=10):
    """Episodes of two rows; the first part of each task is labelled fit."""
    episodes, steps, task, part = [], [], [], []
    for name in tasks:
        for number in range(per_task):
            label = "fit" if number < per_task * (1 - test_share) else "test"
            for step in (0, 1):
                episodes.append(f"{name}{number}")
                steps.append(step)
                task.append(name)
                part.append(label)
    index = index_of(episodes, steps, task=task, split=part)
    values = np.arange(len(episodes), dtype=np.float32)[:, None]
    return pair({"in": features(values, index)}, {"out": features(2 * values, index)})


def test_split_parts_are_disjoint_and_complete():
    paired = many()
    parts = split(paired, validation=0.2, seed=3)
    ids = [set(part.index.episode) for part in (parts.fit, parts.validation, parts.test)]
    assert [len(part) for part in ids] == [8, 2, 10]
    assert set.union(*ids) == set(paired.index.episode)
    assert len(parts.fit) + len(parts.validation) + len(parts.test) == len(paired)
    assert set(parts.test.index.label("split")) == {"test"}
    assert set(parts.validation.index.label("split")) == {"fit"}


def test_split_keeps_rows_together_and_draws_within_tasks():
    parts = split(many(), validation=0.4)
    assert sorted(parts.validation.index.label("task")) == ["p"] * 4 + ["q"] * 4
    for part in (parts.fit, parts.validation, parts.test):
        assert np.array_equal(part.y["out"], 2 * part.x["in"])
        assert all((part.index.episode == name).sum() == 2 for name in set(part.index.episode))


def test_split_depends_on_the_seed_only():
    chosen = [split(many(), seed=s).validation.index.episode.tolist() for s in (1, 1, 2)]
    assert chosen[0] == chosen[1] != chosen[2]


def test_split_does_without_tasks():
    paired = many()
    labels = {"split": paired.index.label("split")}
    bare = type(paired)(paired.x, paired.y, Index(paired.index.episode, paired.index.step, labels))
    assert len(set(split(bare).validation.index.episode)) == 2


@pytest.mark.parametrize(
    ("paired", "validation", "part"),
    [
        (many(test_share=0.0), 0.2, "test"),
        (many(), 0.01, "validation"),
        (many(test_share=1.0), 0.2, "fit"),
        (many(), 1.0, "fit"),
    ],
)
def test_split_refuses_an_empty_part(paired, validation, part):
    message = rf"^no episodes left for {part}: of 20 episodes \d+ are labelled test; collect more"
    with pytest.raises(DegenerateError, match=message):
        split(paired, validation=validation)


def test_split_by_a_label_that_is_not_there():
    with pytest.raises(UnknownNameError, match=r"^unknown label 'part' \(known: split, task\)"):
        split(many(), by="part")

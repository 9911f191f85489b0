"""Labels as classes and quantities; what cannot be decoded is said in words."""

import numpy as np
import pytest

from mirror_analysis.errors import DegenerateError, ShapeError, UnknownNameError
from mirror_analysis.features import Index
from mirror_analysis.probing.folds import Fold
from mirror_analysis.probing.targets import check_classes, read_target


def index(**labels):
    count = len(next(iter(labels.values())))
    return Index(np.array([f"e{i}" for i in range(count)]), np.arange(count), labels)


def test_kinds_are_told_by_type():
    rows = index(
        word=np.array(["b", "a", "b"]), won=np.array([True, False, True]),
        x=np.array([0.1, 0.2, 0.4]), y=np.array([3, 1, 2]),
    )  # fmt: skip
    word = read_target(rows, "word")
    assert (word.kind, word.classes, word.values.tolist()) == (
        "classification", ("a", "b"), [1, 0, 1],
    )  # fmt: skip
    assert read_target(rows, "won").classes == ("False", "True")
    assert read_target(rows, "y").classes == ("1", "2", "3")
    assert read_target(rows, "x").kind == "regression"
    both = read_target(rows, ["x", "y"])
    assert (both.name, both.kind) == ("x+y", "regression")
    np.testing.assert_array_equal(both.values, [[0.1, 3], [0.2, 1], [0.4, 2]])
    assert read_target(rows, "x", kind="classification").kind == "classification"
    assert read_target(rows, "won", kind="regression").values.tolist() == [[1], [0], [1]]


@pytest.mark.parametrize(
    ("labels", "target", "kind", "error", "words"),
    [
        ({"a": [1, 2]}, "b", None, UnknownNameError, r"^unknown label 'b'"),
        ({"a": [1, 2]}, [], None, DegenerateError, r"^probe got no target; needed"),
        ({"a": [1, 2]}, "a", "sorting", UnknownNameError, r"^unknown kind of target 'sorting'"),
        ({"a": [[1], [2]]}, "a", None, ShapeError, r"^label 'a' has shape \(2, 1\); needed one"),
        ({"a": ["u", "u"]}, "a", None, DegenerateError, r"^all 2 rows have the same 'a' \(u\);"),
        ({"a": ["u", "v"]}, "a", "regression", ShapeError, r"^label 'a' is of type .*numbers"),
        ({"a": [1.0, np.nan]}, "a", None, DegenerateError, r"^label 'a' is not finite in 1 rows"),
        ({"a": [2.0, 2.0]}, "a", None, DegenerateError, r"^label 'a' is constant \(2\); nothing"),
        (
            {"a": [1, 2], "b": [1, 2]}, ["a", "b"], "classification", DegenerateError,
            r"^probe got 2 labels to classify at once; give one",
        ),
    ],
    ids=["unknown", "none", "kind", "shape", "one class", "words", "nan", "constant", "several"],
)  # fmt: skip
def test_errors(labels, target, kind, error, words):
    with pytest.raises(error, match=words):
        read_target(index(**{k: np.array(v) for k, v in labels.items()}), target, kind=kind)


def fold(fit, validation, test):
    return Fold(*(np.array(part) for part in (fit, validation, test)))


def test_a_class_that_only_test_rows_have():
    target = read_target(index(task=np.array(["a", "b", "a", "b", "c", "c"])), "task")
    check_classes(target, [fold([0, 1, 4], [2, 3], [5])], "episode")
    with pytest.raises(
        DegenerateError, match=r"^1 of 3 classes of 'task' \(first 'c'\) have all .* by task, so"
    ):
        check_classes(target, [fold([0, 1], [2, 3], [4, 5])], "task")


def test_fit_rows_of_one_class():
    target = read_target(index(task=np.array(["a", "a", "b", "b"])), "task")
    with pytest.raises(DegenerateError, match=r"^the fit rows of fold 0 all have 'task' a; use"):
        check_classes(target, [fold([0, 1], [2], [3])], "episode")
    check_classes(target, [fold([0, 1], [2], [3])], "episode", least=1)

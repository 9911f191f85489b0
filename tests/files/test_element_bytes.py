"""Arrays of bytes that are no value of their type."""

import pickle

import numpy as np
import pytest

from mirror_analysis.errors import FormatError
from mirror_analysis.files.element_bytes import check_elements
from mirror_analysis.files.pickles import read_pickle

LETTER = (0x110000).to_bytes(4, "little")


@pytest.mark.parametrize(
    ("dtype", "data", "words"),
    [
        ("<U2", b"a\0\0\0" + LETTER, "letters beyond Unicode"),
        (">U1", LETTER[::-1], "letters beyond Unicode"),
        ("?", b"\0\1\2", "truth values other than 0 and 1"),
        ([("x", "f4"), ("y", "?")], b"\0\0\0\0\2", "truth values other than 0 and 1"),
    ],
)
def test_impossible_elements_are_refused(dtype, data, words) -> None:
    with pytest.raises(ValueError, match=words):
        check_elements(np.frombuffer(data, dtype))


@pytest.mark.parametrize(
    "array",
    [
        np.array(["a", "\U0010ffff"]),
        np.array(["a"], ">U1"),
        np.array([True, False]),
        np.zeros(0, "U1"),
        np.zeros((0, 2), bool),
        np.array([(1.0, True)], [("x", "f4"), ("y", "?")]),
    ],
)
def test_possible_elements_are_not(array) -> None:
    check_elements(array)


def test_pickles_with_impossible_elements_are_refused() -> None:
    data = pickle.dumps(np.array([True, True]), 4)
    with pytest.raises(FormatError, match="truth values other than 0 and 1"):
        read_pickle(data.replace(b"\1\1", b"\1\2"))

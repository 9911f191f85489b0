import numpy as np

from mirror_analysis.episodes.identity import identity

NUMBERS = np.arange(6, dtype=np.float32)


def test_the_same_is_the_same():
    again = identity("a", "b", arrays={"y": NUMBERS.copy(), "x": NUMBERS})
    assert identity("a", "b", arrays={"x": NUMBERS, "y": NUMBERS}) == again
    assert len(again) == 64


def test_every_difference_counts():
    changed = NUMBERS.copy()
    changed[5] = 0
    every = [
        identity("a", "b", arrays={"x": NUMBERS}),
        identity("b", "a", arrays={"x": NUMBERS}),
        identity("ab", "", arrays={"x": NUMBERS}),
        identity("ab", arrays={"x": NUMBERS}),
        identity("a", "b", arrays={"z": NUMBERS}),
        identity("a", "b", arrays={"x": changed}),
        identity("a", "b", arrays={"x": NUMBERS.reshape(2, 3)}),
        identity("a", "b", arrays={"x": NUMBERS.view(np.int32)}),
        identity("a", "b"),
        identity(),
    ]
    assert len(set(every)) == len(every)


def test_names_that_are_no_unicode_have_an_identity():
    assert identity("\udcff") != identity("\udcfe")

import numpy as np
import pytest

from mirror_analysis.episodes.selection import evenly_spaced, numbered
from mirror_analysis.errors import DefinitionError


@pytest.mark.parametrize(
    ("count", "frames", "kept"),
    [
        (4, None, [0, 1, 2, 3]),
        (4, 9, [0, 1, 2, 3]),
        (4, 4, [0, 1, 2, 3]),
        (10, 4, [0, 3, 6, 9]),
        (10, 1, [0]),
        (0, 3, []),
    ],
)
def test_kept_frames_run_from_the_first_to_the_last(count, frames, kept):
    chosen = evenly_spaced(count, frames)
    assert chosen.dtype == np.int64
    assert chosen.tolist() == kept


def test_kept_frames_are_never_repeated():
    for count in range(1, 40):
        for frames in range(1, count + 1):
            chosen = evenly_spaced(count, frames)
            assert len(chosen) == frames
            assert (np.diff(chosen) > 0).all()


def test_no_frames_cannot_be_kept():
    with pytest.raises(DefinitionError, match="frames is 0; needed 1 or more"):
        evenly_spaced(10, 0)


def test_numbers_inside_names_count():
    names = ["demo_10", "demo_9", "b1c2", "b1c10", "a", "", "10", "9x"]
    assert sorted(names, key=numbered) == [
        "",
        "9x",
        "10",
        "a",
        "b1c2",
        "b1c10",
        "demo_9",
        "demo_10",
    ]

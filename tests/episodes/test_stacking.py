import numpy as np
import pytest

from mirror_analysis.episodes.stacking import stacked
from mirror_analysis.errors import FormatError


def test_pictures_are_kept_in_order():
    pictures = np.random.default_rng(0).integers(0, 255, (4, 3, 2, 3), np.uint8)
    np.testing.assert_array_equal(stacked(iter(pictures), count=4, where="of a"), pictures)


def test_pictures_of_two_sizes():
    pictures = [np.zeros((2, 3, 3), np.uint8), np.zeros((3, 2, 3), np.uint8)]
    with pytest.raises(
        FormatError, match=r"picture 1 of a has shape \[3, 2, 3\], but those before it \[2, 3, 3\]"
    ):
        stacked(pictures, count=2, where="of a")


def test_nothing_is_decoded_once_it_is_clear_that_there_is_no_room():
    decoded = []

    def pictures():
        for position in range(3):
            decoded.append(position)
            yield np.zeros((1000, 1000, 3), np.uint8)

    with pytest.raises(FormatError, match=r"1000 pictures of a take 2\.8 GiB; at most 2 are read"):
        stacked(pictures(), count=1000, where="of a")
    assert decoded == [0]

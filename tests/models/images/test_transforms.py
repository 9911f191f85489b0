"""Preparation as published transforms do it, beyond what the tests of their families compare."""

import numpy as np
import torch

from mirror_analysis.models.images.transforms import Transforms

PLAIN = {"scale": 1.0, "mean": (0.0,) * 3, "std": (1.0,) * 3}


def numbered(time):
    """Frames whose colour is their number."""
    return np.arange(time, dtype=np.uint8)[:, None, None, None].repeat(3, axis=3)


def taken(time, **how):
    return Transforms(**PLAIN, **how)(numbered(time))[:, 0, 0, 0].int().tolist()


def test_frames_by_stride_are_the_first_of_each_step():
    assert taken(16, frames=8, sampling="stride") == [0, 2, 4, 6, 8, 10, 12, 14]
    assert taken(30, frames=8, sampling="stride") == [0, 3, 6, 9, 12, 15, 18, 21]
    assert taken(8, frames=8, sampling="stride") == list(range(8))
    assert taken(3, frames=4, sampling="stride") == [0, 1, 1, 2]


def test_frames_evenly_spaced_reach_the_last():
    assert taken(30, frames=4, sampling="even") == [0, 10, 19, 29]
    assert taken(3) == [0, 1, 2]


def test_an_odd_margin_is_halved_to_the_even_number():
    row = np.arange(9, dtype=np.uint8)[None, None, :, None].repeat(3, axis=3)
    column = row.swapaxes(1, 2)
    assert Transforms(**PLAIN, crop=(6, 1))(column)[0, 0, :, 0].int().tolist() == [2, 3, 4, 5, 6, 7]
    assert Transforms(**PLAIN, crop=(1, 6))(row)[0, 0, 0].int().tolist() == [2, 3, 4, 5, 6, 7]
    assert Transforms(**PLAIN, crop=(1, 8))(row)[0, 0, 0].int().tolist() == list(range(8))


def test_more_is_padded_behind():
    row = np.full((1, 1, 2, 3), 9, dtype=np.uint8)
    how = Transforms(**PLAIN, crop=(2, 5), fill=(1, 2, 3))
    found = how(row)[0].int().tolist()
    assert found[0] == [[1, 9, 9, 1, 1], [1] * 5]
    assert found[2] == [[3, 9, 9, 3, 3], [3] * 5]


def test_what_it_does_is_in_its_words():
    how = Transforms(frames=8, sampling="stride", antialias=False)
    assert str(how) != str(Transforms(frames=8, sampling="even", antialias=False))
    assert '"antialias":false' in str(how)


def test_values_are_scaled_and_normalised():
    how = Transforms(mean=(0.5, 0.25, 0.0), std=(0.5, 1.0, 2.0))
    found = how(np.full((1, 1, 1, 3), 255, dtype=np.uint8))[0, :, 0, 0]
    torch.testing.assert_close(found, torch.tensor([1.0, 0.75, 0.5]))

"""Plain bilinear interpolation, to the byte as OpenCV has it."""

import json
from pathlib import Path

import numpy as np

from mirror_analysis.models.images.bilinear import four_pixels


def test_gives_what_opencv_gives():
    """Pictures that shrink, grow, are halved, and do both; see scripts/fixtures."""
    said = json.loads(Path(__file__).with_name("opencv_bilinear.json").read_text())
    assert len(said["cases"]) == 4
    for case in said["cases"]:
        g = np.random.default_rng(case["seed"])
        picture = g.integers(0, 256, (*case["given"], 3), dtype=np.uint8)
        made = np.array(case["made"], dtype=np.uint8)
        np.testing.assert_array_equal(four_pixels(picture, made.shape[:2]), made)


def test_the_same_size_changes_nothing():
    picture = np.random.default_rng(0).integers(0, 256, (5, 4, 3), dtype=np.uint8)
    np.testing.assert_array_equal(four_pixels(picture, (5, 4)), picture)


def test_what_lies_between_is_left_out():
    picture = np.zeros((1, 100, 1), dtype=np.uint8)
    picture[0, ::10] = 255
    assert not four_pixels(picture, (1, 10)).any()

import numpy as np

from mirror_analysis.episodes.precision import single


def test_numbers_are_rounded_and_too_large_ones_infinite_without_a_warning():
    values = single(np.array([[1e300, -1e300], [0.1, 7.0]]))
    assert values.dtype == np.float32
    assert values.tolist() == [[np.inf, -np.inf], [np.float32(0.1), 7.0]]
    assert single(np.array([True, False])).tolist() == [1.0, 0.0]

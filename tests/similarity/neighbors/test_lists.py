import numpy as np
import pytest

from mirror_analysis.similarity import knn_edit_similarity, knn_lcs, mutual_knn


def turned(order):
    """One sample that sees the others in a given order, and others that see it last."""
    n = len(order)
    angles = np.empty(n + 1)
    angles[0] = 0
    angles[1 + np.asarray(order)] = 0.1 * (1 + np.arange(n))
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def test_only_the_order_of_shared_neighbours_tells_lists_apart():
    x, y = turned([0, 1, 2, 3]), turned([1, 0, 2, 3])
    # The first sample has all others as neighbours in both.
    assert mutual_knn(np.r_[x, -x], np.r_[y, -y], k=4) == 1
    assert knn_lcs(np.r_[x, -x], np.r_[y, -y], k=4) < 1
    assert knn_edit_similarity(np.r_[x, -x], np.r_[y, -y], k=4) < 1


def test_never_above_the_share_of_common_neighbours():
    g = np.random.default_rng(0)
    for _ in range(10):
        x = g.standard_normal((40, 4))
        y = x + g.standard_normal((40, 4))
        edit, lcs = knn_edit_similarity(x, y, k=6), knn_lcs(x, y, k=6)
        assert edit <= lcs <= mutual_knn(x, y, k=6)


def test_of_samples_equally_near_one_counts_by_its_share():
    # In x every other sample is equally near and shares 3 of 11 places.
    x, y = np.eye(12), np.random.default_rng(1).standard_normal((12, 4))
    assert knn_lcs(x, y, k=3) == pytest.approx(3 / 11 / 3)
    assert 0 <= knn_edit_similarity(x, y, k=3) <= knn_lcs(x, y, k=3)

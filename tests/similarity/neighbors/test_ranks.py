import numpy as np
import pytest
import torch

from mirror_analysis.similarity import information_imbalance, knn_rank_similarity
from mirror_analysis.similarity.measures import Layer
from mirror_analysis.similarity.neighbors import ranks as module
from mirror_analysis.similarity.neighbors.ranks import KNNRank


def test_bounds_and_direction():
    g = np.random.default_rng(0)
    x = g.standard_normal((200, 2))
    assert information_imbalance(x, x) == pytest.approx(2 / 200)
    assert information_imbalance(x, x, k=4) == pytest.approx(5 / 200)
    # Both coordinates know the first; the first does not know both.
    first = x[:, :1]
    assert information_imbalance(x, first) < 0.2 < 0.4 < information_imbalance(first, x)
    assert knn_rank_similarity(x, first) == 1 - information_imbalance(x, first)
    unrelated = [information_imbalance(x, g.standard_normal((200, 2))) for _ in range(20)]
    assert np.mean(unrelated) == pytest.approx(1, abs=0.04)


def test_those_equally_near_share_their_mean_rank():
    # In y every other sample is equally far: each has rank n / 2, which is no information.
    x = np.random.default_rng(1).standard_normal((20, 2))
    assert information_imbalance(x, np.eye(20)) == pytest.approx(1, abs=1e-12)


def test_blocks_of_rows_change_nothing(monkeypatch):
    g = np.random.default_rng(2)
    measure = KNNRank(2)
    x, y = ([measure.prepare(Layer("l", torch.tensor(g.standard_normal((30, 3))))) for _ in "ab"]
            for _ in "xy")  # fmt: skip
    orders = torch.tensor(np.stack([g.permutation(30) for _ in range(5)]))
    folds = torch.tensor(g.permutation(30) % 4)
    null, left = measure.null(x, y, orders), measure.leave_out(x, y, folds)
    monkeypatch.setattr(module, "_TILE", 200)
    torch.testing.assert_close(measure.null(x, y, orders), null, atol=1e-12, rtol=0)
    torch.testing.assert_close(measure.leave_out(x, y, folds), left, atol=1e-12, rtol=0)

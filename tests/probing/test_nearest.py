"""Neighbours against scikit-learn, in blocks, and where votes are even."""

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

from mirror_analysis.errors import DegenerateError
from mirror_analysis.probing import nearest

KS = (1, 2, 5, 11)


@pytest.fixture
def rows():
    rng = np.random.default_rng(0)
    return rng.normal(size=(60, 4)), rng.normal(size=(25, 4)), rng.integers(0, 3, 60)


@pytest.mark.parametrize("block", [1 << 24, 61], ids=["whole", "row by row"])
def test_predictions_are_those_of_scikit_learn(rows, block, monkeypatch):
    fitted, asked, labels = rows
    monkeypatch.setattr(nearest, "_ENTRIES", block)
    found = nearest.nearest_rows(torch.from_numpy(fitted), torch.from_numpy(asked), k=11)
    votes = nearest.neighbour_votes(torch.from_numpy(labels), found, KS, classes=3)
    values = np.stack([labels * 1.5, np.sin(labels)], axis=1)
    means = nearest.neighbour_means(torch.from_numpy(values), found, KS)
    for number, k in enumerate(KS):
        voted = KNeighborsClassifier(k, algorithm="brute").fit(fitted, labels).predict(asked)
        assert votes[number].tolist() == voted.tolist()
        mean = KNeighborsRegressor(k, algorithm="brute").fit(fitted, values).predict(asked)
        np.testing.assert_allclose(means[number].numpy(), mean, atol=1e-12)


def test_numbers_come_in_the_order_asked_and_labellings_side_by_side(rows):
    fitted, asked, labels = rows
    found = nearest.nearest_rows(torch.from_numpy(fitted), torch.from_numpy(asked), k=5)
    two = torch.from_numpy(np.stack([labels, 2 - labels]))
    both = nearest.neighbour_votes(two, found, (5, 1), classes=3)
    assert both.shape == (2, 2, 25)
    one = nearest.neighbour_votes(two[1], found, (1,), classes=3)
    assert both[1, 1].tolist() == one[0].tolist()


def test_of_equal_votes_the_first_class_wins():
    found = torch.tensor([[0, 1, 2, 3]])
    for labels in ([2, 1, 1, 2], [1, 2, 2, 1]):
        votes = nearest.neighbour_votes(torch.tensor(labels), found, (4,), classes=3)
        assert votes.tolist() == [[1]]


def test_more_neighbours_than_rows_are_refused():
    x = torch.zeros(3, 2)
    with pytest.raises(DegenerateError, match=r"^4 neighbours are asked for among 3 fitted rows;"):
        nearest.nearest_rows(x, x, k=4)

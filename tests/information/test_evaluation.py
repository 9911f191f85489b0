import math

import numpy as np
import pytest
import torch

from mirror_analysis import information
from mirror_analysis.information.evaluation import Bound, bound_value, shuffled, without_folds

BOUNDS = [
    Bound("donsker_varadhan", "donsker_varadhan"),
    Bound("infonce", "infonce"),
    Bound("jensen_shannon", "js_divergence"),
    Bound("mine", "mine"),
    Bound("nwj", "nwj"),
    Bound("smile", "js_divergence", tau=1.5),
]


def public(bound, matrix):
    """What the public function of that name gives."""
    if bound.name == "smile":
        return information.smile(matrix, tau=bound.tau)
    name = "donsker_varadhan" if bound.name == "mine" else bound.name
    return getattr(information, name)(matrix)


def scores(n, seed=0, size=2.0):
    return torch.tensor(np.random.default_rng(seed).standard_normal((n, n)) * size)


each_bound = pytest.mark.parametrize("bound", BOUNDS, ids=lambda b: b.name)


@each_bound
def test_value_is_that_of_the_public_function(bound):
    for n in (2, 9):
        matrix = scores(n)
        assert float(bound_value(bound, matrix)) == pytest.approx(public(bound, matrix), abs=1e-12)


@each_bound
def test_leaving_a_fold_out_is_computing_without_it(bound):
    matrix, folds = scores(11), torch.tensor([0, 1, 2, 0, 1, 2, 0, 1, 2, 4, 4])
    found = without_folds(bound, matrix, folds, 5)
    for fold in range(5):  # fold 3 has no pair
        kept = folds != fold
        expected = public(bound, matrix[kept][:, kept])
        assert float(found[fold]) == pytest.approx(expected, abs=1e-12)


@each_bound
def test_the_null_is_computing_with_columns_in_another_order(bound):
    matrix = scores(8)
    g = np.random.default_rng(0)
    orders = torch.tensor(np.stack([np.arange(8), *(g.permutation(8) for _ in range(6))]))
    found = shuffled(bound, matrix, orders)
    for order, value in zip(orders, found, strict=True):
        assert float(value) == pytest.approx(public(bound, matrix[:, order]), abs=1e-9)


@each_bound
def test_the_null_holds_where_true_pairs_are_all_of_the_sum(bound):
    matrix = scores(6) + 60 * torch.eye(6, dtype=torch.float64)
    orders = torch.tensor([[0, 1, 2, 3, 4, 5], [1, 0, 2, 3, 4, 5]])
    found = shuffled(bound, matrix, orders)
    for order, value in zip(orders, found, strict=True):
        assert float(value) == pytest.approx(public(bound, matrix[:, order]), rel=1e-9)
    assert math.isfinite(float(found[0]))

"""Coordinates of rows: orthonormal, invertible, and standardised by the fitted rows only."""

import numpy as np
import pytest
import torch

from mirror_analysis.probing.span import moments, span


def drawn(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(3.0, 2.0, shape))


def standardised(x):
    return (x - x.mean(dim=0)) / x.std(dim=0, correction=0)


@pytest.mark.parametrize(("rows", "features"), [(30, 7), (12, 40)], ids=["tall", "wide"])
def test_span_is_an_exact_change_of_coordinates(rows, features):
    x = drawn(1, rows, features)
    found = span(x, torch.ones(1, rows, dtype=torch.bool))
    z = standardised(x[0])
    rebuilt = (found.rows[0, :, :-1] * found.scale[0, :-1]) @ found.axes[0].T
    torch.testing.assert_close(rebuilt, z)
    lengths = found.rows[0].square().sum(dim=0)
    whole = lengths > 0.5
    inner = found.rows[0][:, whole]
    torch.testing.assert_close(inner.T @ inner, torch.eye(int(whole.sum()), dtype=x.dtype))
    assert int(whole.sum()) == min(rows - 1, features) + 1
    torch.testing.assert_close(found.place(x)[:, :, whole], found.rows[:, :, whole])


def test_maps_are_the_same_in_either_coordinates():
    x, other = drawn(1, 30, 7), drawn(1, 5, 7, seed=1)
    found = span(x, torch.ones(1, 30, dtype=torch.bool))
    v = drawn(1, 8, 3, seed=2)
    w, b = found.weights(v)
    torch.testing.assert_close(found.place(other) @ v, other @ w + b[:, None])
    torch.testing.assert_close(found.coordinates(w, b), v)
    z_weights = w[0] * x[0].std(dim=0, correction=0)[:, None]
    penalty = (found.curb[0][:, None] * v[0].square()).sum()
    torch.testing.assert_close(penalty, z_weights.square().sum())


def test_padding_changes_nothing():
    x = drawn(1, 30, 7)
    alone = span(x, torch.ones(1, 30, dtype=torch.bool))
    padded = torch.cat([x, torch.full((1, 4, 7), 1e3, dtype=x.dtype)], dim=1)
    there = torch.arange(34)[None] < 30
    found = span(padded, there)
    torch.testing.assert_close(found.mean, alone.mean)
    torch.testing.assert_close(found.spread, alone.spread)
    assert found.rows[0, 30:].abs().max() == 0
    torch.testing.assert_close(found.scale, alone.scale)


@pytest.mark.parametrize("value", [0.0, 7.3, 1e6])
def test_a_feature_that_is_constant_up_to_rounding_vanishes(value):
    x = drawn(1, 30, 3)
    x[0, :, 1] = value
    x[0, 0, 1] *= 1 + 1e-8
    found = span(x, torch.ones(1, 30, dtype=torch.bool))
    assert found.spread[0].isinf().tolist() == [False, True, False]
    other = x.clone()
    other[0, :, 1] += 5.0
    torch.testing.assert_close(found.place(other), found.rows)


def test_moments_are_of_the_rows_that_are_there():
    x = drawn(2, 10, 4)
    there = torch.ones(2, 10, dtype=torch.bool)
    there[1, 6:] = False
    mean, spread = moments(x, there)
    torch.testing.assert_close(mean[1], x[1, :6].mean(dim=0))
    torch.testing.assert_close(spread[1], x[1, :6].std(dim=0, correction=0))

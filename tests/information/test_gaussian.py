import math

import numpy as np
import oracles_information as slow
import pytest
import torch
from sklearn.covariance import ledoit_wolf, oas

from mirror_analysis.errors import DegenerateError, DeviceError, ShapeError, UnknownNameError
from mirror_analysis.information import TASKS, gaussian_mi, gaussian_mi_bias


def pair(n, d=3, e=2, seed=0, strength=0.7):
    g = np.random.default_rng(seed)
    x = g.standard_normal((n, d)) @ g.standard_normal((d, d))
    return x, strength * x[:, :1] + g.standard_normal((n, e))


def test_equals_the_slow_formula():
    x, y = pair(60)
    plain = slow.gaussian_mi(x, y)
    assert gaussian_mi(x, y, correct=False) == pytest.approx(plain, abs=1e-12)
    expected = plain - slow.gaussian_mi_bias(60, 3, 2)
    assert gaussian_mi(x, y) == pytest.approx(expected, abs=1e-12)
    assert gaussian_mi(y, x) == pytest.approx(expected, abs=1e-12)
    assert gaussian_mi(torch.tensor(x), torch.tensor(y)) == gaussian_mi(x, y)


@pytest.mark.parametrize(("d", "e", "n"), [(3, 2, 12), (5, 5, 30), (4, 4, 11)])
def test_is_unbiased_even_with_few_samples(d, e, n):
    covariance = np.eye(d + e)
    covariance[0, d] = covariance[d, 0] = 0.8
    exact, factor = -0.5 * math.log(1 - 0.64), np.linalg.cholesky(covariance)
    g = np.random.default_rng(d)
    values = []
    for _ in range(200):
        both = g.standard_normal((n, d + e)) @ factor.T
        values.append(gaussian_mi(both[:, :d], both[:, d:]))
    error = np.std(values) / math.sqrt(len(values))
    assert np.mean(values) == pytest.approx(exact, abs=3.5 * error)
    # The correction is many standard errors large, so leaving it out would be seen.
    assert gaussian_mi_bias(n, d, e) > 5 * error


def test_the_excess_is_near_its_first_order():
    assert gaussian_mi_bias(5000, 25, 25) == pytest.approx(25 * 25 / 10000, rel=0.02)
    assert gaussian_mi_bias(40, 3, 5) == pytest.approx(slow.gaussian_mi_bias(40, 3, 5), abs=1e-12)


@pytest.mark.parametrize(
    "name", ["normal-bivariate-0.75", "normal-dense-5x5-0.5", "normal-sparse-25x25-2-pairs-0.8"]
)
def test_finds_the_information_of_known_tasks(name):
    values = [gaussian_mi(*TASKS[name].sample(5000, seed)) for seed in range(3)]
    assert np.mean(values) == pytest.approx(TASKS[name].exact, abs=0.03)


def test_invariant_to_affine_maps_and_not_to_others():
    x, y = pair(200)
    g = np.random.default_rng(1)
    mapped = x @ g.standard_normal((3, 3)) * 1e6 + 1e6
    assert gaussian_mi(mapped, y) == pytest.approx(gaussian_mi(x, y), abs=1e-7)
    assert abs(gaussian_mi(x**3, y) - gaussian_mi(x, y)) > 0.01
    # A constant feature carries nothing and does not stand in the way.
    with_constant = np.hstack([x, np.full((200, 1), 7.0)])
    assert gaussian_mi(with_constant, y) == pytest.approx(gaussian_mi(x, y), abs=1e-12)


def test_unrelated_data_average_to_0():
    g = np.random.default_rng(3)
    for settings in ({}, {"shrinkage": "oas", "draws": 20}, {"components": 3}):
        values = [
            gaussian_mi(g.standard_normal((40, 8)), g.standard_normal((40, 6)), **settings)
            for _ in range(24)
        ]
        assert abs(np.mean(values)) < 4 * np.std(values) / math.sqrt(24)


@pytest.mark.parametrize(("shrinkage", "public"), [("ledoit_wolf", ledoit_wolf), ("oas", oas)])
def test_shrinkage_equals_the_public_implementation(shrinkage, public):
    x, y = pair(50, 4, 6)
    both = np.hstack([x, y])
    both = (both - both.mean(axis=0)) / both.std(axis=0)
    covariance, _ = public(both, assume_centered=True)
    logs = [np.linalg.slogdet(c)[1] for c in (covariance[:4, :4], covariance[4:, 4:], covariance)]
    found = gaussian_mi(x, y, shrinkage=shrinkage, correct=False)
    assert found == pytest.approx((logs[0] + logs[1] - logs[2]) / 2, abs=1e-10)


def test_shrinkage_lets_features_outnumber_samples():
    g = np.random.default_rng(0)
    z = g.standard_normal((60, 3))
    x = z @ g.standard_normal((3, 80)) + g.standard_normal((60, 80))
    y = z @ g.standard_normal((3, 70)) + g.standard_normal((60, 70))
    related = gaussian_mi(x, y, shrinkage="ledoit_wolf", draws=20)
    unrelated = gaussian_mi(x, y[::-1], shrinkage="ledoit_wolf", draws=20)
    assert related > 1 > 0.5 > abs(unrelated)
    again = gaussian_mi(x, y, shrinkage="ledoit_wolf", draws=20)
    assert again == related
    assert gaussian_mi(x, y, components=3) > 1
    assert gaussian_mi(x, y, components=60 - 1 - 40) > 0  # 19 + 19 of 60


def test_components_are_the_principal_ones():
    x, y = pair(80, 4, 4)
    scaled = [(v - v.mean(axis=0)) / v.std(axis=0) for v in (x, y)]
    scores = [v @ np.linalg.svd(v)[2][:2].T for v in scaled]
    found = gaussian_mi(x, y, components=2)
    assert found == pytest.approx(gaussian_mi(*scores), abs=1e-10)
    assert gaussian_mi(x, y, components=4) == pytest.approx(gaussian_mi(x, y), abs=1e-10)


def test_offsets_and_half_precision():
    x, y = pair(300)
    assert gaussian_mi(x + 1e5, y - 1e5) == pytest.approx(gaussian_mi(x, y), abs=1e-8)
    half = gaussian_mi(x.astype(np.float16), torch.tensor(y).half())
    assert half == pytest.approx(gaussian_mi(x, y), abs=1e-2)


def test_says_what_is_wrong():
    x, y = pair(30)
    with pytest.raises(DegenerateError, match=r"got 6 samples of 3 \+ 2 features; needed at least"):
        gaussian_mi(x[:6], y[:6])
    with pytest.raises(UnknownNameError, match="unknown shrinkage 'oass'; did you mean 'oas'"):
        gaussian_mi(x, y, shrinkage="oass")
    with pytest.raises(DegenerateError, match="components is 9 but x has 30 samples of 3 features"):
        gaussian_mi(x, y, components=9)
    with pytest.raises(DegenerateError, match="got draws 0; needed at least 1"):
        gaussian_mi(x, y, shrinkage="oas", draws=0)
    with pytest.raises(DegenerateError, match="features of x depend linearly on one another"):
        gaussian_mi(np.hstack([x, x[:, :1] + x[:, 1:2]]), y)
    with pytest.raises(DegenerateError, match="determine one another exactly in some direction"):
        gaussian_mi(x, x[:, :2])
    with pytest.raises(
        DegenerateError, match="excess of 5 samples of 3 \\+ 2 features is infinite"
    ):
        gaussian_mi_bias(5, 3, 2)


def test_says_what_is_wrong_with_the_input():
    x, y = pair(30)
    with pytest.raises(ShapeError, match="x has 30 samples but y has 29"):
        gaussian_mi(x, y[:29])
    with pytest.raises(ShapeError, match=r"y has shape \(30, 2, 1\); needed \[sample, feature\]"):
        gaussian_mi(x, y[:, :, None])
    with pytest.raises(ShapeError, match="x is of type complex128; needed real numbers"):
        gaussian_mi(x + 0j, y)
    with pytest.raises(ShapeError, match=r"y is of type torch.complex128; needed real numbers"):
        gaussian_mi(x, torch.tensor(y + 0j))
    with pytest.raises(DegenerateError, match="y is constant over its 30 samples"):
        gaussian_mi(x, np.full((30, 2), 0.1))
    bad = x.copy()
    bad[[3, 4], 0] = np.inf, np.nan
    with pytest.raises(DegenerateError, match="x holds NaN or infinity in 2 of 30 rows"):
        gaussian_mi(bad, y)
    with pytest.raises(DeviceError, match="x is on cpu but y on meta; move one"):
        paired_on_two_devices(x, y)


def paired_on_two_devices(x, y):
    from unittest import mock

    from mirror_analysis import matrices
    from mirror_analysis.information.inputs import paired_rows

    there = torch.empty(y.shape, dtype=torch.float64, device="meta")
    with mock.patch.object(matrices, "as_matrix", side_effect=[torch.tensor(x), there]):
        paired_rows(x, y)


@pytest.mark.gpu
def test_agrees_between_devices():
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    x, y = (torch.tensor(v) for v in pair(500))
    for settings in ({}, {"shrinkage": "ledoit_wolf", "draws": 5}, {"components": 2}):
        there = gaussian_mi(x.cuda(), y.cuda(), **settings)
        assert there == pytest.approx(gaussian_mi(x, y, **settings), rel=1e-6)

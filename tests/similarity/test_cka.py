import math
from collections.abc import Callable

import numpy as np
import oracles
import oracles_pairs
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mirror_analysis import matrices
from mirror_analysis.errors import DegenerateError, DeviceError, ShapeError
from mirror_analysis.similarity import linear_cka
from mirror_analysis.similarity.cka import (
    RBFCKA,
    RV,
    LinearCKA,
    PolynomialCKA,
    cka_angular_distance,
    polynomial_cka,
    rbf_cka,
    rv,
)
from mirror_analysis.similarity.measures import Layer
from mirror_analysis.testing import check_measure

FUNCTIONS: dict[str, Callable[..., float]] = {
    "linear": linear_cka,
    "rbf": rbf_cka,
    "polynomial": polynomial_cka,
    "biased": lambda x, y: linear_cka(x, y, debiased=False),
    "rv": rv,
}


def random_pair(seed, n=20, d=7, e=5):
    g = np.random.default_rng(seed)
    x = g.standard_normal((n, d))
    return x, x @ g.standard_normal((d, e)) + g.standard_normal((n, e))


@pytest.mark.parametrize("debiased", [True, False])
@pytest.mark.parametrize("shape", [(20, 7, 5), (9, 30, 12), (12, 2, 40)])
def test_equals_the_textbook_formula(debiased, shape):
    x, y = random_pair(3, *shape)
    expected = oracles.linear_cka(x, y, debiased=debiased)
    assert linear_cka(x, y, debiased=debiased) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("debiased", [True, False])
@pytest.mark.parametrize("shape", [(20, 7, 5), (9, 30, 12), (12, 2, 40), (7, 3, 3)])
@pytest.mark.parametrize("fraction", [0.3, 0.5, 2.0])
def test_rbf_equals_the_textbook_formula(debiased, shape, fraction):
    x, y = random_pair(8, *shape)
    k, m = (oracles_pairs.rbf_kernel(z, fraction) for z in (x, y))
    expected = oracles_pairs.kernel_cka(k, m, debiased=debiased)
    found = rbf_cka(x + 3, y - 7, median_fraction=fraction, debiased=debiased)
    assert found == pytest.approx(expected, abs=1e-11)


@pytest.mark.parametrize("debiased", [True, False])
@pytest.mark.parametrize("shape", [(20, 7, 5), (9, 30, 12)])
@pytest.mark.parametrize(("degree", "constant"), [(3, 1.0), (2, 0.0), (5, 0.25)])
def test_polynomial_equals_the_textbook_formula(debiased, shape, degree, constant):
    x, y = random_pair(9, *shape)
    k, m = (oracles_pairs.polynomial_kernel(z, degree, constant) for z in (x, y))
    expected = oracles_pairs.kernel_cka(k, m, debiased=debiased)
    found = polynomial_cka(x, y, degree=degree, constant=constant, debiased=debiased)
    assert found == pytest.approx(expected, abs=1e-11)


@pytest.mark.parametrize("shape", [(20, 7, 5), (9, 30, 12)])
def test_rv_is_of_covariances_and_the_angle_is_of_cka(shape):
    x, y = random_pair(10, *shape)
    assert rv(x, y) == pytest.approx(oracles_pairs.rv_coefficient(x, y), abs=1e-12)
    assert rv(x, y) == pytest.approx(linear_cka(x, y, debiased=False), abs=1e-12)
    angle = math.acos(oracles.linear_cka(x, y, debiased=False))
    assert cka_angular_distance(x, y) == pytest.approx(angle, abs=1e-9)
    debiased = math.acos(oracles.linear_cka(x, y, debiased=True))
    assert cka_angular_distance(x, y, debiased=True) == pytest.approx(debiased, abs=1e-9)
    assert cka_angular_distance(x, x, debiased=True) == pytest.approx(0, abs=1e-6)


@given(seed=st.integers(0, 10**6))
@settings(deadline=None, max_examples=15)
def test_the_biased_angle_is_a_metric(seed):
    g = np.random.default_rng(seed)
    x, y, z = (g.standard_normal((6, d)) for d in (1, 3, 8))
    direct = cka_angular_distance(x, z)
    assert direct <= cka_angular_distance(x, y) + cka_angular_distance(y, z) + 1e-9
    assert cka_angular_distance(z, x) == pytest.approx(direct, abs=1e-9)


def test_a_polynomial_of_degree_1_and_a_wide_kernel_are_linear():
    x, y = random_pair(11)
    assert polynomial_cka(x, y, degree=1) == pytest.approx(linear_cka(x, y), abs=1e-12)
    assert rbf_cka(x, y, median_fraction=1000) == pytest.approx(linear_cka(x, y), abs=1e-5)


def test_hsic_formula_is_the_mean_over_quadruples():
    x, y = random_pair(1, n=7)
    k, m = x @ x.T, y @ y.T
    assert oracles.hsic_u(k, m) == pytest.approx(oracles.hsic_u_by_quadruples(k, m))


@pytest.mark.parametrize(
    ("n", "biased", "unbiased"), [(1000, 0.75178788, 0.70736637), (5000, 0.71196829, 0.70175235)]
)
def test_reproduces_published_implementations(n, biased, unbiased):
    x, y = oracles.pair(n)
    assert linear_cka(x, y, debiased=False) == pytest.approx(biased, abs=1e-8)
    assert linear_cka(x, y) == pytest.approx(unbiased, abs=1e-8)


def test_reproduces_the_notebook_of_kornblith():
    g = np.random.RandomState(1337)
    x = g.randn(100, 10)
    y = g.randn(100, 10) + x
    assert linear_cka(x, y, debiased=False) == pytest.approx(0.55761, abs=1e-5)
    assert linear_cka(x, y) == pytest.approx(0.51346, abs=1e-5)
    assert rbf_cka(x, y, debiased=False) == pytest.approx(0.65483, abs=1e-5)


@pytest.mark.parametrize(("fraction", "published"), [(1.0, 0.7753), (0.5, 0.8937)])
def test_reproduces_published_radial_kernels(fraction, published):
    found = rbf_cka(*oracles.pair(1000), median_fraction=fraction, debiased=False)
    assert found == pytest.approx(published, abs=5e-5)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("offset", [10, 100, 1000])
def test_a_common_offset_changes_nothing(offset, name):
    x, y = oracles.pair(300, d=96, e=64)
    f = FUNCTIONS[name]
    before = f(x, y)
    assert f(x.astype(np.float64) + offset, y) == pytest.approx(before, abs=1e-10)
    moved = (x.astype(np.float64) + offset).astype(np.float32)
    assert f(moved, y) == pytest.approx(before, abs=1e-6)


@pytest.mark.parametrize("name", FUNCTIONS)
@given(seed=st.integers(0, 10**6), scale=st.floats(1e-6, 1e6), offset=st.floats(-1e3, 1e3))
@settings(deadline=None, max_examples=15)
def test_invariant_to_rotation_scale_shift_and_exchange(name, seed, scale, offset):
    f = FUNCTIONS[name]
    x, y = random_pair(seed)
    rotation = np.linalg.qr(np.random.default_rng(seed + 1).standard_normal((7, 7)))[0]
    before = f(x, y)
    assert f(x @ rotation * scale + offset * scale, y) == pytest.approx(before, abs=1e-8)
    assert f(y, x) == pytest.approx(before, abs=1e-12)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_tells_apart_what_a_linear_map_distorts(name):
    f = FUNCTIONS[name]
    x, y = random_pair(0, n=200)
    stretched = x * np.array([30, 1, 1, 1, 1, 1, 1])
    assert abs(f(stretched, y) - f(x, y)) > 0.05


@pytest.mark.parametrize("measure", [LinearCKA(False), RBFCKA(), PolynomialCKA(), RV()])
def test_holds_what_it_declares(measure):
    check_measure(measure)


def test_radial_kernels_see_what_linear_ones_do_not():
    g = np.random.default_rng(1)
    angle = g.uniform(0, 2 * np.pi, 300)
    x = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    y = np.stack([np.cos(2 * angle), np.sin(2 * angle)], axis=1)
    assert abs(linear_cka(x, y)) < 0.02
    assert rbf_cka(x, y) > 0.1


def test_unrelated_wide_layers_score_zero_debiased_and_high_biased():
    g = np.random.default_rng(0)
    pairs = [(g.standard_normal((64, 768)), g.standard_normal((64, 512))) for _ in range(20)]
    assert np.mean([linear_cka(a, b) for a, b in pairs]) == pytest.approx(0, abs=0.01)
    biased = np.mean([linear_cka(a, b, debiased=False) for a, b in pairs])
    assert biased == pytest.approx(1 / np.sqrt((1 + 64 / 768) * (1 + 64 / 512)), abs=0.01)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("scale", [1e-160, 1e-3, 1e150])
def test_size_of_the_features_is_no_matter(scale, name):
    x, y = random_pair(2)
    f = FUNCTIONS[name]
    assert f(x * scale, y) == pytest.approx(f(x, y), abs=1e-11)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_takes_any_precision_of_numpy_and_torch(kind):
    x, y = random_pair(4)
    a = torch.tensor(x, requires_grad=True).to(kind)
    value = linear_cka(a, y)
    assert type(value) is float
    assert value == pytest.approx(linear_cka(a.detach().double().numpy(), y), abs=1e-12)
    assert value == pytest.approx(linear_cka(x, y), abs=2e-2)


@pytest.mark.parametrize("debiased", [True, False])
def test_grid_form_equals_the_function_and_permutes_rows_of_y(debiased):
    x, y = random_pair(5)
    measure = LinearCKA(debiased)
    a, b, c = (measure.prepare(Layer("l", torch.tensor(z))) for z in (x, y, y[:, :2]))
    values = measure.values([a], [b, c])[0]
    assert float(values[0]) == pytest.approx(linear_cka(x, y, debiased=debiased), abs=1e-12)
    assert float(values[1]) == pytest.approx(linear_cka(x, y[:, :2], debiased=debiased), abs=1e-12)
    order = np.random.default_rng(0).permutation(20)
    null = measure.null([a], [b, c], torch.tensor(order)[None])
    assert null.shape == (1, 1, 2)
    expected = linear_cka(x, y[order], debiased=debiased)
    assert float(null[0, 0, 0]) == pytest.approx(expected, abs=1e-12)


def test_says_what_is_wrong():
    x, y = random_pair(6)
    with pytest.raises(ShapeError, match=r"x has 20 samples but y has 19; pair\(\) them first"):
        linear_cka(x, y[:19])
    with pytest.raises(ShapeError, match=r"y has shape \(20, 5, 1\); needed \[sample, feature\]"):
        linear_cka(x, y[..., None])
    with pytest.raises(DegenerateError, match="got 3 samples; needed at least 4"):
        linear_cka(x[:3], y[:3])
    with pytest.raises(DegenerateError, match="linear_cka got 2 samples; needed at least 3"):
        linear_cka(x[:2], y[:2], debiased=False)
    with pytest.raises(DegenerateError, match="rv got 2 samples; needed at least 3"):
        rv(x[:2], y[:2])
    with pytest.raises(DegenerateError, match="rbf_cka got 3 samples; needed at least 4"):
        rbf_cka(x[:3], y[:3])
    with pytest.raises(DegenerateError, match="polynomial_cka got 3 samples; needed at least 4"):
        polynomial_cka(x[:3], y[:3])
    for wrong in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(DegenerateError, match=f"got median_fraction {wrong}; needed a number"):
            rbf_cka(x, y, median_fraction=wrong)
    with pytest.raises(DegenerateError, match=r"got degree 0 and constant 1.0; needed a whole deg"):
        polynomial_cka(x, y, degree=0)
    with pytest.raises(DegenerateError, match=r"got degree 3 and constant -1.0; needed a who"):
        polynomial_cka(x, y, constant=-1.0)
    far = x * np.r_[1e6, np.ones(19)][:, None]
    with pytest.raises(DegenerateError, match=r"x has products of samples that are too large for"):
        polynomial_cka(far, y, degree=200, debiased=False)
    with pytest.raises(DegenerateError, match=r"x has a median distance of 0 .half of all p"):
        rbf_cka(np.r_[x[:1].repeat(19, 0), x[:1] + 1], y)
    with pytest.raises(DegenerateError, match="y is constant over its 20 samples"):
        linear_cka(x, np.full((20, 3), 123.456))  # its mean is off by rounding
    broken = x.copy()
    broken[3, 0], broken[4, 1] = np.nan, np.inf
    with pytest.raises(DegenerateError, match="x holds NaN or infinity in 2 of 20 rows"):
        linear_cka(broken, y)
    with pytest.raises(DegenerateError, match="no debiased spread"):
        linear_cka(np.eye(20), y)


def test_two_devices_are_refused(monkeypatch):
    # No second device is at hand, so a tensor without data stands in for one.
    original = matrices.as_matrix

    def as_matrix(values, *, name, dtype=None):
        return original(values, name=name, dtype=dtype).to("meta" if name == "x" else "cpu")

    monkeypatch.setattr(matrices, "as_matrix", as_matrix)
    x, y = random_pair(6)
    with pytest.raises(DeviceError, match="x is on meta but y on cpu; move one"):
        linear_cka(x, y)

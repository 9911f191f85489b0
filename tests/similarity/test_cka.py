import numpy as np
import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mirror_analysis.errors import DegenerateError, DeviceError, ShapeError
from mirror_analysis.similarity import linear_cka, preparation
from mirror_analysis.similarity.cka import LinearCKA
from mirror_analysis.similarity.measures import Layer


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


@pytest.mark.parametrize("offset", [10, 100, 1000])
def test_a_common_offset_changes_nothing(offset):
    x, y = oracles.pair(300, d=96, e=64)
    moved = (x.astype(np.float64) + offset).astype(np.float32)
    assert linear_cka(moved, y) == pytest.approx(linear_cka(x, y), abs=1e-6)


@given(seed=st.integers(0, 10**6), scale=st.floats(1e-6, 1e6), offset=st.floats(-1e3, 1e3))
@settings(deadline=None, max_examples=20)
def test_invariant_to_rotation_scale_shift_and_exchange(seed, scale, offset):
    x, y = random_pair(seed)
    rotation = np.linalg.qr(np.random.default_rng(seed + 1).standard_normal((7, 7)))[0]
    before = linear_cka(x, y)
    assert linear_cka(x @ rotation * scale + offset * scale, y) == pytest.approx(before, abs=1e-9)
    assert linear_cka(y, x) == pytest.approx(before, abs=1e-12)


def test_tells_apart_what_a_linear_map_distorts():
    x, y = random_pair(0, n=200)
    stretched = x * np.array([30, 1, 1, 1, 1, 1, 1])
    assert abs(linear_cka(stretched, y) - linear_cka(x, y)) > 0.05


def test_unrelated_wide_layers_score_zero_debiased_and_high_biased():
    g = np.random.default_rng(0)
    pairs = [(g.standard_normal((64, 768)), g.standard_normal((64, 512))) for _ in range(20)]
    assert np.mean([linear_cka(a, b) for a, b in pairs]) == pytest.approx(0, abs=0.01)
    biased = np.mean([linear_cka(a, b, debiased=False) for a, b in pairs])
    assert biased == pytest.approx(1 / np.sqrt((1 + 64 / 768) * (1 + 64 / 512)), abs=0.01)


@pytest.mark.parametrize("scale", [1e-160, 1e-3, 1e150])
def test_size_of_the_features_is_no_matter(scale):
    x, y = random_pair(2)
    assert linear_cka(x * scale, y) == pytest.approx(linear_cka(x, y), abs=1e-12)


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
    with pytest.raises(DegenerateError, match="got 1 samples; needed at least 2"):
        linear_cka(x[:1], y[:1], debiased=False)
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
    original = preparation.as_matrix

    def as_matrix(values, *, name):
        return original(values, name=name).to("meta" if name == "x" else "cpu")

    monkeypatch.setattr(preparation, "as_matrix", as_matrix)
    x, y = random_pair(6)
    with pytest.raises(DeviceError, match="x is on meta but y on cpu; move one"):
        linear_cka(x, y)

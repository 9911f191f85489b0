import numpy as np
import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mirror_analysis.errors import DegenerateError, ShapeError
from mirror_analysis.similarity import svcca
from mirror_analysis.similarity.cca import SVCCA, principal_basis
from mirror_analysis.similarity.measures import Layer


def random_pair(seed, n=40, d=7, e=5):
    g = np.random.default_rng(seed)
    x = g.standard_normal((n, d)) * np.linspace(3, 0.1, d)
    return x, x[:, :e] @ g.standard_normal((e, e)) + 2 * g.standard_normal((n, e))


@pytest.mark.parametrize("variance", [0.5, 0.9, 0.99, 1.0])
@pytest.mark.parametrize("shape", [(40, 7, 5), (40, 5, 7), (60, 5, 5)])
def test_equals_the_textbook_formula(variance, shape):
    g = np.random.default_rng(0)
    x = g.standard_normal((shape[0], shape[1])) * np.linspace(3, 0.1, shape[1])
    y = x @ g.standard_normal(shape[1:]) + 2 * g.standard_normal((shape[0], shape[2]))
    # At 1.0 rounding may leave the textbook's last share just under 1.
    expected = oracles.svcca(x, y, min(variance, 1 - 1e-12))
    assert svcca(x, y, variance=variance) == pytest.approx(expected, abs=1e-8)


def test_reproduces_published_implementations():
    x, y = oracles.pair(1000)
    assert svcca(x, y) == pytest.approx(0.76407213, abs=1e-8)
    centred = [torch.tensor(z).double() - torch.tensor(z).double().mean(0) for z in (x, y)]
    assert [principal_basis(z, 0.99).shape[1] for z in centred] == [616, 452]


def test_all_variance_is_plain_cca_and_ill_conditioned_layers_are_exact():
    g = np.random.default_rng(1)
    x = g.standard_normal((50, 4))
    rotation = np.linalg.qr(g.standard_normal((4, 4)))[0]
    stretched = x @ np.diag([1, 1e-3, 1e-5, 1e-7]) @ rotation
    y = x @ g.standard_normal((4, 3)) + g.standard_normal((50, 3))
    assert svcca(stretched, y, variance=1.0) == pytest.approx(svcca(x, y, variance=1.0), abs=1e-7)
    doubled = x @ g.standard_normal((4, 9))  # of rank 4
    for side in (y, g.standard_normal((50, 12))):
        expected = svcca(x, side, variance=1.0)
        assert svcca(doubled, side, variance=1.0) == pytest.approx(expected, abs=1e-9)


def test_more_components_than_samples_give_ones_whatever_the_data():
    g = np.random.default_rng(2)
    x, y = g.standard_normal((30, 40)), g.standard_normal((30, 40))
    assert svcca(x, y, variance=1.0) == pytest.approx(1, abs=1e-9)


@given(seed=st.integers(0, 10**6), scale=st.floats(1e-6, 1e6), offset=st.floats(-1e3, 1e3))
@settings(deadline=None, max_examples=20)
def test_invariant_to_rotation_scale_shift_and_exchange(seed, scale, offset):
    x, y = random_pair(seed)
    rotation = np.linalg.qr(np.random.default_rng(seed + 1).standard_normal((7, 7)))[0]
    moved = x @ rotation * scale + offset * scale
    assert svcca(moved, y, variance=0.9) == pytest.approx(svcca(x, y, variance=0.9), abs=1e-7)
    assert svcca(y, x) == pytest.approx(svcca(x, y), abs=1e-9)


def test_a_stretched_feature_changes_which_components_are_kept():
    x, y = random_pair(3, n=200)
    stretched = x.copy()
    stretched[:, -1] *= 1000
    assert svcca(stretched, y) < svcca(x, y) - 0.1


def test_grid_form_equals_the_function_and_permutes_rows_of_y():
    x, y = random_pair(4)
    measure = SVCCA(0.9)
    a, b, c = (measure.prepare(Layer("l", torch.tensor(z))) for z in (x, y, y[:, :2]))
    order = np.random.default_rng(0).permutation(40)
    null = measure.null([b, a], [b, c, a], torch.tensor(np.stack([np.arange(40), order])))
    assert null.shape == (2, 2, 3)
    assert float(null[0, 1, 1]) == pytest.approx(svcca(x, y[:, :2], variance=0.9), abs=1e-12)
    assert float(null[1, 1, 0]) == pytest.approx(svcca(x, y[order], variance=0.9), abs=1e-12)
    assert float(null[1, 0, 2]) == pytest.approx(svcca(y, x[order], variance=0.9), abs=1e-12)


def test_says_what_is_wrong():
    x, y = random_pair(5)
    with pytest.raises(DegenerateError, match=r"variance 1.5; needed a share in \(0, 1\]"):
        svcca(x, y, variance=1.5)
    with pytest.raises(DegenerateError, match="svcca got 2 samples; needed at least 3"):
        svcca(x[:2], y[:2])
    with pytest.raises(DegenerateError, match="x is constant over its 40 samples"):
        svcca(np.full((40, 2), 0.3), y)
    with pytest.raises(ShapeError, match="x has 40 samples but y has 39"):
        svcca(x, y[:39])

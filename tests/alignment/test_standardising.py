"""Features of a common size are those of numpy in float64, whatever their offset and dtype."""

import numpy as np
import pytest
import torch

from mirror_analysis.alignment.standardising import standardise
from mirror_analysis.errors import DegenerateError, ShapeError


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("rows", [2, 255, 700])
def test_as_numpy_in_float64(dtype, rows):
    rng = np.random.default_rng(rows)
    offset = 10.0 if dtype == "float16" else 1e4
    fit, held = ((offset + rng.normal(size=(n, 9)) * np.arange(1, 10)).astype(dtype)
                 for n in (rows, 5))  # fmt: skip
    side = standardise(fit, held, name="x")
    exact = fit.astype(np.float64)
    mean, scale = exact.mean(axis=0), exact.std(axis=0)
    assert side.mean.numpy() == pytest.approx(mean, rel=1e-12)
    assert side.scale.numpy() == pytest.approx(scale, rel=1e-9)
    assert side.fit.numpy() == pytest.approx((exact - mean) / scale, abs=2e-6)
    assert side.validation.numpy() == pytest.approx((held - mean) / scale, abs=1e-5)
    assert side.fit.dtype == side.validation.dtype == torch.float32


def test_a_constant_that_float64_cannot_average_is_constant():
    values = np.full((19_999, 3), 0.1)
    with pytest.raises(DegenerateError, match="layer is constant over its 19999 samples or not"):
        standardise(values, values[:4], name="layer")
    values[:, 1] += np.arange(19_999) % 2
    side = standardise(values, values[:4], name="layer")
    assert (
        side.scale[0] == side.scale[2] == pytest.approx(0.01 * 0.5 / 3)
    )  # a dead unit stays small
    assert abs(side.fit[:, 0]).max() < 1e-9


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["fit", "validation"])
def test_what_is_not_finite_is_refused(bad, where):
    parts = {"fit": np.random.default_rng(0).normal(size=(300, 4)), "validation": np.ones((3, 4))}
    parts[where][2, 1] = bad
    with pytest.raises(DegenerateError, match="constant over its 300 samples or not finite"):
        standardise(**parts, name="x")


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ShapeError, match=r"x has shape \(3, 4\) and its validation \(3, 5\)"):
        standardise(np.ones((3, 4)), np.ones((3, 5)), name="x")

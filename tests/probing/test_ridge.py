"""Ridge regression against scikit-learn, tall and wide."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from mirror_analysis.probing.ridge import ridge_path
from mirror_analysis.probing.span import span


@pytest.mark.parametrize(("rows", "features"), [(50, 8), (20, 60)], ids=["tall", "wide"])
def test_coefficients_are_those_of_scikit_learn(rows, features):
    rng = np.random.default_rng(0)
    x = rng.normal(2.0, 3.0, (rows, features))
    y = x[:, :3] @ rng.normal(size=(3, 2)) + rng.normal(4.0, 1.0, (rows, 2))
    basis = span(torch.from_numpy(x)[None], torch.ones(1, rows, dtype=torch.bool))
    strengths = (10.0, 1e-2, 1e-5)
    path = ridge_path(basis, torch.from_numpy(y)[None], torch.tensor([strengths]).double())
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    for number, strength in enumerate(strengths):
        oracle = Ridge(alpha=strength * rows, solver="svd").fit(z, y)
        w, b = basis.weights(path[:, number])
        np.testing.assert_allclose(
            (x @ w[0].numpy()) + b[0].numpy(), oracle.predict(z), rtol=1e-8, atol=1e-8
        )
        np.testing.assert_allclose(
            w[0].numpy() * x.std(axis=0)[:, None], oracle.coef_.T, rtol=1e-6, atol=1e-9
        )


def test_without_a_penalty_it_is_least_squares():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(30, 4)), rng.normal(size=(30, 1))
    basis = span(torch.from_numpy(x)[None], torch.ones(1, 30, dtype=torch.bool))
    v = ridge_path(basis, torch.from_numpy(y)[None], torch.zeros(1, 1).double())[0, 0]
    design = np.column_stack([x, np.ones(30)])
    fitted = design @ np.linalg.lstsq(design, y, rcond=None)[0]
    np.testing.assert_allclose((basis.rows[0] @ v).numpy(), fitted, atol=1e-12)

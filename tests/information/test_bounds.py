import math

import numpy as np
import oracles
import pytest
import torch

from mirror_analysis.errors import DegenerateError, ShapeError
from mirror_analysis.information import infonce, infonce_ceiling


@pytest.mark.parametrize("n", [2, 7])
def test_equals_the_textbook_formula_in_both_directions(n):
    logits = np.random.default_rng(n).standard_normal((n, n)) * 2
    assert infonce(logits) == pytest.approx(oracles.infonce(logits.tolist()), abs=1e-12)
    assert infonce(logits.T) == pytest.approx(infonce(logits), abs=1e-12)


def test_one_direction_alone_would_not_do():
    # Every row finds its partner, the first column misses it by 100 nats.
    logits = np.array([[0.0, -50.0], [100.0, 150.0]])
    assert infonce(logits) == pytest.approx(math.log(2) - 100 / 4, abs=1e-9)


def test_known_values():
    assert infonce(np.zeros((8, 8))) == pytest.approx(0, abs=1e-12)
    assert infonce(100 * np.eye(8)) == pytest.approx(math.log(8), abs=1e-12)
    assert infonce_ceiling(8) == pytest.approx(2.0794415)
    assert infonce(-100 * np.eye(8)) < -50


def test_a_bound_on_the_information_of_a_correlated_pair():
    # The optimal critic of a bivariate normal: the bound nears 0.413339 nats from below.
    rho, g = 0.75, np.random.default_rng(0)
    found = []
    for _ in range(20):
        x = g.standard_normal(200)
        y = rho * x + math.sqrt(1 - rho**2) * g.standard_normal(200)
        a, b = x[:, None], y[None, :]
        ratio = (2 * rho * a * b - rho**2 * (a**2 + b**2)) / (2 * (1 - rho**2))
        found.append(infonce(ratio))
    error = 3 * np.std(found) / np.sqrt(20)
    assert 0.413339 - 0.03 - error < np.mean(found) < 0.413339 + error


def test_invariant_to_a_common_offset_and_takes_half_precision():
    logits = np.random.default_rng(1).standard_normal((6, 6))
    assert infonce(logits + 1000) == pytest.approx(infonce(logits), abs=1e-9)
    half = torch.tensor(logits, requires_grad=True).half()
    assert infonce(half) == pytest.approx(infonce(logits), abs=1e-2)
    assert type(infonce(half)) is float


def test_says_what_is_wrong():
    with pytest.raises(ShapeError, match=r"shape \(3, 4\); needed \[batch, batch\]"):
        infonce(np.zeros((3, 4)))
    with pytest.raises(DegenerateError, match="got 1 pair; needed at least 2"):
        infonce(np.zeros((1, 1)))
    with pytest.raises(DegenerateError, match="got 0 pair; needed at least 2"):
        infonce_ceiling(0)
    with pytest.raises(DegenerateError, match="NaN or infinity; needed finite logits"):
        infonce(np.array([[0, -np.inf], [0, 0]]))

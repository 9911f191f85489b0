import itertools

import numpy as np
import pytest
import torch

from mirror_analysis.errors import DegenerateError
from mirror_analysis.similarity.neighbors.moments import shared_moments
from mirror_analysis.similarity.neighbors.nearest import nearest
from mirror_analysis.similarity.neighbors.sets import MutualKNN


@pytest.mark.parametrize("n", [4, 6, 7])
@pytest.mark.parametrize("ties", [False, True])
def test_equals_the_mean_and_variance_over_all_permutations(n, ties):
    g = np.random.default_rng(n)
    layers = [g.standard_normal((n, 3)) for _ in range(3)]
    if ties:
        layers[0][1] = layers[0][0]
        layers[1][-1] = 0
        layers[2] = np.eye(2)[np.arange(n) % 2]
    measure = MutualKNN(2)
    x, y = ([nearest(torch.tensor(v), 2) for v in part] for part in (layers[:2], layers[1:]))
    every = torch.tensor(list(itertools.permutations(range(n))))
    values = measure.null(x, y, every) * (n * 2)
    mean, variance = shared_moments(x, y)
    torch.testing.assert_close(mean, values.mean(dim=0), atol=1e-9, rtol=0)
    torch.testing.assert_close(variance, values.var(dim=0, correction=0), atol=1e-9, rtol=0)


def test_needs_four_samples():
    three = nearest(torch.eye(3), 1)
    with pytest.raises(DegenerateError, match="shared_moments got 3 samples; needed at least 4"):
        shared_moments([three], [three])

import numpy as np
import pytest

from mirror_analysis.errors import DegenerateError
from mirror_analysis.inference import p_max, p_value


def test_equals_the_definition_on_a_small_grid():
    observed = np.array([[3.0, 0.0], [0.5, 1.0]])
    null = np.random.default_rng(0).standard_normal((9, 2, 2))
    both = np.concatenate([observed[None], null])
    t = (both - both.mean(0)) / both.std(0)
    expected = [
        [(1 + sum(t[d].max() >= t[0, i, j] for d in range(1, 10))) / 10 for j in range(2)]
        for i in range(2)
    ]
    assert p_max(observed, null).tolist() == expected


def test_one_cell_is_the_plain_p_and_more_cells_never_make_it_smaller():
    g = np.random.default_rng(1)
    null = g.standard_normal((199, 6))
    observed = g.standard_normal(6) + 1
    assert p_max(observed[:1], null[:, :1]) == p_value(observed[:1], null[:, :1])
    assert (p_max(observed, null) >= p_value(observed, null)).all()


def test_cells_of_different_width_weigh_alike():
    g = np.random.default_rng(2)
    null = g.standard_normal((999, 2)) * [1.0, 100.0]
    # 5 sd out in the narrow cell; without studentising the wide one would swamp it.
    assert p_max([5.0, 0.0], null)[0] < 0.01


def test_family_wise_error_is_at_its_level_where_single_cells_are_far_above():
    g = np.random.default_rng(3)
    corrected, single = 0, 0
    for _ in range(600):
        draws = g.standard_normal((100, 20))  # exchangeable: the first is the observed grid
        corrected += p_max(draws[0], draws[1:]).min() <= 0.05
        single += p_value(draws[0], draws[1:]).min() <= 0.05
    assert 0.015 < corrected / 600 < 0.09  # 0.05 within 4 standard errors
    assert single / 600 > 0.5


def test_a_cell_that_never_varies_is_no_evidence():
    null = np.zeros((19, 2))
    null[:, 0] = np.arange(19)
    assert p_max([100.0, 0.0], null).tolist() == [0.05, 1.0]


def test_says_what_is_wrong():
    with pytest.raises(DegenerateError, match="p_max got 0 null draws"):
        p_max([1.0], np.empty((0, 1)))

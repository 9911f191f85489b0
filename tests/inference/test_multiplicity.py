import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mirror_analysis.errors import DegenerateError
from mirror_analysis.inference.multiplicity import q_values

P = st.lists(st.floats(0, 1) | st.just(0.25), min_size=1, max_size=30)


def slowly(p):
    """The least of m p' / (number of p not above p') over all p' not below the cell's p."""
    return [min(1.0, *(len(p) * b / sum(c <= b for c in p) for b in p if b >= a)) for a in p]


@given(p=P)
@settings(deadline=None, max_examples=30)
def test_equals_the_definition_and_scipy(p):
    q = q_values(p)
    assert np.allclose(q, slowly(p), rtol=1e-12, atol=0)
    assert np.allclose(q, stats.false_discovery_control(p), rtol=1e-12, atol=0)
    assert (q >= np.array(p) - 1e-15).all()


def test_cells_without_a_test_do_not_count_and_the_shape_stays():
    grid = np.array([[0.01, np.nan], [0.04, 0.03]])
    q = q_values(grid)
    assert np.isnan(q[0, 1])
    assert q[~np.isnan(grid)].tolist() == q_values([0.01, 0.04, 0.03]).tolist()
    assert np.isnan(q_values([np.nan, np.nan])).all()
    assert q_values(0.3).shape == ()


def test_false_discoveries_stay_at_their_rate():
    g = np.random.default_rng(0)
    shares = []
    for _ in range(800):
        z = g.standard_normal(50)
        z[:15] += 3
        found = q_values(stats.norm.sf(z)) <= 0.1
        shares.append(found[15:].sum() / max(1, found.sum()))
    # Expected 0.1 * 35 / 50; sd of the mean below 0.003.
    assert 0.06 < np.mean(shares) < 0.08


def test_says_what_is_wrong():
    with pytest.raises(DegenerateError, match=r"got p 1\.5; needed each p in \[0, 1\]"):
        q_values([0.1, 1.5])
    with pytest.raises(DegenerateError, match=r"got p -0\.1"):
        q_values([-0.1, np.nan])

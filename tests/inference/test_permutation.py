import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirror_analysis.errors import DegenerateError, ShapeError
from mirror_analysis.inference import p_value, permutations
from mirror_analysis.inference.permutation import circular_shifts


@given(seed=st.integers(0, 10**6), groups=st.integers(1, 4), size=st.integers(1, 3))
@settings(deadline=None, max_examples=20)
def test_moves_whole_units_in_order_inside_groups(seed, groups, size):
    g = np.random.default_rng(seed)
    count = 3 * groups
    unit = g.permutation(np.repeat(np.arange(count), size))  # rows of a unit lie apart
    within = unit % groups
    orders = permutations(unit, within=within, draws=5, seed=seed)
    assert orders.dtype == np.int64 and orders.shape == (5, len(unit))
    for order in orders:
        assert sorted(order) == list(range(len(unit)))
        assert (within[order] == within).all()
        for u in range(count):
            source = order[unit == u]
            assert len(set(unit[source])) == 1
            assert (np.diff(source) > 0).all()


def test_all_arrangements_are_equally_likely():
    orders = permutations([0, 1, 2], draws=6000, seed=3)
    _, counts = np.unique(orders, axis=0, return_counts=True)
    assert len(counts) == 6
    assert np.abs(counts - 1000).max() < 130  # 4.5 standard deviations


def test_same_labels_and_seed_same_orders():
    units, within = list("aabbccdd"), list("xxxxyyyy")
    first = permutations(units, within=within, draws=4, seed=1)
    assert (permutations(units, within=within, draws=4, seed=1) == first).all()
    assert (permutations(units, within=within, draws=4, seed=2) != first).any()


def test_a_group_of_one_stays_and_sizes_may_differ_between_groups():
    units, within = list("aabcd"), list("xxyyy")
    orders = permutations(units, within=within, draws=20, seed=0)
    assert (orders[:, :2] == [0, 1]).all()
    assert (orders[:, 2:] != [2, 3, 4]).any()


def test_p_value_counts_ties_against_the_finding():
    assert p_value(3.0, [1.0, 2.0, 4.0]) == 0.5
    assert p_value(3.0, [3.0 - 1e-13, 0.0, 0.0]) == 0.5
    assert p_value(5.0, np.zeros(999)) == 0.001
    assert p_value([1.0, 9.0], [[0.0, 9.5], [2.0, 0.0], [0.0, 0.0]]).tolist() == [0.5, 0.5]


def test_type_one_error_of_restricted_permutations_is_at_its_level():
    # Groups differ in mean on both sides; only within-group exchange holds its level.
    g = np.random.default_rng(0)
    group = np.repeat(np.arange(4), 6)
    restricted = permutations(np.arange(24), within=group, draws=99, seed=0)
    free = permutations(np.arange(24), draws=99, seed=0)
    inside, over_all = [], []
    for _ in range(1000):
        x, y = group + g.standard_normal(24), group + g.standard_normal(24)
        inside.append(p_value(x @ y, (x[None] * y[restricted]).sum(1)))
        over_all.append(p_value(x @ y, (x[None] * y[free]).sum(1)))
    rejected = np.mean(np.array(inside) <= 0.05)
    assert 0.02 < rejected < 0.08  # 0.05 within 4 standard errors of 1000 draws
    assert np.mean(np.array(over_all) <= 0.05) > 0.5


def test_says_what_is_wrong():
    with pytest.raises(ShapeError, match=r"units have shape \(2, 2\); needed one label per row"):
        permutations(np.zeros((2, 2)), draws=1)
    with pytest.raises(DegenerateError, match="3 rows are of 1 unit; needed at least 2"):
        permutations(["a", "a", "a"], draws=1)
    with pytest.raises(ShapeError, match=r"within has shape \(2,\) but units \(3,\)"):
        permutations(["a", "b", "c"], within=[0, 1], draws=1)
    with pytest.raises(DegenerateError, match="unit a has rows in groups 0 and 1; group by"):
        permutations(["a", "a", "b"], within=[0, 1, 1], draws=1)
    with pytest.raises(DegenerateError, match="each of the 2 groups has one unit only"):
        permutations(["a", "b"], within=[0, 1], draws=1)
    with pytest.raises(ShapeError, match="units have between 1 and 2 rows; needed equally many"):
        permutations(["a", "a", "b"], draws=1)
    with pytest.raises(ShapeError, match="units of group y have between 1 and 2 rows"):
        permutations(["a", "a", "b", "c", "c"], within=list("xxyyy"), draws=1)
    with pytest.raises(DegenerateError, match="p_value got 0 null draws"):
        p_value(1.0, [])


def neighbours_alike(g, units, steps, memory=0.9):
    """Stationary series, one per unit."""
    out = g.standard_normal((units, steps))
    for t in range(1, steps):
        out[:, t] = memory * out[:, t - 1] + (1 - memory**2) ** 0.5 * out[:, t]
    return out


@given(seed=st.integers(0, 10**6), least=st.integers(0, 2))
@settings(deadline=None, max_examples=20)
def test_shifts_rotate_each_unit_by_an_offset_of_its_own(seed, least):
    g = np.random.default_rng(seed)
    units = g.permutation(np.repeat([0, 1, 2], [5, 8, 4]))  # rows of a unit lie apart
    orders = circular_shifts(units, draws=200, seed=seed, least=least)
    assert orders.dtype == np.int64 and orders.shape == (200, 17)
    offsets = []
    for unit in range(3):
        rows = np.flatnonzero(units == unit)
        first = np.searchsorted(rows, orders[:, rows[0]])
        offsets.append(first)
        for order, offset in zip(orders, first, strict=True):
            assert (order[rows] == np.roll(rows, -offset)).all()
        allowed = set(range(least, len(rows) - max(least, 1) + 1))
        assert set(first) == allowed
    assert (offsets[0] != offsets[1]).any()


def test_all_offsets_are_equally_likely():
    orders = circular_shifts(list("aaaabbb"), draws=8000, seed=1, least=0)
    assert np.abs(np.bincount(orders[:, 0]) - 2000).max() < 180  # 4.6 standard deviations
    orders = circular_shifts(list("aaaabbb"), draws=8000, seed=1, least=1)
    assert np.abs(np.bincount(orders[:, 0])[1:] - 8000 / 3).max() < 190


def test_a_unit_of_one_row_stays_in_a_shift():
    orders = circular_shifts(list("abb"), draws=5, least=1)
    assert orders.tolist() == [[0, 2, 1]] * 5


def test_shifts_hold_their_level_on_series_whose_neighbours_are_alike():
    g = np.random.default_rng(0)
    units = np.repeat(np.arange(4), 60)
    shifts = circular_shifts(units, draws=99, seed=0, least=0)
    rows = permutations(np.arange(240), draws=99, seed=0)
    shifted, freely = [], []
    for _ in range(600):
        x, y = neighbours_alike(g, 4, 60).reshape(-1), neighbours_alike(g, 4, 60).reshape(-1)
        shifted.append(p_value(x @ y, y[shifts] @ x))
        freely.append(p_value(x @ y, y[rows] @ x))
    assert 0.02 < np.mean(np.array(shifted) <= 0.05) < 0.09
    assert np.mean(np.array(freely) <= 0.05) > 0.2


def test_shifts_see_what_moves_together_and_not_what_tells_episodes_apart():
    g = np.random.default_rng(1)
    units = np.repeat(np.arange(6), 40)
    shifts = circular_shifts(units, draws=199, seed=0, least=5)
    shared = neighbours_alike(g, 6, 40).reshape(-1)
    x, y = shared + g.standard_normal(240), shared + g.standard_normal(240)
    assert p_value(x @ y, y[shifts] @ x) == 0.005
    level = np.repeat(g.standard_normal(6), 40)
    assert p_value(level @ level, level[shifts] @ level) == 1


def test_shifts_say_what_is_wrong():
    with pytest.raises(DegenerateError, match="got least -1; needed 0 or more"):
        circular_shifts(list("aabb"), draws=1, least=-1)
    with pytest.raises(DegenerateError, match="each unit has one row only, so nothing can be"):
        circular_shifts(list("ab"), draws=1)
    with pytest.raises(DegenerateError, match="unit b has 3 rows; needed at least 4 to be rotated"):
        circular_shifts(list("aaaabbb"), draws=1, least=2)
    with pytest.raises(DegenerateError, match="4 rows are of 1 unit"):
        circular_shifts(list("aaaa"), draws=1)

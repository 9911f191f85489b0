import numpy as np
import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mirror_analysis.errors import DegenerateError, DeviceError, ShapeError
from mirror_analysis.matrices import as_matrix, as_pair
from mirror_analysis.similarity.preparation import need_rows, need_variation, residual


def values(seed=0, n=6, d=3):
    return np.random.default_rng(seed).standard_normal((n, d))


@pytest.mark.parametrize(
    ("given_", "kept"),
    [
        (np.float16, torch.float32),
        (np.float32, torch.float32),
        (np.float64, torch.float64),
        (np.longdouble, torch.float64),
        (np.int8, torch.float64),
        (np.uint16, torch.float64),
        (np.uint64, torch.float64),
        (bool, torch.float64),
        (">f4", torch.float32),
        (">f8", torch.float64),
        (">i2", torch.float64),
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.int32, torch.float64),
        (torch.bool, torch.float64),
        (torch.float64, torch.float64),
    ],
)
def test_any_real_type(given_, kept):
    numbers = np.arange(6).reshape(3, 2) % 2
    array = torch.tensor(numbers).to(given_) if isinstance(given_, torch.dtype) else None
    array = numbers.astype(given_) if array is None else array
    found = as_matrix(array)
    assert found.dtype == kept
    np.testing.assert_array_equal(found, numbers)
    assert as_matrix(array, dtype=torch.float64).dtype == torch.float64


def test_any_memory_layout():
    x = values()
    frozen = x.copy()
    frozen.flags.writeable = False
    wide = np.zeros((6, 9))
    wide[:, ::3] = x
    record = np.zeros(6, [("pad", "i1"), ("z", "f8", 3)])
    record["z"] = x
    for given_, expected in (
        (x[::-1], x[::-1]),
        (x[:, ::-1], x[:, ::-1]),
        (np.asfortranarray(x), x),
        (frozen, x),
        (wide[:, ::3], x),
        (x.T.copy().T, x),
        (torch.tensor(x).T.contiguous().T, x),
        (torch.tensor(x, requires_grad=True), x),
        (record["z"], x),
    ):
        found = as_matrix(given_)
        np.testing.assert_array_equal(found, expected)
        assert not found.requires_grad


def test_the_argument_is_left_as_it_is():
    x = torch.tensor(values())
    before = x.clone()
    residual(as_matrix(x))
    residual(as_matrix(x), torch.tensor([0, 0, 1, 1, 2, 2]))
    assert torch.equal(x, before)


@given(offset=st.floats(-1e6, 1e6), seed=st.integers(0, 10**6))
@settings(deadline=None, max_examples=15)
def test_means_are_taken_in_float64(offset, seed):
    x = torch.tensor(values(seed, 500) + offset).float()
    left = residual(x)
    expected = x.double() - x.double().mean(dim=0)
    assert left.dtype == torch.float32
    # Nothing but the rounding of the result itself is lost.
    torch.testing.assert_close(left.double(), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_means_of_groups(kind):
    x, groups = values(1, 10) + 7, [0, 2, 2, 1, 0, 1, 1, 2, 0, 3]
    found = residual(torch.tensor(x).to(kind), torch.tensor(groups))
    expected = oracles.group_residual(x, groups)
    np.testing.assert_allclose(found, expected, atol=1e-14 if kind == torch.float64 else 2e-6)
    assert found[9].abs().max() == 0


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_a_constant_column_leaves_exactly_nothing(kind):
    x = torch.tensor(values(2, 300)).to(kind)
    x[:, 1] = 123.456
    left = residual(x)
    assert left[:, 1].abs().max() == 0 and left[:, 0].abs().min() > 0
    groups = torch.arange(300) // 100
    x[:, 1] += 1000 * groups
    assert residual(x, groups)[:, 1].abs().max() == 0
    need_variation(left, name="x")
    with pytest.raises(DegenerateError, match=r"x is constant over its 300 samples \(inside every"):
        need_variation(residual(x[:, 1:2] * 0 + 0.1), name="x")


def test_a_small_column_is_kept_beside_its_offset():
    x = torch.tensor(values(3, 100)) * 1e-9 + 1
    assert residual(x).abs().max() > 1e-10


def test_pairs_are_in_float64():
    a, b = as_pair(values().astype(np.float32), torch.tensor(values(1)).bfloat16())
    assert a.dtype == b.dtype == torch.float64


def test_says_what_is_wrong():
    x = values()
    with pytest.raises(
        ShapeError, match=r"x has shape \(6,\); needed \[sample, feature\], so pool"
    ):
        as_matrix(x[:, 0])
    with pytest.raises(ShapeError, match=r"x has shape \(6, 0\); needed"):
        as_matrix(x[:, :0])
    for bad in (np.array([["a", "b"]]), x.astype(object), x + 1j):
        with pytest.raises(ShapeError, match=r"x is of type .*; needed real numbers"):
            as_matrix(bad)
    with pytest.raises(ShapeError, match=r"x is of type torch.complex128; needed real numbers"):
        as_matrix(torch.tensor(x + 1j))
    for bad in (np.nan, np.inf, -np.inf):
        broken = x.copy()
        broken[[1, 4]] = bad
        with pytest.raises(
            DegenerateError, match="z holds NaN or infinity in 2 of 6 rows; check th"
        ):
            as_matrix(broken, name="z")
    with pytest.raises(DegenerateError, match="z holds NaN or infinity in 6 of 6 rows"):
        as_matrix(x * 0 + 1e300, name="z", dtype=torch.float32)
    with pytest.raises(ShapeError, match=r"x has 6 samples but y has 5; pair\(\) them first"):
        as_pair(x, x[:5])
    with pytest.raises(
        DeviceError, match="x is on cpu but y on meta; move one to the other's devi"
    ):
        # A tensor without rows holds nothing that could be infinite.
        as_pair(x[:0], torch.zeros(0, 3, device="meta"))
    with pytest.raises(DegenerateError, match="dcor got 3 samples; needed at least 4"):
        need_rows(3, 4, measure="dcor")
    need_rows(4, 4, measure="dcor")

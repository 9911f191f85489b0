import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mirror_analysis.alignment import blockwise
from mirror_analysis.alignment.blockwise import log_partitions
from mirror_analysis.errors import ShapeError

Factors = tuple[torch.Tensor, ...]
SHAPES = {
    "one": (1, 1),
    "two": (2, 2),
    "odd": (7, 7),
    "wide": (3, 11),
    "tall": (11, 3),
}


def factors(
    rows: int, columns: int, *problems: int, spread: float = 1.0, dtype: torch.dtype = torch.float64
) -> Factors:
    """Left, right and their scales; the logits are about as large as the spread."""
    g = torch.Generator().manual_seed(rows + 100 * columns)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*problems, *shape, generator=g, dtype=torch.float64)

    made = draw(rows, 3) * spread, draw(columns, 3), draw(rows).abs() + 0.1, draw(columns)
    return tuple(z.to(dtype).requires_grad_() for z in made)


def dense(left, right, left_scale, right_scale):
    logits = left_scale[..., :, None] * (left @ right.mT) * right_scale[..., None, :]
    return logits.logsumexp(dim=-1), logits.logsumexp(dim=-2)


def tiled(left, right, left_scale, right_scale):
    return log_partitions(left, right, left_scale=left_scale, right_scale=right_scale)


def outcome(function, inputs: Factors, wanted: Factors) -> list[torch.Tensor]:
    """Both log-sum-exp, and the gradients of a weighted sum of them."""
    found = function(*inputs)
    g = torch.Generator().manual_seed(0)
    total = sum(
        (torch.randn(z.shape, generator=g, dtype=torch.float64).to(z.dtype) * z).sum()
        for z in found
    )
    return [*found, *torch.autograd.grad(total, wanted)]


@pytest.fixture(params=[(1, 0), (7, 0), (40, 0), (40, 2**20), (2**18, 2**20)], ids=str)
def tiles(request, monkeypatch):
    """Logits in a tile, and how many are kept for the gradient."""
    for name, value in zip(("_TILE", "_KEPT"), request.param, strict=True):
        monkeypatch.setattr(blockwise, name, value)


@pytest.mark.parametrize("spread", [1.0, 40.0, 3000.0])
@pytest.mark.parametrize("problems", [(), (3,), (2, 2)], ids=str)
@pytest.mark.parametrize("shape", SHAPES)
def test_is_the_dense_log_sum_exp_with_its_gradients(shape, problems, spread, tiles):
    inputs = factors(*SHAPES[shape], *problems, spread=spread)
    for found, expected in zip(
        outcome(tiled, inputs, inputs), outcome(dense, inputs, inputs), strict=True
    ):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_a_constant_right_factor_leaves_the_other_gradients_as_they_are(tiles):
    inputs = factors(5, 7, 2)
    left, right, *scales = inputs
    wanted = (left, *scales)
    constant = outcome(tiled, (left, right.detach(), *scales), wanted)
    for found, expected in zip(constant, outcome(dense, inputs, wanted), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    only = outcome(tiled, (left.detach(), right.detach(), *scales), tuple(scales))
    torch.testing.assert_close(only[2:], constant[3:], rtol=1e-10, atol=1e-10)


def test_gradients_are_those_of_finite_differences(tiles):
    assert torch.autograd.gradcheck(tiled, factors(3, 5, 2))


@pytest.mark.parametrize("temperature", [0.3, 0.02, 0.001])
def test_float32_is_the_float64_result_at_any_temperature(temperature, monkeypatch):
    monkeypatch.setattr(blockwise, "_TILE", 2000)
    monkeypatch.setattr(blockwise, "_KEPT", 0)
    g = torch.Generator().manual_seed(1)
    left, right = (
        torch.nn.functional.normalize(torch.randn(200, 16, generator=g, dtype=torch.float64))
        for _ in range(2)
    )
    scales = torch.full((200,), 1 / temperature, dtype=torch.float64), torch.ones(200).double()
    # The rounding of the inputs is not the loss's: both sides see the rounded ones.
    narrow = tuple(z.float().requires_grad_() for z in (left, right, *scales))
    exact = tuple(z.detach().double().requires_grad_() for z in narrow)
    for found, expected in zip(
        outcome(tiled, narrow, narrow), outcome(dense, exact, exact), strict=True
    ):
        assert found.dtype == torch.float32
        worst = float(
            (found.double() - expected).detach().abs().max() / expected.detach().abs().max()
        )
        # A logit is as large as 1 / temperature and is itself rounded.
        assert worst < max(1e-5, torch.finfo(torch.float32).eps / temperature)


def test_nothing_overflows_and_nothing_is_lost_far_from_zero():
    far = torch.tensor([[3000.0], [-3000.0], [0.0]], requires_grad=True)
    right = torch.ones(2, 1)
    rows, columns = tiled(far, right, torch.ones(3), torch.ones(2))
    torch.testing.assert_close(rows, far[:, 0].detach() + math.log(2))
    torch.testing.assert_close(columns, torch.full((2,), 3000.0))
    (gradient,) = torch.autograd.grad(rows.sum(), far)
    torch.testing.assert_close(gradient, torch.ones(3, 1), rtol=0, atol=1e-4)


def test_a_scale_of_zero_has_logits_of_zero_and_finite_gradients():
    left, right, left_scale, _ = factors(4, 5)
    zero = torch.zeros(5, dtype=torch.float64, requires_grad=True)
    rows, _ = tiled(left, right.detach(), left_scale, zero)
    torch.testing.assert_close(rows, torch.full((4,), math.log(5), dtype=torch.float64))
    for gradient in torch.autograd.grad(rows.sum(), (left, left_scale, zero)):
        assert bool(torch.isfinite(gradient).all())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_is_summed_in_float32(dtype, tiles):
    inputs = tuple(z.detach() for z in factors(9, 7, dtype=torch.float32))
    half = tuple(z.to(dtype).requires_grad_() for z in inputs[:2])
    scales = tuple(z.requires_grad_() for z in inputs[2:])
    same = tuple(z.detach().float().requires_grad_() for z in half)
    found = outcome(tiled, (*half, *scales), (*half, *scales))
    expected = outcome(dense, (*same, *scales), (*same, *scales))
    for ours, theirs in zip(found[:2] + found[4:], expected[:2] + expected[4:], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(found[2:4], expected[2:4], strict=True):
        assert ours.dtype == dtype
        torch.testing.assert_close(ours, theirs.to(dtype), rtol=2**-7, atol=1e-4)


def test_mixed_precision_around_it_changes_nothing():
    inputs = factors(9, 7, dtype=torch.float32)
    expected = outcome(tiled, inputs, inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = outcome(tiled, inputs, inputs)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_any_layout_in_memory_gives_the_same():
    left, right, left_scale, right_scale = factors(6, 5, 2, 3)
    turned = (
        left.detach().permute(2, 3, 1, 0).contiguous().permute(3, 2, 0, 1),
        right.detach().mT.contiguous().mT,
        left_scale.detach().permute(2, 1, 0).contiguous().permute(2, 1, 0),
        right_scale.detach()[:1, :1].expand(2, 3, 5),
    )
    inputs = tuple(z.requires_grad_() for z in turned)
    for found, expected in zip(
        outcome(tiled, inputs, inputs), outcome(dense, inputs, inputs), strict=True
    ):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


class Largest(TorchDispatchMode):
    """Number of entries of the largest tensor made while it is on."""

    def __init__(self) -> None:
        super().__init__()
        self.entries = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor):
            self.entries = max(self.entries, made.untyped_storage().nbytes() // 4)
        return made


@pytest.mark.parametrize("spread", [1.0, 3000.0])
def test_never_holds_row_times_column(spread):
    inputs = factors(5000, 4000, spread=spread, dtype=torch.float32)
    with Largest() as largest:
        outcome(tiled, inputs, inputs)
    assert 3 * 2**20 <= largest.entries < 5000 * 4000 / 4


def test_an_empty_side_is_refused():
    empty, right, none, scale = torch.ones(0, 3), torch.ones(4, 3), torch.ones(0), torch.ones(4)
    with pytest.raises(ShapeError, match=r"left has 0 rows and right 4; .* at least one of each"):
        tiled(empty, right, none, scale)
    with pytest.raises(ShapeError, match=r"left has 4 rows and right 0; .* at least one of each"):
        tiled(right, empty, scale, none)

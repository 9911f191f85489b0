import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mirror_analysis.alignment import info_nce


def embeddings(*shape: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(*shape, generator=g, dtype=torch.float64)
    return x, x + torch.randn(*shape, generator=g, dtype=torch.float64)


def slow(x: torch.Tensor, y: torch.Tensor, temperature: float) -> float:
    """Both cross entropies of the cosines, term by term."""

    def logit(a: list[float], b: list[float]) -> float:
        product = sum(p * q for p, q in zip(a, b, strict=True))
        return product / math.hypot(*a) / math.hypot(*b) / temperature

    rows, columns, total = x.tolist(), y.tolist(), 0.0
    for i, (own, partner) in enumerate(zip(rows, columns, strict=True)):
        of_row = [math.exp(logit(own, other)) for other in columns]
        of_column = [math.exp(logit(other, partner)) for other in rows]
        total -= math.log(of_row[i] / sum(of_row)) / 2 + math.log(of_column[i] / sum(of_column)) / 2
    return total / len(rows)


@pytest.mark.parametrize("temperature", [0.05, 0.1, 1.0])
def test_is_the_textbook_formula(temperature):
    x, y = embeddings(7, 4)
    value = float(info_nce(x, y, temperature=temperature))
    assert value == pytest.approx(slow(x, y, temperature), rel=1e-12)


def test_is_log_batch_where_nothing_is_known():
    x, _ = embeddings(9, 4)
    same = torch.ones(9, 4, dtype=torch.float64)
    assert float(info_nce(same, same, temperature=0.1)) == pytest.approx(math.log(9))
    # An embedding of length 0 is as far from its partner as from any other row.
    assert float(info_nce(x, torch.zeros_like(x), temperature=0.1)) == pytest.approx(math.log(9))


def test_has_its_closed_form_where_all_pairs_are_orthogonal():
    x = torch.eye(6, dtype=torch.float64)
    value = float(info_nce(x, x, temperature=0.5))
    assert value == pytest.approx(math.log1p(5 * math.exp(-2.0)))


def test_gradients_are_those_of_finite_differences():
    x, y = (z.requires_grad_() for z in embeddings(2, 5, 3))
    assert torch.autograd.gradcheck(lambda a, b: info_nce(a, b, temperature=0.3), (x, y))


def test_a_stack_of_problems_is_the_problems_one_by_one():
    x, y = embeddings(2, 3, 6, 4)
    stacked = info_nce(x, y, temperature=0.2)
    assert stacked.shape == (2, 3)
    for i in range(2):
        for j in range(3):
            single = info_nce(x[i, j], y[i, j], temperature=0.2)
            torch.testing.assert_close(stacked[i, j], single)


@given(seed=st.integers(0, 10**6), batch=st.integers(2, 9))
@settings(deadline=None, max_examples=20)
def test_knows_directions_only_and_neither_order_nor_side(seed, batch):
    x, y = embeddings(batch, 4, seed=seed)
    g = torch.Generator().manual_seed(seed)
    value = float(info_nce(x, y, temperature=0.1))
    assert value >= 0.0
    lengths = [0.01 + 100 * torch.rand(batch, 1, generator=g).double() for _ in range(2)]
    rotation = torch.linalg.qr(torch.randn(4, 4, generator=g).double()).Q
    order = torch.randperm(batch, generator=g)
    for changed in (
        (x * lengths[0], y * lengths[1]),
        (x @ rotation, y @ rotation),
        (x[order], y[order]),
        (y, x),
    ):
        assert float(info_nce(*changed, temperature=0.1)) == pytest.approx(value, rel=1e-9)


def test_depends_on_which_rows_are_partners_and_on_the_temperature():
    x, y = embeddings(8, 4)
    value = float(info_nce(x, y, temperature=0.1))
    assert float(info_nce(x, y.roll(1, 0), temperature=0.1)) > value + 1
    assert abs(float(info_nce(x, y, temperature=0.2)) - value) > 0.01

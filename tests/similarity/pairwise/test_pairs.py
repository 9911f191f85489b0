import numpy as np
import oracles_pairs
import pytest
import torch

from mirror_analysis.errors import DegenerateError
from mirror_analysis.similarity.measures import Layer
from mirror_analysis.similarity.pairwise.pairs import gram_pairs, products, spans, strip_pairs

KINDS = ("unbiased", "biased", "correlation", "cosine")


def matrix(seed, n=9):
    """Any symmetric matrix, entries of size near 1, with a diagonal of its own."""
    a = np.random.default_rng(seed).standard_normal((n, n))
    return (a + a.T) / 2 + 1.5


def pairs_of(a, kind, budget=1 << 28):
    whole = torch.tensor(a)
    layer = Layer("layer", torch.zeros(len(a), 1, dtype=whole.dtype), budget=budget)
    return strip_pairs(lambda index: whole[index].clone(), layer, kind=kind)


@pytest.mark.parametrize("budget", [1 << 28, 0])
def test_a_matrix_is_its_parts(budget):
    a = matrix(0)
    s = pairs_of(a, "cosine", budget)
    q = s.rows(0, 9).numpy()
    again = s.mean + s.slope.numpy()[:, None] + s.slope.numpy() + q
    off = ~np.eye(9, dtype=bool)
    np.testing.assert_allclose(again[off], a[off], atol=1e-13)
    np.testing.assert_allclose(s.diagonal, a.diagonal(), atol=0)
    assert np.abs(q.diagonal()).max() == 0
    assert np.abs(q.sum(axis=0)).max() < 1e-13
    assert abs(float(s.slope.sum())) < 1e-13
    np.testing.assert_allclose(s.squares, (q**2).sum(axis=1), atol=1e-13)
    np.testing.assert_allclose(s.take(torch.tensor([4, 1])), q[[4, 1]], atol=0)
    assert (s.whole is None) == (budget == 0) and len(s) == 9


@pytest.mark.parametrize("kind", KINDS)
def test_products_of_the_parts_are_the_cosine_of_what_counts(kind):
    a, b = pairs_of(matrix(1), kind), pairs_of(matrix(2), kind)
    cross = float(products([a], [b])) + a.level * b.level + float(a.u @ b.u)
    expected = oracles_pairs.cosine_of(matrix(1), matrix(2), kind)
    assert cross / np.sqrt(a.own * b.own) == pytest.approx(expected, abs=1e-13)


@pytest.mark.parametrize("kind", KINDS)
def test_the_diagonal_counts_only_where_it_is_biased(kind):
    a = matrix(3)
    other = a + np.diag(np.arange(9.0))
    one, two = pairs_of(a, kind), pairs_of(other, kind)
    same = one.own == pytest.approx(two.own, abs=1e-9)
    assert same == (kind != "biased")


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("budget", [1 << 28, 0])
@pytest.mark.parametrize("kind", KINDS)
def test_rows_give_what_their_gram_matrix_gives(sign, budget, kind):
    rows = torch.from_numpy(np.random.default_rng(4).standard_normal((8, 3)))
    rows -= rows.mean(dim=0)
    s = gram_pairs(rows, Layer("l", rows, budget=budget), kind=kind, sign=sign)
    full = pairs_of(sign * (rows @ rows.T).numpy(), kind)
    assert s.mean == pytest.approx(full.mean, abs=1e-12)
    for name in ("slope", "diagonal", "u", "squares"):
        torch.testing.assert_close(getattr(s, name), getattr(full, name), atol=1e-12, rtol=0)
    assert (s.level, s.own) == pytest.approx((full.level, full.own), abs=1e-11)
    torch.testing.assert_close(s.rows(2, 5), full.rows(2, 5), atol=1e-12, rtol=0)


def test_spans_cover_all_rows_once():
    for n, layers in ((1, 1), (7, 3), (3000, 900), (5000, 1)):
        runs = list(spans(n, layers))
        assert [i for start, stop in runs for i in range(start, stop)] == list(range(n))


@pytest.mark.parametrize(
    ("kind", "what"), [("unbiased", "no debiased spread"), ("correlation", "no spread")]
)
def test_says_that_nothing_is_left(kind, what):
    with pytest.raises(DegenerateError, match=f"layer has {what} .all its samples are equally al"):
        pairs_of(np.eye(9) + 1, kind)
    pairs_of(np.eye(9) + 1, "cosine")  # its level is left

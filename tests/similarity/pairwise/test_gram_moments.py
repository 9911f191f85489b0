import numpy as np
import pytest
import torch

from mirror_analysis.similarity.cka import RV, LinearCKA
from mirror_analysis.similarity.measures import Layer
from mirror_analysis.similarity.pairwise.gram_moments import Gram, fold_products, moments, products
from mirror_analysis.similarity.pairwise.pairs import gram_pairs

FOLDS = torch.tensor([0] * 4 + [1] * 9 + [2] + [3] * 6)


def sides(sign=1.0, n=20, shapes=((5, 30), (3,))):
    """Grams of layers wider and narrower than there are samples, and their matrices Q."""
    g = np.random.default_rng(0)
    out = []
    for widths in shapes:
        layers = [torch.from_numpy(g.standard_normal((n, d))) for d in widths]
        layers = [(z - z.mean(dim=0)) / z.norm() * n**0.5 for z in layers]
        out.append([gram_pairs(z, Layer("l", z), kind="unbiased", sign=sign) for z in layers])
    return out


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_moments_of_rows_are_products_of_matrices(sign):
    x, y = sides(sign)
    order = torch.from_numpy(np.random.default_rng(1).permutation(20))
    found = products([s.gram for s in x], [s.gram for s in y])
    moved = products([s.gram for s in x], [s.gram for s in y], order)
    for i, a in enumerate(x):
        for j, b in enumerate(y):
            assert float(found[i, j]) == pytest.approx(float((a.whole * b.whole).sum()), abs=1e-11)
            there = b.whole[order][:, order]
            assert float(moved[i, j]) == pytest.approx(float((a.whole * there).sum()), abs=1e-11)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_sums_over_rows_and_triangles(sign):
    for s in (z for side in sides(sign) for z in side):
        squares = s.gram.squares()
        torch.testing.assert_close(squares, s.whole.square().sum(dim=1), atol=1e-11, rtol=0)
        gone = torch.tensor([3, 17, 4])
        torch.testing.assert_close(
            s.gram.row_sum(gone), s.whole[gone].sum(dim=0), atol=1e-12, rtol=0
        )
        cubed = float(torch.trace(s.whole @ s.whole @ s.whole))
        assert float(s.gram.triangles(squares)) == pytest.approx(cubed, abs=1e-9)


def test_what_each_fold_has_of_a_product():
    x, y = sides()
    rows, block = fold_products([s.gram for s in x], [s.gram for s in y], FOLDS)
    assert rows.shape == block.shape == (4, 2, 1)
    for fold in range(4):
        gone = FOLDS == fold
        for i, a in enumerate(x):
            both = a.whole * y[0].whole
            assert float(rows[fold, i, 0]) == pytest.approx(float(both[gone].sum()), abs=1e-11)
            inside = float(both[gone][:, gone].sum())
            assert float(block[fold, i, 0]) == pytest.approx(inside, abs=1e-11)


def test_more_rows_than_a_block_are_added_up():
    g = np.random.default_rng(2)
    x, y = (torch.from_numpy(g.standard_normal((9000, d))) for d in (2, 3))
    torch.testing.assert_close(moments(x, y), x.T @ y, atol=1e-9, rtol=0)
    single = moments(x.float(), y.float())
    assert single.dtype == torch.float64
    torch.testing.assert_close(single, x.T @ y, atol=1e-3, rtol=0)


def test_the_sign_turns_the_rows_and_not_the_offsets():
    g = Gram(torch.eye(3, dtype=torch.float64), -1.0, *(torch.zeros(3).double() for _ in range(2)))
    product = torch.arange(10.0, dtype=torch.float64).reshape(5, 2)
    expected = torch.tensor([[0, -1], [-2, -3], [-4, -5], [-8, -9], [-6, -7]]).double()
    torch.testing.assert_close(g.signed(product), expected)


@pytest.mark.parametrize("measure", [LinearCKA(), LinearCKA(False), RV()])
@pytest.mark.parametrize("how", [{"budget": 0}, {"by_rows": True}])
def test_measures_are_the_same_by_rows_and_by_matrices(measure, how):
    g = np.random.default_rng(3)
    x = [torch.from_numpy(g.standard_normal((30, d))) for d in (4, 60)]
    y = [x[0] @ torch.from_numpy(g.standard_normal((4, 6))) + 0.5 * x[1][:, :6]]
    orders = torch.from_numpy(np.stack([g.permutation(30) for _ in range(3)]))
    folds = torch.arange(30) % 7
    found = []
    for setting in ({}, how):
        a, b = ([measure.prepare(Layer("l", z, **setting)) for z in side] for side in (x, y))
        invariants = measure.invariants(a, b)
        found.append(
            [
                measure.values(a, b),
                measure.null(a, b, orders),
                measure.leave_out(a, b, folds),
                *(
                    torch.from_numpy(np.asarray(getattr(side, name)))
                    for side in invariants
                    for name in (
                        "level", "linear", "linear_cubed", "quadratic", "triangles", "cubes",
                        "bent", "held",
                    )
                ),
            ]
        )  # fmt: skip
        assert all((s.whole is None) == bool(setting) for s in (*a, *b))
    for whole, by_rows in zip(*found, strict=True):
        torch.testing.assert_close(by_rows, whole, atol=1e-10, rtol=0)

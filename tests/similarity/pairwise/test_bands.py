import numpy as np
import pytest
import torch

from mirror_analysis.similarity.measures import Layer
from mirror_analysis.similarity.pairwise.bands import Bands, band_products
from mirror_analysis.similarity.pairwise.pairs import gram_pairs, products, row_products


def centred(seed, n=700, width=5):
    rows = torch.from_numpy(np.random.default_rng(seed).standard_normal((n, width)))
    return rows - rows.mean(dim=0)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_bands_are_a_gram_matrix_without_its_diagonal(sign):
    rows = centred(0, n=1300, width=4)
    full = sign * (rows @ rows.T)
    full.fill_diagonal_(0)
    bands = Bands.of(rows, sign)
    torch.testing.assert_close(bands.whole(), full, atol=1e-12, rtol=0)
    assert float(bands.squares()) == pytest.approx(float(full.square().sum()), rel=1e-12)


def test_products_of_bands_are_those_of_the_matrices():
    x = [Bands.of(centred(1), 1.0), Bands.of(centred(2, width=2), 1.0)]
    y = [Bands.of(centred(3), 1.0)]
    expected = torch.tensor([[(a.whole() * b.whole()).sum() for b in y] for a in x])
    torch.testing.assert_close(band_products(x, y), expected, rtol=1e-12, atol=1e-9)


@pytest.mark.parametrize("kind", ["unbiased", "biased", "correlation", "cosine"])
def test_parts_of_bands_are_those_of_the_whole_matrix(kind):
    x, y = (gram_pairs(centred(s), Layer("l", centred(s)), kind=kind) for s in (4, 5))
    assert x.bands is not None and x.made is None
    quick = products([x], [y])
    slow = row_products([x], [y]).sum(dim=0)
    torch.testing.assert_close(quick, slow, rtol=1e-10, atol=1e-8)
    assert x.own == pytest.approx(
        float(x.squares.sum() + x.u.square().sum() + x.level**2), rel=1e-10
    )


def test_a_matrix_that_is_mostly_offsets_is_made_whole_at_once():
    # Few directions left over beside very different row sizes: a_i + a_j is nearly all there is.
    n, g = 600, np.random.default_rng(6)
    rows = torch.from_numpy(np.eye(n) + 1e-4 * g.standard_normal((n, n)))
    rows -= rows.mean(dim=0)
    s = gram_pairs(rows, Layer("l", rows), kind="unbiased")
    assert s.bands is None and s.made is not None
    assert s.own == pytest.approx(float(s.made.square().sum()), rel=1e-12)

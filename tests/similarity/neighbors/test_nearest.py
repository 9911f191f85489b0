"""The search in float32 gives what float64 over all pairs gives."""

import numpy as np
import pytest
import torch

from mirror_analysis.similarity.neighbors import nearest as module
from mirror_analysis.similarity.neighbors.nearest import Points, nearest, without


def layers(n=600):
    g = np.random.default_rng(0)
    plain = g.standard_normal((n, 20))
    doubled = plain.copy()
    doubled[n // 2 :] = doubled[: n // 2]
    close = plain.copy()
    close[1::2] = close[::2] * (1 + 1e-9 * g.standard_normal((n // 2, 20)))
    zeros = plain.copy()
    zeros[::50] = 0
    outlier = plain.copy()
    outlier[7] *= 1e6
    return {
        "plain": plain,
        "offset": plain + 1e4,
        "doubled": doubled,
        "close": close,
        "zeros": zeros,
        "outlier": outlier,
        "classes": np.eye(20)[g.integers(0, 20, n)],
        "huge": plain * 1e200,
        "tiny": plain * 1e-200,
        "float32": plain.astype(np.float32),
        "float32 offset": (plain + 100).astype(np.float32),
    }


def dense(values, k, metric):
    """[sample, sample] share of a place, from all pairs in float64."""
    x = np.float64(values)
    x = x / np.abs(x).max()
    if metric == "cosine":
        x = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-300)
        near = x @ x.T
        slack = np.full(len(x), 1e-12)
    else:
        x = x - x.mean(axis=0)
        near = -np.square(x[:, None] - x).sum(axis=2)
        slack = 1e-11 * np.square(x).sum(axis=1)
    np.fill_diagonal(near, -np.inf)
    last = np.sort(near, axis=1)[:, [-k]]
    above, level = near > last + slack[:, None], np.abs(near - last) <= slack[:, None]
    return above + level * (k - above.sum(axis=1)[:, None]) / level.sum(axis=1)[:, None]


def spread(found, n):
    out = np.zeros((n, n))
    out[found.row.numpy(), found.column.numpy()] = found.weight.numpy()
    return out


@pytest.mark.parametrize(
    ("name", "metric"),
    # Squares of the huge and the tiny leave the range of float64.
    [(name, "cosine") for name in layers()]
    + [(name, "euclidean") for name in layers() if name not in ("huge", "tiny")],
)
def test_equals_all_pairs_in_float64(name, metric):
    values = layers()[name]
    found = nearest(torch.tensor(values), 5, metric=metric)
    np.testing.assert_allclose(spread(found, 600), dense(values, 5, metric), atol=1e-9)
    assert bool((found.key.diff() > 0).all())


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_most_rows_need_no_second_search_and_ties_do(metric):
    # Else the search would be right but slow.
    for name in ("plain", "offset", "float32", "float32 offset"):
        points = Points(torch.tensor(layers()[name]), metric)
        index, bounds = module._search(points, 5, 17)
        last = points.listed(index, slice(None))[:, 4]
        assert int((last > bounds[17]).sum()) == 600, name
    points = Points(torch.tensor(layers()["classes"]), metric)
    index, bounds = module._search(points, 5, 17)
    assert int((points.listed(index, slice(None))[:, 4] > bounds[17]).sum()) == 0


def test_products_below_float32_precision_are_noticed(monkeypatch):
    # As if products were taken in bfloat16: no row may be taken on trust.
    exact = torch.mm

    def coarse(a, b, *, out):
        return out.copy_(exact(a.bfloat16(), b.bfloat16()))

    monkeypatch.setattr(torch, "mm", coarse)
    points = Points(torch.tensor(layers()["plain"]), "cosine")
    index, bounds = module._search(points, 5, 17)
    rest = points.between(torch.arange(600)).scatter(1, index, -torch.inf)
    assert bool((rest.amax(dim=1) <= bounds[17]).all())


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("name", ["plain", "doubled", "classes", "zeros", "offset"])
@pytest.mark.parametrize("part", [2, 7])
def test_striking_samples_off_equals_searching_anew(name, metric, part):
    values = torch.tensor(layers()[name])
    # Whole runs of rows go, so that some lists are left too short.
    keep = (torch.arange(600) % 100 >= 100 // part).nonzero()[:, 0]
    found = without(nearest(values, 5, metric=metric), keep, 5)
    again = nearest(values[keep], 5, metric=metric)
    assert torch.equal(found.key, again.key)
    torch.testing.assert_close(found.weight, again.weight, atol=1e-9, rtol=0)
    torch.testing.assert_close(found.cosine, again.cosine, atol=1e-9, rtol=1e-9)


def test_memory_of_all_pairs_is_never_taken(monkeypatch):
    largest = []
    empty, cat = torch.empty, torch.cat
    monkeypatch.setattr(
        torch, "empty", lambda *a, **k: largest.append(empty(*a, **k)) or largest[-1]
    )
    monkeypatch.setattr(torch, "cat", lambda *a, **k: largest.append(cat(*a, **k)) or largest[-1])
    monkeypatch.setattr(module, "_TILE", 1 << 16)
    nearest(torch.tensor(layers()["plain"]), 5)
    nearest(torch.tensor(layers()["classes"]), 1)
    assert max(t.numel() for t in largest) < 600 * 600 / 3

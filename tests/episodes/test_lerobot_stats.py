import numpy as np
import pytest

from mirror_analysis.episodes.lerobot_stats import NAMES, Overall, picture_stats, vector_stats


def test_numbers_are_summed_up():
    values = np.random.default_rng(0).standard_normal((50, 3))
    found = vector_stats(values)
    assert tuple(found) == NAMES
    assert np.allclose(found["mean"], values.mean(axis=0))
    assert np.allclose(found["std"], values.std(axis=0))
    assert np.array_equal(found["min"], values.min(axis=0))
    assert np.array_equal(found["max"], values.max(axis=0))
    assert np.allclose(found["q50"], np.median(values, axis=0))
    assert np.allclose(found["q99"], np.quantile(values, 0.99, axis=0))
    assert found["count"].tolist() == [50]
    assert vector_stats(np.array([[True], [False]]))["mean"].tolist() == [0.5]


@pytest.mark.parametrize("time", [1, 7, 100, 150])
def test_pictures_are_summed_up(time):
    frames = np.random.default_rng(1).integers(0, 256, (time, 6, 8, 3), dtype=np.uint8)
    frames[..., 1] //= 2
    found = picture_stats(frames)
    assert found["count"].tolist() == [min(time, 100)]
    chosen = frames[np.round(np.linspace(0, time - 1, min(time, 100))).astype(int)] / 255
    assert found["mean"].shape == (3, 1, 1)
    for name, value in (
        ("mean", chosen.mean(axis=(0, 1, 2))),
        ("std", chosen.std(axis=(0, 1, 2))),
        ("min", chosen.min(axis=(0, 1, 2))),
        ("max", chosen.max(axis=(0, 1, 2))),
    ):
        assert np.allclose(found[name].ravel(), value), name
    for name, share in (("q10", 0.1), ("q50", 0.5), ("q90", 0.9)):
        value = np.quantile(chosen, share, axis=(0, 1, 2), method="inverted_cdf")
        assert np.allclose(found[name].ravel(), value)


def test_large_pictures_are_thinned():
    frames = np.zeros((2, 450, 300, 3), dtype=np.uint8)
    frames[:, ::3, ::3] = 255
    assert picture_stats(frames)["min"].tolist() == [[[1.0]]] * 3


def test_episodes_add_up():
    parts = [np.random.default_rng(n).standard_normal((10 * (n + 1), 2)) + n for n in range(4)]
    overall = Overall()
    for part in parts:
        overall.add({"a": vector_stats(part)})
    found, every = overall.as_lists()["a"], np.concatenate(parts)
    assert found["count"] == [100]
    for name, value in (("mean", every.mean(0)), ("std", every.std(0)), ("max", every.max(0))):
        assert np.allclose(found[name], value)
    assert np.allclose(found["min"], every.min(0))
    weighted = sum(len(p) * np.quantile(p, 0.9, axis=0) for p in parts) / 100
    assert np.allclose(found["q90"], weighted)

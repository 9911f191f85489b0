"""Maps show every test episode once per model, from comparable clouds."""

import numpy as np
import pytest
import tiny_world as world

from mirror_analysis.alignment.fitting import align
from mirror_analysis.alignment.linear import AlignmentConfig
from mirror_analysis.features import Index, Paired
from mirror_analysis.study import maps
from mirror_analysis.study.maps import draw_maps

N = 12


@pytest.fixture(scope="module")
def test():
    g = np.random.default_rng(0)
    latent = g.standard_normal((N, 3))
    sides = {
        "x": (100 * latent @ g.standard_normal((3, 40))).astype(np.float32) + 7,
        "y": (latent @ g.standard_normal((3, 5))).astype(np.float32),
    }
    labels = {"task": np.array(["push", "pull"] * (N // 2))}
    index = Index(np.array([f"e{i}" for i in range(N)]), np.arange(N), labels)
    return Paired({"a": sides["x"]}, {"b": sides["y"]}, index)


@pytest.fixture(scope="module")
def aligned(test):
    config = AlignmentConfig(width=8, steps=20, batch=8)
    return align(test.x["a"], test.y["b"], test.x["a"], test.y["b"], config=config)


def drawn(test, aligned, monkeypatch, methods=("tsne",)):
    clouds, told = [], []
    monkeypatch.setitem(
        maps._METHODS, "tsne", lambda cloud, section: clouds.append(cloud) or cloud[:, :2]
    )
    section = world.definition(maps={"methods": list(methods)}).maps
    found = draw_maps(test, ("a", "b"), aligned, section, progress=lambda *s: told.append(s))
    return found, clouds, told


def test_every_episode_stands_once_per_model(test, aligned, monkeypatch):
    found, _, told = drawn(test, aligned, monkeypatch)
    assert [(m.method, m.stage) for m in found] == [("tsne", "before"), ("tsne", "after")]
    assert told == [(1, 2), (2, 2)]
    for made in found:
        assert made.model == ["observation"] * N + ["execution"] * N
        assert made.episode == [f"e{i}" for i in range(N)] * 2
        assert made.task == ["push", "pull"] * N
        assert len(made.points) == 2 * N


def test_before_both_models_weigh_alike_whatever_their_units(test, aligned, monkeypatch):
    _, (before, _), _ = drawn(test, aligned, monkeypatch)
    assert before.shape == (2 * N, 30)
    for half in (before[:N], before[N:]):
        assert half.mean(axis=0) == pytest.approx(0, abs=1e-6)
        assert np.square(half).sum(axis=1).mean() == pytest.approx(1)
    # Principal components keep distances up to that scale.
    distances = [np.linalg.norm(v[:, None] - v[None], axis=2) for v in (test.x["a"], before[:N])]
    assert np.corrcoef(distances[0].ravel(), distances[1].ravel())[0, 1] == pytest.approx(1)


def test_after_both_models_are_in_the_fitted_space(test, aligned, monkeypatch):
    _, (_, after), _ = drawn(test, aligned, monkeypatch)
    assert np.linalg.norm(after, axis=1) == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(
        after[:N] @ after[N:].T, aligned.similarity(test.x["a"], test.y["b"]), atol=1e-5
    )


def test_no_method_gives_no_map(test, aligned, monkeypatch):
    assert drawn(test, aligned, monkeypatch, methods=())[0] == []


def test_tsne_is_the_same_every_time_and_takes_few_points(test, aligned):
    section = world.definition(maps={"methods": ["tsne"], "perplexity": 30.0}).maps
    first, second = (
        draw_maps(test, ("a", "b"), aligned, section, progress=lambda *steps: None)
        for _ in range(2)
    )
    assert first == second
    assert np.isfinite(np.array(first[0].points)).all()

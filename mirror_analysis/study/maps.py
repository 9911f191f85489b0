"""Both models' episodes in one plane, before and after the alignment."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from mirror_analysis.alignment.linear import LinearAlignment
from mirror_analysis.definitions import MapsSection
from mirror_analysis.features import Paired
from mirror_analysis.results import EmbeddingMap

_COMPONENTS = 30


def draw_maps(
    test: Paired,
    layers: tuple[str, str],
    aligned: LinearAlignment,
    section: MapsSection,
    *,
    progress: Callable[[int, int], None],
) -> list[EmbeddingMap]:
    """Maps of the test episodes as both models represent them.

    Before: each model's first 30 principal components, scaled to unit mean square length, since
    the two spaces have no axes in common. After: the unit vectors of the fitted alignment.

    Args:
        test: rows.
        layers: layer of x and of y.
        aligned: the fitted alignment of that pair.
        section: methods and their settings.
        progress: called with (maps done, maps in all).
    """
    x, y = test.x[layers[0]], test.y[layers[1]]
    clouds = {
        "before": np.concatenate(_components(x, y)),
        "after": np.concatenate([aligned.embed_x(x).numpy(), aligned.embed_y(y).numpy()]),
    }
    maps = []
    total = len(section.methods) * len(clouds)
    for method in section.methods:
        for stage, cloud in clouds.items():
            points = _METHODS[method](cloud, section)
            maps.append(
                EmbeddingMap(
                    method,
                    stage,
                    [(round(float(a), 3), round(float(b), 3)) for a, b in points],
                    ["observation"] * len(test) + ["execution"] * len(test),
                    [*test.index.episode.tolist()] * 2,
                    [*test.index.label("task").tolist()] * 2,
                )
            )
            progress(len(maps), total)
    return maps


def _components(x: NDArray[np.float32], y: NDArray[np.float32]) -> list[NDArray[np.float64]]:
    out = []
    for values in (x, y):
        centred = values.astype(np.float64) - values.mean(axis=0, dtype=np.float64)
        left, singular, _ = np.linalg.svd(centred, full_matrices=False)
        scores = (left * singular)[:, :_COMPONENTS]
        padded = np.zeros((len(scores), _COMPONENTS))
        padded[:, : scores.shape[1]] = scores / np.sqrt(np.square(scores).sum(axis=1).mean())
        out.append(padded)
    return out


def _tsne(cloud: NDArray[np.floating], section: MapsSection) -> NDArray[np.floating]:
    from sklearn.manifold import TSNE

    perplexity = min(section.perplexity, (len(cloud) - 1) / 3)
    return TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(cloud)


def _umap(cloud: NDArray[np.floating], section: MapsSection) -> NDArray[np.floating]:
    with warnings.catch_warnings():
        # A fixed seed makes umap run on one thread, of which it warns every time.
        warnings.simplefilter("ignore")
        from umap import UMAP

        neighbors = min(section.neighbors, len(cloud) - 1)
        return UMAP(n_neighbors=neighbors, random_state=0, n_jobs=1).fit_transform(cloud)


_METHODS = {"tsne": _tsne, "umap": _umap}

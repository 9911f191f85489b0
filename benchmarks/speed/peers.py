"""Packages as they are installed, each on the data it is given.

Runs in the interpreter of `.venv-peers`; nothing of this project but `benchmarks` is imported.
Data are put into the package's own types before the clock starts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

Values = Callable[[], Any]


def pytorch_cka(*, x_layers: np.ndarray, y_layers: np.ndarray) -> Values:
    """All layer pairs in one call."""
    from cka import cka_from_features

    x, y = ([torch.from_numpy(v) for v in side] for side in (x_layers, y_layers))
    return lambda: cka_from_features(x, y).numpy()


class _Lookup(nn.Module):
    def __init__(self, table: np.ndarray) -> None:
        super().__init__()
        self.table = torch.from_numpy(table)

    def forward(self, rows: Tensor) -> Tensor:
        return self.table[rows]


class _Recorded(nn.Module):
    """A network whose layers give rows of features that were recorded before."""

    def __init__(self, layers: np.ndarray) -> None:
        super().__init__()
        for i, table in enumerate(layers):
            self.add_module(f"layer{i}", _Lookup(table))

    def forward(self, rows: Tensor) -> None:
        for child in self.children():
            child(rows)


def torch_cka(*, x_layers: np.ndarray, y_layers: np.ndarray, batch: int) -> Values:
    """All layer pairs, fed by a data loader in batches as the package wants it."""
    from torch.utils.data import DataLoader, TensorDataset
    from torch_cka import CKA

    rows = torch.arange(x_layers.shape[1])
    loader = DataLoader(TensorDataset(rows), batch_size=min(batch, len(rows)))
    names = [[f"layer{i}" for i in range(len(side))] for side in (x_layers, y_layers)]

    def work() -> np.ndarray:
        made = CKA(
            _Recorded(x_layers),
            _Recorded(y_layers),
            model1_name="x",
            model2_name="y",
            model1_layers=names[0],
            model2_layers=names[1],
        )
        with torch.no_grad():
            made.compare(loader, loader)
        return made.export()["CKA"].numpy()

    return work


def calibrated(*, x_layers: np.ndarray, y_layers: np.ndarray, draws: int) -> Values:
    """The maximum over all layer pairs against `draws` permutations."""
    from calibrated_similarity import calibrate_layers

    from benchmarks.speed.published import debiased_cka

    x, y = ([torch.from_numpy(v) for v in side] for side in (x_layers, y_layers))
    generator = torch.Generator().manual_seed(0)

    def work() -> list[float]:
        found = calibrate_layers(x, y, debiased_cka, K=draws, generator=generator)
        return [float(v) for v in found]

    return work


def ckatorch(*, x: np.ndarray, y: np.ndarray, **settings: Any) -> Values:
    """One pair."""
    from ckatorch.core import cka_base

    a, b = torch.from_numpy(x), torch.from_numpy(y)
    return lambda: float(cka_base(a, b, **settings))


def rsatoolbox(*, x: np.ndarray, y: np.ndarray, distance: str, comparison: str) -> Values:
    """One pair: both dissimilarity matrices and their comparison."""
    from rsatoolbox.data import Dataset
    from rsatoolbox.rdm import calc_rdm, compare

    a, b = Dataset(x), Dataset(y)

    def work() -> float:
        rdms = [calc_rdm(side, method=distance) for side in (a, b)]
        return float(np.asarray(compare(*rdms, method=comparison)).reshape(-1)[0])

    return work


def rsatoolbox_grid(
    *, x_layers: np.ndarray, y_layers: np.ndarray, distance: str, comparison: str
) -> Values:
    """All layer pairs: each dissimilarity matrix once, compared in one call."""
    from rsatoolbox.data import Dataset
    from rsatoolbox.rdm import calc_rdm, compare

    sides = [[Dataset(v) for v in side] for side in (x_layers, y_layers)]

    def work() -> np.ndarray:
        x, y = (calc_rdm(side, method=distance) for side in sides)
        return np.asarray(compare(x, y, method=comparison))

    return work


def dtaidistance(*, paths: np.ndarray, squared: bool) -> Values:
    """All pairs of trajectories, in C with threads."""
    from dtaidistance import dtw_ndim

    series = [np.ascontiguousarray(p, np.float64) for p in paths]
    inner = "squared euclidean" if squared else "euclidean"

    def work() -> np.ndarray:
        made = dtw_ndim.distance_matrix_fast(series, inner_dist=inner, compact=True, parallel=True)
        return np.asarray(made[: len(series) - 1])

    return work


def tslearn(*, paths: np.ndarray, threads: int) -> Values:
    """All pairs of trajectories, compiled by numba, in `threads` jobs."""
    from tslearn.metrics import cdist_dtw

    series = np.asarray(paths, np.float64)
    return lambda: cdist_dtw(series, n_jobs=threads)[0, 1:]


def dcor(*, x: np.ndarray, y: np.ndarray) -> Values:
    """One pair: unbiased squared distance correlation, multithreaded where it can be."""
    from dcor import u_distance_correlation_sqr

    a, b = x.astype(np.float64), y.astype(np.float64)
    return lambda: float(u_distance_correlation_sqr(a, b))

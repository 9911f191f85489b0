"""Algorithms as they were published, where no package that can be installed holds them.

Written anew from the papers and the description of the authors' code, step for step, so that
time and memory are those of the method: dense matrices where the method makes them. For speed
comparisons only; where a published step is doubtful it is kept.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

Value = Callable[[], float]


def _unit(values: np.ndarray) -> Tensor:
    return torch.nn.functional.normalize(torch.from_numpy(values), dim=1)


def mutual_knn(*, x: np.ndarray, y: np.ndarray, k: int = 10) -> Value:
    """Huh et al. 2024 (platonic-rep): all similarities sorted in full, two N x N masks."""

    def mask(values: np.ndarray) -> Tensor:
        unit = _unit(values)
        order = (unit @ unit.T).fill_diagonal_(-1e8).argsort(dim=1, descending=True)
        out = torch.zeros(len(unit), len(unit))
        out[torch.arange(len(unit))[:, None], order[:, :k]] = 1.0
        return out

    return lambda: float((mask(x) * mask(y)).sum(dim=1).mean() / k)


def cknna(*, x: np.ndarray, y: np.ndarray, k: int = 10) -> Value:
    """Huh et al. 2024 (platonic-rep): unbiased HSIC of two masked N x N kernels, by products.

    1e-6 is added to the denominator, as published.
    """

    def nearest(kernel: Tensor) -> Tensor:
        best = kernel.clone().fill_diagonal_(-torch.inf).topk(k, dim=1).indices
        return torch.zeros_like(kernel).scatter_(1, best, 1.0)

    def aligned(first: Tensor, second: Tensor) -> Tensor:
        both = nearest(first) * nearest(second)
        return _hsic(both * first, both * second)

    def work() -> float:
        a, b = _unit(x), _unit(y)
        kernel_x, kernel_y = a @ a.T, b @ b.T
        cross = aligned(kernel_x, kernel_y)
        own = aligned(kernel_x, kernel_x) * aligned(kernel_y, kernel_y)
        return float(cross / (own.sqrt() + 1e-6))

    return work


def _hsic(first: Tensor, second: Tensor) -> Tensor:
    n = len(first)
    first, second = first.clone().fill_diagonal_(0), second.clone().fill_diagonal_(0)
    total = (first * second.T).sum() + first.sum() * second.sum() / ((n - 1) * (n - 2))
    return (total - 2 * torch.mm(first, second).sum() / (n - 2)) / (n * (n - 3))


def svcca(*, x: np.ndarray, y: np.ndarray, variance: float = 0.99) -> Value:
    """Raghu et al. 2017 (google/svcca): SVD of each side, then CCA through whitened covariances."""

    def leading(values: Tensor) -> Tensor:
        u, s, _ = torch.linalg.svd(values, full_matrices=False)
        share = s.square().cumsum(0) / s.square().sum()
        kept = int((share < variance).sum()) + 1
        return u[:, :kept] * s[:kept]

    return lambda: _mean_cca(*(leading(side) for side in _centred(x, y)))


def cca(*, x: np.ndarray, y: np.ndarray) -> Value:
    """Mean canonical correlation through whitened covariances (google/svcca)."""
    return lambda: _mean_cca(*_centred(x, y))


def mean_squared_cca(*, x: np.ndarray, y: np.ndarray) -> Value:
    """Mean squared canonical correlation by QR (Kornblith et al. 2019, notebook)."""

    def work() -> float:
        a, b = (torch.linalg.qr(side).Q for side in _centred(x, y))
        return float((a.T @ b).square().sum() / min(a.shape[1], b.shape[1]))

    return work


def procrustes_similarity(*, x: np.ndarray, y: np.ndarray) -> Value:
    """Ding et al. 2021: nuclear norm of X'Y after centring and division by the Frobenius norm."""

    def work() -> float:
        a, b = (side / side.norm() for side in _centred(x, y))
        return float(torch.linalg.svdvals(a.T @ b).sum())

    return work


def _centred(*sides: np.ndarray) -> list[Tensor]:
    return [torch.from_numpy(side - side.mean(axis=0)) for side in sides]


def _mean_cca(x: Tensor, y: Tensor) -> float:
    split = x.shape[1]
    # In double, as numpy's covariance of single precision is.
    both = torch.cov(torch.cat([x, y], dim=1).T.double())
    left, right = _inverse_root(both[:split, :split]), _inverse_root(both[split:, split:])
    correlations = torch.linalg.svdvals(left @ both[:split, split:] @ right)
    return float(correlations.clamp(0, 1)[: min(len(left), len(right))].mean())


def _inverse_root(covariance: Tensor) -> Tensor:
    power, vectors = torch.linalg.eigh(covariance)
    kept = power > 1e-10 * power[-1]
    return (vectors[:, kept] / power[kept].sqrt()) @ vectors[:, kept].T


def debiased_cka(x: Tensor, y: Tensor) -> Tensor:
    """Kornblith et al. 2019, notebook: debiased linear CKA in feature space, no N x N matrix."""
    x, y = x - x.mean(dim=0), y - y.mean(dim=0)
    n = len(x)

    def hsic(a: Tensor, b: Tensor) -> Tensor:
        k, m = a.square().sum(dim=1), b.square().sum(dim=1)
        corrected = n / (n - 2) * (k @ m) - k.sum() * m.sum() / ((n - 1) * (n - 2))
        return (a.T @ b).square().sum() - corrected

    return hsic(x, y) / (hsic(x, x) * hsic(y, y)).sqrt()

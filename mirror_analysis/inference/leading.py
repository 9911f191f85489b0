"""The strongest parts of a matrix over pairs of samples, cheap enough to be permuted themselves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float64
from numpy.typing import NDArray
from scipy import fft

from mirror_analysis.errors import ShapeError

if TYPE_CHECKING:
    from torch import Tensor

# Numbers a block of correlations may hold.
_BLOCK = 1 << 20


@dataclass(frozen=True, eq=False)
class Leading:
    """What of each layer's matrix is permuted itself: a few eigenvectors, and u.

    Where a few samples or directions carry a matrix, its permutation law has a shape that no
    three moments tell. `vectors diag(weights) vectors'` stands for Q, which has rows summing to
    0, so that the vectors do too.

    Attributes:
        weights: [layer, rank] eigenvalues of the largest size, of either sign.
        vectors: [layer, sample, rank] their eigenvectors, of norm 1.
        linear: [layer, sample] u of `Invariants`, all of it.
    """

    weights: Float64[np.ndarray, "layer rank"]
    vectors: Float64[np.ndarray, "layer sample rank"]
    linear: Float64[np.ndarray, "layer sample"]

    @property
    def diagonal(self) -> NDArray[np.float64]:
        """[layer, sample] diagonal of what stands for Q, less its mean."""
        full = np.einsum("lsr,lr->ls", self.vectors**2, self.weights)
        return full - full.mean(axis=1, keepdims=True)

    def quadratic(self) -> NDArray[np.float64]:
        """[layer, layer] inner products of what stands for Q, U-centred."""
        layers, n, rank = self.vectors.shape
        side = self.vectors.transpose(1, 0, 2).reshape(n, -1)
        squared = np.square(side.T @ side).reshape(layers, rank, layers, rank)
        whole = np.einsum("iakb,ia,kb->ik", squared, self.weights, self.weights)
        trace, bent = self.weights.sum(axis=1), self.diagonal
        return whole - np.outer(trace, trace) / (n - 1) - n / (n - 2) * (bent @ bent.T)

    def scaled(self, factor: Float64[np.ndarray, " layer"]) -> Leading:
        """The same of the matrices times one factor each."""
        return Leading(self.weights * factor[:, None], self.vectors, self.linear * factor[:, None])


def drawn(x: Leading, y: Leading, *, draws: int, seed: int) -> NDArray[np.float32]:
    """The leading parts' share in T under random permutations, the same ones for all cells.

    All n rotations of a random order are uniform permutations, nearly independent of one
    another, and one Fourier transform gives the inner products of them all.

    Args:
        x: leading parts of the layers of the first side.
        y: leading parts of the layers of the second side.
        draws: how many permutations, at least 1.
        seed: of the draw.

    Returns:
        [draw, x layer, y layer], of mean 0.

    Raises:
        ShapeError: if the sides have different numbers of samples.
    """
    n = x.vectors.shape[1]
    if y.vectors.shape[1] != n:
        raise ShapeError(f"x has {n} samples but y has {y.vectors.shape[1]}; pair() them first")
    orders = -(-draws // n)
    out = np.empty((orders * n, len(x.weights), len(y.weights)), dtype=np.float32)
    rng = np.random.default_rng(seed)
    # What is summed as it is, beside what is squared first: u, and what U-centring takes away.
    lines_x = np.stack([x.linear, -n / (n - 2) * x.diagonal], axis=1)
    lines_y = np.stack([y.linear, y.diagonal], axis=1)
    left = [
        fft.rfft(np.concatenate([v.T, lines]).astype(np.float32)).conj()
        for v, lines in zip(x.vectors, lines_x, strict=True)
    ]
    right = [
        np.concatenate([w.T, lines]).astype(np.float32)
        for w, lines in zip(y.vectors, lines_y, strict=True)
    ]
    level = np.outer(x.weights.sum(axis=1), y.weights.sum(axis=1)) / (n - 1)
    ranks, others = x.weights.shape[1], y.weights.shape[1]
    most = max(1, _BLOCK // (n * max(1, ranks * others)))
    for start in range(0, orders, most):
        count = min(most, orders - start)
        order = rng.permuted(np.tile(np.arange(n), (count, 1)), axis=1)
        rows = slice(start * n, (start + count) * n)
        for j, w in enumerate(right):
            moved = fft.rfft(w[:, order].transpose(1, 0, 2))
            for i, v in enumerate(left):
                met = fft.irfft(v[:ranks, None] * moved[:, None, :others], n)
                weights = np.outer(x.weights[i], y.weights[j]).astype(np.float32)
                total = np.einsum("cabk,cabk,ab->ck", met, met, weights, optimize=True)
                total += fft.irfft((v[ranks:] * moved[:, others:]).sum(axis=1), n)
                out[rows, i, j] = total.reshape(-1) - level[i, j]
    return out[:draws]


def strongest(
    times: Callable[[Tensor], Tensor], samples: int, rank: int, *, like: Tensor, rounds: int = 5
) -> tuple[Tensor, Tensor]:
    """The eigenpairs of the largest size of a symmetric matrix, nearly, by subspace iteration.

    Args:
        times: gives the matrix times a block of vectors [sample, vector].
        samples: rows of the matrix.
        rank: how many.
        like: a tensor of the type and on the device of the matrix.
        rounds: products with a block of rank + 8 vectors.

    Returns:
        Weights float64 [rank] and vectors float64 [sample, rank], on the matrix's device;
        weights are Rayleigh quotients, so what they leave is orthogonal to what they hold.

    Source:
        Halko, Martinsson and Tropp 2011, algorithms 4.4 and 5.3.
    """
    import torch

    width, seeded = min(samples, rank + 8), torch.Generator().manual_seed(0)
    block = torch.randn(samples, width, generator=seeded, dtype=torch.float64).to(like)
    for _ in range(rounds):
        block = torch.linalg.qr(times(block))[0]
    basis = torch.linalg.qr(block.double())[0]
    inner = basis.T @ times(basis.to(like)).double()
    weights, turn = torch.linalg.eigh((inner + inner.T) / 2)
    order = weights.abs().argsort(descending=True)[:rank]
    return weights[order], basis @ turn[:, order]

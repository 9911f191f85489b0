"""The upper half of a Gram matrix, which is all that products of whole matrices need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

# Rows of a band: enough for the matrix product to run at its full rate.
_BAND = 256
# Entries of all layers multiplied together: inside the processor's cache.
_CHUNK = 1 << 20


@dataclass(frozen=True, eq=False)
class Bands:
    """A symmetric matrix without its diagonal, in bands of rows that begin on it.

    Attributes:
        bands: of _BAND rows each; band b has the columns from its first row on.
    """

    bands: tuple[Tensor, ...]

    @staticmethod
    def of(rows: Float[Tensor, "sample feature"], sign: float) -> Bands:
        """The inner products of rows times a sign, each taken once."""
        bands = []
        for start in range(0, len(rows), _BAND):
            band = rows[start : start + _BAND] @ rows[start:].T
            if sign != 1:
                band.mul_(sign)
            band.fill_diagonal_(0)
            bands.append(band)
        return Bands(tuple(bands))

    def squares(self) -> Float64[Tensor, ""]:
        """Sum of squares of the whole matrix."""
        total = torch.zeros((), dtype=torch.float64, device=self.bands[0].device)
        for band in self.bands:
            high = len(band)
            total += 2 * band.square().sum(dim=1).double().sum()
            total -= band[:, :high].square().sum(dim=1).double().sum()
        return total

    def whole(self) -> Float[Tensor, "sample sample"]:
        """The matrix itself, new."""
        n, like = self.bands[0].shape[1], self.bands[0]
        out = torch.empty(n, n, dtype=like.dtype, device=like.device)
        start = 0
        for band in self.bands:
            stop = start + len(band)
            out[start:stop, start:] = band
            # By squares, which the processor's cache holds while they are turned.
            for below in range(stop, n, _BAND):
                square = band[:, below - start : below - start + _BAND]
                out[below : below + _BAND, start:stop] = square.T
            start = stop
        return out


def band_products(x: Sequence[Bands], y: Sequence[Bands]) -> Float64[Tensor, "x_layer y_layer"]:
    """Inner products of the whole matrices of every two layers."""
    out = torch.zeros(len(x), len(y), dtype=torch.float64, device=x[0].bands[0].device)
    for number, band in enumerate(x[0].bands):
        high, wide = band.shape
        step = max(1, _CHUNK // (wide * (len(x) + len(y))))
        for start in range(0, high, step):
            left = torch.stack([s.bands[number][start : start + step] for s in x], dim=1)
            right = torch.stack([s.bands[number][start : start + step] for s in y], dim=1)
            out += 2 * torch.bmm(left, right.transpose(1, 2)).sum(dim=0, dtype=torch.float64)
            corner = left[:, :, :high], right[:, :, :high].transpose(1, 2)
            out -= torch.bmm(*corner).sum(dim=0, dtype=torch.float64)
    return out

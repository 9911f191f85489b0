"""Linear CKA of any number of samples, seen once and in batches, exactly."""

from __future__ import annotations

import math
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from mirror_analysis.errors import DegenerateError, DeviceError, ShapeError
from mirror_analysis.inference.jackknife import jackknife_interval
from mirror_analysis.inference.pearson import upper_tail
from mirror_analysis.matrices import Array, as_matrix
from mirror_analysis.results import Null, Score

# Rows multiplied in their own type before they are added up in float64.
_ROWS = 8192
# Blocks of columns: with three, a third of the products of a symmetric matrix is saved.
_PARTS = 3
# As far out as three moments tell a tail.
_LEAST_P = 1e-6


def stream_linear_cka(
    batches: Iterable[tuple[Array, Array]], *, debiased: bool = True, folds: int = 10
) -> Score:
    """Linear CKA over all batches together, as if they were one array.

    HSIC_1 for linear kernels is a function of sums of products of features, so nothing is lost
    by batches: the value is `linear_cka` of all rows to 1e-6, whatever their number and size.
    Memory is `(folds + 1)` times the square of the widths.

    Debiased, the permutation null has mean 0 and the exact sd `sqrt(2 / (n (n - 3)))` whatever the
    data; its skewness is known up to terms of the order of 1 / n, so p is for many samples.

    Args:
        batches: pairs of [sample, x_feature] and [sample, y_feature], row i of both of the same
            sample. Keep the rows of an episode in one batch.
        debiased: whether to use the unbiased HSIC estimator.
        folds: groups of batches, dealt in turn, left out for the interval; 0 for none.

    Returns:
        The score, with null and p when debiased, and the interval; n counts rows.

    Raises:
        ShapeError: if the rows of a batch or the widths of two batches differ.
        DegenerateError: if there are no batches or too few rows, a value is not finite, or a
            side is constant.
        DeviceError: if the two sides of a batch are on two devices.

    Source:
        Song et al. 2012, equation 4, in terms of moments; Kornblith et al. 2019.

    Example:
        >>> x = np.random.default_rng(0).standard_normal((1000, 8))
        >>> stream_linear_cka((x[i : i + 100], x[i : i + 100]) for i in range(0, 1000, 100)).value
        1.0
    """
    if folds < 0 or folds == 1:
        raise DegenerateError(f"stream_linear_cka got folds {folds}; needed 0, or at least 2")
    parts: list[_Moments] = []
    origins: tuple[_Origin, _Origin] | None = None
    for number, (x, y) in enumerate(batches):
        a, b = _checked(x, y, number, origins)
        if origins is None:
            origins = _Origin.of(a), _Origin.of(b)
        found = _Moments.of(a, b, origins)
        position = number % folds if folds else 0
        if position < len(parts):
            parts[position].add(found)
        else:
            parts.append(found)
    if not parts:
        raise DegenerateError("stream_linear_cka got no batches; needed at least one")
    whole = parts[0].copy()
    for part in parts[1:]:
        whole.add(part)
    n, value = whole.rows, whole.cka(debiased)
    interval = null = p = None
    if folds and len(parts) > 1:
        # A rest that is too small or constant has no value: then there is no interval.
        with suppress(DegenerateError):
            without = [whole.less(part).cka(debiased) for part in parts]
            interval = jackknife_interval(value, without)
    if debiased:
        null = Null(0.0, math.sqrt(2 / (n * (n - 3))), 0, "rows, exact moments")
        tail = upper_tail(np.asarray(value / null.sd), np.asarray(whole.skewness()))
        p = max(_LEAST_P, float(tail))
    return Score(
        measure="linear_cka",
        value=value,
        x="x",
        y="y",
        n=n,
        interval=interval,
        null=null,
        p_value=p,
        parameters={"debiased": debiased},
    )


def _checked(
    x: Array, y: Array, number: int, origins: tuple[_Origin, _Origin] | None
) -> tuple[Tensor, Tensor]:
    a, b = as_matrix(x, name=f"x of batch {number}"), as_matrix(y, name=f"y of batch {number}")
    if len(a) != len(b) or not len(a):
        raise ShapeError(
            f"batch {number} has {len(a)} rows of x and {len(b)} of y; needed equally many,"
            " at least one"
        )
    if a.device != b.device:
        raise DeviceError(
            f"x of batch {number} is on {a.device} but y on {b.device}; move one to the other's"
            " device"
        )
    before = None if origins is None else tuple(origin.mean.shape[1] for origin in origins)
    if before is not None and (a.shape[1], b.shape[1]) != before:
        raise ShapeError(
            f"batch {number} has {a.shape[1]} and {b.shape[1]} features but those before had"
            f" {before[0]} and {before[1]}; needed the same in every batch"
        )
    return a, b


@dataclass(frozen=True, eq=False)
class _Origin:
    """Where one side is counted from, and in what unit, so that sums lose nothing.

    Attributes:
        mean: [1, feature] of the first batch.
        unit: 1, or the size of a first batch of tiny or huge features, to keep squares in range.
    """

    mean: Float[Tensor, "1 feature"]
    unit: float

    @staticmethod
    def of(rows: Float[Tensor, "sample feature"]) -> _Origin:
        mean = rows.mean(dim=0, keepdim=True)
        size = float((rows - mean).abs().max()) or float(rows.abs().max()) or 1.0
        return _Origin(mean, 1.0 if 1e-6 < size < 1e6 else size)

    def augmented(self, rows: Float[Tensor, "sample feature"]) -> Float[Tensor, "sample augmented"]:
        """Rows from the origin in the unit, then 1, then the squared norm."""
        width = rows.shape[1]
        out = torch.empty(len(rows), width + 2, dtype=rows.dtype, device=rows.device)
        torch.sub(rows, self.mean.to(rows), out=out[:, :width])
        if self.unit != 1:
            out[:, :width] /= self.unit
        out[:, width] = 1
        torch.linalg.vector_norm(out[:, :width], dim=1, out=out[:, width + 1])
        out[:, width + 1].square_()
        return out


@dataclass(eq=False)
class _Moments:
    """Sums of products of the rows, of 1 and of the squared norm of each row, on both sides.

    Attributes:
        rows: rows added up.
        xx: [x + 2, x + 2] with the features first, then 1, then the squared norm.
        yy: [y + 2, y + 2] likewise.
        xy: [x + 2, y + 2] likewise.
    """

    rows: int
    xx: Float64[Tensor, "x x"]
    yy: Float64[Tensor, "y y"]
    xy: Float64[Tensor, "x y"]

    @staticmethod
    def of(
        x: Float[Tensor, "sample x"], y: Float[Tensor, "sample y"], origins: tuple[_Origin, _Origin]
    ) -> _Moments:
        out: _Moments | None = None
        for start in range(0, len(x), _ROWS):
            a = origins[0].augmented(x[start : start + _ROWS])
            b = origins[1].augmented(y[start : start + _ROWS])
            kind = torch.promote_types(a.dtype, b.dtype)
            xy = (a.to(kind).T @ b.to(kind)).double()
            part = _Moments(len(a), _own(a), _own(b), xy)
            if out is None:
                out = part
            else:
                out.add(part)
        assert out is not None
        return out

    def add(self, other: _Moments) -> None:
        self.rows += other.rows
        self.xx += other.xx
        self.yy += other.yy
        self.xy += other.xy

    def copy(self) -> _Moments:
        return _Moments(self.rows, self.xx.clone(), self.yy.clone(), self.xy.clone())

    def less(self, other: _Moments) -> _Moments:
        return _Moments(
            self.rows - other.rows, self.xx - other.xx, self.yy - other.yy, self.xy - other.xy
        )

    def cka(self, debiased: bool) -> float:
        needed = 4 if debiased else 3
        if self.rows < needed:
            raise DegenerateError(f"linear_cka got {self.rows} samples; needed at least {needed}")
        own = [_inner(self.rows, side, side, side, debiased) for side in (self.xx, self.yy)]
        for name, side, spread in zip("xy", (self.xx, self.yy), own, strict=True):
            size = float(side.diagonal()[:-2].sum()) ** 2
            if spread <= 1e-12 * size:
                raise DegenerateError(
                    f"{name} has no spread over its {self.rows} samples; choose a layer that"
                    " responds to the input, or add samples"
                )
        cross = _inner(self.rows, self.xy, self.xx, self.yy, debiased)
        return cross / math.sqrt(own[0] * own[1])

    def skewness(self) -> float:
        """Of the permutation null of the debiased value, up to terms of the order of 1 / n."""
        n, out = self.rows, 8.0 / (2 * math.sqrt(2))
        for side in (self.xx, self.yy):
            mean = side[:-2, -2] / n
            c = side[:-2, :-2] - n * torch.outer(mean, mean)
            squared = c @ c
            own = _inner(n, side, side, side, True)
            average = float(c.trace()) / n
            cubed = float((squared * c).sum()) - 3 * average * own - n * average**3
            out *= cubed / own**1.5
        return out


def _own(rows: Float[Tensor, "sample augmented"]) -> Float64[Tensor, "augmented augmented"]:
    """Products of the columns, each block of them above the diagonal taken once."""
    width = rows.shape[1]
    out = torch.empty(width, width, dtype=torch.float64, device=rows.device)
    edges = [width * part // _PARTS for part in range(_PARTS + 1)]
    for start, stop in pairwise(edges):
        out[start:stop, start:] = rows[:, start:stop].T @ rows[:, start:]
        out[stop:, start:stop] = out[start:stop, stop:].T
    return out


def _inner(n: int, cross: Tensor, x: Tensor, y: Tensor, debiased: bool) -> float:
    """<K, L> of the centred Grams, or n (n - 3) HSIC_1, from sums of products."""
    mu, nu = x[:-2, -2] / n, y[:-2, -2] / n
    raw = cross[:-2, :-2]
    product = float((raw - n * torch.outer(mu, nu)).square().sum())
    if not debiased:
        return product
    a, b = mu @ mu, nu @ nu
    # Sum over rows of the squared norms on both sides after centring, multiplied out.
    both = (
        cross[-1, -1]
        - 2 * (nu @ cross[-1, :-2] + mu @ cross[:-2, -1])
        + 4 * mu @ raw @ nu
        + b * x[-1, -2]
        + a * y[-1, -2]
        - 3 * n * a * b
    )
    k, m = x[-1, -2] - n * a, y[-1, -2] - n * b
    return product + float(k * m / ((n - 1) * (n - 2)) - n / (n - 2) * both)

"""The tiles of `blockwise` as fused CUDA kernels; imports Triton, so import it where it is used."""

from __future__ import annotations

from typing import no_type_check

import torch
import triton
import triton.language as tl
from torch import Tensor

_ROW_TILE, _COLUMN_TILE, _RANK_TILE = 128, 128, 64
_STRIP = 2**28  # logits whose slopes are held at a time: 512 MiB in half precision


class TritonProduct:
    """The logits of two scaled factors on CUDA, which never leave the kernels.

    Does what `blockwise.Product` does. A strip of rows is one launch, so memory grows with
    row + column. Products are accumulated in float32 from the factors as they are; the slopes
    are written strip by strip in the factors' precision, for two products by cuBLAS.

    Args:
        left: [*problem, row, rank]; float32, bfloat16 or float16.
        right: [*problem, column, rank].
        left_scale: [*problem, row].
        right_scale: [*problem, column].
        kept: not used.
    """

    def __init__(
        self,
        left: Tensor,
        right: Tensor,
        left_scale: Tensor,
        right_scale: Tensor,
        *,
        kept: Tensor | None = None,
    ) -> None:
        self.kept = None
        self._inputs = left, right, left_scale, right_scale
        precision = torch.promote_types(left.dtype, right.dtype)
        # Rows that start at multiples of 16 numbers are read many at a time.
        self._left, self._right = (
            torch.nn.functional.pad(z.to(precision), (0, -z.shape[-1] % 16))
            .reshape(-1, z.shape[-2], z.shape[-1] + -z.shape[-1] % 16)
            .contiguous()
            for z in (left, right)
        )
        self._left_scale, self._right_scale = (
            z.reshape(-1, z.shape[-1]).float().contiguous() for z in (left_scale, right_scale)
        )
        self._problems, self._rows, self._rank = self._left.shape
        self._columns = self._right.shape[1]
        # float32 is asked for by name only where exactness is meant.
        exact = precision == torch.float32 and not torch.backends.cuda.matmul.allow_tf32
        self._precision = "ieee" if exact else "tf32"

    def log_partitions(self) -> tuple[Tensor, Tensor]:
        """[problem, row] and [problem, column] log-sum-exp, in float64."""
        rows = self._left_scale.new_empty(self._left_scale.shape, dtype=torch.float64)
        columns = self._right_scale.new_full(
            self._right_scale.shape, -torch.inf, dtype=torch.float64
        )
        for i, grid in self._strips():
            height = i.stop - i.start
            of_rows = self._left_scale.new_empty(self._problems, grid[1], height)
            of_columns = self._left_scale.new_empty(self._problems, grid[0], self._columns)
            _partitions[self._launch(grid)](
                *self._pointers(i), of_rows, of_columns, *self._sizes(height), **self._settings()
            )
            rows[:, i] = of_rows.double().logsumexp(dim=1)
            columns = torch.logaddexp(columns, of_columns.double().logsumexp(dim=1))
        return rows, columns

    def gradients(
        self,
        rows: tuple[Tensor, Tensor],
        columns: tuple[Tensor, Tensor],
        needed: tuple[bool, ...],
    ) -> tuple[Tensor | None, ...]:
        """Gradients of a weighted sum of `log_partitions()`, as `Product.gradients`."""
        of_left = torch.empty_like(self._left, dtype=torch.float32)
        of_right = torch.zeros_like(self._right, dtype=torch.float32) if needed[1] else None
        shares = torch.zeros_like(self._right_scale) if needed[3] and not needed[1] else None
        # Slopes are at most twice the largest weight: float16 would lose them unless enlarged.
        largest = torch.maximum(rows[1].abs().max(), columns[1].abs().max()).clamp_min(1e-30)
        weights = [(z[1] / largest).float() for z in (rows, columns)]
        sums = [z[0].float() for z in (rows, columns)]
        # What rounding took from the log-sum-exp is put back into the weights.
        weights = [
            (w * (s.double() - z[0]).exp()).float()
            for w, s, z in zip(weights, sums, (rows, columns), strict=True)
        ]
        for i, grid in self._strips():
            height = i.stop - i.start
            slopes = self._left.new_empty(self._problems, height, self._columns)
            partial = self._left_scale.new_empty(
                (self._problems, grid[0], self._columns) if shares is not None else (1, 1, 1)
            )
            _slopes[self._launch(grid)](
                *self._pointers(i),
                sums[0][:, i].contiguous(),
                weights[0][:, i].contiguous(),
                sums[1].contiguous(),
                weights[1].contiguous(),
                slopes,
                partial,
                *self._sizes(height),
                SHARES=shares is not None,
                **self._settings(),
            )
            of_left[:, i] = _product(slopes, self._right)
            if of_right is not None:
                of_right += _product(slopes.mT, self._left[:, i])
            if shares is not None:
                shares += partial.sum(dim=1)
        of_left.mul_(largest)
        of_left_scale = _of_scale(of_left, self._left, self._left_scale) if needed[2] else None
        of_right_scale = None
        if of_right is not None:
            of_right.mul_(largest)
            of_right_scale = _of_scale(of_right, self._right, self._right_scale)
        elif shares is not None:
            of_right_scale = _divided(shares.mul_(largest), self._right_scale)
        rank = self._inputs[0].shape[-1]
        of_right = of_right if of_right is None else of_right[..., :rank]
        found = of_left[..., :rank], of_right, of_left_scale, of_right_scale
        return tuple(
            z.reshape(given.shape).to(given.dtype) if z is not None and wanted else None
            for z, given, wanted in zip(found, self._inputs, needed, strict=True)
        )

    def _strips(self) -> list[tuple[slice, tuple[int, int]]]:
        """Rows of each launch, and its tiles along rows and columns."""
        tiles = max(1, _STRIP // (self._problems * self._columns * _ROW_TILE))
        across = triton.cdiv(self._columns, _COLUMN_TILE)
        strips = []
        for start in range(0, self._rows, tiles * _ROW_TILE):
            stop = min(self._rows, start + tiles * _ROW_TILE)
            strips.append((slice(start, stop), (triton.cdiv(stop - start, _ROW_TILE), across)))
        return strips

    def _launch(self, grid: tuple[int, int]) -> tuple[int, int]:
        return grid[0] * grid[1], self._problems

    def _pointers(self, i: slice) -> tuple[Tensor, ...]:
        left = self._left if i.stop - i.start == self._rows else self._left[:, i].contiguous()
        return left, self._right, self._left_scale[:, i].contiguous(), self._right_scale

    def _sizes(self, height: int) -> tuple[int, int, int]:
        return height, self._columns, self._rank

    def _settings(self) -> dict[str, int | str]:
        return {
            "ROW_TILE": _ROW_TILE,
            "COLUMN_TILE": _COLUMN_TILE,
            "RANK_TILE": _RANK_TILE,
            "PRECISION": self._precision,
            "num_warps": 8,
            "num_stages": 3,
        }


def _product(slopes: Tensor, factor: Tensor) -> Tensor:
    """In float32, from the precision of the factors."""
    if slopes.dtype == torch.float32 or not slopes.is_cuda:
        return slopes.float() @ factor.float()
    return torch.bmm(slopes, factor, out_dtype=torch.float32)


def _of_scale(of_factor: Tensor, factor: Tensor, scale: Tensor) -> Tensor:
    return _divided(torch.linalg.vecdot(of_factor, factor.float()), scale)


def _divided(share: Tensor, scale: Tensor) -> Tensor:
    return torch.where(scale == 0, 0, share / scale)


@triton.jit
@no_type_check
def _tile(
    left,
    right,
    left_scale,
    right_scale,
    rows,
    columns,
    rank,
    ROW_TILE: tl.constexpr,
    COLUMN_TILE: tl.constexpr,
    RANK_TILE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """This program's tile of logits, its scales, and which rows and columns it has."""
    problem = tl.program_id(1).to(tl.int64)
    # Programs that run at the same time share their rows or columns in the cache.
    down, across = tl.cdiv(rows, ROW_TILE), tl.cdiv(columns, COLUMN_TILE)
    band = tl.program_id(0) // (8 * across)
    high = tl.minimum(down - band * 8, 8)
    within = tl.program_id(0) % (8 * across)
    row_tile = band * 8 + within % high
    column_tile = within // high
    i = row_tile * ROW_TILE + tl.arange(0, ROW_TILE)
    j = column_tile * COLUMN_TILE + tl.arange(0, COLUMN_TILE)
    k = tl.arange(0, RANK_TILE)
    left_at = left + (problem * rows + i[:, None]) * rank + k[None, :]
    right_at = right + (problem * columns + j[None, :]) * rank + k[:, None]
    total = tl.zeros((ROW_TILE, COLUMN_TILE), dtype=tl.float32)
    for start in range(0, rank, RANK_TILE):
        inside = start + k < rank
        a = tl.load(left_at + start, mask=(i[:, None] < rows) & inside[None, :], other=0.0)
        b = tl.load(right_at + start, mask=(j[None, :] < columns) & inside[:, None], other=0.0)
        total = tl.dot(a, b, total, input_precision=PRECISION)
    of_row = tl.load(left_scale + problem * rows + i, mask=i < rows, other=0.0)
    of_column = tl.load(right_scale + problem * columns + j, mask=j < columns, other=0.0)
    logits = total * of_row[:, None] * of_column[None, :]
    return logits, of_row, of_column, i, j, row_tile, column_tile, problem


@triton.jit
@no_type_check
def _partitions(
    left,
    right,
    left_scale,
    right_scale,
    of_rows,
    of_columns,
    rows,
    columns,
    rank,
    ROW_TILE: tl.constexpr,
    COLUMN_TILE: tl.constexpr,
    RANK_TILE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Log-sum-exp of the rows and of the columns of one tile."""
    logits, _, _, i, j, row_tile, column_tile, problem = _tile(
        left,
        right,
        left_scale,
        right_scale,
        rows,
        columns,
        rank,
        ROW_TILE,
        COLUMN_TILE,
        RANK_TILE,
        PRECISION,
    )
    by_row = tl.where(j[None, :] < columns, logits, float("-inf"))
    most = tl.max(by_row, axis=1)
    sums = most + tl.log(tl.sum(tl.exp(by_row - most[:, None]), axis=1))
    across = tl.cdiv(columns, COLUMN_TILE)
    tl.store(of_rows + (problem * across + column_tile) * rows + i, sums, mask=i < rows)
    by_column = tl.where(i[:, None] < rows, logits, float("-inf"))
    most = tl.max(by_column, axis=0)
    sums = most + tl.log(tl.sum(tl.exp(by_column - most[None, :]), axis=0))
    down = tl.cdiv(rows, ROW_TILE)
    tl.store(of_columns + (problem * down + row_tile) * columns + j, sums, mask=j < columns)


@triton.jit
@no_type_check
def _slopes(
    left,
    right,
    left_scale,
    right_scale,
    row_sums,
    row_weights,
    column_sums,
    column_weights,
    slopes,
    shares,
    rows,
    columns,
    rank,
    SHARES: tl.constexpr,
    ROW_TILE: tl.constexpr,
    COLUMN_TILE: tl.constexpr,
    RANK_TILE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Derivatives by the unscaled products of one tile: two weighted softmaxes, scaled."""
    logits, of_row, of_column, i, j, row_tile, _, problem = _tile(
        left,
        right,
        left_scale,
        right_scale,
        rows,
        columns,
        rank,
        ROW_TILE,
        COLUMN_TILE,
        RANK_TILE,
        PRECISION,
    )
    # Outside, the sum is infinite and the softmax so 0.
    row_at, column_at = problem * rows + i, problem * columns + j
    row_sum = tl.load(row_sums + row_at, mask=i < rows, other=float("inf"))
    column_sum = tl.load(column_sums + column_at, mask=j < columns, other=float("inf"))
    row_weight = tl.load(row_weights + row_at, mask=i < rows, other=0.0)
    column_weight = tl.load(column_weights + column_at, mask=j < columns, other=0.0)
    slope = tl.exp(logits - row_sum[:, None]) * row_weight[:, None]
    slope += tl.exp(logits - column_sum[None, :]) * column_weight[None, :]
    inside = (i[:, None] < rows) & (j[None, :] < columns)
    slope = tl.where(inside, slope, 0.0)
    if SHARES:
        down = tl.cdiv(rows, ROW_TILE)
        at = shares + (problem * down + row_tile) * columns + j
        tl.store(at, tl.sum(slope * logits, axis=0), mask=j < columns)
    scaled = slope * of_row[:, None] * of_column[None, :]
    at = slopes + (problem * rows + i[:, None]) * columns + j[None, :]
    tl.store(at, scaled.to(slopes.dtype.element_ty), mask=inside)

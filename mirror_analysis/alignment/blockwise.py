"""Log-sum-exp of a product's rows and columns, and its gradient, never holding the product."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from mirror_analysis.errors import ShapeError

if TYPE_CHECKING:
    from mirror_analysis.alignment.triton_kernels import TritonProduct

_TILE = 2**20  # logits at a time on a CPU: smaller products keep several threads waiting
_TILE_CUDA = 2**26
_KEPT = 2**20  # logits that are kept for the backward pass where all of them are this few
# Between these, exp(logit) is a normal float32 number and so is what a gradient makes of it.
_LOWEST, _HIGHEST = math.log(1e-20), math.log(1e28)


def log_partitions(
    left: Float[Tensor, "*problem row rank"],
    right: Float[Tensor, "*problem column rank"],
    *,
    left_scale: Float[Tensor, "*problem row"],
    right_scale: Float[Tensor, "*problem column"],
) -> tuple[Float[Tensor, "*problem row"], Float[Tensor, "*problem column"]]:
    """Log-sum-exp over every row and over every column of scaled inner products.

    The logits are `left_scale[i] * right_scale[j] * left[i] @ right[j]`. They are made tile by
    tile, once here and once again for the gradient, so memory grows with row + column and not
    with row * column. On CUDA the tiles are fused kernels where Triton is installed. Sums are
    float32, or float64 for float64 factors. Safe at any finite logit: where exp alone would
    leave the range of float32, running maxima are used.

    Args:
        left: first factor; float64, float32, bfloat16 or float16.
        right: second factor.
        left_scale: what the rows of left are multiplied with.
        right_scale: what the rows of right are multiplied with.

    Returns:
        The log-sum-exp of each row over the columns and of each column over the rows, in nats;
        differentiable with respect to all four arguments.

    Raises:
        ShapeError: if a side is empty.

    Source:
        Milakov and Gimelshein (2018) for sums with a running maximum; Dao et al. (2022) for
        gradients that make the tiles again.

    Example:
        >>> one = torch.ones(2)
        >>> rows, _ = log_partitions(x, y, left_scale=one, right_scale=one)
        >>> torch.allclose(rows, (x @ y.mT).logsumexp(-1))
        True
    """
    if not left.shape[-2] or not right.shape[-2]:
        raise ShapeError(
            f"left has {left.shape[-2]} rows and right {right.shape[-2]}; a contrastive loss"
            " needs at least one of each"
        )
    found = _LogPartitions.apply(left, right, left_scale, right_scale)  # type: ignore[no-untyped-call]
    rows, columns = found
    return rows, columns


class _LogPartitions(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *factors: Tensor) -> tuple[Tensor, Tensor]:
        with full_precision(factors[0]):
            product = _product(*factors)
            rows, columns = product.log_partitions()
        ctx.save_for_backward(*factors, rows, columns, product.kept)
        problems, precision = factors[0].shape[:-2], _precision(factors[0])
        return rows.to(precision).view(*problems, -1), columns.to(precision).view(*problems, -1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *weights: Tensor) -> tuple[Tensor | None, ...]:
        *factors, rows, columns, kept = ctx.saved_tensors
        row_weights, column_weights = weights
        with full_precision(factors[0]):
            return _product(*factors, kept=kept).gradients(
                (rows, row_weights.reshape(rows.shape)),
                (columns, column_weights.reshape(columns.shape)),
                ctx.needs_input_grad,
            )


def full_precision(z: Tensor) -> torch.autocast:
    """A context in which sums have the precision that the tensor asks for, not autocast's."""
    return torch.autocast(z.device.type, enabled=False)


def _product(*factors: Tensor, kept: Tensor | None = None) -> Product | TritonProduct:
    fused = factors[0].is_cuda and factors[0].dtype != torch.float64
    if not fused or importlib.util.find_spec("triton") is None:
        return Product(*factors, kept=kept)
    from mirror_analysis.alignment.triton_kernels import TritonProduct

    return TritonProduct(*factors)


class Product:
    """The logits of two scaled factors, seen tile by tile; all leading axes are one.

    Args:
        left: [*problem, row, rank].
        right: [*problem, column, rank].
        left_scale: [*problem, row].
        right_scale: [*problem, column].
        kept: what the attribute `kept` of an earlier product of the same factors was.

    Attributes:
        kept: [problem, row, column] logits where they are few; None where they are made again.
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
        self._factors = left, right, left_scale, right_scale
        self._left, self._left_scale = left.reshape(-1, *left.shape[-2:]), _one_axis(left_scale)
        self._right = _scaled(right, right_scale).reshape(-1, *right.shape[-2:])
        self._shape = (*self._left.shape[:2], self._right.shape[1])
        limit = _TILE_CUDA if left.is_cuda else _TILE
        self._buffers = self._right.new_empty(3, min(limit, math.prod(self._shape)))
        self._made = kept is not None
        if kept is None and math.prod(self._shape) <= _KEPT:
            kept = self._right.new_empty(self._shape)
        self.kept = kept

    def log_partitions(self) -> tuple[Tensor, Tensor]:
        """[problem, row] and [problem, column] log-sum-exp, in float64 whatever the sums are.

        A softmax made of a rounded log-sum-exp is wrong by the rounding times its size.
        """
        return self._by_exponentials() or self._by_running_maxima()

    def gradients(
        self,
        rows: tuple[Tensor, Tensor],
        columns: tuple[Tensor, Tensor],
        needed: tuple[bool, ...],
    ) -> tuple[Tensor | None, ...]:
        """Gradients of a weighted sum of `log_partitions()` for those factors that need one.

        Args:
            rows: [problem, row] log-sum-exp, and its weights.
            columns: [problem, column] log-sum-exp, and its weights.
            needed: for each of the four factors, whether its gradient is asked for.
        """
        of_left = torch.empty_like(self._left) if needed[0] else None
        of_left_scale = torch.empty_like(self._left_scale) if needed[2] else None
        of_right = torch.zeros_like(self._right) if needed[1] else None
        # What a column adds to the sum, times its scale: enough where right itself is constant.
        shares = torch.zeros_like(columns[0]) if needed[3] and not needed[1] else None
        slopes = _Slopes(rows, columns)
        for p, i, block, across in self._blocks():
            of_block = torch.zeros_like(block)
            for j in across:
                logits, first, second = self._tile(block, p, i, j)
                slope = slopes(logits, (p, i, j), first, second)
                if of_left is not None or of_left_scale is not None:
                    of_block.baddbmm_(slope, self._right[p, j])
                if of_right is not None:
                    of_right[p, j].baddbmm_(slope.mT, block)
                if shares is not None:
                    shares[p, j] += slope.mul_(logits).sum(dim=1)
            if of_left_scale is not None:
                of_left_scale[p, i] = torch.linalg.vecdot(
                    of_block, self._left[p, i].to(block.dtype)
                )
            if of_left is not None:
                of_left[p, i] = of_block.mul_(self._left_scale[p, i, None])
        of_right_scale = None
        if shares is not None:
            scale = _one_axis(self._factors[3])
            of_right_scale = torch.where(scale == 0, 0, shares / scale)
        if of_right is not None:
            of_right, of_right_scale = _unscaled(of_right, self._factors[1], self._factors[3])
        found = of_left, of_right, of_left_scale, of_right_scale
        return tuple(
            None if z is None else z.reshape(factor.shape).to(factor.dtype)
            for z, factor in zip(found, self._factors, strict=True)
        )

    def _blocks(self) -> Iterator[tuple[slice, slice, Tensor, list[slice]]]:
        """Problems and rows of each block, its scaled rows, and the columns of its tiles."""
        problems, rows, columns = self._shape
        limit = self._buffers.shape[1]
        width = min(columns, max(math.isqrt(limit), limit // rows))
        height = min(rows, max(1, limit // width))
        depth = max(1, limit // (rows * columns))
        across = [slice(j, min(j + width, columns)) for j in range(0, columns, width)]
        for p in range(0, problems, depth):
            for i in range(0, rows, height):
                where = slice(p, p + depth), slice(i, i + height)
                yield *where, _scaled(self._left[where], self._left_scale[where]), across

    def _tile(self, block: Tensor, p: slice, i: slice, j: slice) -> tuple[Tensor, Tensor, Tensor]:
        """The logits of a tile, and room for twice as many numbers."""
        right = self._right[p, j]
        shape = *block.shape[:2], right.shape[1]
        logits, first, second = (b[: math.prod(shape)].view(shape) for b in self._buffers)
        if self.kept is not None:
            logits = self.kept[p, i, j]
        if not self._made:
            torch.bmm(block, right.mT, out=logits)
        return logits, first, second

    def _by_exponentials(self) -> tuple[Tensor, Tensor] | None:
        """Sums of exp itself, for the least work; None where a sum leaves the safe range."""
        problems, height, width = self._shape
        rows = self._right.new_zeros(problems, height)
        columns = self._right.new_zeros(problems, width)
        for p, i, block, across in self._blocks():
            for j in across:
                logits, exponentials, _ = self._tile(block, p, i, j)
                torch.exp(logits, out=exponentials)
                rows[p, i] += exponentials.sum(dim=2)
                columns[p, j] += exponentials.sum(dim=1)
            if not _is_safe(rows[p, i].log()):
                return None
        rows, columns = rows.double().log_(), columns.double().log_()
        return (rows, columns) if _is_safe(columns) else None

    def _by_running_maxima(self) -> tuple[Tensor, Tensor]:
        problems, height, width = self._shape
        rows = self._right.new_full((problems, height), -math.inf, dtype=torch.float64)
        columns = self._right.new_full((problems, width), -math.inf, dtype=torch.float64)
        for p, i, block, across in self._blocks():
            for j in across:
                logits, _, _ = self._tile(block, p, i, j)
                rows[p, i] = torch.logaddexp(rows[p, i], logits.logsumexp(dim=2))
                columns[p, j] = torch.logaddexp(columns[p, j], logits.logsumexp(dim=1))
        return rows, columns


class _Slopes:
    """The derivative of the weighted sum by each logit: two weighted softmaxes."""

    def __init__(self, rows: tuple[Tensor, Tensor], columns: tuple[Tensor, Tensor]) -> None:
        self._safe = _is_safe(rows[0]) and _is_safe(columns[0])
        self._rows, self._row_weights = (z[:, :, None] for z in self._rounded(*rows))
        self._columns, self._column_weights = (z[:, None, :] for z in self._rounded(*columns))

    def _rounded(self, partitions: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """What to subtract before exp, and what to multiply with after it."""
        rounded = torch.zeros_like(weights) if self._safe else partitions.to(weights.dtype)
        return rounded, (weights * (rounded - partitions).exp()).to(weights.dtype)

    def __call__(
        self, logits: Tensor, tile: tuple[slice, slice, slice], first: Tensor, second: Tensor
    ) -> Tensor:
        p, i, j = tile
        if self._safe:
            torch.exp(logits, out=first)
            torch.add(self._row_weights[p, i], self._column_weights[p, :, j], out=second)
            return torch.mul(first, second, out=first)
        torch.sub(logits, self._rows[p, i], out=first).exp_().mul_(self._row_weights[p, i])
        torch.sub(logits, self._columns[p, :, j], out=second).exp_()
        return first.addcmul_(second, self._column_weights[p, :, j])


def _is_safe(partitions: Tensor) -> bool:
    return bool(((partitions > _LOWEST) & (partitions < _HIGHEST)).all())


def _precision(factor: Tensor) -> torch.dtype:
    return torch.promote_types(factor.dtype, torch.float32)


def _one_axis(scale: Tensor) -> Tensor:
    return scale.reshape(-1, scale.shape[-1])


def _scaled(factor: Tensor, scale: Tensor) -> Tensor:
    precision = _precision(factor)
    return factor.to(precision) * scale.to(precision)[..., None]


def _unscaled(of_scaled: Tensor, factor: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of a factor and of its scale out of that of their product."""
    of_scaled = of_scaled.reshape(factor.shape)
    of_scale = torch.linalg.vecdot(of_scaled, factor.to(of_scaled.dtype))
    return of_scaled.mul_(scale.to(of_scaled.dtype)[..., None]), of_scale

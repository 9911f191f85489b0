"""Batches that are spread over processes, and the contrastive loss of the whole batch."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, distributed

from mirror_analysis.alignment.blockwise import full_precision, log_partitions
from mirror_analysis.alignment.losses import info_nce, inverse_lengths, positive_logits
from mirror_analysis.errors import ShapeError


class World(NamedTuple):
    """Which process this is, and of how many.

    Attributes:
        rank: from 0.
        size: 1 where `torch.distributed` has not been initialised.
    """

    rank: int
    size: int


def world() -> World:
    """This process among those of the default group of `torch.distributed`."""
    if not distributed.is_available() or not distributed.is_initialized():
        return World(0, 1)
    return World(distributed.get_rank(), distributed.get_world_size())


def gather(x: Tensor) -> Tensor:
    """The rows of all processes, in the order of their ranks, differentiably.

    The gradient of a process's rows is the sum of what all processes ask of them, so it is that
    of the sum of the losses of all processes. Works with gloo and nccl; alone it returns x.

    Args:
        x: [local, ...] with as many rows in every process; floating point or integer.

    Returns:
        [process * local, ...].

    Raises:
        ShapeError: in every process, if the shapes differ between processes.

    Example:
        >>> embeddings = gather(local_embeddings)  # [processes * local, width]
    """
    rank, size = world()
    if size == 1:
        return x
    shape = torch.tensor(x.shape, device=x.device)
    shapes = [torch.empty_like(shape) for _ in range(size)]
    distributed.all_gather(shapes, shape)
    if any(not torch.equal(other, shape) for other in shapes):
        rows = ", ".join(str(list(other.tolist())) for other in shapes)
        raise ShapeError(
            f"the {size} processes hold shapes {rows}; needed equal ones, so drop the last rows"
            " of the larger"
        )
    return _Gather.apply(x, rank, size)  # type: ignore[no-untyped-call]


def global_info_nce(
    x: Float[Tensor, "batch width"],
    y: Float[Tensor, "batch width"],
    *,
    temperature: float | Tensor,
    positives: Int[Tensor, " batch"] | None = None,
) -> Float[Tensor, ""]:
    """`info_nce` of the batch that all processes hold together.

    The value is that of the whole batch, in every process. The gradient is that of this process's
    anchors times the number of processes: averaged over processes, as DistributedDataParallel
    does, gradients of parameters are those of one process with the whole batch. Each process makes
    its rows of the logits only, once for both directions.

    Args:
        x: this process's embeddings of the first side.
        y: this process's embeddings of the second side.
        temperature: as in `info_nce`.
        positives: this process's labels; equal labels are positives across processes too.

    Raises:
        ShapeError: in every process, if the batches differ between processes.
        DegenerateError: if the temperature is a number that is not above 0.

    Source:
        Chen et al. (2023), DisCo-CLIP, for the share of each process.
    """
    rank, size = world()
    if size == 1:
        return info_nce(x, y, temperature=temperature, positives=positives)
    with full_precision(x):
        x_scale, y_scale = inverse_lengths(x, temperature), inverse_lengths(y)
        right, right_scale = gather(y), gather(y_scale)
        rows, shares = log_partitions(x, right, left_scale=x_scale, right_scale=right_scale)
        own = slice(rank * len(x), (rank + 1) * len(x))
        columns = gather(shares[None]).logsumexp(dim=0)[own]
        if positives is None:
            positive = positive_logits(x, y, left_scale=x_scale, right_scale=y_scale)
        else:
            labels, group = torch.unique(gather(positives), return_inverse=True)
            scaled = right.to(right_scale.dtype) * right_scale[:, None]
            sums = scaled.new_zeros(len(labels), scaled.shape[1]).index_add(0, group, scaled)
            means = sums / group.bincount(minlength=len(labels))[:, None]
            mean = means[group[own]].to(x.dtype)
            positive = positive_logits(
                x, mean, left_scale=x_scale, right_scale=torch.ones_like(x_scale)
            )
        local = (0.5 * (rows + columns)).mean() - positive
        whole = local.detach().clone()
        distributed.all_reduce(whole)
        return local + (whole / size - local.detach())


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, rank: int, size: int) -> Tensor:
        ctx.rank, ctx.size = rank, size
        gathered = x.new_empty(size * len(x), *x.shape[1:])
        distributed.all_gather(list(gathered.chunk(size)), x.contiguous())
        return gathered

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        total = grad.to(torch.promote_types(grad.dtype, torch.float32)).contiguous()
        own = total.new_empty(len(total) // ctx.size, *total.shape[1:])
        if distributed.get_backend() == "nccl":
            distributed.reduce_scatter(own, list(total.chunk(ctx.size)))
        else:
            # Not every other backend can scatter; a copy, as autograd may still need its gradient.
            total = total.clone() if total is grad else total
            distributed.all_reduce(total)
            own = total[ctx.rank * len(own) : (ctx.rank + 1) * len(own)]
        return own.to(grad.dtype), None, None

"""The contrastive loss of the alignment."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mirror_analysis.alignment.blockwise import full_precision, log_partitions
from mirror_analysis.errors import DegenerateError, ShapeError

_SHORTEST = 1e-12  # an embedding of length 0 has cosine 0 with all others
_DENSE = 2**20  # logits that autograd may hold where that is faster: short and wide batches
_SHORT = 256
_ROWS = 1024  # embeddings at a time where only their lengths are asked for


def info_nce(
    x: Float[Tensor, "*problem batch width"],
    y: Float[Tensor, "*problem batch width"],
    *,
    temperature: float | Tensor,
    positives: Int[Tensor, "*labelled"] | None = None,
) -> Float[Tensor, "*problem"]:
    """Bidirectional InfoNCE in nats (van den Oord et al., 2018; both directions averaged).

    Row i of x and row i of y are a positive pair, all other rows of the batch are negatives;
    similarity is the cosine over the temperature. With labels, all rows of an equal label are
    positives of one another: an anchor's loss is the mean over its positives of -log softmax.
    At least 0; log(batch) when nothing is known. Memory grows with the batch, not its square.

    Args:
        x: embeddings of the first side, of any length; sums are float32 for half precision.
        y: embeddings of the second side.
        temperature: tau, above 0; a tensor is learned: one number, or one per problem.
        positives: [batch] or [*problem, batch] integer labels; None makes each row its own group.

    Raises:
        ShapeError: if there is not one label per row, or no row.
        DegenerateError: if the temperature is a number that is not above 0.

    Source:
        van den Oord et al. (2018), eq. 4; Khosla et al. (2020), eq. 2, for several positives.

    Example:
        >>> info_nce(torch.eye(6), torch.eye(6), temperature=0.5)  # log(1 + 5 exp(-2))
        tensor(0.5172)
    """
    with full_precision(x):
        return contrast(
            x,
            y,
            left_scale=inverse_lengths(x, temperature),
            right_scale=inverse_lengths(y),
            positives=positives,
        )


def contrast(
    left: Float[Tensor, "*problem batch rank"],
    right: Float[Tensor, "*problem batch rank"],
    *,
    left_scale: Float[Tensor, "*problem batch"],
    right_scale: Float[Tensor, "*problem batch"],
    positives: Int[Tensor, "*labelled"] | None = None,
) -> Float[Tensor, "*problem"]:
    """Bidirectional InfoNCE of logits given as scaled inner products of two factors.

    The logit of i and j is `left_scale[i] * right_scale[j] * left[i] @ right[j]`. Any two factors
    with these products give the same loss, those of lowest rank give it soonest.

    Args:
        left: first factor.
        right: second factor.
        left_scale: of each row of left.
        right_scale: of each row of right.
        positives: as in `info_nce`.

    Raises:
        ShapeError: if there is not one label per row, or no row.

    Example:
        >>> scale = torch.ones(6)
        >>> contrast(torch.eye(6) / 0.5, torch.eye(6), left_scale=scale, right_scale=scale)
        tensor(0.5172)
    """
    _check_labels(left, positives)
    with full_precision(left):
        batch, rank = left.shape[-2:]
        if left.shape[:-1].numel() * batch <= _DENSE and batch <= max(_SHORT, rank // 2):
            return _dense(left, right, left_scale, right_scale, positives)
        rows, columns = log_partitions(left, right, left_scale=left_scale, right_scale=right_scale)
        positive = positive_logits(
            left, right, left_scale=left_scale, right_scale=right_scale, positives=positives
        )
    return (0.5 * (rows + columns)).mean(dim=-1) - positive


def inverse_lengths(
    z: Float[Tensor, "*problem batch width"], temperature: float | Tensor = 1.0
) -> Float[Tensor, "*problem batch"]:
    """One over length times temperature: the scale that makes cosines of embeddings.

    An embedding of length 0 gets a finite one, and so cosines of 0.

    Args:
        z: embeddings.
        temperature: one number, or one per problem.

    Raises:
        DegenerateError: if the temperature is a number that is not above 0.
    """
    precision = torch.promote_types(z.dtype, torch.float32)
    lengths = torch.linalg.vector_norm(z, dim=-1, dtype=precision).clamp_min(_SHORTEST)
    return 1 / (lengths * _of_problem(temperature))


def positive_logits(
    left: Float[Tensor, "*problem batch rank"],
    right: Float[Tensor, "*problem batch rank"],
    *,
    left_scale: Float[Tensor, "*problem batch"],
    right_scale: Float[Tensor, "*problem batch"],
    positives: Int[Tensor, "*labelled"] | None = None,
) -> Float[Tensor, "*problem"]:
    """Mean over anchors of the mean logit of an anchor's positives; arguments as `contrast`.

    Logits are linear in either factor, so sums over groups suffice, and both directions agree.
    """
    left, right = _summed(left), _summed(right)
    if positives is None:
        products = torch.linalg.vecdot(left, right)
        return (products * left_scale * right_scale).mean(dim=-1)
    labels, group = torch.unique(positives, return_inverse=True)
    group = group.expand(left.shape[:-1]).reshape(-1, left.shape[-2])
    # Equal labels of two problems are two groups.
    group = (group + len(labels) * torch.arange(len(group), device=group.device)[:, None]).ravel()
    groups = left.new_zeros(left.shape[:-2].numel() * len(labels), left.shape[-1])
    left_sum, right_sum = (
        groups.index_add(0, group, (factor * scale[..., None]).flatten(end_dim=-2))
        for factor, scale in ((left, left_scale), (right, right_scale))
    )
    members = torch.bincount(group, minlength=len(groups)).clamp_min(1)
    means = torch.linalg.vecdot(left_sum, right_sum) / members
    return means.view(*left.shape[:-2], len(labels)).sum(dim=-1) / left.shape[-2]


def _dense(
    left: Tensor,
    right: Tensor,
    left_scale: Tensor,
    right_scale: Tensor,
    positives: Tensor | None,
) -> Tensor:
    # The products are scaled, not the factors: batch x batch is the smaller array.
    products = _summed(left) @ _summed(right).mT
    logits = products * (left_scale[..., :, None] * right_scale[..., None, :])
    if positives is None:
        positive = logits.diagonal(dim1=-2, dim2=-1)
    else:
        weights = (positives[..., :, None] == positives[..., None, :]).to(logits.dtype)
        positive = (logits * weights).sum(dim=-1) / weights.sum(dim=-1)
    both = torch.logsumexp(logits, dim=-1) + torch.logsumexp(logits, dim=-2)
    return (0.5 * both - positive).mean(dim=-1)


class LinearMap(NamedTuple):
    """`features @ weight + bias`.

    Attributes:
        weight: [*problem, feature, width].
        bias: [*problem, width].
    """

    weight: Tensor
    bias: Tensor


def linear_info_nce(
    x: Float[Tensor, "*problem batch x_feature"],
    y: Float[Tensor, "*problem batch y_feature"],
    x_map: LinearMap,
    y_map: LinearMap,
    *,
    temperature: float | Tensor,
    positives: Int[Tensor, "*labelled"] | None = None,
) -> Float[Tensor, "*problem"]:
    """`info_nce` of two linear maps of constant features, by the cheaper of two ways.

    The cosine of x W + b and y V + c is (x W + b) [V; c]ᵀ [y, 1]ᵀ over the two lengths: a product
    with inner dimension y_feature + 1 instead of the width, one factor of which is constant, so
    that its gradient needs one product of batch x batch less. Taken where it counts fewer
    operations and neither x nor y needs a gradient; otherwise the embeddings are made.

    Args:
        x: features of the first side.
        y: features of the second side.
        x_map: weight [*problem, x_feature, width] and bias [*problem, width].
        y_map: weight [*problem, y_feature, width] and bias [*problem, width].
        temperature: as in `info_nce`.
        positives: as in `info_nce`.

    Raises:
        ShapeError: if there is not one label per row, or no row.
        DegenerateError: if the temperature is a number that is not above 0.

    Example:
        >>> maps = (LinearMap(torch.eye(6), torch.zeros(6)) for _ in range(2))
        >>> linear_info_nce(torch.eye(6), torch.eye(6), *maps, temperature=0.5)
        tensor(0.5172)
    """
    if x.shape[-1] < y.shape[-1]:
        x, y, x_map, y_map = y, x, y_map, x_map
    if x.requires_grad or y.requires_grad or not _factored_is_cheaper(x, y, x_map):
        embeddings = (
            z @ weight + bias[..., None, :] for z, (weight, bias) in ((x, x_map), (y, y_map))
        )
        return info_nce(*embeddings, temperature=temperature, positives=positives)
    with full_precision(x):
        x_both, y_both = (
            torch.cat([weight, bias[..., None, :]], dim=-2) for weight, bias in (x_map, y_map)
        )
        between = x_both @ y_both.mT
        return contrast(
            x @ between[..., :-1, :] + between[..., -1:, :],
            torch.cat([y, torch.ones_like(y[..., :1])], dim=-1),
            left_scale=_inverse(_lengths(x, x_map)) / _of_problem(temperature),
            right_scale=_inverse(_lengths(y, y_map)),
            positives=positives,
        )


def _factored_is_cheaper(x: Tensor, y: Tensor, x_map: LinearMap) -> bool:
    """Multiplications and additions of value and gradient, in pairs."""
    batch, wide, narrow, width = x.shape[-2], x.shape[-1], y.shape[-1], x_map.weight.shape[-1]
    embedded = 2 * batch * (wide + narrow) * width + 4 * batch**2 * width
    lengths = sum(batch * d * (width + d) + d**2 * width for d in (wide, narrow))
    left = 2 * batch * wide * narrow + 3 * wide * narrow * width
    return lengths + left + 3 * batch**2 * narrow < embedded


class _Lengths(torch.autograd.Function):
    """Lengths of linear embeddings of constant rows, which are never all held."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        lengths = rows.new_empty(rows.shape[:-1])
        for start in range(0, rows.shape[-2], _ROWS):
            block = slice(start, start + _ROWS)
            embeddings = (rows[..., block, :] @ weight).add_(bias[..., None, :])
            lengths[..., block] = embeddings.norm(dim=-1)
        ctx.save_for_backward(rows, weight, bias, lengths)
        return lengths

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor, Tensor]:
        rows, weight, bias, lengths = ctx.saved_tensors
        # The embeddings are linear in the rows, so second moments of the rows stand for them.
        factors = torch.where(lengths > _SHORTEST, grad / lengths, 0)[..., None]
        moments = weight.new_zeros(*weight.shape[:-1], weight.shape[-2])
        for start in range(0, rows.shape[-2], _ROWS):
            block = rows[..., start : start + _ROWS, :]
            moments += (block * factors[..., start : start + _ROWS, :]).mT @ block
        mean = rows.mT @ factors
        of_bias = mean.mT @ weight + factors.sum(dim=-2, keepdim=True) * bias[..., None, :]
        return None, moments @ weight + mean * bias[..., None, :], of_bias[..., 0, :]


def _lengths(rows: Tensor, affine: LinearMap) -> Tensor:
    return _Lengths.apply(rows, affine.weight, affine.bias)  # type: ignore[no-untyped-call]


def _inverse(lengths: Tensor) -> Tensor:
    return torch.where(lengths > _SHORTEST, 1 / lengths, 0)


def _check_labels(side: Tensor, positives: Tensor | None) -> None:
    if positives is not None and positives.shape not in (side.shape[:-1], side.shape[-2:-1]):
        raise ShapeError(
            f"positives has shape {list(positives.shape)} but a side {list(side.shape)}; needed one"
            f" integer label per row, {list(side.shape[-2:-1])} or {list(side.shape[:-1])}"
        )


def _summed(factor: Tensor) -> Tensor:
    return factor.to(torch.promote_types(factor.dtype, torch.float32))


def _of_problem(temperature: float | Tensor) -> float | Tensor:
    """The temperature, to divide one number per row by."""
    if isinstance(temperature, Tensor):
        return temperature[..., None] if temperature.ndim else temperature
    if not temperature > 0:
        raise DegenerateError(f"the temperature is {temperature}; needed a number above 0")
    return temperature

"""Inner products of matrices over pairs without some of the samples, without making them anew."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from mirror_analysis.similarity.pairwise.gram_moments import fold_products
from mirror_analysis.similarity.pairwise.pairs import Pairs, grams, scaled_parts


def leave_out(
    x: Sequence[Pairs], y: Sequence[Pairs], folds: Int64[Tensor, " sample"]
) -> Float64[Tensor, "fold x_layer y_layer"]:
    """The cosines of matrices over all samples but those of each fold in turn.

    Exact: as if both matrices were made and centred again from the samples left. Taking fold g
    out of Q leaves row sums of minus its share in them, so the inner product of the parts left is
    that of all, less twice the rows of g, plus their block, less what centring again removes.

    Args:
        x: matrices of the layers of the first side.
        y: of the second side.
        folds: [sample] fold numbers counted from 0.

    Returns:
        [fold, x layer, y layer], NaN where what is left has no spread, or too little beside that
        of all samples to be told from rounding.
    """
    count = int(folds.max()) + 1
    streamed = grams(x, y)
    if streamed is not None:
        rows, block = fold_products(*streamed, folds)
        own_x, own_y = (
            torch.stack([fold_products([g], [g], folds)[1][:, 0, 0] for g in side], dim=1)
            for side in streamed
        )
    else:
        rows = torch.empty(count, len(x), len(y), dtype=torch.float64, device=folds.device)
        block = torch.empty_like(rows)
    again, low = torch.empty_like(rows), torch.empty_like(rows)
    left_x, left_y = rows.new_empty(count, len(x)), rows.new_empty(count, len(y))
    for fold in range(count):
        gone, kept = (folds == fold).nonzero().reshape(-1), (folds != fold).nonzero().reshape(-1)
        if streamed is not None:
            sums_x, sums_y = (torch.stack([g.row_sum(gone) for g in side]) for side in streamed)
            blocks = own_x[fold], own_y[fold]
        else:
            a, b = (torch.stack([s.take(gone) for s in side], dim=1) for side in (x, y))
            rows[fold] = torch.bmm(a, b.transpose(1, 2)).double().sum(dim=0)
            within = [z[:, :, gone].transpose(0, 1).flatten(1) for z in (a, b)]
            block[fold] = (within[0] @ within[1].T).double()
            blocks = (within[0].double().square().sum(1), within[1].double().square().sum(1))
            sums_x, sums_y = (z.sum(dim=0, dtype=torch.float64) for z in (a, b))
        if len(kept) < 3:  # nothing can be split
            again[fold] = low[fold] = left_x[fold] = left_y[fold] = 0
            continue
        first = _rest(x, gone, kept, -sums_x[:, kept], blocks[0])
        second = _rest(y, gone, kept, -sums_y[:, kept], blocks[1])
        again[fold] = _centred_again(-sums_x[:, kept], -sums_y[:, kept])
        low[fold] = first[0][:, None] * second[0] + first[1] @ second[1].T
        left_x[fold], left_y[fold] = first[2], second[2]
    products = rows.sum(dim=0) - 2 * rows + block - again + low
    spread = left_x.clamp(min=0).sqrt()[:, :, None] * left_y.clamp(min=0).sqrt()[:, None]
    lost_x, lost_y = (_rounding(side, streamed is not None) for side in (x, y))
    defined = (left_x > lost_x)[:, :, None] & (left_y > lost_y)[:, None]
    return torch.where(defined, products / spread, torch.nan)


def _rounding(side: Sequence[Pairs], streamed: bool) -> Float64[Tensor, " layer"]:
    """Own products of what is left that are lost in the rounding of those of all samples."""
    lost = []
    for s in side:
        by_rows = s.gram if streamed else None
        kind = s.rows(0, 1).dtype if by_rows is None else by_rows.rows.dtype
        # Moments count the diagonal too and take it away again.
        size = s.own + (0.0 if by_rows is None else float(by_rows.delta.square().sum()))
        lost.append(1e4 * torch.finfo(kind).eps * size)
    return side[0].u.new_tensor(lost)


def _rest(
    side: Sequence[Pairs],
    gone: Int64[Tensor, " gone"],
    kept: Int64[Tensor, " kept"],
    sums: Float64[Tensor, "layer kept"],
    block: Float64[Tensor, " layer"],
) -> tuple[Tensor, Tensor, Tensor]:
    """Scaled level [layer], scaled vector [layer, kept] and own product [layer] of what is left.

    Args:
        side: the matrices of all samples.
        gone: samples left out.
        kept: the others.
        sums: row sums of Q over the samples kept.
        block: sums of squares of Q among the samples left out.
    """
    m = len(kept)
    mean = torch.tensor([s.mean for s in side], dtype=torch.float64, device=kept.device)
    slope = torch.stack([s.slope[kept] for s in side])
    # Row sums of A over the samples kept, without its diagonal, split again.
    total = (m - 1) * mean[:, None] + (m - 2) * slope + slope.sum(dim=1, keepdim=True) + sums
    again = total.mean(dim=1) / (m - 1)
    bent = (total - (m - 1) * again[:, None]) / (m - 2)
    level, u = scaled_parts(
        side[0].kind, again, bent, torch.stack([s.diagonal[kept] for s in side])
    )
    squares = torch.stack([s.squares.sum() - 2 * s.squares[gone].sum() for s in side])
    own = squares + block - _centred_again(sums, sums).diagonal()
    return level, u, own + level**2 + u.square().sum(dim=1)


def _centred_again(
    x: Float64[Tensor, "x_layer kept"], y: Float64[Tensor, "y_layer kept"]
) -> Tensor:
    """What U-centring removes from the inner products of matrices with these row sums."""
    m = x.shape[-1]
    total = x.sum(dim=1)[:, None] * y.sum(dim=1) / ((m - 1) * (m - 2))
    return 2 / (m - 2) * (x @ y.T) - total

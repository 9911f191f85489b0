"""Logistic regression on many sets of shown rows at once, from their inner products alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor

from mirror_analysis.probing.logistic import logistic_path
from mirror_analysis.probing.span import Span

Rows = NDArray[np.int64]
Products = NDArray[np.float64]

# Share of the largest variance below which an axis is rounding.
_FLAT = 1e-12
# Inner products of shown and test rows that are held at once.
_BLOCK = 1 << 24


def logistic_shots(
    inner: Products,
    cross: Products,
    shown: Sequence[Rows],
    codes: Rows,
    folds: Sequence[Rows],
    *,
    strengths: Sequence[float],
) -> Rows:
    """The class of every test row, told from each set of shown rows.

    A penalised map lies in the span of the rows it is fitted on, so it and what it says of any
    row follow from inner products. Features are centred by the shown rows and not scaled.

    Args:
        inner: [labelled, labelled] inner products.
        cross: [test, labelled] inner products.
        shown: sets of labelled rows, each with every class.
        codes: [labelled] classes, from 0.
        folds: for each set the part of each of its rows in the cross-validation that chooses the
            strength by the log-loss; where all are in one part, the strongest is taken.
        strengths: lambda of `mean log-loss + lambda / 2 |w|²`.

    Returns:
        [set, test] classes.
    """
    tried = torch.tensor(sorted(strengths, reverse=True), dtype=torch.float64)
    classes, products = int(codes.max()) + 1, torch.as_tensor(inner)
    said = np.empty((len(shown), len(cross)), dtype=np.int64)
    largest = max(len(rows) for rows in shown)
    step = max(1, _BLOCK // (largest * max(len(cross), largest * (int(folds[0].max()) + 1))))
    for start in range(0, len(shown), step):
        part = slice(start, start + step)
        sets = shown[part]
        chosen = _chosen(products, sets, codes, folds[part], tried)
        logits = _logits(products, torch.as_tensor(cross), sets, codes, chosen[:, None], classes)
        said[part] = logits[:, 0].argmax(dim=-1).numpy()
    return said


def _chosen(
    inner: Tensor,
    shown: Sequence[Rows],
    codes: Rows,
    folds: Sequence[Rows],
    tried: Float[Tensor, " strength"],
) -> Float[Tensor, " set"]:
    """The strength of each set."""
    parts = int(folds[0].max()) + 1
    if parts == 1 or len(tried) == 1:
        return tried[:1].expand(len(shown))
    left = [r[f != n] for r, f in zip(shown, folds, strict=True) for n in range(parts)]
    held = [r[f == n] for r, f in zip(shown, folds, strict=True) for n in range(parts)]
    classes = int(codes.max()) + 1
    every = tried.expand(len(left), len(tried))
    asked, there = _padded(held)
    logits = _logits(inner, inner[asked], left, codes, every, classes)
    truth = torch.as_tensor(codes)[asked][:, None, :, None].expand(-1, len(tried), -1, 1)
    losses = -logits.log_softmax(dim=-1).gather(3, truth)[..., 0] * there[:, None]
    total = losses.sum(dim=2).reshape(len(shown), parts, len(tried)).sum(dim=1)
    return tried[total.argmin(dim=1)]


def _logits(
    inner: Tensor,
    cross: Tensor,
    shown: Sequence[Rows],
    codes: Rows,
    strengths: Float[Tensor, "set strength"],
    classes: int,
) -> Float[Tensor, "set strength other class"]:
    """Log-odds of other rows, given by inner products with the labelled ones.

    `cross` is [other, labelled] for all sets, or [set, other, labelled].
    """
    rows, there = _padded(shown)
    own = inner[rows[:, :, None], rows[:, None, :]]
    other = (cross if cross.ndim == 3 else cross.expand(len(rows), -1, -1)).gather(
        2, rows[:, None].expand(-1, cross.shape[-2], -1)
    )
    basis, placed = _placed(own, other, there)
    labels = torch.where(there, torch.as_tensor(codes)[rows], -1)
    return logistic_path(basis, labels, strengths, classes=classes).logits(placed)


def _placed(
    own: Float[Tensor, "set row row"],
    other: Float[Tensor, "set other row"],
    there: Bool[Tensor, "set row"],
) -> tuple[Span, Float[Tensor, "set other axis"]]:
    """Principal axes of the shown rows, and other rows in them."""
    mask = there.to(own.dtype)
    count = mask.sum(dim=1)
    means = (own * mask[:, None]).sum(dim=2) / count[:, None]
    grand = (means * mask).sum(dim=1) / count
    both = mask[:, :, None] * mask[:, None]
    centred = (own - means[:, :, None] - means[:, None] + grand[:, None, None]) * both
    away = other - ((other * mask[:, None]).sum(dim=2) / count[:, None])[:, :, None]
    away = (away - means[:, None] + grand[:, None, None]) * mask[:, None]
    squared, u = torch.linalg.eigh(centred)
    known = squared > _FLAT * squared[:, -1:]
    squared = torch.where(known, squared, 1.0)
    u = u * known[:, None]
    last = count.sqrt()
    # The principal coordinates are taken for the features: centred, not scaled, axes of their own.
    basis = Span(
        torch.cat([u, mask[:, :, None] / last[:, None, None]], dim=2),
        torch.cat([squared.sqrt(), last[:, None]], dim=1),
        torch.zeros_like(squared),
        torch.ones_like(squared),
        torch.diag_embed(known.to(own.dtype)),
        count,
    )
    return basis, basis.place(away @ u / squared.sqrt()[:, None])


def _padded(sets: Sequence[Rows]) -> tuple[Int[Tensor, "set row"], Bool[Tensor, "set row"]]:
    """Sets of rows as one array, and which of its entries are there."""
    longest = max(len(rows) for rows in sets)
    out = np.zeros((len(sets), longest), dtype=np.int64)
    there = np.zeros((len(sets), longest), dtype=bool)
    for number, rows in enumerate(sets):
        out[number, : len(rows)], there[number, : len(rows)] = rows, True
    return torch.as_tensor(out), torch.as_tensor(there)

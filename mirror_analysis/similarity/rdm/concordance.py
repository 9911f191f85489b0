"""Kendall's tau-a between the orders of two layers' distances."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar, no_type_check

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mirror_analysis.similarity.rdm.distances import above, mirrored
from mirror_analysis.similarity.rdm.ranks import Order

T = TypeVar("T")
R = TypeVar("R")


def tau_a(x: Sequence[Order], y: Sequence[Order]) -> Tensor:
    """Kendall's tau-a of every x with every y, counted exactly on the processor.

    Returns:
        Float64 [x layer, y layer].
    """
    left, right = _sides(x, y)
    found = _each(lambda cell: _score(*cell), [(a, b) for a in left for b in right])
    return _as_grid(found, x, y)


def permuted_tau_a(x: Sequence[Order], y: Sequence[Order], permutations: Tensor) -> Tensor:
    """The same with the samples of every y in other orders.

    Returns:
        Float64 [draw, x layer, y layer].
    """
    left, right = [_Codes.of(s) for s in x], []
    for s in y:
        square = mirrored(s.codes, s.samples)
        right.append([above(square[p][:, p]).cpu().numpy() for p in permutations])
    cells = [
        (a, _Codes(codes[draw], a.order, b.size))
        for draw in range(len(permutations))
        for a in left
        for codes, b in zip(right, [_Codes.bare(s) for s in y], strict=True)
    ]
    return _as_grid(_each(lambda cell: _score(*cell), cells), x, y, len(permutations))


def leave_out_tau_a(x: Sequence[Order], y: Sequence[Order], folds: Tensor) -> Tensor:
    """The same without each fold in turn, exactly.

    From the score of all pairs goes that of the pairs that leave with all others; what those
    have among themselves was taken away twice, and is given back.

    Returns:
        Float64 [fold, x layer, y layer], NaN where the distances left are all the same.
    """
    left, right = _sides(x, y)
    masks = []
    for fold in range(int(folds.max()) + 1):
        gone = folds == fold
        masks.append(above(gone[:, None] | gone).cpu().numpy())

    def cell(sides: tuple[_Codes, _Codes]) -> list[float]:
        a, b = sides
        own = np.zeros(len(a.codes), dtype=np.int64)
        whole = _score(a, b, own)
        out = []
        for mask in masks:
            go, stay = np.flatnonzero(mask), len(mask) - int(mask.sum())
            among = _score(a.among(go), b.among(go))
            kept = whole - int(own[go].sum()) + among
            flat = any(_is_flat(s.codes, mask) for s in sides)
            out.append(float("nan") if flat else kept / (stay * (stay - 1) / 2))
        return out

    found = _each(cell, [(a, b) for a in left for b in right])
    grid = torch.tensor(found, dtype=torch.float64, device=x[0].codes.device)
    return grid.T.reshape(len(masks), len(x), len(y))


@dataclass(frozen=True, eq=False)
class _Codes:
    """One layer's pairs: the place of each among the distances, and the pairs by that place."""

    codes: NDArray[np.int32]
    order: NDArray[np.int64]
    size: int

    @staticmethod
    def of(layer: Order) -> _Codes:
        codes = layer.codes.cpu().numpy()
        return _Codes(codes, np.argsort(codes, kind="stable"), len(layer.counts))

    @staticmethod
    def bare(layer: Order) -> _Codes:
        """Without the order, for the side that is looked up only."""
        return _Codes(layer.codes.cpu().numpy(), np.empty(0, np.int64), len(layer.counts))

    def among(self, index: NDArray[np.intp]) -> _Codes:
        """Of these pairs only, codes made small again."""
        known, places = np.unique(self.codes[index], return_inverse=True)
        codes: NDArray[np.int32] = places.astype(np.int32)
        return _Codes(codes, np.argsort(codes, kind="stable"), len(known))


def _sides(x: Sequence[Order], y: Sequence[Order]) -> tuple[list[_Codes], list[_Codes]]:
    return [_Codes.of(s) for s in x], [_Codes.of(s) for s in y]


def _as_grid(found: Sequence[int], x: Sequence[Order], y: Sequence[Order], *draws: int) -> Tensor:
    count = len(x[0].codes)
    grid = torch.tensor(found, dtype=torch.float64, device=x[0].codes.device)
    return grid.reshape(*draws, len(x), len(y)) / (count * (count - 1) / 2)


def _each(work: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """As many at once as torch may use threads; the counting lets go of the interpreter."""
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        return list(pool.map(work, items))


def _is_flat(codes: NDArray[np.int32], gone: NDArray[np.bool_]) -> bool:
    kept = codes[~gone]
    return bool((kept == kept[0]).all())


def _score(x: _Codes, y: _Codes, each: NDArray[np.int64] | None = None) -> int:
    """Concordant less discordant pairs of pairs; `each` gets those every pair is part of."""
    count, none = _compiled(), np.empty(0, np.int64)
    if each is None:
        return int(count(x.order, x.codes, y.codes, y.size, none))
    score = int(count(x.order, x.codes, y.codes, y.size, each))
    # Once more from the other end, for the partners above.
    count(x.order[::-1].copy(), x.codes, y.size - 1 - y.codes, y.size, each)
    return score


@no_type_check
def _count(order, x, y, size, each):
    """Goes through the pairs by rising x and scores each with those of smaller x by their y.

    How many have gone by below any y is kept in a Fenwick tree; what ties in x does not score.
    """
    tree = np.zeros(size + 1, np.int32)
    equal = np.zeros(size, np.int32)
    total, start = 0, 0
    while start < len(order):
        stop = start
        while stop < len(order) and x[order[stop]] == x[order[start]]:
            code = y[order[stop]]
            below, i = 0, code
            while i > 0:
                below += tree[i]
                i -= i & -i
            score = below - (start - below - equal[code])
            total += score
            if len(each):
                each[order[stop]] += score
            stop += 1
        for k in range(start, stop):
            code = y[order[k]]
            equal[code] += 1
            i = code + 1
            while i <= size:
                tree[i] += 1
                i += i & -i
        start = stop
    return total


@cache
def _compiled() -> Callable[..., Any]:
    """The counting in machine code, kept on disk where there is a place to write it."""
    import numba

    try:
        return numba.njit(cache=True, nogil=True)(_count)
    except RuntimeError:  # no folder to write to
        return numba.njit(nogil=True)(_count)

"""Expectations of products of sums over permuted samples, by counting set partitions."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from fractions import Fraction
from functools import cache

import numpy as np
from numpy.typing import NDArray


@cache
def third_moment(linears: int, n: int) -> tuple[tuple[str, ...], NDArray[np.float64]]:
    """E[(sum u v)^l (sum Q R)^(3-l)] as a bilinear form in the invariants of the two sides.

    The expectation is the sum over set partitions of the index positions of
    `s(A) s(B) / (n (n-1) ...)`, one falling factor per block, where s sums over indices that
    are equal inside blocks and different between them; with fewer samples than blocks there is
    no such term.

    Args:
        linears: l, 0 to 3.
        n: samples.

    Returns:
        Names of the invariants that matter, and float64 [name, name] what the product of each of
        one side with each of the other counts.
    """
    names, sums = _distinct_sums(linears)
    weights = [[Fraction(0)] * len(names) for _ in names]
    for blocks, coefficients in sums:
        falling = math.perm(n, blocks)
        for i, j in itertools.product(range(len(names)), repeat=2):
            if falling:
                weights[i][j] += Fraction(coefficients[i] * coefficients[j], falling)
    return names, np.array([[float(w) for w in row] for row in weights])


@cache
def _distinct_sums(linears: int) -> tuple[tuple[str, ...], list[tuple[int, list[int]]]]:
    """For every partition its number of blocks and its sum over different indices.

    The sum is written in the invariants, by Möbius inversion over the coarser partitions, whose
    unrestricted sums vanish but for those the invariants name.
    """
    edges: list[tuple[int, ...]] = [(i,) for i in range(linears)]
    start = linears
    for _ in range(3 - linears):
        edges.append((start, start + 1))
        start += 2
    named = {0: ("triangles", "cubes"), 1: ("bent",), 2: ("held",), 3: ("linear_cubed",)}[linears]
    out: list[tuple[int, list[int]]] = []
    for part in _partitions(start):
        coefficients = [0] * len(named)
        for joined in _partitions(len(part)):
            block_of = {
                position: number
                for number, blocks in enumerate(joined)
                for block in blocks
                for position in part[block]
            }
            ends = [tuple(block_of[p] for p in edge) for edge in edges]
            if any(len(set(e)) < len(e) for e in ends):
                continue  # a diagonal entry, which is 0
            degrees = [sum(e.count(v) for e in ends) for v in range(len(joined))]
            if min(degrees) < 2:
                continue  # a free row sum, which is 0
            which = 0 if linears or len(joined) == 3 else 1
            coefficients[which] += math.prod(
                (-1) ** (len(b) - 1) * math.factorial(len(b) - 1) for b in joined
            )
        out.append((len(part), coefficients))
    return named, out


def _partitions(count: int) -> Iterator[tuple[tuple[int, ...], ...]]:
    """All ways to divide 0, 1, ..., count - 1 into blocks."""
    if count == 0:
        yield ()
        return
    for rest in _partitions(count - 1):
        yield (*rest, (count - 1,))
        for i, block in enumerate(rest):
            yield (*rest[:i], (*block, count - 1), *rest[i + 1 :])

"""What no relation gives in every cell of a grid: by exact moments, or by drawing orders."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mirror_analysis.inference.maximum import p_max as max_p
from mirror_analysis.inference.moments import exact_null
from mirror_analysis.inference.permutation import p_value
from mirror_analysis.similarity.measures import Measure

# Draws between two reports of progress.
_BATCH = 50
# In sds of the null, what products in single precision leave undecided.
_TIE = 1e-4
# Up to this skewness a law is told by three moments to 0.01 in p.
_SKEWED = 0.3

States = tuple[Sequence[Any], Sequence[Any]]


@dataclass(frozen=True, eq=False)
class Law:
    """The null of one measure over a grid; all arrays are [x layer, y layer].

    Attributes:
        mean: of the null.
        sd: its standard deviation.
        p: of each cell alone.
        p_max: corrected for the largest of all cells.
        draws: permutations drawn; 0 for exact moments.
        scheme: what traded places.
    """

    mean: NDArray[np.float64]
    sd: NDArray[np.float64]
    p: NDArray[np.float64]
    p_max: NDArray[np.float64]
    draws: int
    scheme: str


def exact_law(
    measure: Measure, states: States, values: NDArray[np.float64], scheme: str
) -> Law | None:
    """By the moments over all orders of the rows, or None where the measure has none.

    Args:
        measure: whose grid it is.
        states: what it prepared of the layers of both sides.
        values: [x layer, y layer] what it gave.
        scheme: what trades places, in words.
    """
    known = measure.invariants(*states)
    if known is None:
        return None
    law, found = exact_null(*known), measure.factor(*states)
    factor = np.ones_like(values) if found is None else found.cpu().numpy()
    if np.abs(law.skewness).max() > _SKEWED:
        # A few directions or samples carry the matrices: these are permuted themselves.
        leading = [measure.leading(side) for side in states]
        law = exact_null(*(replace(k, leading=v) for k, v in zip(known, leading, strict=True)))
    p, largest = law.p_value(values / factor), law.p_max(values / factor)
    return Law(law.mean * factor, law.sd * factor, p, largest, 0, f"{scheme}, exact moments")


def drawn_law(
    measure: Measure,
    states: States,
    values: NDArray[np.float64],
    orders: Tensor,
    scheme: str,
    done: Callable[[int], None],
) -> Law:
    """By the measure under drawn orders.

    Args:
        measure: whose grid it is.
        states: what it prepared of the layers of both sides.
        values: [x layer, y layer] what it gave.
        orders: [draw, sample] row numbers.
        scheme: what trades places, in words.
        done: told how many draws are newly done.
    """
    parts = []
    for batch in torch.split(orders, _BATCH):
        parts.append(measure.null(*states, batch).cpu().numpy())
        done(len(batch))
    null = np.concatenate(parts)
    sd = null.std(axis=0)
    # What differs by rounding only is a tie, and counts against the finding.
    least = values - _TIE * sd
    p, largest = p_value(least, null), max_p(least, null)
    return Law(null.mean(axis=0), sd, p, largest, len(null), scheme)

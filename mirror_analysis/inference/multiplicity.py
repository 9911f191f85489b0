"""Correction for many p: the false discovery rate."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mirror_analysis.errors import DegenerateError
from mirror_analysis.inference.units import Numbers


def q_values(p: Numbers) -> NDArray[np.float64]:
    """Benjamini-Hochberg adjusted p of every cell: the least false discovery rate that takes it.

    `q_(i) = min over j >= i of m p_(j) / j`, with p_(1) <= ... <= p_(m). Calling every q <= 0.05 a
    finding is wrong in 5 % of the findings at most, on average; that holds for independent cells
    and for positively dependent ones, as layers of one network are.

    Args:
        p: [...] in [0, 1]; NaN for a cell without a test, which does not count among the m.

    Returns:
        [...] in [0, 1], never below p; NaN where p is.

    Raises:
        DegenerateError: if a p is outside [0, 1].

    Source:
        Benjamini and Hochberg 1995; Benjamini and Yekutieli 2001 (positive dependence).

    Example:
        >>> q_values([0.01, 0.04, 0.03]).tolist()
        [0.03, 0.04, 0.04]
    """
    values = np.asarray(p, dtype=np.float64)
    tested = ~np.isnan(values)
    known = values[tested]
    if ((known < 0) | (known > 1)).any():
        bad = known[(known < 0) | (known > 1)][0]
        raise DegenerateError(f"q_values got p {bad:g}; needed each p in [0, 1], or NaN")
    order = np.argsort(known, kind="stable")
    stepped = known[order] * len(known) / np.arange(1, len(known) + 1)
    least = np.minimum.accumulate(stepped[::-1])[::-1]
    out = np.full(values.shape, np.nan)
    adjusted = np.empty(len(known))
    adjusted[order] = np.minimum(least, 1.0)
    out[tested] = adjusted
    return out

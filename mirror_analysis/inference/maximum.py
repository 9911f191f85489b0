"""The p of a grid's maximum."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mirror_analysis.errors import DegenerateError
from mirror_analysis.inference.permutation import p_value
from mirror_analysis.inference.units import Numbers


def p_max(observed: Numbers, null: Numbers) -> NDArray[np.float64]:
    """Single-step max-T p of every cell, corrected for having looked at all of them.

    Each cell is studentised, T = (value - mean) / sd, with the mean and sd of its null draws
    and its observed value together, so that cells of different null level or width weigh alike
    and observed and drawn grids stay exchangeable. The p of a cell is
    `(1 + #{draws whose largest T >= this cell's T}) / (draws + 1)`: the chance that any cell of
    an unrelated grid stands out as much. A cell whose null never varies has T = 0.

    Args:
        observed: [cell...] values, one axis or more.
        null: [draw, cell...] the same grid under permutations shared by all cells.

    Returns:
        [cell...] p in (0, 1], never below the cell's own p by more than resolution.

    Raises:
        DegenerateError: if there are no draws.

    Source:
        Westfall and Young 1993, section 2.3 (single-step max-T).

    Example:
        >>> p_max([9.0, 1.0], [[0.0, 2.0], [1.0, 0.0], [2.0, 1.0]]).tolist()
        [0.25, 1.0]
    """
    values, draws = np.asarray(observed, dtype=np.float64), np.asarray(null, dtype=np.float64)
    if draws.ndim == 0 or not len(draws):
        raise DegenerateError("p_max got 0 null draws; needed at least 1")
    both = np.concatenate([values[None], draws])
    mean, sd = both.mean(axis=0), both.std(axis=0)
    # A spread of rounding only is none: dividing by it would rank noise.
    still = sd <= 1e-12 * np.maximum(1.0, np.abs(mean))
    studentised = np.where(still, 0.0, (both - mean) / np.where(still, 1.0, sd))
    largest = studentised[1:].reshape(len(draws), -1).max(axis=1, initial=-np.inf)
    cells = studentised[0]
    return p_value(cells, largest.reshape(len(draws), *[1] * cells.ndim))

"""What was decoded, with what it takes to subtract another run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mirror_analysis.errors import DegenerateError, UnknownNameError
from mirror_analysis.features import Index
from mirror_analysis.inference import Estimate
from mirror_analysis.results import Score


@dataclass(frozen=True, eq=False)
class Decoded:
    """What was decoded from each layer, with what it takes to subtract another run.

    Attributes:
        scores: one for each layer, in forward order.
        index: the test rows.
        truth: [row] labels of the test rows, or [row, quantity].
        predicted: layer -> the same as predicted by fits that have not seen their groups.
        episodes: [episode] ids, sorted.
        of_episodes: layer -> [episode] share of rows that are right; for quantities 1 less the
            squares left over those about the mean in an average episode. Its mean over episodes of
            equally many rows is the score.
        replicates: layer -> [fold] the measure without each group of units in turn.
    """

    scores: tuple[Score, ...]
    index: Index
    truth: NDArray[Any]
    predicted: Mapping[str, NDArray[Any]]
    episodes: NDArray[np.str_]
    of_episodes: Mapping[str, NDArray[np.float64]]
    replicates: Mapping[str, NDArray[np.float64]]

    @property
    def best(self) -> Score:
        """The layer with the largest value; judge it by its `p_max`, never by its `p_value`.

        Raises:
            DegenerateError: if no layer has a value.
        """
        known = [s for s in self.scores if s.value is not None]
        if not known:
            raise DegenerateError(f"no layer has a value: {self.scores[0].undefined}")
        return max(known, key=lambda s: s.value if s.value is not None else -np.inf)

    def estimate(self, layer: str) -> Estimate:
        """One layer's value for `inference.Estimate`: pairs over training seeds x episodes.

        Raises:
            UnknownNameError: if the layer was not decoded or has no value.

        Example:
            >>> after = Estimate.over_seeds([d.estimate("hidden2") for d in aligned])
            >>> before = Estimate.over_seeds([d.estimate("hidden2") for d in independent])
            >>> (after - before).interval().low > 0
            True
        """
        if layer not in self.replicates:
            raise UnknownNameError("layer with a value", layer, self.replicates)
        value = next(s.value for s in self.scores if s.x_layer == layer)
        return Estimate(np.array([value]), self.replicates[layer][None])

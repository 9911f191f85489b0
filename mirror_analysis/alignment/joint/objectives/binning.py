"""Behaviour cloning by classification: each number of an action is one of so many bins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn

from mirror_analysis.alignment.joint.objectives.cloning import (
    ACTIONS,
    CloningHead,
    Target,
    mean_where,
)
from mirror_analysis.alignment.joint.objectives.drawing import drawn
from mirror_analysis.alignment.joint.objectives.objective import Objective, Shown
from mirror_analysis.alignment.joint.objectives.scaling import actions_of
from mirror_analysis.episodes.episode import Episodes
from mirror_analysis.errors import DefinitionError

Spread = Literal["uniform", "quantile"]


@final
@dataclass(frozen=True, kw_only=True)
class Discretised(Objective):
    """Cross-entropy over bins of each number of an action (Brohan et al., 2022, section 4.1).

    Attributes:
        target: which actions.
        bins: of each number.
        spread: "uniform" makes bins of equal width between two quantiles of the episodes that are
            trained on, as RT-1 and OpenVLA do; "quantile" bins of equally many actions.
        outside: share of actions left outside at either end; they count as the outermost bin.
        smoothing: of the labels.

    Raises:
        DefinitionError: if a value is out of its range.

    Example:
        >>> Discretised(bins=64, spread="quantile")
    """

    target: Target = ACTIONS
    bins: int = 256
    spread: Spread = "uniform"
    outside: float = 0.01
    smoothing: float = 0.0

    def __post_init__(self) -> None:
        if self.bins < 2:
            raise DefinitionError(f"{self.bins} bins of each number; needed 2 or more")
        if not 0 <= self.outside < 0.5 or not 0 <= self.smoothing < 1:
            raise DefinitionError(
                f"a share of {self.outside} outside and smoothing {self.smoothing}; needed 0 to"
                " below 0.5, and 0 to below 1"
            )

    def head(self, width: int, episodes: Episodes, *, seed: int) -> DiscretisedHead:
        """A linear map to the logits of the bins."""
        return DiscretisedHead(self, width, episodes, seed)


@final
class Bins(nn.Module):
    """Numbers to bins and back; edges and centres are buffers and go with the weights.

    Args:
        actions: [sample, action] of the episodes that are trained on.
        bins: of each number.
        spread: "uniform" or "quantile".
        outside: share of actions left outside at either end.
    """

    edges: Tensor
    centres: Tensor

    def __init__(
        self, actions: NDArray[np.float32], *, bins: int, spread: Spread, outside: float
    ) -> None:
        super().__init__()
        wide = actions.astype(np.float64)
        if spread == "uniform":
            low, high = np.quantile(wide, [outside, 1 - outside], axis=0)
            edges = np.linspace(low, high, bins + 1, axis=-1)
        else:
            edges = np.quantile(wide, np.linspace(outside, 1 - outside, bins + 1), axis=0).T
        centres = (edges[:, 1:] + edges[:, :-1]) / 2
        self.register_buffer("edges", torch.from_numpy(np.ascontiguousarray(edges)).float())
        if spread == "quantile":
            # Where many actions are alike, the middle of their bin may be far from all of them.
            inside = np.clip(wide, edges[:, 0], edges[:, -1])
            chosen = self.encode(torch.from_numpy(actions)).numpy()
            for i, row in enumerate(chosen.T):
                count = np.bincount(row, minlength=bins)
                total = np.bincount(row, weights=inside[:, i], minlength=bins)
                centres[i] = np.where(count > 0, total / np.maximum(count, 1), centres[i])
        self.register_buffer("centres", torch.from_numpy(centres).float())

    def encode(self, actions: Float[Tensor, "*batch action"]) -> Int[Tensor, "*batch action"]:
        """The bin of each number, from 0.

        A number on an edge is in the bin above it, one outside all bins in the outermost one.
        """
        inner = self.edges[:, 1:-1].contiguous()
        columns = actions.movedim(-1, 0).contiguous()
        found = torch.searchsorted(inner, columns.flatten(1), right=True)
        return found.reshape(columns.shape).movedim(0, -1)

    def decode(self, bins: Int[Tensor, "*batch action"]) -> Float[Tensor, "*batch action"]:
        """The centre of each bin, in the unit of the actions."""
        columns = torch.arange(len(self.centres), device=bins.device)
        return self.centres[columns, bins]


@final
class DiscretisedHead(CloningHead):
    """See `Discretised`."""

    def __init__(self, given: Discretised, width: int, episodes: Episodes, seed: int) -> None:
        super().__init__(given.target, episodes)
        self.given = given
        self.bins = Bins(
            actions_of(episodes, given.target.stream),
            bins=given.bins,
            spread=given.spread,
            outside=given.outside,
        )
        outputs = given.target.horizon * self.scale.width * given.bins
        self.map = drawn(lambda: nn.Linear(width, outputs), seed)

    def logits(
        self, features: Float[Tensor, "*batch feature"]
    ) -> Float[Tensor, "*batch step action bin"]:
        """The logits of the bins at each moment."""
        sizes = (self.target.horizon, self.scale.width, self.given.bins)
        found: Tensor = self.map(features)
        return found.reshape(*features.shape[:-1], *sizes)

    def forward(self, shown: Shown, generator: torch.Generator) -> Float[Tensor, ""]:
        """Mean cross-entropy in nats over the numbers of the actions that count."""
        target, there = self.targets(shown)
        bins = self.bins.encode(self.scale.inverse(target))
        logits = self.logits(shown.moments())
        error = F.cross_entropy(
            logits.float().flatten(0, -2),
            bins.flatten(),
            label_smoothing=self.given.smoothing,
            reduction="none",
        )
        return mean_where(error.reshape(bins.shape), there)

    def act(
        self, features: Float[Tensor, "*batch feature"], generator: torch.Generator
    ) -> Float[Tensor, "*batch step action"]:
        """The centres of the likeliest bins; nothing is drawn."""
        return self.bins.decode(self.logits(features).argmax(dim=-1))

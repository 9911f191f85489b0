"""Behaviour cloning by regression: the action itself is predicted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from mirror_analysis.alignment.joint.objectives.cloning import (
    ACTIONS,
    CloningHead,
    Target,
    mean_where,
)
from mirror_analysis.alignment.joint.objectives.drawing import drawn
from mirror_analysis.alignment.joint.objectives.objective import (
    Objective,
    Shown,
    Source,
    require_width,
)
from mirror_analysis.episodes.episode import Episodes
from mirror_analysis.errors import DefinitionError, ShapeError

Error = Literal["smooth_l1", "mse"]


@final
@dataclass(frozen=True, kw_only=True)
class Regression(Objective):
    """Smooth L1 or squared error of predicted actions, in units of their standard deviation.

    Smooth L1 of an error d is d^2 / (2 beta) below beta and |d| - beta / 2 above (Girshick, 2015,
    eq. 3, with the width beta).

    Attributes:
        target: which actions.
        error: "smooth_l1" or "mse".
        beta: width of the quadratic part, in standard deviations.
        source: "layer" puts a linear map on the layer; "output" trains the model's own output,
            [episode, time, action] or [episode, time, step, action] in the unit of the episodes.

    Raises:
        DefinitionError: if beta is not above 0.

    Example:
        >>> Regression(error="mse", target=Target(stream="array:expert_actions"))
    """

    target: Target = ACTIONS
    error: Error = "smooth_l1"
    beta: float = 0.1
    source: Source = "layer"

    def __post_init__(self) -> None:
        if not self.beta > 0:
            raise DefinitionError(f"regression has beta {self.beta}; needed a number above 0")

    def head(self, width: int, episodes: Episodes, *, seed: int) -> RegressionHead:
        """A linear map to the actions, or nothing but their scale."""
        return RegressionHead(self, width, episodes, seed)


@final
class RegressionHead(CloningHead):
    """See `Regression`."""

    def __init__(self, given: Regression, width: int, episodes: Episodes, seed: int) -> None:
        super().__init__(given.target, episodes)
        self.given = given
        outputs = given.target.horizon * self.scale.width
        self.map: nn.Linear | None = None
        if given.source == "layer":
            self.map = drawn(lambda: nn.Linear(width, outputs), seed)

    def forward(self, shown: Shown, generator: torch.Generator) -> Float[Tensor, ""]:
        """The mean error over the actions that count."""
        target, there = self.targets(shown)
        predicted = self._output(shown) if self.map is None else self._mapped(shown.moments())
        predicted = predicted.float()  # whatever the networks ran in
        if self.given.error == "mse":
            error = F.mse_loss(predicted, target, reduction="none")
        else:
            error = F.smooth_l1_loss(predicted, target, beta=self.given.beta, reduction="none")
        return mean_where(error, there)

    def act(
        self, features: Float[Tensor, "*batch feature"], generator: torch.Generator
    ) -> Float[Tensor, "*batch step action"]:
        """The predicted actions; nothing is drawn.

        Raises:
            DefinitionError: if the model's own output is trained, which needs no head to act.
        """
        if self.map is None:
            raise DefinitionError(
                "the model's own output was trained and there is no map from a layer; ask the"
                " model to act"
            )
        return self.scale.inverse(self._mapped(features))

    def _mapped(self, features: Tensor) -> Tensor:
        assert self.map is not None
        return self.map(features).reshape(
            *features.shape[:-1], self.target.horizon, self.scale.width
        )

    def _output(self, shown: Shown) -> Tensor:
        output, steps = shown.output(), self.target.horizon
        output = output.unsqueeze(2) if output.ndim == 3 else output
        if output.ndim != 4 or output.shape[1] != shown.frames.shape[1]:
            raise ShapeError(
                f"the model gives {list(output.shape)} for {shown.frames.shape[1]} frames; needed"
                " [episode, time, action] or [episode, time, step, action], so train a layer with"
                " source='layer'"
            )
        if output.shape[2] < steps:
            raise ShapeError(
                f"the model plans {output.shape[2]} actions at once but a horizon of {steps} is"
                " trained; ask for no more than it plans"
            )
        return self.scale(require_width(output[:, :, :steps], self.scale.width, "its output"))

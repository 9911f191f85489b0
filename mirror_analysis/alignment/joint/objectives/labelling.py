"""Recognising what was asked for: a label of the episode out of those that were trained on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from mirror_analysis.alignment.joint.objectives.drawing import drawn
from mirror_analysis.alignment.joint.objectives.objective import (
    Head,
    Objective,
    Shown,
    Source,
    label_of,
)
from mirror_analysis.episodes.episode import Episodes
from mirror_analysis.errors import DefinitionError, DegenerateError, ShapeError, UnknownNameError


@final
@dataclass(frozen=True, kw_only=True)
class Classification(Objective):
    """Cross-entropy of a label of the episode.

    With smoothing s and C classes the target is 1 - s + s / C for the label and s / C for the
    others (Szegedy et al., 2016, section 7).

    Attributes:
        label: "instruction", "task", or another label of the episodes.
        smoothing: s, from 0 to below 1.
        source: "layer" puts a linear map on the layer; "output" takes the model's own output,
            [episode, class], for the logits of the labels in alphabetical order.

    Raises:
        DefinitionError: if the smoothing is out of its range.

    Example:
        >>> Classification(label="task", smoothing=0.0)
    """

    label: str = "instruction"
    smoothing: float = 0.05
    source: Source = "layer"

    def __post_init__(self) -> None:
        if not 0 <= self.smoothing < 1:
            raise DefinitionError(
                f"classification with smoothing {self.smoothing}; needed 0 to below 1"
            )

    def head(self, width: int, episodes: Episodes, *, seed: int) -> ClassificationHead:
        """A linear map to the logits of the labels."""
        return ClassificationHead(self, width, episodes, seed)


@final
class ClassificationHead(Head):
    """See `Classification`."""

    def __init__(self, given: Classification, width: int, episodes: Episodes, seed: int) -> None:
        super().__init__()
        self.given = given
        self.classes = Classes(episodes, given.label)
        self.map: nn.Linear | None = None
        if given.source == "layer":
            self.map = drawn(lambda: nn.Linear(width, len(self.classes)), seed)

    def forward(self, shown: Shown, generator: torch.Generator) -> Float[Tensor, ""]:
        """Mean cross-entropy in nats."""
        target = self.classes.numbers(shown)
        if self.map is None:
            logits = shown.output()
            if tuple(logits.shape) != (len(target), len(self.classes)):
                raise ShapeError(
                    f"the model gives {list(logits.shape)} for {len(target)} episodes of"
                    f" {len(self.classes)} labels; needed [episode, label], so train a layer with"
                    " source='layer'"
                )
        else:
            logits = self.logits(shown.live.representation)
        return F.cross_entropy(logits.float(), target, label_smoothing=self.given.smoothing)

    def logits(
        self, representation: Float[Tensor, "episode feature"]
    ) -> Float[Tensor, "episode label"]:
        """The logits of the labels, in the order of `classes.names`.

        Raises:
            DefinitionError: if the model's own output is trained.
        """
        if self.map is None:
            raise DefinitionError(
                "the model's own output was trained and there is no map from a layer; run the"
                " model itself"
            )
        found: Tensor = self.map(representation)
        return found


@final
class Classes:
    """The values of a label in the episodes that are trained on, in alphabetical order.

    Args:
        episodes: those.
        label: its name.

    Raises:
        DegenerateError: if there are fewer than two values.
        StreamError: if an episode has no such label.
    """

    def __init__(self, episodes: Episodes, label: str) -> None:
        self.label = label
        self.names = tuple(sorted({label_of(episode, label) for episode in episodes}))
        self._numbers = {name: i for i, name in enumerate(self.names)}
        if len(self.names) < 2:
            raise DegenerateError(
                f"{len(episodes)} episodes have {len(self.names)} value of '{label}'; needed two"
                " to tell apart, so collect others or choose another label"
            )

    def __len__(self) -> int:
        return len(self.names)

    def numbers(self, shown: Shown) -> Int[Tensor, " episode"]:
        """The number of the label of every episode of a batch.

        Raises:
            UnknownNameError: if one is not among those that are trained on.
        """
        found = shown.labels(self.label)
        for name in found:
            if name not in self._numbers:
                raise UnknownNameError(self.label, name, self.names)
        return torch.tensor([self._numbers[name] for name in found], device=shown.device)

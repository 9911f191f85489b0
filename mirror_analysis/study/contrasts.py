"""Which representations meet which: the pair under study and everything it has to beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mirror_analysis.results import Role

Raw = Literal["pixels", "input"]
Source = Literal[
    "trained", "untrained", "pixels", "input", "proprioception", "state", "time", "task identity"
]
Shuffle = Literal["", "all", "task"]


@dataclass(frozen=True)
class Contrast:
    """Two sources that are measured against one another.

    Attributes:
        key: how results name it, x before y.
        x: what stands on the side of the observation model.
        y: what stands on the side of the execution model.
        role: "control" sees what the declared layers see and has not learned both sides of it;
            "reference" is told something those layers would have to find out, or is the trained
            pair itself with its fit pairs mixed, which says what the fit finds without episodes.
        shuffle: fit pairs mixed before the fit, over all or within the task; such a contrast
            has an alignment only.
    """

    key: str
    x: Source
    y: Source
    role: Role
    shuffle: Shuffle = ""

    @property
    def draws(self) -> bool:
        """Whether it depends on a random initialisation."""
        return "untrained" in (self.x, self.y)


PAIR = "trained-trained"


def contrasts(
    x: Raw = "pixels", y: Raw = "pixels", *, same_input: bool = False
) -> tuple[Contrast, ...]:
    """The pair, its controls and its references.

    Args:
        x: what the first model is given, unlearned: the pixels of its cameras, or its other
            inputs where it has no camera.
        y: the same of the second model.
        same_input: whether both are given the very same streams; what they are given then agrees
            with itself entirely and is no control.
    """
    raw = () if same_input else (Contrast(f"{x}-{y}", x, y, "control"),)
    return (
        Contrast(PAIR, "trained", "trained", "pair"),
        Contrast("trained-untrained", "trained", "untrained", "control"),
        Contrast("untrained-trained", "untrained", "trained", "control"),
        Contrast("untrained-untrained", "untrained", "untrained", "control"),
        Contrast(f"trained-{y}", "trained", y, "control"),
        Contrast(f"{x}-trained", x, "trained", "control"),
        *raw,
        Contrast("shuffled", "trained", "trained", "reference", "all"),
        Contrast("shuffled within task", "trained", "trained", "reference", "task"),
        Contrast("trained-proprioception", "trained", "proprioception", "reference"),
        Contrast("trained-state", "trained", "state", "reference"),
        Contrast("trained-time", "trained", "time", "reference"),
        Contrast("trained-task identity", "trained", "task identity", "reference"),
        Contrast("task identity-task identity", "task identity", "task identity", "reference"),
    )

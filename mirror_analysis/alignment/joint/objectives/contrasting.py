"""Video-text contrast: an episode is drawn to the words it carries out and away from others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from mirror_analysis.alignment.joint.objectives.drawing import drawn
from mirror_analysis.alignment.joint.objectives.labelling import Classes
from mirror_analysis.alignment.joint.objectives.objective import Head, Objective, Shown
from mirror_analysis.alignment.losses import info_nce
from mirror_analysis.episodes.episode import Episodes
from mirror_analysis.errors import DefinitionError, ShapeError, UnknownNameError

_FLOOR = 0.01  # no temperature below it: the gradients of one pair would drown all others


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class VideoText(Objective):
    """Bidirectional InfoNCE of episodes and their instructions (Radford et al., 2021).

    Episodes of one instruction in a batch are positives of one another (see `info_nce`). As they
    share one vector of words, the least loss is the mean logarithm of how many share it.

    Attributes:
        width: of the space in which they meet.
        label: the words, "instruction" or another label.
        texts: words -> [number] vector of a text model, which stays as it is and gets a linear
            map; None learns a vector for each instruction.
        temperature: the first one, above 0.01.
        learned: whether the temperature is learned; it never goes below 0.01.

    Raises:
        DefinitionError: if a value is out of its range.

    Example:
        >>> words = extract(load_model("all-minilm-l6-v2"), episodes)["sentence"]
        >>> texts = dict(zip(words.index.label("instruction"), words.values))
        >>> VideoText(width=128, texts=texts)
    """

    width: int = 256
    label: str = "instruction"
    texts: Mapping[str, NDArray[np.floating]] | None = None
    temperature: float = 0.07
    learned: bool = True

    def __post_init__(self) -> None:
        if self.width < 1 or not self.temperature > _FLOOR:
            raise DefinitionError(
                f"a width of {self.width} and a temperature of {self.temperature}; needed 1 or"
                f" more, and above {_FLOOR}"
            )

    def head(self, width: int, episodes: Episodes, *, seed: int) -> VideoTextHead:
        """A linear map of the layer, and vectors of the words.

        Raises:
            UnknownNameError: if there is no vector for some words of the episodes.
            ShapeError: if vectors are not of one width.
        """
        return VideoTextHead(self, width, episodes, seed)


@final
class VideoTextHead(Head):
    """See `VideoText`."""

    table: Tensor

    def __init__(self, given: VideoText, width: int, episodes: Episodes, seed: int) -> None:
        super().__init__()
        self.given = given
        self.classes = Classes(episodes, given.label)
        fixed = None if given.texts is None else _table(given.texts, self.classes)

        def parts() -> nn.ModuleDict:
            made: dict[str, nn.Module] = {"video": nn.Linear(width, given.width)}
            if fixed is not None:
                made["text"] = nn.Linear(fixed.shape[1], given.width)
            else:
                made["text"] = nn.Embedding(len(self.classes), given.width)
            return nn.ModuleDict(made)

        self.parts = drawn(parts, seed)
        if fixed is not None:
            self.register_buffer("table", fixed)
        # Its distance from the first temperature, so that weight decay draws it there.
        self.log_temperature = nn.Parameter(torch.zeros(()), requires_grad=given.learned)

    @property
    def temperature(self) -> Tensor:
        """The temperature as it is now."""
        return _FLOOR + (self.given.temperature - _FLOOR) * self.log_temperature.exp()

    def texts(self) -> Float[Tensor, "label width"]:
        """The vectors of the words, in the order of `classes.names`, of length 1."""
        text = self.parts["text"]
        given = text.weight if isinstance(text, nn.Embedding) else text(self.table)
        return F.normalize(given.float(), dim=-1)

    def videos(
        self, representation: Float[Tensor, "episode feature"]
    ) -> Float[Tensor, "episode width"]:
        """The vectors of episodes, of length 1."""
        return F.normalize(self.parts["video"](representation).float(), dim=-1)

    def logits(
        self, representation: Float[Tensor, "episode feature"]
    ) -> Float[Tensor, "episode label"]:
        """Cosines with the words over the temperature: which was carried out?"""
        return self.videos(representation) @ self.texts().T / self.temperature

    def forward(self, shown: Shown, generator: torch.Generator) -> Float[Tensor, ""]:
        """The contrastive loss in nats."""
        numbers = self.classes.numbers(shown)
        videos = self.videos(shown.live.representation)
        return info_nce(
            videos, self.texts()[numbers], temperature=self.temperature, positives=numbers
        )


def _table(texts: Mapping[str, NDArray[np.floating]], classes: Classes) -> Tensor:
    for name in classes.names:
        if name not in texts:
            raise UnknownNameError("vector of words", name, texts)
    rows = [np.asarray(texts[name], dtype=np.float32) for name in classes.names]
    shapes = {row.shape for row in rows}
    if len(shapes) > 1 or rows[0].ndim != 1:
        raise ShapeError(
            f"vectors of words have the shapes {sorted(shapes)}; needed [number], of one width"
        )
    # Of one length, so that the map's first weights suit any text model.
    return F.normalize(torch.from_numpy(np.stack(rows)), dim=-1) * rows[0].size ** 0.5

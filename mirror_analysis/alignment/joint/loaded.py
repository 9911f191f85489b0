"""Any loaded model that has gradients as a learner: a layer, a task, and episodes to learn from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import numpy as np
import torch
from torch import Tensor

from mirror_analysis.alignment.joint.learners import Learner, Step
from mirror_analysis.alignment.joint.objectives.objective import Objective, Shown
from mirror_analysis.alignment.joint.showing import (
    FrameDraw,
    Shelf,
    ShownEpisode,
    draw_nuisance,
)
from mirror_analysis.episodes.episode import Episodes
from mirror_analysis.episodes.nuisance import Nuisance, NuisanceDraw
from mirror_analysis.errors import DegenerateError, UnknownNameError
from mirror_analysis.models.model import Model
from mirror_analysis.models.recording.live import require_trainable, run_live
from mirror_analysis.streams import resolve


@final
class LoadedLearner(Learner):
    """A loaded model in training; the model itself is trained, not a copy.

    Each batch shows so many frames of each of its episodes. Where a model sees frames apart from
    one another, or watches whole clips, one frame is drawn from each of equally long stretches of
    the episode (Wang et al., 2016). A policy that remembers or looks back gets consecutive stored
    frames, so that what it remembers is as far back as when it acts.

    Where a loader left all weights frozen they are unfrozen; weights frozen by hand stay so. In
    training, parts without a weight that is trained run as in evaluation, so that their running
    statistics stay as they are and nothing in them is dropped.

    Args:
        model: anything of `load_model` that has gradients.
        episodes: what it learns from; read as they are needed.
        layer: whose mean over frames and places is the representation, and which the task sees.
        objective: the task.
        streams: model input -> stream of the episodes, where their names differ.
        frames: of an episode in a batch; 0 for all of them.
        nuisance: how far the appearance of an episode is off, drawn anew for every batch, episode
            and camera, whatever its seed; None shows it as it is.
        seed: of the first weights of the task's head.

    Raises:
        DefinitionError: if the model has no gradients, or the number of frames is negative.
        UnknownNameError: if there is no such layer, input or stream.
        StreamError: if the episodes lack what the model or the task needs.
        ShapeError: if episodes are shorter than asked, or differ where all frames are shown.
        DegenerateError: if there are no episodes, or nothing to learn in them.

    Example:
        >>> watches = LoadedLearner(load_model("videomae-base"), episodes, layer="norm",
        ...                         objective=VideoText())
        >>> watches.step(torch.arange(16), torch.Generator().manual_seed(0)).loss.backward()
    """

    def __init__(
        self,
        model: Model,
        episodes: Episodes,
        *,
        layer: str,
        objective: Objective,
        streams: Mapping[str, str] | None = None,
        frames: int = 8,
        nuisance: Nuisance | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        require_trainable(model)
        if not len(episodes):
            raise DegenerateError("no episodes to train on; needed at least one, so collect some")
        infos = {info.name: info for info in model.layers()}
        if layer not in infos:
            raise UnknownNameError(f"layer of {model.name}", layer, infos)
        self.name = model.role
        self.episodes = tuple(episode.id for episode in episodes)
        self.layer, self.objective = layer, objective
        self._model, self._width = model, infos[layer].width
        self._from, self._streams, self._nuisance = episodes, streams, nuisance
        self._draw = FrameDraw(
            np.array([len(episode.steps) for episode in episodes]),
            frames,
            consecutive=model.role == "execution" and not model.framewise,
            ids=self.episodes,
        )
        wires = resolve(model.name, model.needs, episodes.streams, streams)
        self._shelf = Shelf(episodes, wires)
        weights = [p for p in model.module.parameters() if p.is_floating_point()]
        if not any(weight.requires_grad for weight in weights):
            for weight in weights:
                weight.requires_grad_(True)
        self.network = model.module
        self.head = objective.head(self._width, episodes, seed=seed).to(model.device)

    @property
    def model(self) -> Model:
        """The model with the weights of now."""
        return self._model

    @property
    def width(self) -> int:
        """Features of the representation."""
        return self._width

    def step(self, rows: Tensor, generator: torch.Generator) -> Step:
        """The task's loss and the representation of a batch of episodes."""
        if self.training:
            _rest_what_is_frozen(self.network)
        positions = self._draw(rows.numpy(), generator)
        chosen = rows.tolist()
        seen = [
            ShownEpisode(self._shelf, row, at, self._looks(generator))
            for row, at in zip(chosen, positions, strict=True)
        ]
        live = run_live(self._model, seen, layer=self.layer)
        shown = Shown(live, [self._from[row] for row in chosen], positions)
        return Step(self.head(shown, generator), live.representation)

    def untrained(self, seed: int) -> LoadedLearner:
        """The same learner with the weights of model and head drawn anew, on the same episodes."""
        twin = LoadedLearner(
            self._model.untrained(seed),
            self._from,
            layer=self.layer,
            objective=self.objective,
            streams=self._streams,
            frames=self._draw.count,
            nuisance=self._nuisance,
            seed=seed,
        )
        twin.name, twin._shelf = self.name, self._shelf
        return twin

    def _looks(self, generator: torch.Generator) -> dict[str, NuisanceDraw]:
        nuisance = self._nuisance
        if nuisance is None:
            return {}
        return {camera: draw_nuisance(nuisance, generator) for camera in self._shelf.cameras}


def _rest_what_is_frozen(network: torch.nn.Module) -> None:
    """Puts the parts of which no weight is trained into evaluation mode."""
    if all(weight.requires_grad for weight in network.parameters()):
        return
    for module in network.modules():
        weights = list(module.parameters())
        if module.training and weights and not any(w.requires_grad for w in weights):
            module.eval()

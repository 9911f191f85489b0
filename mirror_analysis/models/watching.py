"""Any torch network that watches one camera: single pictures, or clips of so many frames."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import msgspec
import numpy as np
import torch
from torch import Tensor, nn

from mirror_analysis.models.model import EpisodeLike, Input, LayerInfo, ObservationModel
from mirror_analysis.models.preparation import Preparation
from mirror_analysis.models.structure.discovery import Structure, evenly_spaced, first_output

_PIXELS = 2**20  # of one forward pass: larger activations are fetched anew from the system

Layout = Literal["picture", "time channel", "channel time"]
"""What the network takes: pictures with the frames folded into the batch, or whole clips as
[episode, time, channel, height, width] or [episode, channel, time, height, width]."""


class Watching(ObservationModel):
    """A network that watches.

    Args:
        module: the network, in evaluation mode.
        name: what to call it.
        prepare: what is done to pictures first.
        call: runs the network on prepared pictures, laid out as `layout` says.
        structure: its layers and taps.
        rebuild: a fresh network of this architecture for a seed (torch's generator is seeded
            around the call), with its structure and call; for untrained twins.
        layout: what the network takes.
        clip: frames of a clip, evenly spaced over the episode; 0 for every frame.
        facts: what its files say of it.
        settings: whatever else decides its features.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        name: str,
        prepare: Preparation,
        call: Callable[[nn.Module, Tensor], object],
        structure: Structure,
        rebuild: Callable[[], tuple[nn.Module, Structure]],
        layout: Layout = "picture",
        clip: int = 0,
        facts: Mapping[str, str] | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.module = module
        self.needs = (Input("camera", note="pictures of any size"),)
        self.framewise = layout == "picture" and not clip
        self.prepare, self.layout, self.clip = prepare, layout, clip
        height, width = prepare.pixels or (224, 224)
        self.frames_at_once = max(1, _PIXELS // (height * width))
        self._call, self._rebuild = call, rebuild
        self._structure = _of_clips(structure, clip) if layout == "picture" and clip else structure
        self.facts = {"normalisation": str(prepare), **(facts or {})}
        self.settings = {
            "preparation": str(prepare),
            "clip": str(clip),
            **{f"calls of {i.name}": i.calls for i in structure.layers if i.calls != "only"},
            **(settings or {}),
        }

    def layers(self) -> list[LayerInfo]:
        """Stem, blocks, norms and heads, in forward order."""
        return list(self._structure.layers)

    def taps(self) -> Mapping[str, nn.Module]:
        """Layer name -> module."""
        return self._structure.taps

    def forward_batch(self, episodes: Sequence[EpisodeLike]) -> Tensor | None:
        """The network's own output, [episode, ...] or [episode, time, ...]."""
        clips = torch.stack([self._prepared(episode.stream("camera")) for episode in episodes])
        x = clips.to(self.device)
        if self.layout == "picture":
            x = x.flatten(0, 1)
        elif self.layout == "channel time":
            x = x.transpose(1, 2)
        output = first_output(self._call(self.module, x))
        if output is None or self.layout != "picture":
            return output
        return output.reshape(*clips.shape[:2], *output.shape[1:])

    def untrained(self, seed: int) -> Watching:
        """The same architecture with weights drawn anew."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            module, structure = self._rebuild()
        return Watching(
            module.to(self.device).eval(),
            name=f"{self.name}-untrained{seed}",
            prepare=self.prepare,
            call=self._call,
            structure=structure,
            rebuild=self._rebuild,
            layout=self.layout,
            clip=self.clip,
            facts=self.facts,
            settings=self.settings,
        )

    def _prepared(self, frames: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> Tensor:
        if self.clip:
            frames = frames[evenly_spaced(len(frames), self.clip)]
        return self.prepare(frames)


def _of_clips(structure: Structure, clip: int) -> Structure:
    """The layers of a network that gets its frames folded into the batch, but not all of them."""
    layers = [
        msgspec.structs.replace(info, frames=clip) if "episode*time" in info.axes else info
        for info in structure.layers
    ]
    return Structure(tuple(layers), structure.taps)

"""What ARP sees of a scene in RLBench, from its .pth files.

ARP looks twice: at three views of the whole scene, and at three views of a cube around the point
that the first look finds. A look is read here, not what is made of it: its views are drawn by a
renderer of points that is no part of the file, and so are the words' encodings. Give both with the
episodes, as extras.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mirror_analysis.errors import FormatError, MirrorError, ShapeError, StreamError
from mirror_analysis.files.archives import Archive
from mirror_analysis.files.torch_files import read_torch
from mirror_analysis.models.arp.network import VIEWS, ArpSizes, MultiViewTransformer
from mirror_analysis.models.checkpoint import Checkpoint, Options
from mirror_analysis.models.model import EpisodeLike, ExecutionModel, Input, LayerInfo
from mirror_analysis.models.weights.fitting import fitted

SUMMARY = "ARP of RLBench (.pth): one of its two looks at a scene, from rendered views"
OPTIONS: Mapping[str, str] = {
    "look": "the 'first', at the whole scene, or the 'second', at a part of it (first)",
    "words": "tokens of an encoded instruction (77)",
}

_MARKS = (b"mvt1.patchify.conv2d.weight", b"mvt2.patchify.conv2d.weight", b"model_state")
_PICTURES, _STATE, _WORDS = "array:views", "array:proprioception", "array:language"


class ArpLook(ExecutionModel):
    """One look at a scene: the visual part of a policy. It does not act by itself.

    Args:
        network: in evaluation mode.
        name: what to call it.
        rebuild: a network of this architecture with weights drawn anew.
        facts: what is known of it.
        settings: what decides its features.
    """

    framewise = True

    def __init__(
        self,
        network: MultiViewTransformer,
        *,
        name: str,
        rebuild: Callable[[], MultiViewTransformer],
        facts: Mapping[str, str],
        settings: Mapping[str, str],
    ) -> None:
        self.name, self.module, self.facts, self.settings = name, network, facts, settings
        self.network, self._rebuild = network, rebuild
        sizes = network.sizes
        self.shape = (len(VIEWS), sizes.channels, sizes.pixels, sizes.pixels)
        self.needs = (
            Input(_PICTURES, int(np.prod(self.shape)),
                  f"{' x '.join(map(str, self.shape))}: {', '.join(VIEWS)}; place, colour, depth"),
            Input(_STATE, sizes.state, "whether the gripper is open, its two joints"),
            Input(_WORDS, sizes.words * sizes.word, f"{sizes.words} tokens of CLIP RN50"),
        )  # fmt: skip
        self._structure = network.structure()

    def layers(self) -> list[LayerInfo]:
        """Patches, blocks inside views, blocks over all views, maps."""
        return list(self._structure.layers)

    def taps(self) -> Mapping[str, torch.nn.Module]:
        """Layer name -> module."""
        return self._structure.taps

    def forward_batch(self, episodes: Sequence[EpisodeLike]) -> Tensor:
        """Maps [episode, time, view, channel, y, x].

        Raises:
            ShapeError: if views, state or words are of another size.
        """
        streams = []
        for need in self.needs:
            stream = np.concatenate([episode.stream(need.name) for episode in episodes])
            if stream[0].size != need.width:
                raise ShapeError(
                    f"{need.name} has {stream[0].size} numbers a frame; {self.name} needs"
                    f" {need.width} ({need.note})"
                )
            streams.append(torch.from_numpy(stream.astype(np.float32)).to(self.device))
        views, state, words = streams
        sizes = self.network.sizes
        maps: Tensor = self.network(
            views.reshape(-1, *self.shape),
            state.reshape(-1, sizes.state),
            words.reshape(-1, sizes.words, sizes.word),
        )
        return maps.reshape(len(episodes), -1, *maps.shape[1:])

    def act(self, now: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """Always an error.

        Raises:
            StreamError: since the second look depends on views nobody has drawn yet.
        """
        raise StreamError(
            f"{self.name} is one look of ARP, which does not act: between its looks, views of the"
            " scene have to be drawn anew; play it with its own package and record the episodes"
        )

    def untrained(self, seed: int) -> ArpLook:
        """The same architecture with weights drawn as ARP draws them."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = self._rebuild().eval().requires_grad_(False)
        return ArpLook(
            network.to(self.device),
            name=f"{self.name}-untrained{seed}",
            rebuild=self._rebuild,
            facts=self.facts,
            settings=self.settings,
        )


def recognise(checkpoint: Checkpoint) -> str | None:
    """What it is, if it is a checkpoint of ARP or RVT-2 as ARP trains them."""
    try:
        if checkpoint.kind != "torch":
            return None
        with Archive(checkpoint.path) as archive:
            names = [name for name in archive.names if name.split("/")[1:] == ["data.pkl"]]
            start = archive.read(names[0]) if names else b""
    except (MirrorError, OSError):
        return None
    return "ARP policy of RLBench" if all(mark in start for mark in _MARKS) else None


def load(checkpoint: Checkpoint, *, name: str, options: Options) -> ArpLook:
    """Reads one look of a policy.

    Args:
        checkpoint: the .pth file.
        name: what to call it.
        options: see OPTIONS.

    Raises:
        FormatError: if it is damaged, or of another architecture.
        UnknownNameError: if there is no such look.
    """
    look = options.choice("look", "first", ("first", "second"))
    words = options.count("words", 77)
    path = checkpoint.path
    found = read_torch(path)
    state = found.get("model_state") if isinstance(found, dict) else None
    if not isinstance(state, dict) or not all(isinstance(t, Tensor) for t in state.values()):
        raise FormatError(f"{path} has no weights under 'model_state'; needed what ARP writes")
    prefix = "mvt1." if look == "first" else "mvt2."
    plain = {str(key).removeprefix("module."): tensor for key, tensor in state.items()}
    tensors = {k.removeprefix(prefix): t for k, t in plain.items() if k.startswith(prefix)}
    try:
        sizes = ArpSizes.measured({k: tuple(t.shape) for k, t in tensors.items()}, words=words)
    except (KeyError, ValueError, IndexError) as error:
        raise FormatError(
            f"{path} lacks {error} or has it in a shape that cannot be; needed the weights of the"
            " whole policy, so fetch it anew"
        ) from None

    def build() -> MultiViewTransformer:
        return MultiViewTransformer(sizes)

    return ArpLook(
        fitted(build, tensors, path=path),
        name=name,
        rebuild=build,
        facts={
            "family": "ARP",
            "architecture": f"multi-view transformer of {sizes.layers} blocks, {look} look",
            "views": f"{', '.join(VIEWS)}, {sizes.pixels} pixels a side",
            "acts": "no: the views of its second look have to be drawn in between",
        },
        settings={"look": look},
    )

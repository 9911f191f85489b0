"""What a model in training is shown of its episodes: which frames, and how they look."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray

from mirror_analysis.episodes.episode import Episodes
from mirror_analysis.episodes.nuisance import Nuisance, NuisanceDraw, jitter
from mirror_analysis.errors import DefinitionError, ShapeError, StreamError

_KEPT = 2**30  # bytes of decoded streams that are held; what does not fit is read again


@final
class FrameDraw:
    """Which frames of each episode a batch shows.

    Args:
        lengths: [episode] frames that are stored of each.
        count: frames that are shown; 0 for all of them.
        consecutive: whether they follow one another, from a start drawn at random; else one is
            drawn of each of `count` equally long stretches of the episode.
        ids: names of the episodes, for the words of an error.

    Raises:
        DefinitionError: if the number of frames is negative.
        ShapeError: if episodes are too short for it, or differ where all frames are shown.
    """

    def __init__(
        self, lengths: NDArray[np.int64], count: int, *, consecutive: bool, ids: Sequence[str]
    ) -> None:
        if count < 0:
            raise DefinitionError(f"{count} frames of an episode; needed 1 or more, or 0 for all")
        if count == 0 and len(set(lengths.tolist())) > 1:
            raise ShapeError(
                f"episodes have between {lengths.min()} and {lengths.max()} frames; showing all of"
                " them needs equally many, so say how many frames to show"
            )
        shortest = int(lengths.argmin())
        if consecutive and lengths[shortest] < count:
            raise ShapeError(
                f"episode {ids[shortest]} has {lengths[shortest]} frames; {count} consecutive ones"
                " were asked for, so show fewer frames"
            )
        self.lengths, self.count, self.consecutive = lengths, count, consecutive

    def __call__(self, rows: NDArray[np.int64], generator: torch.Generator) -> NDArray[np.int64]:
        """[row, frame] positions in order, repeated where there are fewer than are shown."""
        lengths = self.lengths[rows]
        if self.count == 0:
            return np.tile(np.arange(lengths[0]), (len(rows), 1))
        chance = torch.rand(len(rows), self.count, generator=generator, dtype=torch.float64).numpy()
        order = np.arange(self.count)
        if self.consecutive:
            start = np.floor(chance[:, 0] * (lengths - self.count + 1)).astype(np.int64)
            return start[:, None] + order
        found = np.floor((order + chance) * lengths[:, None] / self.count).astype(np.int64)
        return np.minimum(found, lengths[:, None] - 1)


def draw_nuisance(nuisance: Nuisance, generator: torch.Generator) -> NuisanceDraw:
    """What is done to the pictures of one episode and camera, from a generator.

    Args:
        nuisance: the ranges; its seed does not matter.
        generator: of the draw, on the CPU.
    """
    *gain, offset = torch.rand(4, generator=generator, dtype=torch.float64).tolist()
    low, high = nuisance.gain
    red, green, blue = (low + (high - low) * share for share in gain)
    low, high = nuisance.offset
    moves = torch.randint(-nuisance.shift, nuisance.shift + 1, (2,), generator=generator)
    down, right = moves.tolist()
    return NuisanceDraw((red, green, blue), low + (high - low) * offset, (down, right))


@final
class Shelf:
    """Streams of episodes under the names a model gives its inputs.

    Those that fit into memory are decoded once, the others whenever they are shown.

    Args:
        episodes: what is shown.
        wires: model input -> stream of the episodes.
        most: bytes that are held.
    """

    def __init__(self, episodes: Episodes, wires: Mapping[str, str], *, most: int = _KEPT) -> None:
        self.episodes, self.wires, self.most = episodes, wires, most
        self.held = 0
        self._streams: dict[tuple[int, str], NDArray[Any]] = {}

    @property
    def cameras(self) -> tuple[str, ...]:
        """The inputs that are pictures."""
        return tuple(name for name in self.wires if name.partition(":")[0] == "camera")

    def stream(self, row: int, name: str) -> NDArray[Any]:
        """All frames of one input of the model.

        Raises:
            StreamError: if it is none of its inputs.
        """
        if (row, name) in self._streams:
            return self._streams[row, name]
        if name not in self.wires:
            raise StreamError(
                f"the model reads '{name}' but declares only {', '.join(self.wires)}; add it to"
                " the model's inputs"
            )
        values = self.episodes[row].stream(self.wires[name])
        if self.held + values.nbytes <= self.most:
            self._streams[row, name] = values
            self.held += values.nbytes
        return values


@final
class ShownEpisode:
    """Some frames of one episode, as a model reads them.

    Args:
        shelf: where its streams are.
        row: which episode.
        positions: [frame] of those that are shown.
        looks: camera input -> what is done to its pictures.
    """

    def __init__(
        self,
        shelf: Shelf,
        row: int,
        positions: NDArray[np.int64],
        looks: Mapping[str, NuisanceDraw],
    ) -> None:
        episode = shelf.episodes[row]
        self.id, self.instruction, self.length = episode.id, episode.instruction, episode.length
        self.steps, self.timestamps = episode.steps[positions], episode.timestamps[positions]
        self._shelf, self._row, self._positions, self._looks = shelf, row, positions, looks

    def stream(self, name: str) -> NDArray[Any]:
        """[frame, ...] one of the model's inputs."""
        values = self._shelf.stream(self._row, name)[self._positions]
        return jitter(values, self._looks[name]) if name in self._looks else values

"""Episodes with fewer frames than were stored."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import final

import numpy as np
from numpy.typing import NDArray

from mirror_analysis.episodes.episode import Episode, Episodes, FrameLoader
from mirror_analysis.episodes.selection import evenly_spaced


@final
@dataclass(frozen=True)
class _Chosen:
    """Gives some of the frames that a loader gives."""

    loader: FrameLoader
    positions: tuple[int, ...]

    def __call__(self, camera: str) -> NDArray[np.uint8]:
        return self.loader(camera)[list(self.positions)]


def thinned(episodes: Episodes, frames: int | None) -> Episodes:
    """The episodes with so many frames each, evenly spaced; those that have fewer stay.

    Steps and timestamps stay true: a frame keeps the step it was taken at.

    Args:
        episodes: any.
        frames: how many to keep of each; all when None.

    Raises:
        DefinitionError: if fewer than one frame is asked for.
    """
    return episodes if frames is None else Episodes([_thin(e, frames) for e in episodes])


def _thin(episode: Episode, frames: int) -> Episode:
    positions = evenly_spaced(len(episode.steps), frames)
    if len(positions) == len(episode.steps):
        return episode
    digest = hashlib.sha256(f"{episode.digest}\0{positions.tolist()}".encode()).hexdigest()
    return replace(
        episode,
        states=episode.states[positions],
        actions=episode.actions[positions],
        timestamps=episode.timestamps[positions],
        steps=episode.steps[positions],
        loader=_Chosen(episode.loader, tuple(positions.tolist())),
        digest=digest,
        extras={name: values[positions] for name, values in episode.extras.items()},
    )

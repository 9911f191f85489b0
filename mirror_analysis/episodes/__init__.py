"""Episodes: what they are, where they are read from, how they are collected and disturbed."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from mirror_analysis.errors import (
    DefinitionError,
    FormatError,
    MissingFileError,
    UnknownNameError,
)
from mirror_analysis.lazy import lazy

if TYPE_CHECKING:
    from mirror_analysis.episodes.arrays import ArraysWriter, read_arrays, write_episode
    from mirror_analysis.episodes.episode import Episode, Episodes
    from mirror_analysis.episodes.lerobot_writer import write_lerobot
    from mirror_analysis.episodes.metaworld import collect
    from mirror_analysis.episodes.nuisance import (
        Nuisance,
        NuisanceDraw,
        apply_nuisance,
        draw,
        jitter,
    )
    from mirror_analysis.episodes.simulator import Simulator
    from mirror_analysis.episodes.tasks import TASKS

__all__ = [
    "TASKS",
    "ArraysWriter",
    "Episode",
    "Episodes",
    "Nuisance",
    "NuisanceDraw",
    "Simulator",
    "apply_nuisance",
    "collect",
    "draw",
    "jitter",
    "load_episodes",
    "read_arrays",
    "write_episode",
    "write_lerobot",
]

# Public name -> module that defines it; nothing heavy is imported until a name is used.
_PUBLIC = {
    "ArraysWriter": "arrays",
    "Episode": "episode",
    "Episodes": "episode",
    "Nuisance": "nuisance",
    "NuisanceDraw": "nuisance",
    "Simulator": "simulator",
    "TASKS": "tasks",
    "VARIANTS": "variants",
    "Variant": "variants",
    "apply_nuisance": "nuisance",
    "collect": "metaworld",
    "draw": "nuisance",
    "episode_index": "step_labels",
    "jitter": "nuisance",
    "read_arrays": "arrays",
    "relabelled": "step_labels",
    "replay": "replays",
    "step_index": "step_labels",
    "write_episode": "arrays",
    "write_lerobot": "lerobot_writer",
}

# Word before the colon of a source -> module with SUMMARY, recognise(path) and
# read(path, limit=..., frames=...). Where two recognise the same files, the first one reads them.
READERS = {
    "arrays": "mirror_analysis.episodes.arrays",
    "demonstrations": "mirror_analysis.episodes.demonstrations",
    "lerobot": "mirror_analysis.episodes.lerobot",
    "rlbench": "mirror_analysis.episodes.rlbench",
    "rlds": "mirror_analysis.episodes.rlds",
    "robomimic": "mirror_analysis.episodes.robomimic",
    "videos": "mirror_analysis.episodes.videos",
}


def load_episodes(source: str, *, limit: int | None = None, frames: int | None = None) -> Episodes:
    """Episodes from wherever they are; pictures stay on disk until they are asked for.

    Args:
        source: a path, recognised by what is in it, or `READER:PATH`, such as
            "lerobot:datasets/pusht".
        limit: keep the first so many.
        frames: keep so many of each episode, evenly spaced; all when None.

    Raises:
        UnknownNameError: if there is no such reader.
        DefinitionError: if a limit is negative, or fewer than one frame is asked for.
        MissingFileError: if there is nothing at the path.
        FormatError: if it is of no known format.
        MirrorError: whatever else the reader finds wrong.
    """
    if limit is not None and limit < 0:
        raise DefinitionError(f"limit is {limit} episodes; needed 0 or more")
    if frames is not None and frames < 1:
        raise DefinitionError(f"{frames} frames of each episode asked for; needed 1 or more")
    word, colon, rest = source.partition(":")
    named = bool(colon) and not Path(source).exists()
    if named and word not in READERS:
        raise UnknownNameError("episode reader", word, READERS)
    path = Path(rest) if named else Path(source)
    if not path.exists():
        raise MissingFileError(
            f"no episodes at {path}; give a file or folder that is there, or collect some with"
            " `mirror episodes metaworld --out DIR`"
        )
    for name in [word] if named else READERS:
        module = importlib.import_module(READERS[name])
        if named or module.recognise(path):
            return module.read(path, limit=limit, frames=frames)
    raise FormatError(
        f"{path} is in no format of episodes that is known ({', '.join(READERS)}); name one as"
        " READER:PATH to hear what it lacks, or `mirror list sources`"
    )


__getattr__, __dir__ = lazy(__name__, _PUBLIC)

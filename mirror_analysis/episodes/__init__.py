"""Episodes: what they are, where they are read from, how they are collected and disturbed."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from mirror_analysis.errors import DefinitionError, UnknownNameError
from mirror_analysis.lazy import lazy

if TYPE_CHECKING:
    from mirror_analysis.episodes.arrays import ArraysWriter, read_arrays, write_episode
    from mirror_analysis.episodes.episode import Episode, Episodes
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
    "apply_nuisance": "nuisance",
    "collect": "metaworld",
    "draw": "nuisance",
    "jitter": "nuisance",
    "read_arrays": "arrays",
    "write_episode": "arrays",
}

# Word before the colon of a source -> function(path, limit=...) that gives Episodes.
READERS = {
    "arrays": "mirror_analysis.episodes.arrays:read_arrays",
}


def load_episodes(source: str, *, limit: int | None = None) -> Episodes:
    """Episodes from wherever they are.

    Args:
        source: `READER:PATH`, such as "arrays:out/episodes", or the path of a folder of arrays.
        limit: keep the first so many.

    Raises:
        UnknownNameError: if there is no such reader.
        DefinitionError: if the limit is negative.
        MirrorError: whatever the reader finds wrong.
    """
    if limit is not None and limit < 0:
        raise DefinitionError(f"limit is {limit} episodes; needed 0 or more")
    reader, colon, path = source.partition(":")
    if Path(source).exists() or not colon:
        reader, path = "arrays", source
    if reader not in READERS:
        raise UnknownNameError("episode reader", reader, READERS)
    module, _, function = READERS[reader].partition(":")
    return getattr(importlib.import_module(module), function)(Path(path), limit=limit)


__getattr__, __dir__ = lazy(__name__, _PUBLIC)

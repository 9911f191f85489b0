"""Runs a probe definition of the catalogue on features."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from mirror_analysis.definitions import ProbeDefinition
from mirror_analysis.errors import DegenerateError, UnknownNameError
from mirror_analysis.features import Features, Index, Layers, Split
from mirror_analysis.probing.decoded import Decoded
from mirror_analysis.probing.decoding import Side, decode
from mirror_analysis.probing.settings import Probe

if TYPE_CHECKING:
    from mirror_analysis.episodes import Episodes

# Over time; a row per step keeps every frame.
POOLING = {"episode": "mean", "step": "steps"}


def settings_of(definition: ProbeDefinition) -> Probe:
    """What a definition says about fitting and judging."""
    settings = Probe(
        estimator=definition.estimator,
        held_out=definition.held_out,
        folds=definition.folds,
        within=definition.within,
    )
    if definition.neighbours:
        settings = replace(settings, neighbours=tuple(definition.neighbours))
    return replace(settings, strengths=tuple(definition.strengths))


def run_definition(
    definition: ProbeDefinition,
    features: Layers | Split,
    *,
    settings: Probe | None = None,
    side: Side = "x",
    progress: Callable[[int, int], None] | None = None,
) -> Decoded:
    """Decodes what a definition names from the layers it names.

    Args:
        definition: out of the catalogue, or one's own.
        features: layers of one model over the same rows, or a split.
        settings: in place of what the definition says, where draws, seed or device are to differ.
        side: of a split, which model.
        progress: called with (steps done, steps in all).

    Raises:
        UnknownNameError: if a layer or label does not exist.
        DegenerateError: if rows are not of the level the definition needs.
    """
    chosen = settings or settings_of(definition)
    if not isinstance(features, Split):
        features = _layers(definition, features)
    index = (
        features.fit.index if isinstance(features, Split) else next(iter(features.values())).index
    )
    several = len(np.unique(index.episode)) < len(index)
    if several != (definition.level == "step"):
        needed = "several rows per episode" if definition.level == "step" else "one row per episode"
        raise DegenerateError(
            f"probe '{definition.name}' needs {needed}, but {len(index)} rows are of"
            f" {len(np.unique(index.episode))} episodes; extract with pooling"
            f" '{POOLING[definition.level]}'"
        )
    return decode(
        features,
        definition.target,
        settings=chosen,
        kind=definition.kind,
        side=side,
        progress=progress,
    )


def row_index(
    definition: ProbeDefinition,
    episodes: Episodes,
    *,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Index:
    """The rows that a definition needs, with all labels that the episodes can give.

    Contact and phase are found by replaying the episodes in their simulator.

    Args:
        definition: what is decoded.
        episodes: whose rows.
        workers: processes of the replay; as many as there are cores when None.
        progress: called with (parts replayed, parts in all).

    Raises:
        StreamError: if episodes have to be replayed that Meta-World did not make.
        MissingDependencyError: if the simulator is needed and not installed.
    """
    from mirror_analysis.episodes.step_labels import episode_index, step_index

    if definition.level == "episode":
        return episode_index(episodes)
    targets = [definition.target] if isinstance(definition.target, str) else definition.target
    if not {"contact", "phase"} & set(targets):
        return step_index(episodes)
    from mirror_analysis.episodes.replays import replay

    return step_index(episodes, replays=replay(episodes, workers=workers, progress=progress))


def _layers(definition: ProbeDefinition, features: Layers) -> dict[str, Features]:
    if definition.layers == "all":
        return dict(features)
    for name in definition.layers:
        if name not in features:
            raise UnknownNameError("layer", name, features)
    return {name: features[name] for name in definition.layers}

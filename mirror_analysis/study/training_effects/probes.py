"""What linear probes read off the aligned layers of a trained pair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import msgspec

from mirror_analysis.definitions import ProbeDefinition
from mirror_analysis.errors import DefinitionError
from mirror_analysis.features import Split
from mirror_analysis.probing.running import run_definition, settings_of
from mirror_analysis.study.training_effects.readings import Reading

SIDES: dict[Literal["x", "y"], str] = {"x": "observation", "y": "execution"}
"""Side of a split -> name of the model in scores."""


def require_probes(probes: Sequence[ProbeDefinition]) -> None:
    """Makes sure that probes can be asked of one row per episode.

    Raises:
        DefinitionError: if one cannot.
    """
    for probe in probes:
        if probe.level != "episode":
            raise DefinitionError(
                f"probe '{probe.name}' is asked of every {probe.level}; a study of training has one"
                " row per episode, so name probes of that level"
            )


def probe_readings(
    parts: Split, probes: Sequence[ProbeDefinition], *, draws: int, condition: str
) -> list[Reading]:
    """Every probe of both models: fitted on fit episodes, chosen on validation, tested on test.

    Args:
        parts: one layer of either model.
        probes: what is asked; layers and what is held out are those of the split.
        draws: permutations of the null.
        condition: of the views.
    """
    found = []
    for probe in probes:
        asked = msgspec.structs.replace(probe, layers="all")
        settings = replace(settings_of(probe), held_out="split", draws=draws)
        for side, model in SIDES.items():
            decoded = run_definition(asked, parts, settings=settings, side=side)
            for score in decoded.scores:
                told = msgspec.structs.replace(
                    score, x=model, condition=condition,
                    parameters={**score.parameters, "probe": probe.name, "model": model},
                )  # fmt: skip
                replicates = decoded.replicates.get(score.x_layer)
                found.append(Reading(told, [] if replicates is None else replicates.tolist()))
    return found

"""Studies without a simulator: of the tiny world, and of worlds whose truth is known."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import tiny_world as world

from mirror_analysis.definitions import StudyDefinition
from mirror_analysis.episodes import Episodes
from mirror_analysis.features import FeatureKey, Layers
from mirror_analysis.results import Result
from mirror_analysis.study.contrasts import Source
from mirror_analysis.study.material import Material
from mirror_analysis.study.running import execute, nuisance_of


def material(
    chosen: Episodes, store: Path, definition: StudyDefinition | None = None, kind: type = Material
) -> Material:
    return kind(
        chosen,
        world.model,
        nuisance=nuisance_of(definition or world.definition()),
        store=store,
        device="cpu",
        progress=lambda stage, done, total: None,
    )


def run(definition: StudyDefinition, given: Material, out: Path, **changes: object) -> Result:
    settings = {
        "workers": 1,
        "progress": lambda stage, done, total: None,
        "started": time.monotonic(),
    }
    return execute(definition, given, out, **settings | changes)


class Planted(Material):
    """A world whose representations are drawn, not computed.

    An episode has a latent vector that only its own trained models may know, and an appearance
    that anything sees which sees pixels, trained or not.
    """

    trained = staticmethod(lambda latent, seen, noise: latent)
    untrained = staticmethod(lambda latent, seen, noise: noise)
    pixels = staticmethod(lambda latent, seen, noise: noise)

    def layers(self, side: str, source: Source, condition: str, seed: int, draw: int) -> Layers:
        if source not in ("trained", "untrained", "pixels"):
            return super().layers(side, source, condition, seed, draw)
        ids = [episode.id for episode in self.plain]
        both = np.random.default_rng(5).standard_normal((2, len(ids), 6))
        # Python's hash of words is salted; sums of letters are not.
        own = np.random.default_rng(sum(map(ord, f"{side}{source}{condition}")) + 31 * draw)
        noise = own.standard_normal((len(ids), 6))
        known = getattr(self, source)(both[0], both[1], noise)
        values = known @ own.standard_normal((6, 8)) + 0.05 * own.standard_normal((len(ids), 8))
        base = super().layers(side, "time", condition, seed, draw)["time"]
        names = {"x": "penultimate", "y": "vision"}
        layer = names[side] if source != "pixels" else "pixels"
        key = FeatureKey(f"{side} {source}", "0" * 64, layer, "mean", f"{condition} {draw}")
        return {layer: replace(base, key=key, values=values.astype(np.float32))}

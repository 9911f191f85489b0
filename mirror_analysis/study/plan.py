"""Which parts a study consists of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from mirror_analysis.definitions import StudyDefinition
from mirror_analysis.study.contrasts import PAIR, Contrast
from mirror_analysis.study.material import Material
from mirror_analysis.study.parts import Job, Kind, Rows, fingerprint

CONDITIONS = ("plain", "nuisance")
OUTCOME_CONTRASTS = (PAIR, "untrained-untrained")


@dataclass(frozen=True)
class Piece:
    """Where a part belongs.

    Attributes:
        kind: what is computed.
        contrast: of which two sources.
        condition: on which views.
        seed: training seed.
        draw: random initialisation, 0 where there is none.
        outcome: "success" or "failure" where the part is about one, else "".
    """

    kind: Kind
    contrast: Contrast
    condition: str
    seed: int
    draw: int
    outcome: str = ""

    @property
    def name(self) -> str:
        """Unique within the study."""
        words = (self.kind, self.contrast.key, self.condition, self.seed, self.draw, self.outcome)
        return " | ".join(map(str, words))


def pieces(
    definition: StudyDefinition,
    contrasts: Sequence[Contrast],
    conditions: Sequence[str] = CONDITIONS,
) -> Iterator[Piece]:
    """Every part of a study, in the order of a report."""
    for condition in conditions:
        for contrast in contrasts:
            for seed in definition.models.seeds:
                for draw in range(definition.models.untrained_draws if contrast.draws else 1):
                    yield from _of_contrast(definition, contrast, condition, seed, draw)


def _of_contrast(
    definition: StudyDefinition, contrast: Contrast, condition: str, seed: int, draw: int
) -> Iterator[Piece]:
    if not contrast.shuffle:
        yield Piece("similarity", contrast, condition, seed, draw)
    yield Piece("alignment", contrast, condition, seed, draw)
    if contrast.key == PAIR and condition in definition.measures.alignment_grids:
        yield Piece("alignment grid", contrast, condition, seed, draw)
    if contrast.key in OUTCOME_CONTRASTS and definition.episodes.test_failures and draw == 0:
        for outcome in ("success", "failure"):
            yield Piece("outcome", contrast, condition, seed, draw, outcome)


def job(
    piece: Piece,
    material: Material,
    definition: StudyDefinition,
    folder: Path,
    *,
    rows: Rows = "successes",
) -> Job:
    """The computation of a piece."""
    contrast = piece.contrast
    data = material.pair(contrast, piece.condition, piece.seed, piece.draw)
    layers = declared_layers(definition, contrast)
    layers = layers[0] or next(iter(data.x)), layers[1] or next(iter(data.y))
    whole = whole_grid(definition, piece)
    keys = [
        features.key
        for side, source in (("x", contrast.x), ("y", contrast.y))
        for features in material.layers(
            side, source, piece.condition, piece.seed, piece.draw
        ).values()
    ]
    name = fingerprint(
        piece.name,
        layers,
        whole,
        rows,
        msgspec.json.encode(keys),
        # Who is fitted on and who is judged is no part of the features' keys.
        *(data.index.label(label).tolist() for label in ("split", "success", "task")),
        *(
            msgspec.json.encode(section)
            for section in (definition.alignment, definition.measures, definition.episodes)
        ),
    )
    return Job(
        piece.kind,
        data,
        layers,
        definition,
        folder / f"{name}.part",
        whole=whole,
        rows="failures" if piece.outcome == "failure" else rows,
        shuffle=contrast.shuffle,
    )


def whole_grid(definition: StudyDefinition, piece: Piece) -> bool:
    """Whether similarity is measured between all layers."""
    return piece.contrast.key in definition.measures.grids and piece.draw == 0


def declared_layers(definition: StudyDefinition, contrast: Contrast) -> tuple[str, str]:
    """The layer pair that was chosen before looking; "" on a side that is no network."""
    x = definition.models.x_layer if contrast.x in ("trained", "untrained") else ""
    y = definition.models.y_layer if contrast.y in ("trained", "untrained") else ""
    return x, y

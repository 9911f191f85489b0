"""Runs a study from its definition to its result."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import product
from pathlib import Path

import msgspec

from mirror_analysis import catalog
from mirror_analysis.definitions import StudyDefinition
from mirror_analysis.episodes.nuisance import Nuisance
from mirror_analysis.errors import FormatError
from mirror_analysis.models import load_model
from mirror_analysis.models.model import Model, require_device
from mirror_analysis.provenance import record
from mirror_analysis.results import EmbeddingMap, Result, load_result, save_result
from mirror_analysis.study.contrasts import CONTRASTS, PAIR
from mirror_analysis.study.findings import findings
from mirror_analysis.study.maps import draw_maps
from mirror_analysis.study.material import Material, collect_episodes
from mirror_analysis.study.parts import Job, Rows, compute, fingerprint, fit_declared, test_rows
from mirror_analysis.study.plan import CONDITIONS, Piece, job, pieces
from mirror_analysis.study.summary import Summary, summarise

Progress = Callable[[str, int, int], None]
"""Called with (stage in words, done, total)."""


def run_study(
    name: str,
    *,
    out: str | Path,
    quick: bool = False,
    device: str = "cpu",
    workers: int | None = None,
    include: Sequence[Path] = (),
    progress: Progress | None = None,
) -> Result:
    """Runs a study and writes `result.json`; what is stored already is used again.

    Episodes, features and every computed part are kept under `out`, so an interrupted run goes
    on where it stopped and a repeated one only reads.

    Args:
        name: a study of the catalogue, such as "spontaneous-alignment".
        out: folder for everything.
        quick: take the definition's quick settings.
        device: where models run.
        workers: processes for measures; None for as many as there are cores.
        include: folders with definitions of your own.
        progress: called with (stage, done, total).

    Raises:
        UnknownNameError: if there is no such study.
        MirrorError: whatever is wrong with episodes or models.
    """
    started = time.monotonic()
    definition = catalog.definition("reports", name, include)
    if quick:
        definition = catalog.quick(definition)
    told = progress or (lambda stage, done, total: None)
    folder = Path(out)
    require_device(device)
    models = partial(_load, definition, tuple(include), device)
    for side, seed in product("xy", definition.models.seeds):
        models(side, seed)  # a missing or damaged checkpoint is told before hours of work
    material = Material(
        collect_episodes(definition.episodes, folder / "episodes", told),
        models,
        nuisance=nuisance_of(definition),
        store=folder / "features",
        device=device,
        progress=told,
    )
    return execute(definition, material, folder, workers=workers, progress=told, started=started)


def execute(
    definition: StudyDefinition,
    material: Material,
    folder: Path,
    *,
    workers: int | None,
    progress: Progress,
    started: float,
    conditions: Sequence[str] = CONDITIONS,
    rows: Rows = "successes",
) -> Result:
    """Measures everything a definition asks of the material and writes `result.json`.

    Args:
        definition: what is asked.
        material: episodes and models.
        folder: where parts and the result are kept.
        workers: processes; None for as many as there are cores.
        progress: called with (stage, done, total).
        started: when the run began, on the monotonic clock.
        conditions: of the views.
        rows: which test episodes are judged.
    """
    told = progress
    planned = list(pieces(definition, conditions))
    jobs: dict[str, Job] = {}
    for piece in planned:
        jobs[piece.name] = job(piece, material, definition, folder / "parts", rows=rows)
    identity = fingerprint(
        msgspec.json.encode(definition), *sorted(j.file.name for j in jobs.values())
    )
    kept = _kept(folder / "result.json", identity)
    if kept is not None:
        return kept
    found = compute(jobs, workers=workers, progress=partial(told, "measuring, by part"))
    parts = {piece: found[piece.name] for piece in planned}
    summary = summarise(parts, definition)
    maps = _maps(jobs, planned, definition, partial(told, "drawing maps"))
    result = _result(definition, material, summary, maps, identity, time.monotonic() - started)
    save_result(result, folder / "result.json")
    return result


def nuisance_of(definition: StudyDefinition) -> Nuisance:
    """The nuisance a definition names."""
    n = definition.nuisance
    return Nuisance((n.gain_low, n.gain_high), (n.offset_low, n.offset_high), n.shift, n.seed)


def _load(
    definition: StudyDefinition, include: tuple[Path, ...], device: str, side: str, seed: int
) -> Model:
    stem = definition.models.x if side == "x" else definition.models.y
    return load_model(f"{stem}-s{seed}", device=device, include=include)


def _kept(path: Path, identity: str) -> Result | None:
    if not path.is_file():
        return None
    try:
        result = load_result(path)
    except FormatError:
        return None
    return result if result.provenance.inputs.get("identity") == identity else None


def _maps(
    jobs: Mapping[str, Job],
    planned: Sequence[Piece],
    definition: StudyDefinition,
    progress: Callable[[int, int], None],
) -> list[EmbeddingMap]:
    if not definition.maps.methods:
        return []
    shown = next(
        piece
        for piece in planned
        if (piece.kind, piece.contrast.key) == ("alignment", PAIR)
        and piece.condition == planned[-1].condition
    )
    chosen = jobs[shown.name]
    return draw_maps(
        test_rows(chosen),
        chosen.layers,
        fit_declared(chosen),
        definition.maps,
        progress=progress,
    )


def _result(
    definition: StudyDefinition,
    material: Material,
    summary: Summary,
    maps: list[EmbeddingMap],
    identity: str,
    seconds: float,
) -> Result:
    models = [material.model(side, seed) for side in "xy" for seed in definition.models.seeds]
    inputs = {model.name: model.weights_sha256 for model in models}
    inputs["episodes"] = material.plain.fingerprint
    inputs["identity"] = identity
    m, a = definition.models, definition.alignment
    return Result(
        study=definition.name,
        title=definition.title,
        models={
            "x": f"observation model ({m.x})",
            "y": f"execution model ({m.y})",
        },
        definition=msgspec.to_builtins(definition),
        provenance=record(
            device=material.device,
            seeds={
                "training": list(m.seeds),
                "alignment": list(a.probe_seeds),
                "fit episodes": [definition.episodes.seed_fit],
                "test episodes": [definition.episodes.seed_test],
                "nuisance": [definition.nuisance.seed],
            },
            inputs=inputs,
            seconds=seconds,
        ),
        data=_data(material),
        findings=findings(summary.scores),
        scores=summary.scores,
        maps=maps,
        notes=_notes(definition),
    )


def _data(material: Material) -> dict[str, object]:
    labels = material.plain.labels()
    counts: dict[str, object] = {}
    for split in ("fit", "test"):
        for outcome, won in (("successes", True), ("failures", False)):
            mask = (labels["split"] == split) & (labels["success"].astype(bool) == won)
            counts[f"{split} {outcome}"] = int(mask.sum())
    ids = "\n".join(sorted(episode.id for episode in material.plain))
    return counts | {
        "tasks": sorted(set(labels["task"].tolist())),
        "instructions": len(set(labels["instruction"].tolist())),
        "episode ids sha256": hashlib.sha256(ids.encode()).hexdigest(),
    }


def _notes(definition: StudyDefinition) -> list[str]:
    m = definition.models
    controls = ", ".join(c.key for c in CONTRASTS if c.role == "control")
    references = ", ".join(c.key for c in CONTRASTS if c.role == "reference")
    notes = [
        f"The layer pair {m.x_layer} and {m.y_layer} was declared before looking. The layer"
        f" {m.y_layer} of the execution model has seen pixels only: proprioception joins after it.",
        "Matched controls see what the declared layers see and learned nothing of what they are"
        f" compared with: {controls}. The excess is taken over the largest of them.",
        "References are told what those layers would have to find out from pixels, such as the"
        f" exact state; they say how far a perfect reading would go: {references}.",
        "Numbers without a training seed are means over training seeds, initialisations and seeds"
        " of the fit; their p is the largest of those averaged.",
        "Intervals hold for new episodes; with several training seeds, for new seeds too.",
    ]
    if len(m.seeds) == 1:
        notes.append(
            "This run has one training seed: its intervals know nothing of how seeds differ."
        )
    return notes

"""Runs a study from its definition to its result."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path

import msgspec

from mirror_analysis import catalog
from mirror_analysis.definitions import StudyDefinition
from mirror_analysis.episodes.nuisance import Nuisance
from mirror_analysis.errors import FormatError, UnknownNameError
from mirror_analysis.models import load_model
from mirror_analysis.models.model import Model, require_device
from mirror_analysis.provenance import record
from mirror_analysis.results import EmbeddingMap, Result, load_result, save_result
from mirror_analysis.similarity.measures import load_measure
from mirror_analysis.study import describing
from mirror_analysis.study.contrasts import PAIR, contrasts
from mirror_analysis.study.findings import findings
from mirror_analysis.study.maps import draw_maps
from mirror_analysis.study.material import Material, collect_episodes, require_layer
from mirror_analysis.study.parts import Job, Rows, compute, fingerprint, fit_declared, test_rows
from mirror_analysis.study.plan import CONDITIONS, Piece, job, pieces
from mirror_analysis.study.summary import summarise
from mirror_analysis.study.training_effects.running import run_training_study
from mirror_analysis.training_definitions import TrainingStudyDefinition

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
        UnknownNameError: if there is no such study, or it names a checkpoint, layer, measure or
            contrast that there is not.
        MirrorError: whatever is wrong with episodes or models.
    """
    started = time.monotonic()
    definition = catalog.definition("reports", name, include)
    if quick:
        definition = catalog.quick(definition)
    told = progress or (lambda stage, done, total: None)
    folder = Path(out)
    require_device(device)
    if isinstance(definition, TrainingStudyDefinition):
        return run_training_study(definition, folder, workers=workers, device=device, progress=told)
    models = cache(partial(_load, definition, tuple(include), device))
    _require(definition, models)  # faults are told before hours of work
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
    collected: bool = True,
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
        collected: whether episodes and models are the ones the definition describes, not given.

    Returns:
        The result; contrasts with what the episodes do not carry are left out.
    """
    told = progress
    planned = list(pieces(definition, material.contrasts(definition.models.seeds[0]), conditions))
    jobs: dict[str, Job] = {}
    for piece in planned:
        jobs[piece.name] = job(piece, material, definition, folder / "parts", rows=rows)
    identity = fingerprint(
        msgspec.json.encode(definition),
        *sorted(j.file.name for j in jobs.values()),
        # What is said of the parts is made anew by other words, without measuring again.
        *(file.read_bytes() for file in sorted(Path(__file__).parent.glob("*.py"))),
    )
    kept = _kept(folder / "result.json", identity)
    if kept is not None:
        return kept
    found = compute(jobs, workers=workers, progress=partial(told, "measuring, by part"))
    parts = {piece: found[piece.name] for piece in planned}
    summary = summarise(parts, definition)
    maps = _maps(jobs, planned, definition, partial(told, "drawing maps"))
    result = Result(
        study=definition.name,
        title=definition.title,
        models=describing.display_names(definition, material),
        definition=describing.as_it_ran(definition, collected=collected),
        provenance=record(
            device=material.device,
            seeds=describing.seeds(definition, collected=collected),
            inputs=describing.inputs(definition, material) | {"identity": identity},
            seconds=time.monotonic() - started,
        ),
        data=describing.data(material),
        findings=findings(summary.scores, nuisance=describing.nuisance(definition, material)),
        # Models that were given have no training seed to be told apart by.
        scores=[s for s in summary.scores if collected or s.seed is None],
        maps=maps,
        notes=describing.notes(
            definition, material, list(dict.fromkeys(piece.contrast for piece in planned))
        ),
    )
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


def _require(definition: StudyDefinition, models: Callable[[str, int], Model]) -> None:
    """Makes sure that everything a definition names is there."""
    m = definition.models
    for side, layer in (("x", m.x_layer), ("y", m.y_layer)):
        for seed in m.seeds:
            require_layer(models(side, seed), layer)
    for name in definition.measures.names:
        load_measure(name)
    known = [contrast.key for contrast in contrasts() if not contrast.shuffle]
    for key in definition.measures.grids:
        if key not in known:
            raise UnknownNameError("contrast of a grid", key, known)


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

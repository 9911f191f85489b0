"""Measures one trained pair on episodes it has not seen."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from mirror_analysis.alignment.linear import AlignmentConfig, LinearAlignment
from mirror_analysis.alignment.scoring import RetrievalConfig, fit_pair, score_alignments
from mirror_analysis.definitions import AlignmentSection, ProbeDefinition
from mirror_analysis.episodes import Episodes
from mirror_analysis.episodes.nuisance import Nuisance, apply_nuisance
from mirror_analysis.errors import FormatError, UnknownNameError
from mirror_analysis.extraction import extract
from mirror_analysis.features import Paired, Split, pair, split
from mirror_analysis.generalisation import Rows
from mirror_analysis.models import load_model
from mirror_analysis.models.model import Model
from mirror_analysis.models.reference.family import ReferenceObservation
from mirror_analysis.parallel import processes
from mirror_analysis.results import Score
from mirror_analysis.similarity.grid import grid
from mirror_analysis.similarity.measures import Measure, load_measure
from mirror_analysis.study.material import require_layer
from mirror_analysis.study.parts import fingerprint
from mirror_analysis.study.training_effects.generalising import (
    Asked,
    Side,
    few_shot_readings,
    held_out_readings,
    look_readings,
    transfer_readings,
)
from mirror_analysis.study.training_effects.probes import probe_readings
from mirror_analysis.study.training_effects.readings import Part, Reading, from_comparison, shares
from mirror_analysis.study.training_effects.runs import FILES, MAPS, Run
from mirror_analysis.training_definitions import TrainingStudyDefinition
from mirror_analysis.writing import write_whole

_SOURCES = (
    "generalising.py",
    "measuring.py",
    "probes.py",
    "readings.py",
)  # on which numbers depend
_LABELS = ("split", "task", "instruction")
VIEWS = ("plain", "nuisance")
_LOGITS = "instruction"  # layer of the observation model that names the instruction


@dataclass(frozen=True, eq=False, repr=False)
class MeasureJob:
    """A trained pair to measure.

    Attributes:
        run: which.
        folder: where its files lie.
        episodes: with labels split ("fit" or "test"), task and instruction; successes only.
        definition: settings.
        probes: what linear probes are asked.
        looks: name -> the test episodes under another look of the scene.
        file: where its numbers are kept.
        device: where models run.
    """

    run: Run
    folder: Path
    episodes: Episodes
    definition: TrainingStudyDefinition
    probes: tuple[ProbeDefinition, ...]
    looks: Mapping[str, Episodes]
    file: Path
    device: str

    def __repr__(self) -> str:
        return f"measuring {self.run.name}"


def measure_all(
    wanted: list[Run],
    episodes: Episodes,
    definition: TrainingStudyDefinition,
    out: Path,
    *,
    probes: Sequence[ProbeDefinition] = (),
    looks: Mapping[str, Episodes] | None = None,
    workers: int | None,
    device: str,
    progress: Callable[[int, int], None],
) -> dict[Run, Part]:
    """The numbers of every run: those that are kept are read, the others measured and kept.

    Args:
        wanted: runs whose files are there.
        episodes: what they are measured on.
        definition: of the study.
        out: folder of the study.
        probes: what linear probes are asked of the declared layers.
        looks: name -> the test episodes under another look of the scene.
        workers: processes; None for as many as there are cores.
        device: where models run.
        progress: called with (runs measured, runs in all).
    """
    elsewhere = looks or {}
    asked = _identity_of_questions(definition, probes, {"": episodes, **elsewhere})
    jobs = {
        run: MeasureJob(
            run, run.folder(out), episodes, definition, tuple(probes), elsewhere,
            out / "parts" / f"{_identity(run.folder(out), asked)}.part", device,
        )
        for run in wanted
    }  # fmt: skip
    kept = {run: _read(job.file) for run, job in jobs.items()}
    missing = [jobs[run] for run, part in kept.items() if part is None]
    there = len(jobs) - len(missing)
    progress(there, len(jobs))
    if missing:
        processes(workers).map(
            _keep, missing, progress=lambda done, _: progress(there + done, len(jobs))
        )
    return {
        run: kept[run] or msgspec.msgpack.decode(job.file.read_bytes(), type=Part)
        for run, job in jobs.items()
    }


def nuisance_of(definition: TrainingStudyDefinition) -> Nuisance:
    """The nuisance a definition names."""
    n = definition.nuisance
    return Nuisance((n.gain_low, n.gain_high), (n.offset_low, n.offset_high), n.shift, n.seed)


def measure(job: MeasureJob) -> Part:
    """Every number of one trained pair."""
    models = [load_model(job.folder / name, device=job.device) for name in FILES[:2]]
    observation, execution = models
    if not isinstance(observation, ReferenceObservation):
        raise FormatError(
            f"{job.folder / FILES[0]} is no observation model of the reference pair; train the run"
            " again"
        )
    x, y = job.definition.models.x_layer, job.definition.models.y_layer
    require_layer(observation, x)
    require_layer(execution, y)
    readings: list[Reading] = []
    asked = _asked(job.definition)
    plain: Split | None = None
    for view in VIEWS:
        episodes = job.episodes
        if view == "nuisance":
            episodes = apply_nuisance(episodes, nuisance_of(job.definition))
        logits, data = _layers(observation, execution, episodes, job)
        readings += _recognition(observation, logits, data, view, job.definition)
        parts = split(data)
        plain = plain or parts
        readings += _retrieval(parts, view, job)
        readings += _similarity(parts.test, view, job.definition)
        readings += probe_readings(
            parts, job.probes, draws=job.definition.evaluation.draws, condition=view
        )
        if asked is not None:
            readings += few_shot_readings(parts, asked, views=view)
            readings += transfer_readings(
                parts, asked, alignment=_config(job.definition.alignment),
                seed=job.definition.alignment.probe_seeds[0], views=view,
            )  # fmt: skip
            readings += held_out_readings(parts, asked, views=view)
    looks: dict[str, dict[Side, Rows]] = {}
    for look, episodes in job.looks.items():
        logits, data = _layers(observation, execution, episodes, job)
        readings += _recognition(observation, logits, data, look, job.definition)
        looks[look] = {"x": Rows(data.x[x], data.index), "y": Rows(data.y[y], data.index)}
    if asked is not None and plain is not None:
        readings += look_readings(plain, looks, asked)
    return Part(readings)


def _layers(
    observation: ReferenceObservation, execution: Model, episodes: Episodes, job: MeasureJob
) -> tuple[NDArray[np.float32], Paired]:
    """What the observation model names, and the declared layers with their rows matched."""
    x, y = job.definition.models.x_layer, job.definition.models.y_layer
    wanted = list(dict.fromkeys((x, _LOGITS)))
    seen = extract(observation, episodes, layers=wanted, device=job.device)
    acted = extract(execution, episodes, layers=[y], device=job.device)
    return seen[_LOGITS].values, pair({x: seen[x]}, {y: acted[y]})


def _asked(definition: TrainingStudyDefinition) -> Asked | None:
    section = definition.generalisation
    return None if section is None else Asked(section, definition.models, definition.evaluation)


def _recognition(
    model: ReferenceObservation, logits: NDArray[np.float32], data: Paired, view: str,
    definition: TrainingStudyDefinition,
) -> list[Reading]:  # fmt: skip
    test = data.index.label("split") == "test"
    index = data.index.take(test)
    for instruction in np.unique(index.label("instruction")).tolist():
        if instruction not in model.instructions:
            raise UnknownNameError(f"instruction of {model.name}", instruction, model.instructions)
    named = np.array(model.instructions)[logits[test].argmax(axis=1)]
    base = Score(
        "instruction_accuracy", 0.0, x="observation", y="", n=len(index), condition=view,
        parameters={"classes": len(model.instructions)},
    )  # fmt: skip
    return shares(
        named == index.label("instruction"), index.label("task"), index.episode,
        base=base, count=definition.evaluation.folds, chance=1 / len(model.instructions),
    )  # fmt: skip


def _retrieval(parts: Split, view: str, job: MeasureJob) -> list[Reading]:
    """Recall and InfoNCE of alignments fitted on frozen features, and of the trained maps."""
    definition = job.definition
    e, layers = definition.evaluation, (definition.models.x_layer, definition.models.y_layer)
    maps = {
        "fitted on frozen features": fit_pair(
            parts, layers, alignment=_config(definition.alignment),
            seeds=definition.alignment.probe_seeds,
        )
    }  # fmt: skip
    if (job.folder / MAPS).is_file():
        maps["trained with the models"] = [LinearAlignment.load(job.folder / MAPS)]
    config = RetrievalConfig(
        recall=tuple(e.recall), gallery=e.gallery, draws=e.draws, folds=e.folds
    )
    names = ("observation", "execution")
    return [
        reading
        for name, aligned in maps.items()
        for within in (None, "task")
        for reading in from_comparison(
            score_alignments(
                aligned, parts.test, layers=layers, config=config, within=within, names=names
            ),
            condition=view,
            parameters={"maps": name},
        )
    ]


def _similarity(test: Paired, view: str, definition: TrainingStudyDefinition) -> list[Reading]:
    e = definition.evaluation
    measures = [_measure(name, k=e.k, variance=e.variance) for name in e.measures]
    task = test.index.label("task")
    readings = []
    for within in ("", "task"):
        found = grid(
            test.x, test.y, measures=measures, units=test.index.episode,
            within=task if within else None, draws=e.draws, folds=e.folds, null="permutation",
        )  # fmt: skip
        scheme = "episodes within task" if within else "episodes"
        readings += [
            replaced(r, null=r.score.null and msgspec.structs.replace(r.score.null, scheme=scheme))
            for r in from_comparison(
                found, x="observation", y="execution", condition=view, within=within
            )
        ]
    return readings


def replaced(reading: Reading, **fields: object) -> Reading:
    """The same reading with fields of its score set anew."""
    return msgspec.structs.replace(reading, score=msgspec.structs.replace(reading.score, **fields))


def _config(section: AlignmentSection) -> AlignmentConfig:
    table: Mapping[str, object] = msgspec.to_builtins(section)
    return msgspec.convert({k: v for k, v in table.items() if k != "probe_seeds"}, AlignmentConfig)


def _measure(name: str, *, k: int, variance: float) -> Measure:
    measure = load_measure(name)
    known = {"k": k, "variance": variance}
    return replace(measure, **{key: known[key] for key in known if hasattr(measure, key)})  # type: ignore[type-var]


def _identity(folder: Path, questions: str) -> str:
    """Names a part by everything its numbers depend on."""
    files = [file for name in (*FILES, MAPS) if (file := folder / name).is_file()]
    return fingerprint(*(file.read_bytes() for file in files), questions)


def _identity_of_questions(
    definition: TrainingStudyDefinition, probes: Sequence[ProbeDefinition],
    episodes: Mapping[str, Episodes],
) -> str:  # fmt: skip
    sections = (
        definition.alignment, definition.nuisance, definition.models, _of_measuring(definition),
        definition.generalisation,
    )  # fmt: skip
    return fingerprint(
        *(msgspec.json.encode(section) for section in (*sections, probes)),
        *(
            [name, chosen.fingerprint, *(labels[label].tolist() for label in _LABELS)]
            for name, chosen in episodes.items()
            if (labels := chosen.labels())
        ),
        *(Path(__file__).with_name(name).read_bytes() for name in _SOURCES),
    )


def _of_measuring(definition: TrainingStudyDefinition) -> dict[str, object]:
    """The evaluation without what says who acts where."""
    table: dict[str, object] = msgspec.to_builtins(definition.evaluation)
    return {
        k: v
        for k, v in table.items()
        if k not in ("headline", "probes", "rollouts", "rollout_seed")
    }


def _read(file: Path) -> Part | None:
    """A part that is kept; None where it is not, or is damaged and has to be measured again."""
    try:
        return msgspec.msgpack.decode(file.read_bytes(), type=Part)
    except (FileNotFoundError, msgspec.MsgspecError, UnicodeDecodeError):
        return None


def _keep(job: MeasureJob) -> None:
    write_whole(job.file, msgspec.msgpack.encode(measure(job)))

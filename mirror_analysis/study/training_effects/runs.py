"""The trained pairs of a study, one per condition and seed: where they lie, and training them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from mirror_analysis.episodes import Episodes
from mirror_analysis.errors import MissingFileError, StoreError
from mirror_analysis.parallel import processes
from mirror_analysis.training_definitions import TrainingSection, TrainingStudyDefinition
from mirror_analysis.writing import write_whole

FILES = ("observation.safetensors", "execution.safetensors")
"""What training leaves in the folder of a run."""

MAPS = "alignment.safetensors"
"""The maps that were trained along, where the two models were aligned to each other."""

RECORD = "run.json"
"""How a run was trained and how that went; written last, so that a run with it is whole."""

Curve = dict[str, list[float]]
"""Name of a loss -> its mean over each pass, and "update" -> updates done at the end of it."""

Train = Callable[["RunJob"], Curve]
"""Trains a run and leaves `FILES` in its folder; goes on where it was interrupted."""


@dataclass(frozen=True)
class Run:
    """One trained pair.

    Attributes:
        condition: how it was trained.
        seed: of its training.
    """

    condition: str
    seed: int

    @property
    def name(self) -> str:
        """Unique within the study."""
        return f"{self.condition}-s{self.seed}"

    def folder(self, out: Path) -> Path:
        """Where its files lie in the folder of a study."""
        return out / "runs" / self.name


class TrainedAs(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything a run was trained with, kept beside it.

    Attributes:
        training: settings.
        seed: of training.
        x_camera: what the observation model watched.
        y_camera: what the execution model acted from.
        episodes: fingerprint of the demonstrations.
    """

    training: TrainingSection
    seed: int
    x_camera: str
    y_camera: str
    episodes: str


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is kept of a run beside its models.

    Attributes:
        settings: what it was trained with.
        curve: how its losses went.
    """

    settings: TrainedAs
    curve: Curve


@dataclass(frozen=True, eq=False, repr=False)
class RunJob:
    """A run to train.

    Attributes:
        run: which.
        settings: with what.
        episodes: on what.
        folder: where its files go.
        device: where it runs.
    """

    run: Run
    settings: TrainedAs
    episodes: Episodes
    folder: Path
    device: str

    def __repr__(self) -> str:
        return f"training {self.run.name}"


def runs(definition: TrainingStudyDefinition) -> list[Run]:
    """All runs of a study; all conditions of one seed stand together."""
    return [Run(c.name, seed) for seed in definition.models.seeds for c in definition.conditions]


def train_all(
    definition: TrainingStudyDefinition,
    demonstrations: Episodes,
    out: Path,
    *,
    train: Train,
    workers: int | None,
    device: str,
    progress: Callable[[int, int], None],
) -> list[Run]:
    """Trains the runs that are not there yet, each in a process of its own.

    Args:
        definition: of the study.
        demonstrations: what is trained on.
        out: folder of the study.
        train: trains one run; has to be a function of a module, since processes look it up.
        workers: processes; None for as many as there are cores.
        device: where models run.
        progress: called with (runs there, runs in all).

    Returns:
        All runs.

    Raises:
        StoreError: if the folder holds a run that was trained otherwise.
        MissingFileError: if training ends without one of the files of a run.
    """
    wanted = runs(definition)
    jobs = [
        RunJob(run, _settings(definition, run, demonstrations), demonstrations, run.folder(out),
               device)
        for run in wanted
    ]  # fmt: skip
    missing = [job for job in jobs if not _is_there(job)]
    there = len(jobs) - len(missing)
    progress(there, len(jobs))
    if missing:
        work = [(job, train) for job in missing]
        processes(workers).map(
            _train, work, progress=lambda done, _: progress(there + done, len(jobs))
        )
    return wanted


def _settings(definition: TrainingStudyDefinition, run: Run, demonstrations: Episodes) -> TrainedAs:
    models = definition.models
    return TrainedAs(
        definition.trained_as(run.condition), run.seed, models.x_camera, models.y_camera,
        demonstrations.fingerprint,
    )  # fmt: skip


def curve_of(run: Run, out: Path) -> Curve:
    """How the losses of a run went that is there."""
    kept = _record(run.folder(out))
    assert kept is not None, run.name
    return kept.curve


def _is_there(job: RunJob) -> bool:
    kept = _record(job.folder)
    if kept is None:
        return False
    if kept.settings != job.settings:
        changed = _changed(msgspec.to_builtins(kept.settings), msgspec.to_builtins(job.settings))
        raise StoreError(
            f"{job.folder} was trained with {', '.join(changed)}; needed as the study says, so"
            " give another --out or remove that folder"
        )
    return all((job.folder / name).is_file() for name in FILES)


def _record(folder: Path) -> Record | None:
    """The record of a whole run; None where training has not come to its end."""
    try:
        return msgspec.json.decode((folder / RECORD).read_bytes(), type=Record)
    except (FileNotFoundError, msgspec.MsgspecError, UnicodeDecodeError):
        return None


def _changed(kept: dict[str, object], wanted: dict[str, object]) -> Sequence[str]:
    """What differs, in words, such as "temperature 0.1 instead of 0.02"."""
    told: list[str] = []
    for name, value in kept.items():
        if isinstance(value, dict):
            inner = wanted[name]
            assert isinstance(inner, dict)
            told += _changed(value, inner)
        elif value != wanted[name]:
            told.append(f"{name} {value} instead of {wanted[name]}")
    return told


def _train(work: tuple[RunJob, Train]) -> None:
    job, train = work
    job.folder.mkdir(parents=True, exist_ok=True)
    curve = train(job)
    for name in FILES:
        if not (job.folder / name).is_file():
            raise MissingFileError(
                f"training {job.run.name} left no {name} in {job.folder}; run the study again"
            )
    record = Record(job.settings, curve)
    write_whole(job.folder / RECORD, msgspec.json.format(msgspec.json.encode(record)))

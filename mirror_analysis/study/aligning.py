"""Any two checkpoints over any episodes, before and after a linear alignment, beside controls."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np

from mirror_analysis import catalog
from mirror_analysis.alignment.closed_form import METHODS
from mirror_analysis.alignment.linear import LinearAlignment
from mirror_analysis.definitions import StudyDefinition
from mirror_analysis.episodes import Episodes
from mirror_analysis.errors import (
    DegenerateError,
    FormatError,
    MissingFileError,
    UnknownNameError,
)
from mirror_analysis.features import Paired
from mirror_analysis.inference.estimate import Estimate, excess
from mirror_analysis.models import load_model
from mirror_analysis.models.model import Model, require_device
from mirror_analysis.parallel import processes, serial
from mirror_analysis.provenance import Provenance, record
from mirror_analysis.results import Parameter, Score, frame
from mirror_analysis.streams import resolve
from mirror_analysis.study import alignment_parts
from mirror_analysis.study.alignment_parts import (
    CONTRASTIVE,
    AlignmentJob,
    AlignmentPlan,
    Measured,
    names_of_fits,
    read,
    run,
)
from mirror_analysis.study.comparing import divided_episodes, headline_layer
from mirror_analysis.study.contrasts import PAIR
from mirror_analysis.study.material import Material
from mirror_analysis.study.parts import fingerprint
from mirror_analysis.study.running import nuisance_of
from mirror_analysis.study.training_curves import draw_curves
from mirror_analysis.writing import write_whole

if TYPE_CHECKING:
    import pandas as pd

Progress = Callable[[str, int, int], None]
"""Called with (stage in words, done, total)."""

_CONTRASTS = (
    PAIR, "trained-untrained", "untrained-trained", "untrained-untrained", "shuffled within task",
)  # fmt: skip
_SETTINGS = "spontaneous-alignment"  # whose nuisance and number of draws are taken


class AlignmentReport(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Two checkpoints before and after the alignment; `alignment.json`.

    Attributes:
        models: side -> name.
        plan: what was fitted, with the layers that were taken.
        episodes: how many were fitted on, validated on and tested on.
        scores: every number. The parameter "comparison" says what stands on the two sides,
            "method" how their maps were found: "raw" for none, a closed form, or "contrastive".
        provenance: versions, commit, device, seeds, checksums.
        schema: version of this structure.
    """

    models: dict[str, str]
    plan: AlignmentPlan
    episodes: dict[str, int]
    scores: list[Score]
    provenance: Provenance
    schema: int = 1

    @property
    def frame(self) -> pd.DataFrame:
        """The scores as a tidy table."""
        return frame(self.scores)


def align_checkpoints(
    a: str | Path | Model,
    b: str | Path | Model,
    episodes: Episodes,
    *,
    out: str | Path,
    plan: AlignmentPlan | None = None,
    x_streams: Mapping[str, str] | None = None,
    y_streams: Mapping[str, str] | None = None,
    device: str = "cpu",
    workers: int | None = None,
    include: Sequence[Path] = (),
    progress: Progress | None = None,
) -> AlignmentReport:
    """Aligns two checkpoints on given episodes and measures them before and after.

    The contrastive fit and every closed form are fitted on the same episodes and judged on others,
    for the two models, for their untrained twins, and for episodes paired with others of their
    task. Where episodes carry the label `split`, "test" is tested on; else half of each task's
    episodes. Features and finished parts are kept, so an interrupted call goes on where it stopped.

    Args:
        a: first checkpoint, as `load_model` takes it, or a model that is loaded already.
        b: second checkpoint.
        episodes: with the streams both need.
        out: folder for `alignment.json`, `scores.csv`, `alignment.safetensors` (of the seed that
            is best on validation), `training.png`, and all fits.
        plan: what is fitted and how it is judged.
        x_streams: input of a -> stream of the episodes, where names differ.
        y_streams: input of b -> stream of the episodes.
        device: where models and contrastive fits run.
        workers: processes; None for as many as there are cores. One where the device is no CPU.
        include: folders with definitions of your own.
        progress: called with (stage, done, total).

    Raises:
        UnknownNameError: if a checkpoint, layer or label is not known.
        DegenerateError: if there are too few episodes, no seeds, or all episodes are partners.
        StreamError: if episodes lack what a model needs; says which streams would fit.

    Example:
        >>> report = align_checkpoints("videomae-base", "my-policy.zip", episodes, out="out")
        >>> select(report.scores, measure="recall_at_1", method="contrastive", role="pair")
    """
    started, told = time.monotonic(), progress or (lambda stage, done, total: None)
    plan, folder = plan or AlignmentPlan(), Path(out)
    require_device(device)
    models = {
        side: given
        if isinstance(given, Model)
        else load_model(given, device=device, include=include)
        for side, given in (("x", a), ("y", b))
    }
    plan = msgspec.structs.replace(
        plan,
        x_layer=headline_layer(models["x"], plan.x_layer),
        y_layer=headline_layer(models["y"], plan.y_layer),
    )
    divided = divided_episodes(episodes)
    _require(plan, divided)
    streams = {"x": x_streams or {}, "y": y_streams or {}}
    for side, model in models.items():  # what does not fit is told before anything is written
        resolve(model.name, model.needs, episodes.streams, streams[side])
    base = catalog.definition("reports", _SETTINGS)
    assert isinstance(base, StudyDefinition)
    material = Material(
        divided,
        lambda side, seed: models[side],
        nuisance=nuisance_of(base),
        store=folder / "features",
        device=device,
        progress=told,
        streams=streams,
    )
    jobs = list(_jobs(material, plan, folder))
    missing = [job for job in jobs if read(job) is None]
    executor = processes(workers) if device == "cpu" else serial()
    there = len(jobs) - len(missing)
    told("aligning, by pair of models", there, len(jobs))
    executor.map(
        run,
        missing,
        progress=lambda done, _: told("aligning, by pair of models", there + done, len(jobs)),
    )
    names = models["x"].name, models["y"].name
    parts = jobs[0].split
    report = AlignmentReport(
        {"x": names[0], "y": names[1]},
        plan,
        {
            name: len(np.unique(part.index.episode))
            for name, part in (
                ("fit", parts.fit), ("validation", parts.validation), ("test", parts.test)
            )
        },
        list(_scores({job: read(job) or [] for job in jobs}, names)),
        record(
            device=device,
            seeds={"alignment": list(plan.seeds), "null": [plan.judge.seed]},
            inputs={
                "x": models["x"].weights_sha256,
                "y": models["y"].weights_sha256,
                "episodes": divided.fingerprint,
            },
            seconds=time.monotonic() - started,
        ),
    )  # fmt: skip
    _write(report, folder, next(job.fits for job in jobs if job.fits is not None))
    return report


def load_report(path: str | Path) -> AlignmentReport:
    """Reads an `alignment.json`, or the one in a folder.

    Raises:
        MissingFileError: if it is not there.
        FormatError: if it is not a report of this version.
    """
    path = Path(path)
    path = path / "alignment.json" if path.is_dir() else path
    if not path.is_file():
        raise MissingFileError(f"no report of an alignment at {path}; `mirror align` writes one")
    try:
        return msgspec.json.decode(path.read_bytes(), type=AlignmentReport)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise FormatError(f"{path} is not a report of an alignment: {error}") from None


def _require(plan: AlignmentPlan, episodes: Episodes) -> None:
    """Makes sure that the plan can be carried out, before hours of work."""
    if not plan.seeds:
        raise DegenerateError("no seeds to fit with; needed at least one")
    if plan.pairing in ("episode", "step"):
        return
    labels = episodes.labels()
    if plan.pairing not in labels:
        raise UnknownNameError("pairing", plan.pairing, ["episode", *labels])
    known = np.unique(labels[plan.pairing])
    if len(known) < 2:
        raise DegenerateError(
            f"all {len(episodes)} episodes have the {plan.pairing} {known[0]!s}, so there is"
            " nothing to tell apart; pair by something finer"
        )


def _jobs(material: Material, plan: AlignmentPlan, folder: Path) -> Iterator[AlignmentJob]:
    known = {contrast.key: contrast for contrast in material.contrasts(0)}
    for key in _CONTRASTS:
        contrast = known[key]
        whole = material.pair(contrast, "plain", 0, 0)
        layers = plan.x_layer, plan.y_layer
        declared = Paired(
            {layers[0]: whole.x[layers[0]]}, {layers[1]: whole.y[layers[1]]}, whole.index
        )
        keys = [
            features.key
            for side, source in (("x", contrast.x), ("y", contrast.y))
            for features in material.layers(side, source, "plain", 0, 0).values()
        ]
        name = fingerprint(
            "align",
            Path(alignment_parts.__file__).read_bytes(),
            key, msgspec.json.encode(plan), msgspec.json.encode(keys),
            *(whole.index.label(label).tolist() for label in ("split", "task")),
            *([] if plan.pairing in ("episode", "step") else
              [whole.index.label(plan.pairing).tolist()]),
        )  # fmt: skip
        kept = folder / "parts"
        # Beside the part, so that no fit of another plan is taken for this one's.
        fits = kept / f"{name}-fits" if key == PAIR else None
        yield AlignmentJob(
            contrast, declared, layers, plan, material.device, "pair", kept / f"{name}.part", fits
        )
        if plan.whole and key == PAIR:
            yield AlignmentJob(
                contrast, whole, layers, plan, material.device, "grid",
                kept / f"{name}-grid.part", None,
            )  # fmt: skip


def _scores(
    found: Mapping[AlignmentJob, Sequence[Measured]], names: tuple[str, str]
) -> Iterator[Score]:
    """Every score in the words of a report, then the differences."""
    said: dict[_Place, Score] = {}
    estimates: dict[_Place, Estimate] = {}
    for job, parts in found.items():
        for part in parts:
            for score in part.comparison.scores:
                named = _named(score, job, part.method or CONTRASTIVE, names)
                declared = (score.x_layer, score.y_layer) == job.layers
                if job.kind == "grid" and declared:
                    continue  # the declared pair has a part of its own
                yield named
                place = _Place(job.contrast.key, part.method, part.within, score.measure)
                key = (score.measure, score.x_layer, score.y_layer)
                if job.kind == "pair" and score.value is not None:
                    said[place] = named
                    replicates = [part.comparison.replicates[key]]
                    estimates[place] = Estimate.over_draws([score.value], replicates)
    for place, base in said.items():
        if (place.contrast, place.method) == (PAIR, CONTRASTIVE):
            yield from _differences(place, base, estimates)


class _Place(NamedTuple):
    contrast: str
    method: str
    within: str
    measure: str


def _differences(
    place: _Place, base: Score, estimates: Mapping[_Place, Estimate]
) -> Iterator[Score]:
    """What the fit adds to the closed forms, and how far the pair stands above its controls."""
    closed = {m: place._replace(method=m) for m in METHODS if m != "raw"}
    twins = {c: place._replace(contrast=c) for c in _CONTRASTS if "untrained" in c}
    shuffled = {"shuffled within task": place._replace(contrast="shuffled within task")}
    for against, others in (
        ("best closed form", closed), ("best untrained twin", twins), ("", shuffled)
    ):  # fmt: skip
        there = {name: estimates[other] for name, other in others.items() if other in estimates}
        if not there:
            continue
        best, value, interval = excess(estimates[place], there)
        parameters: dict[str, Parameter] = {
            **base.parameters, "against": f"{against}: {best}" if against else best
        }  # fmt: skip
        yield msgspec.structs.replace(
            base, value=value, interval=interval, role="difference", null=None, p_value=None,
            p_max=None, ceiling=None, parameters=parameters,
        )  # fmt: skip


def _named(score: Score, job: AlignmentJob, method: str, names: tuple[str, str]) -> Score:
    sides = [
        f"{name} (untrained)" if source == "untrained" else name
        for name, source in zip(names, (job.contrast.x, job.contrast.y), strict=True)
    ]
    parameters: dict[str, Parameter] = {
        **score.parameters, "comparison": job.contrast.key, "method": method
    }  # fmt: skip
    null = score.null
    if null is not None and score.within:
        null = msgspec.structs.replace(null, scheme=f"episodes within {score.within}")
    return msgspec.structs.replace(
        score, x=sides[0], y=sides[1], role=job.contrast.role, null=null,
        stage="before" if method == "raw" else "after", parameters=parameters, condition="plain",
    )  # fmt: skip


def _write(report: AlignmentReport, folder: Path, kept: Path) -> None:
    """Everything a reader opens, each file whole or not at all."""
    (folder / "fits").mkdir(exist_ok=True)
    for old in (folder / "fits").glob("*.safetensors"):
        old.unlink()
    for file in sorted(kept.glob("*.safetensors")):
        LinearAlignment.load(file).save(folder / "fits" / file.name)
    fits = [
        LinearAlignment.load(kept / f"{name}.safetensors") for name in names_of_fits(report.plan)
    ]
    best = min(fits, key=lambda fit: min(fit.curve.validation) if fit.curve else float("inf"))
    best.save(folder / "alignment.safetensors")
    draw_curves(
        [fit.curve for fit in fits if fit.curve], report.plan.seeds, folder / "training.png"
    )
    for name, data in (
        ("scores.csv", report.frame.to_csv(index=False).encode()),
        ("alignment.json", msgspec.json.format(msgspec.json.encode(report), indent=1)),
    ):
        write_whole(folder / name, data)

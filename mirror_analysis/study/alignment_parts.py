"""What a linear alignment finds between two sources: each computed by itself and kept on disk."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np

from mirror_analysis.alignment.closed_form import METHODS, solve_pairs
from mirror_analysis.alignment.fitting import align_pairs
from mirror_analysis.alignment.linear import AlignmentConfig, LinearAlignment
from mirror_analysis.alignment.pairing import layer_pairs
from mirror_analysis.alignment.scoring import RetrievalConfig, align_grid, score_alignments
from mirror_analysis.errors import DegenerateError, ShapeError
from mirror_analysis.features import Paired, Split, split
from mirror_analysis.results import Comparison, Score
from mirror_analysis.study.contrasts import Contrast
from mirror_analysis.study.parts import shuffled_pairs
from mirror_analysis.writing import write_whole

CONTRASTIVE = "contrastive"
ORDER = ("raw", "procrustes", "cca", "ridge_x_to_y", "ridge_y_to_x", CONTRASTIVE)
"""Methods in the order of a table: nothing fitted, closed forms, the contrastive fit."""


class AlignmentPlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is fitted and how it is judged.

    Attributes:
        x_layer: of the first model; its last but one when "".
        y_layer: of the second model.
        whole: whether every other layer pair is fitted and judged, too.
        pairing: what makes episodes partners: "episode", or a label such as "instruction".
        seeds: of the contrastive fits; numbers are means over them.
        fit: settings of the contrastive fits.
        judge: settings of the judgement.
    """

    x_layer: str = ""
    y_layer: str = ""
    whole: bool = False
    pairing: str = "episode"
    seeds: tuple[int, ...] = (0, 1, 2)
    fit: AlignmentConfig = AlignmentConfig()
    judge: RetrievalConfig = RetrievalConfig()


class Measured(msgspec.Struct, frozen=True):
    """What one method gives.

    Attributes:
        method: how the maps were found; "" for all layer pairs.
        within: label inside whose groups partners were sought, "" for over all.
        comparison: the scores.
    """

    method: str
    within: str
    comparison: Comparison


@dataclass(frozen=True, eq=False, repr=False)
class AlignmentJob:
    """One contrast to fit and judge.

    Attributes:
        contrast: which sources.
        data: rows with the labels split ("fit" or "test") and task.
        layers: the declared pair.
        plan: what is done.
        device: where the contrastive fits run.
        kind: whether the declared pair is fitted by every method, or all pairs contrastively.
        file: where what is found is kept.
        fits: folder for the fitted maps; None where they are not kept.
    """

    contrast: Contrast
    data: Paired
    layers: tuple[str, str]
    plan: AlignmentPlan
    device: str
    kind: Literal["pair", "grid"]
    file: Path
    fits: Path | None

    def __repr__(self) -> str:
        return f"alignment of {self.contrast.key}"

    @property
    def split(self) -> Split:
        """Rows to fit on, to validate on and to test on."""
        return split(shuffled_pairs(self.data, self.contrast.shuffle))


def read(job: AlignmentJob) -> list[Measured] | None:
    """What is kept of a job; None where it is not, or is damaged and has to be computed again."""
    if job.fits is not None and not all(
        (job.fits / f"{name}.safetensors").is_file() for name in names_of_fits(job.plan)
    ):
        return None
    try:
        return msgspec.msgpack.decode(job.file.read_bytes(), type=list[Measured])
    except (FileNotFoundError, msgspec.MsgspecError, UnicodeDecodeError):
        return None


def names_of_fits(plan: AlignmentPlan) -> list[str]:
    """Names of the files of a plan's contrastive fits, in the order of its seeds."""
    return [f"{CONTRASTIVE}-s{seed}" for seed in plan.seeds]


def run(job: AlignmentJob) -> None:
    """Fits and judges one contrast and keeps what is found, whole or not at all."""
    found = list(_pair(job) if job.kind == "pair" else _grid(job))
    write_whole(job.file, msgspec.msgpack.encode(found))


def _grid(job: AlignmentJob) -> Iterator[Measured]:
    plan = job.plan
    found = align_grid(
        job.split,
        alignment=plan.fit,
        config=msgspec.structs.replace(plan.judge, recall=(1,)),
        seeds=plan.seeds,
        pairing=plan.pairing,
        device=job.device,
    )
    yield Measured("", "", found)


def _pair(job: AlignmentJob) -> Iterator[Measured]:
    data, plan = job.split, job.plan
    for method in ORDER:
        try:
            fits = _fits(job, data, method)
        except (DegenerateError, ShapeError) as error:  # a constant layer, or unequal widths
            for within in ("", "task"):
                yield Measured(method, within, _undefined(job, data.test, within, str(error)))
            continue
        if job.fits is not None:
            job.fits.mkdir(parents=True, exist_ok=True)
            names = names_of_fits(plan) if method == CONTRASTIVE else [method]
            for name, fit in zip(names, fits, strict=True):
                fit.save(job.fits / f"{name}.safetensors")
        for within in ("", "task"):
            found = score_alignments(
                fits, data.test, layers=job.layers, config=plan.judge, within=within or None
            )
            yield Measured(method, within, found)


def _fits(job: AlignmentJob, data: Split, method: str) -> list[LinearAlignment]:
    fit, validation = (
        layer_pairs(part, job.layers, pairing=job.plan.pairing)
        for part in (data.fit, data.validation)
    )
    if method in METHODS:
        return [solve_pairs(fit, validation, method=method)]
    return align_pairs(
        fit, validation, config=job.plan.fit, seeds=job.plan.seeds, device=job.device
    )


def _undefined(job: AlignmentJob, test: Paired, within: str, reason: str) -> Comparison:
    names = [f"recall_at_{k}" for k in job.plan.judge.recall] + ([] if within else ["infonce"])
    score = Score(
        "", None, x="x", y="y", n=len(np.unique(test.index.episode)), x_layer=job.layers[0],
        y_layer=job.layers[1], within=within, stage="after", undefined=reason,
    )  # fmt: skip
    return Comparison(tuple(msgspec.structs.replace(score, measure=name) for name in names))

"""The pieces of a study: each is computed by itself, kept on disk, and never twice."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from mirror_analysis.alignment.linear import AlignmentConfig, LinearAlignment
from mirror_analysis.alignment.scoring import (
    RetrievalConfig,
    align_grid,
    fit_pair,
    score_alignments,
)
from mirror_analysis.definitions import StudyDefinition
from mirror_analysis.features import Paired, Split, split
from mirror_analysis.parallel import processes
from mirror_analysis.results import Comparison, Score
from mirror_analysis.similarity.grid import grid
from mirror_analysis.similarity.measures import Measure, load_measure
from mirror_analysis.study.contrasts import Shuffle
from mirror_analysis.writing import write_whole

Kind = Literal["similarity", "alignment", "alignment grid", "outcome"]
Rows = Literal["successes", "failures", "all"]


class Part(msgspec.Struct, frozen=True):
    """What one piece gives.

    Attributes:
        overall: measured over all rows.
        within: measured inside tasks; None where that was not asked.
    """

    overall: Comparison
    within: Comparison | None


@dataclass(frozen=True, eq=False, repr=False)
class Job:
    """One piece to compute.

    Attributes:
        kind: "similarity" measures layers as they are; "alignment" fits and judges the linear
            alignment of one layer pair, "alignment grid" of all; "outcome" fits on both
            outcomes and judges the given one.
        data: rows with labels split ("fit" or "test"), success and task.
        layers: the layer pair, for kinds of one pair; also the only layers of "similarity"
            unless `whole`.
        whole: whether "similarity" takes all layers.
        rows: test rows that are judged: "successes", "failures" or "all".
        shuffle: how fit pairs are mixed.
        definition: settings.
        file: where the part is kept.
    """

    kind: Kind
    data: Paired
    layers: tuple[str, str]
    definition: StudyDefinition
    file: Path
    whole: bool = False
    rows: Rows = "successes"
    shuffle: Shuffle = ""

    def __repr__(self) -> str:
        return f"{self.kind} of {self.layers[0]} and {self.layers[1]}"


def compute(
    jobs: Mapping[str, Job], *, workers: int | None, progress: Callable[[int, int], None]
) -> dict[str, Part]:
    """All parts: those that are kept are read, the others computed in processes and kept.

    Args:
        jobs: name -> job.
        workers: processes; None for as many as there are cores.
        progress: called with (parts done, parts in all).
    """
    kept = {name: _read(job.file) for name, job in jobs.items()}
    missing = [job for name, job in jobs.items() if kept[name] is None]
    there = len(jobs) - len(missing)
    progress(there, len(jobs))
    if missing:
        # The longest first, so that no process is left alone with one at the end.
        missing.sort(key=_cost, reverse=True)
        processes(workers).map(
            run, missing, progress=lambda done, _: progress(there + done, len(jobs))
        )
    return {
        name: kept[name] or msgspec.msgpack.decode(job.file.read_bytes(), type=Part)
        for name, job in jobs.items()
    }


def _read(file: Path) -> Part | None:
    """A part that is kept; None where it is not, or is damaged and has to be computed again."""
    try:
        return msgspec.msgpack.decode(file.read_bytes(), type=Part)
    except (FileNotFoundError, msgspec.MsgspecError, UnicodeDecodeError):
        return None


def fingerprint(*words: object) -> str:
    """Names a part by everything its numbers depend on, this package's source included."""
    digest = hashlib.sha256(_source().encode())
    for word in words:
        digest.update(b"\0" + (word if isinstance(word, bytes) else str(word).encode()))
    return digest.hexdigest()[:24]


@cache
def _source() -> str:
    """Digest of the code that makes numbers, so that no result of other code is taken for new."""
    package = Path(__file__).resolve().parent.parent
    files = [
        file
        for folder in (
            *("alignment", "generalisation", "inference", "information", "models", "probing"),
            "similarity",
        )
        for file in sorted((package / folder).glob("*.py"))
    ]
    files += [package / name for name in ("controls.py", "extraction.py", "features.py")]
    files += [package / "study" / f"{name}.py" for name in ("contrasts", "material", "parts")]
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _cost(job: Job) -> float:
    pairs = len(job.data.x) * len(job.data.y)
    fits = len(job.definition.alignment.probe_seeds)
    return {"alignment grid": 100 * pairs, "similarity": 2 * pairs if job.whole else 1}.get(
        job.kind, 10 * fits
    )


def run(job: Job) -> None:
    """Computes one part and keeps it, whole or not at all."""
    part = _KINDS[job.kind](job)
    write_whole(job.file, msgspec.msgpack.encode(part))


def _similarity(job: Job) -> Part:
    test = test_rows(job)
    x = test.x if job.whole else {job.layers[0]: test.x[job.layers[0]]}
    y = test.y if job.whole else {job.layers[1]: test.y[job.layers[1]]}
    m = job.definition.measures
    measures = [_measure(name, k=m.k, variance=m.variance) for name in m.names]
    task = test.index.label("task")
    overall, within = (
        grid(x, y, measures=measures, units=test.index.episode, within=groups, draws=m.draws,
             folds=m.folds, null="permutation")
        for groups in (None, task)
    )  # fmt: skip
    return Part(_named(overall, ""), _named(within, "task"))


def _alignment(job: Job) -> Part:
    data = job.data.take(_chosen(job.data, job.rows))
    return _judge(job, split(shuffled_pairs(data, job.shuffle)))


def _alignment_grid(job: Job) -> Part:
    config = msgspec.structs.replace(_retrieval(job), recall=(1,))
    # One fit seed per cell: the grid shows where, the declared pair shows how much.
    seeds = job.definition.alignment.probe_seeds[:1]
    data = split(job.data.take(_chosen(job.data, job.rows)))
    return Part(align_grid(data, alignment=_config(job), config=config, seeds=seeds), None)


def _outcome(job: Job) -> Part:
    return _judge(job, split(job.data.take(~_is_test(job.data) | _chosen(job.data, job.rows))))


_KINDS: dict[Kind, Callable[[Job], Part]] = {
    "alignment": _alignment,
    "alignment grid": _alignment_grid,
    "outcome": _outcome,
    "similarity": _similarity,
}


def _judge(job: Job, data: Split) -> Part:
    constant = _constant(data.fit, job.layers)
    if constant:
        return Part(_undefined(job, data.test, constant, ""), _undefined(job, data.test, constant))
    seeds = job.definition.alignment.probe_seeds
    aligned = fit_pair(data, job.layers, alignment=_config(job), seeds=seeds)
    overall, within = (
        score_alignments(
            aligned, data.test, layers=job.layers, config=_retrieval(job), within=label
        )
        for label in (None, "task")
    )
    return Part(overall, within)


def _constant(fit: Paired, layers: tuple[str, str]) -> str:
    """Why nothing can be fitted on a layer pair, "" where it can."""
    for name, values in ((layers[0], fit.x[layers[0]]), (layers[1], fit.y[layers[1]])):
        if not np.ptp(values, axis=0).any():
            return f"{name} is constant over the {len(values)} episodes that are fitted on"
    return ""


def _undefined(job: Job, test: Paired, reason: str, within: str = "task") -> Comparison:
    names = [f"recall_at_{k}" for k in job.definition.measures.recall]
    names += [] if within else ["infonce"]
    score = Score(
        "",
        None,
        x="x",
        y="y",
        n=len(np.unique(test.index.episode)),
        x_layer=job.layers[0],
        y_layer=job.layers[1],
        within=within,
        stage="after",
        undefined=reason,
    )
    return Comparison(tuple(msgspec.structs.replace(score, measure=name) for name in names))


def fit_declared(job: Job) -> LinearAlignment:
    """The alignment of a job's layer pair, with the first seed of the fit."""
    seeds = job.definition.alignment.probe_seeds[:1]
    data = split(job.data.take(_chosen(job.data, job.rows)))
    return fit_pair(data, job.layers, alignment=_config(job), seeds=seeds)[0]


def test_rows(job: Job) -> Paired:
    """The test rows a job judges."""
    return job.data.take(_is_test(job.data) & _chosen(job.data, job.rows))


def _is_test(data: Paired) -> NDArray[np.bool_]:
    return np.asarray(data.index.label("split") == "test")


def _chosen(data: Paired, rows: Rows) -> NDArray[np.bool_]:
    won = data.index.label("success").astype(bool)
    return {"successes": won, "failures": ~won, "all": np.ones(len(won), dtype=bool)}[rows]


def shuffled_pairs(data: Paired, shuffle: Shuffle) -> Paired:
    """The same rows, the y side of the fit rows dealt out anew; test rows stay as they are."""
    if not shuffle:
        return data
    rng = np.random.default_rng(0)
    fit = ~_is_test(data)
    group: NDArray[np.generic] = data.index.label("task")
    if shuffle == "all":
        group = np.zeros(len(data))
    order = np.arange(len(data))
    for value in np.unique(group):
        rows = np.flatnonzero(fit & (group == value))
        order[rows] = rng.permutation(rows)
    return replace(data, y={name: values[order] for name, values in data.y.items()})


def _config(job: Job) -> AlignmentConfig:
    a = job.definition.alignment
    return AlignmentConfig(
        width=a.width,
        temperature=a.temperature,
        learning_rate=a.learning_rate,
        weight_decay=a.weight_decay,
        batch=a.batch,
        steps=a.steps,
        patience=a.patience,
    )


def _retrieval(job: Job) -> RetrievalConfig:
    m = job.definition.measures
    return RetrievalConfig(recall=tuple(m.recall), gallery=m.gallery, draws=m.draws, folds=m.folds)


def _measure(name: str, *, k: int, variance: float) -> Measure:
    measure = load_measure(name)
    known = {"k": k, "variance": variance}
    return replace(measure, **{key: known[key] for key in known if hasattr(measure, key)})  # type: ignore[type-var]


def _named(comparison: Comparison, within: str) -> Comparison:
    """The same in the words of a study, where units are episodes."""
    scheme = f"episodes within {within}" if within else "episodes"
    scores: list[Score] = []
    for score in comparison.scores:
        null = score.null and msgspec.structs.replace(score.null, scheme=scheme)
        scores.append(msgspec.structs.replace(score, within=within, null=null))
    return Comparison(tuple(scores), comparison.replicates)

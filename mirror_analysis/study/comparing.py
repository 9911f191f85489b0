"""Any two checkpoints over any episodes: the study's contrasts without its definition."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np

from mirror_analysis import catalog
from mirror_analysis.definitions import ModelsSection, StudyDefinition
from mirror_analysis.episodes import Episodes
from mirror_analysis.errors import DegenerateError
from mirror_analysis.models import load_model
from mirror_analysis.models.model import Model
from mirror_analysis.results import Result
from mirror_analysis.streams import resolve
from mirror_analysis.study.material import Material, require_layer
from mirror_analysis.study.plan import CONDITIONS
from mirror_analysis.study.running import Progress, execute, nuisance_of

_SETTINGS = "spontaneous-alignment"  # whose alignment and measure settings are taken
_LEAST = 8  # episodes of either part
_LEAST_OF_TASK = 3  # to test on, so that two are left without any fold
_HELD_OUT = 0.2  # of the fit episodes of each task, as `split` does


def compare_checkpoints(
    a: str | Path | Model,
    b: str | Path | Model,
    episodes: Episodes,
    *,
    out: str | Path,
    x_layer: str = "",
    y_layer: str = "",
    x_streams: Mapping[str, str] | None = None,
    y_streams: Mapping[str, str] | None = None,
    draws: int | None = None,
    device: str = "cpu",
    workers: int | None = None,
    include: Sequence[Path] = (),
    progress: Progress | None = None,
) -> Result:
    """Compares two checkpoints on given episodes, with every control, and writes `result.json`.

    Both conditions are measured: the views as they are, and under independent nuisance. Where
    episodes carry the label `split`, "test" is tested on; else half of each task's episodes,
    drawn with a fixed seed.

    Args:
        a: first checkpoint, as `load_model` takes it, or a model that is loaded already.
        b: second checkpoint.
        episodes: with the streams both need.
        out: folder for features, parts and the result.
        x_layer: declared layer of a; its last but one when "".
        y_layer: declared layer of b; its last but one when "".
        x_streams: input of a -> stream of the episodes, where names differ.
        y_streams: input of b -> stream of the episodes.
        draws: permutations; the catalogue's number when None.
        device: where models run.
        workers: processes; None for as many as there are cores.
        include: folders with definitions of your own.
        progress: called with (stage, done, total).

    Raises:
        UnknownNameError: if a checkpoint or layer is not known.
        DegenerateError: if there are too few episodes.
        StreamError: if episodes lack what a model needs; says which streams would fit.
    """
    started = time.monotonic()
    models = {
        side: given
        if isinstance(given, Model)
        else load_model(given, device=device, include=include)
        for side, given in (("x", a), ("y", b))
    }
    chosen = {
        side: headline_layer(models[side], layer)
        for side, layer in (("x", x_layer), ("y", y_layer))
    }
    base = catalog.quick(catalog.definition("reports", _SETTINGS))
    assert isinstance(base, StudyDefinition)
    measures = (
        base.measures if draws is None else msgspec.structs.replace(base.measures, draws=draws)
    )
    divided = divided_episodes(episodes)
    definition = msgspec.structs.replace(
        base,
        name="compare",
        title=f"{models['x'].name} and {models['y'].name}",
        summary="Layer grid, controls and linear alignment of two checkpoints.",
        question="Do these two models represent the same episodes alike, and was that learned?",
        models=ModelsSection(
            models["x"].name, models["y"].name, [0], chosen["x"], chosen["y"],
            base.models.untrained_draws,
        ),
        episodes=msgspec.structs.replace(base.episodes, test_failures=0),
        measures=measures,
    )  # fmt: skip
    streams = {"x": x_streams or {}, "y": y_streams or {}}
    for side, model in models.items():  # what does not fit is told before anything is written
        resolve(model.name, model.needs, episodes.streams, streams[side])
    folder = Path(out)
    material = Material(
        divided,
        lambda side, seed: models[side],
        nuisance=nuisance_of(base),
        store=folder / "features",
        device=device,
        progress=progress or (lambda stage, done, total: None),
        streams=streams,
    )
    return execute(
        definition,
        material,
        folder,
        workers=workers,
        progress=progress or (lambda stage, done, total: None),
        started=started,
        # Nuisance of pictures reaches nobody who sees none.
        conditions=CONDITIONS if any(model.cameras for model in models.values()) else ("plain",),
        rows="all",
        collected=False,
    )


def headline_layer(model: Model, name: str) -> str:
    """The layer asked for; the last but one where none is.

    Raises:
        UnknownNameError: if the model has no such layer.
    """
    if not name:
        known = [info.name for info in model.layers()]
        return known[-2] if len(known) > 1 else known[-1]
    require_layer(model, name)
    return name


def divided_episodes(episodes: Episodes) -> Episodes:
    """Episodes with the label split, and enough of either part to measure anything."""
    labels = episodes.labels()
    task = labels["task"]
    test = labels.get("split", np.full(len(episodes), "")) == "test"
    if test.all() or not test.any():
        rng = np.random.default_rng(0)
        test = np.zeros(len(episodes), dtype=bool)
        for name in np.unique(task):
            rows = rng.permutation(np.flatnonzero(task == name))
            test[rows[: (len(rows) + 1) // 2]] = True
        episodes = Episodes(
            [
                replace(e, labels={**e.labels, "split": "test" if tested else "fit"})
                for e, tested in zip(episodes, test, strict=True)
            ]
        )
    fit, tested = int((~test).sum()), int(test.sum())
    if min(fit, tested) < _LEAST:
        raise DegenerateError(
            f"{len(episodes)} episodes give {fit} to fit on and {tested} to test on; needed at"
            f" least {_LEAST} of each, so collect more"
        )
    names, counts = np.unique(task[test], return_counts=True)
    if counts.min() < _LEAST_OF_TASK:
        raise DegenerateError(
            f"task {names[counts.argmin()]} has {counts.min()} episodes to test on; needed at least"
            f" {_LEAST_OF_TASK} of every task, so collect more of it or leave it out"
        )
    names, counts = np.unique(task[~test], return_counts=True)
    if np.rint(_HELD_OUT * counts).sum() < 2:
        raise DegenerateError(
            f"no task has more than {counts.max()} episodes to fit on; needed 3 of at least two"
            " tasks, so that some can be held out: collect more"
        )
    return episodes

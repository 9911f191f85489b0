"""The command that reads labels off a model's layers: probe."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from mirror_analysis.cli.options import (
    Checkpoint,
    Device,
    Frames,
    Include,
    Json,
    Limit,
    Maps,
    Settings,
    Source,
    Trust,
    Workers,
)
from mirror_analysis.cli.terminal import emit, progress, table

if TYPE_CHECKING:
    from mirror_analysis.definitions import ProbeDefinition
    from mirror_analysis.models.model import Model
    from mirror_analysis.probing.decoded import Decoded
    from mirror_analysis.results import Score


def probe(
    name: Annotated[str, typer.Argument(help="Probe of the catalogue; `mirror list probes`.")],
    checkpoint: Checkpoint,
    episodes: Source,
    store: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Folder of features, as of `mirror extract`; what is there is used."),
    ] = None,
    control: Annotated[
        bool, typer.Option(help="Put the same model with weights drawn anew beside it.")
    ] = True,
    pooling: Annotated[
        str, typer.Option(help="Over space: mean, grid2, grid4, cls or patches.")
    ] = "mean",
    held_out: Annotated[
        str, typer.Option(help="episode, instruction, task or split, instead of the probe's own.")
    ] = "",
    draws: Annotated[int, typer.Option(min=1, help="Permutations of the null.")] = 199,
    seed: Annotated[int, typer.Option(min=0, help="Of folds, permutations and the twin.")] = 0,
    maps: Maps = None,
    settings: Settings = None,
    trust: Trust = None,
    limit: Limit = None,
    frames: Frames = None,
    workers: Workers = None,
    device: Device = "cpu",
    include: Include = None,
    json: Json = False,
) -> None:
    """Decodes a label from every layer of a model, beside its untrained twin."""
    from mirror_analysis.catalog import definition
    from mirror_analysis.cli.options import loading
    from mirror_analysis.episodes import load_episodes
    from mirror_analysis.episodes.step_labels import relabelled
    from mirror_analysis.errors import FormatError
    from mirror_analysis.extraction import extract
    from mirror_analysis.models import load_model
    from mirror_analysis.probing.differences import gain
    from mirror_analysis.probing.running import POOLING, row_index, run_definition, settings_of
    from mirror_analysis.streams import parse

    wanted = definition("probes", name, include or ())
    if (Path(checkpoint) / "store.json").is_file():
        raise FormatError(
            f"{checkpoint} is a feature store, which has no labels; name the checkpoint, the"
            f" episodes, and the store as --store {checkpoint}"
        )
    chosen = replace(settings_of(wanted), draws=draws, seed=seed, device=device)
    if held_out:
        chosen = replace(chosen, held_out=held_out)
    model = load_model(
        checkpoint, device=device, trust=trust or (), include=include or (), **loading(settings)
    )
    found = load_episodes(episodes, limit=limit, frames=frames)
    with progress() as report:
        index = row_index(wanted, found, workers=workers, progress=partial(report, "replaying"))

        def decoded(one: Model) -> Decoded:
            layers = extract(
                one,
                found,
                layers=None if wanted.layers == "all" else wanted.layers,
                pooling=f"{POOLING[wanted.level]}/{pooling}",
                device=device,
                streams=parse(maps or ()),
                store=store,
                progress=lambda p: report(f"extracting {one.name}", p.done, p.total),
            )
            return run_definition(
                wanted,
                relabelled(layers, index),
                settings=chosen,
                progress=partial(report, f"decoding {one.name}"),
            )

        runs = [decoded(one) for one in ([model, model.untrained(seed)] if control else [model])]
    gains = gain(*runs) if control else []
    emit(_scores(runs, gains), as_json=json, text=_text(wanted, runs, gains))


def _scores(runs: list[Decoded], gains: list[Score]) -> list[Score]:
    """Of the model, of its twin as a control, and their differences."""
    import msgspec

    twin = [msgspec.structs.replace(s, role="control") for run in runs[1:] for s in run.scores]
    return [*runs[0].scores, *twin, *gains]


def _text(wanted: ProbeDefinition, runs: list[Decoded], gains: list[Score]) -> str:
    rows: list[dict[str, object]] = []
    for number, score in enumerate(runs[0].scores):
        row = {
            "layer": score.x_layer,
            "value": score.value,
            **_ends(score),
            "no relation": score.null.mean if score.null else None,
            "p": score.p_value,
            "p over layers": score.p_max,
        }
        if gains:
            difference = gains[number]
            row |= {
                "untrained": runs[1].scores[number].value,
                "gain": difference.value,
                **{f"gain {end}": value for end, value in _ends(difference).items()},
            }
        rows.append(row)
    first = runs[0].scores[0]
    unit = first.parameters["held_out"]
    how = "tested by the label split" if unit == "split" else f"{first.n} {unit}s held out in turn"
    lines = [wanted.summary, f"{first.measure} of '{first.y}', {how}", ""]
    lines += [table(rows, list(rows[0])), ""]
    if any(s.value is not None for s in runs[0].scores):
        best = runs[0].best
        lines.append(f"best of {len(rows)} layers: {best.summary}")
    lines += [f"{s.x_layer}: not defined, {s.undefined}" for s in runs[0].scores if s.undefined]
    lines += [f"{s.x_layer}: {s.note}" for s in runs[0].scores if s.note]
    return "\n".join(lines)


def _ends(score: Score) -> dict[str, object]:
    interval = score.interval
    return {"low": interval.low, "high": interval.high} if interval else {"low": None, "high": None}

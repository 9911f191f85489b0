"""The commands that measure and report: compare, run, report, audit."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Optional

import typer

from mirror_analysis.cli.options import (
    Checkpoint,
    Device,
    Frames,
    Include,
    Json,
    Limit,
    MapsA,
    MapsB,
    Out,
    SettingsA,
    SettingsB,
    Source,
    Trust,
    Workers,
)
from mirror_analysis.cli.terminal import emit, progress


def compare(
    a: Checkpoint,
    b: Checkpoint,
    episodes: Source,
    out: Out,
    x_layer: Annotated[str, typer.Option(help="Declared layer of A; last but one if none.")] = "",
    y_layer: Annotated[str, typer.Option(help="Declared layer of B; last but one if none.")] = "",
    map_a: MapsA = None,
    map_b: MapsB = None,
    set_a: SettingsA = None,
    set_b: SettingsB = None,
    trust: Trust = None,
    limit: Limit = None,
    frames: Frames = None,
    draws: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=19, help="Permutations of the null."),
    ] = None,
    device: Device = "cpu",
    workers: Workers = None,
    include: Include = None,
    json: Json = False,
) -> None:
    """Compares any two checkpoints on the same episodes, with every control, and reports."""
    from mirror_analysis.cli.options import loading
    from mirror_analysis.episodes import load_episodes
    from mirror_analysis.models import load_model
    from mirror_analysis.streams import parse
    from mirror_analysis.study.comparing import compare_checkpoints

    streams = parse(map_a or ()), parse(map_b or ())
    models = [
        load_model(
            source, device=device, trust=trust or (), include=include or (), **loading(chosen)
        )
        for source, chosen in ((a, set_a), (b, set_b))
    ]
    with progress() as report:
        result = compare_checkpoints(
            models[0],
            models[1],
            load_episodes(episodes, limit=limit, frames=frames),
            out=out,
            x_layer=x_layer,
            y_layer=y_layer,
            x_streams=streams[0],
            y_streams=streams[1],
            draws=draws,
            device=device,
            workers=workers,
            include=include or (),
            progress=report,
        )
    _conclude(result, out, json)


def run(
    study: Annotated[str, typer.Argument(help="A study of the catalogue.")],
    out: Out,
    quick: Annotated[bool, typer.Option("--quick", help="The study's quick settings.")] = False,
    device: Device = "cpu",
    workers: Workers = None,
    include: Include = None,
    json: Json = False,
) -> None:
    """Runs a whole study, from episodes to report; goes on where it stopped."""
    from mirror_analysis.study import run_study

    with progress() as report:
        result = run_study(
            study,
            out=out,
            quick=quick,
            device=device,
            workers=workers,
            include=include or (),
            progress=report,
        )
    _conclude(result, out, json)


def report(
    result: Annotated[Path, typer.Argument(help="A result.json, or its folder.")],
    out: Out,
) -> None:
    """Makes figures, tables and the page from a result alone."""
    from mirror_analysis.reporting import render_report

    print(render_report(result, out=out))


def audit(
    quick: Annotated[bool, typer.Option("--quick", help="In a minute, with wider bands.")] = False,
    only: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="An audit, such as oracles or rejection; all if none."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of everything drawn.")] = 0,
    workers: Workers = None,
    json: Json = False,
) -> None:
    """Holds this installation to known values; exit code 1 and all misses if any."""
    from mirror_analysis.cli.auditing import audit as run

    with progress() as told:
        data, text, passed = run(
            quick=quick, only=only or (), seed=seed, workers=workers, report=told
        )
    emit(data, as_json=json, text=text)
    if not passed:
        raise typer.Exit(1)


def _conclude(result: object, out: Path, as_json: bool) -> None:
    """The findings, then where the report is."""
    from mirror_analysis.cli.making import rendered
    from mirror_analysis.results import Result

    assert isinstance(result, Result)
    with progress() as told:
        page = rendered(result, out, told)
    words = {True: "holds", False: "does not hold", None: "cannot tell"}
    lines = [f"[{words[f.holds]}] {f.statement}" for f in result.findings]
    data = {"report": str(page), "findings": result.findings}
    emit(data, as_json=as_json, text="\n\n".join([*lines, f"report: {page}"]))
    sys.stdout.flush()

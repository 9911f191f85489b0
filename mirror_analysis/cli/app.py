"""The commands of `mirror`; each is a thin line from the shell to the library."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from mirror_analysis import __version__
from mirror_analysis.cli.terminal import emit, faults, progress, table

if TYPE_CHECKING:
    from mirror_analysis.results import Score

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Do two models represent the same episodes alike, and was that learned?",
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Include = Annotated[
    Optional[list[Path]],  # noqa: UP045 (typer needs it spelled so)
    typer.Option(help="A folder with checkpoints/, probes/ or reports/ of your own."),
]
Device = Annotated[str, typer.Option(help="Where models run, such as cpu or cuda.")]
Workers = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(min=1, help="Processes; as many as there are cores when not given."),
]
Out = Annotated[Path, typer.Option(help="Folder to write to.")]
Source = Annotated[str, typer.Option("--episodes", help="Folder of episodes.")]


def main() -> None:
    """Runs the command line."""
    with faults():
        app()


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        print(__version__)
        raise typer.Exit


@app.command("list")
def list_(
    kind: Annotated[
        str, typer.Argument(help="checkpoints, probes, reports, measures or sources; all if none.")
    ] = "",
    include: Include = None,
    json: Json = False,
) -> None:
    """Lists what there is, with a line on each."""
    from mirror_analysis.cli.listing import listing

    found = listing(kind, include or ())
    lines = [f"{name}\n{table(rows, ['name', 'summary'])}\n" for name, rows in found.items()]
    emit(found, as_json=json, text="\n".join(lines).rstrip())


@app.command()
def inspect(
    path: Annotated[str, typer.Argument(help="A checkpoint file, or a name of the catalogue.")],
    include: Include = None,
    json: Json = False,
) -> None:
    """Says what a checkpoint is: role, inputs, layers, weights."""
    from mirror_analysis.cli.listing import description

    found, layers = description(path, include or ())
    head = "\n".join(f"{key}: {value}" for key, value in found.items())
    text = f"{head}\n\n{table(layers, ['layer', 'width', 'kind', 'axes'])}"
    emit({**found, "layers": layers}, as_json=json, text=text)


@app.command()
def check(
    names: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Argument(help="Definitions to check; all if none."),
    ] = None,
    include: Include = None,
    json: Json = False,
) -> None:
    """Validates definitions, checksums and layers; exit code 1 and all faults if any."""
    from mirror_analysis.cli.listing import check as find

    counted, found = find(names or (), include or ())
    text = "\n".join(found) if found else f"{counted} definitions checked, no faults"
    emit({"checked": counted, "faults": found}, as_json=json, text=text)
    if found:
        raise typer.Exit(1)


@app.command()
def episodes(
    source: Annotated[str, typer.Argument(help="metaworld to collect, or a folder to describe.")],
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Folder to collect into."),
    ] = None,
    tasks: Annotated[str, typer.Option(help="Names with commas; all when not given.")] = "",
    per_task: Annotated[int, typer.Option(min=0, help="Successful episodes per task.")] = 20,
    failures: Annotated[int, typer.Option(min=0, help="Failed episodes per task.")] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Of everything random.")] = 0,
    split: Annotated[str, typer.Option(help="Part of the data: fit, validation or test.")] = "fit",
    frames: Annotated[int, typer.Option(min=2, help="Pictures per camera and episode.")] = 16,
    size: Annotated[int, typer.Option(min=8, help="Height and width in pixels.")] = 64,
    workers: Workers = None,
    json: Json = False,
) -> None:
    """Collects simulator episodes, or describes those of a folder."""
    from mirror_analysis.cli.listing import describe_episodes
    from mirror_analysis.errors import DefinitionError

    if source == "metaworld":
        from mirror_analysis.episodes.metaworld import TASKS, collect

        if out is None:
            raise DefinitionError("no folder to collect into; give one with --out DIR")
        chosen = tuple(name.strip() for name in tasks.split(",") if name.strip())
        with progress() as report:
            found = collect(
                out,
                tasks=chosen or tuple(TASKS),
                successes=per_task,
                failures=failures,
                seed=seed,
                split=split,
                frames=frames,
                size=size,
                workers=workers,
                progress=lambda done, total: report("collecting, by task", done, total),
            )
    else:
        from mirror_analysis.episodes import load_episodes

        found = load_episodes(source)
    facts, rows = describe_episodes(found)
    head = "\n".join(f"{key}: {value}" for key, value in facts.items())
    columns = ["task", "episodes", "successes", "instructions", "median_length"]
    emit({**facts, "by_task": rows}, as_json=json, text=f"{head}\n\n{table(rows, columns)}")


@app.command()
def extract(
    checkpoint: Annotated[str, typer.Argument(help="Catalogue name or file.")],
    episodes: Source,
    store: Annotated[Path, typer.Option(help="Folder where features are kept.")],
    pooling: Annotated[
        str, typer.Option(help="mean or last over time, then /mean, /grid2 or /grid4 over space.")
    ] = "mean",
    device: Device = "cpu",
    include: Include = None,
    json: Json = False,
) -> None:
    """Extracts every layer of a model over episodes; goes on where it stopped."""
    from mirror_analysis.episodes import load_episodes
    from mirror_analysis.extraction import extract as run
    from mirror_analysis.models import load_model

    model = load_model(checkpoint, device=device, include=include or ())
    with progress() as report:
        layers = run(
            model,
            load_episodes(episodes),
            pooling=pooling,
            device=device,
            store=store,
            progress=lambda p: report(f"extracting {model.name}", p.done, p.total),
        )
    rows: list[dict[str, object]] = [
        {"layer": name, "rows": len(f.values), "features": f.values.shape[1]}
        for name, f in layers.items()
    ]
    emit(rows, as_json=json, text=table(rows, ["layer", "rows", "features"]))


@app.command()
def compare(
    a: Annotated[str, typer.Argument(help="First checkpoint: catalogue name or file.")],
    b: Annotated[str, typer.Argument(help="Second checkpoint.")],
    episodes: Source,
    out: Out,
    x_layer: Annotated[str, typer.Option(help="Declared layer of A; last but one if none.")] = "",
    y_layer: Annotated[str, typer.Option(help="Declared layer of B; last but one if none.")] = "",
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
    from mirror_analysis.episodes import load_episodes
    from mirror_analysis.study.comparing import compare_checkpoints

    with progress() as report:
        result = compare_checkpoints(
            a,
            b,
            load_episodes(episodes),
            out=out,
            x_layer=x_layer,
            y_layer=y_layer,
            draws=draws,
            device=device,
            workers=workers,
            include=include or (),
            progress=report,
        )
    _conclude(result, out, json)


@app.command()
def train(
    role: Annotated[str, typer.Argument(help="observation or execution.")],
    episodes: Source,
    out: Annotated[Path, typer.Option(help="Safetensors file to write.")],
    camera: Annotated[str, typer.Option(help="View; A to observe, B to act if not given.")] = "",
    epochs: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=1, help="Passes over the data."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of weights, order and nuisance.")] = 0,
    device: Device = "cpu",
) -> None:
    """Trains one model of the reference pair from scratch."""
    from mirror_analysis.cli.making import train as run

    with progress() as report:
        print(run(role, episodes, out, camera, epochs, seed, device, report))


@app.command()
def recognise(
    checkpoint: Annotated[str, typer.Argument(help="Observation model: name or file.")],
    episodes: Source,
    nuisance: Annotated[bool, typer.Option(help="Disturb the views as the study does.")] = False,
    device: Device = "cpu",
    include: Include = None,
    json: Json = False,
) -> None:
    """Counts how often an observation model names the right instruction."""
    from mirror_analysis.episodes import Nuisance, apply_nuisance, load_episodes
    from mirror_analysis.models import load_model
    from mirror_analysis.recognition import recognise as run

    model = load_model(checkpoint, device=device, include=include or ())
    seen = load_episodes(episodes)
    with progress() as report:
        scores = run(
            model,
            apply_nuisance(seen, Nuisance()) if nuisance else seen,
            condition="nuisance" if nuisance else "plain",
            device=device,
            progress=lambda done, total: report("recognising", done, total),
        )
    emit(scores, as_json=json, text=_rates(scores, "accuracy"))


@app.command()
def rollout(
    checkpoint: Annotated[str, typer.Argument(help="Execution model: name or file.")],
    tasks: Annotated[str, typer.Option(help="Names with commas; all when not given.")] = "",
    episodes: Annotated[int, typer.Option(min=1, help="Episodes per task.")] = 17,
    seed: Annotated[int, typer.Option(min=0, help="Of the environments.")] = 0,
    nuisance: Annotated[bool, typer.Option(help="Disturb the views as the study does.")] = False,
    workers: Workers = None,
    include: Include = None,
    json: Json = False,
) -> None:
    """Lets a policy act in Meta-World and counts its successes."""
    from mirror_analysis.episodes.nuisance import Nuisance
    from mirror_analysis.rollout import rollout as run

    with progress() as report:
        scores = run(
            checkpoint,
            tasks=[name.strip() for name in tasks.split(",") if name.strip()],
            episodes=episodes,
            seed=seed,
            nuisance=Nuisance() if nuisance else None,
            workers=workers,
            include=include or (),
            progress=lambda done, total: report("rolling out, by part", done, total),
        )
    emit(scores, as_json=json, text=_rates(scores, "success"))


@app.command()
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


@app.command()
def report(
    result: Annotated[Path, typer.Argument(help="A result.json, or its folder.")],
    out: Out,
) -> None:
    """Makes figures, tables and the page from a result alone."""
    from mirror_analysis.reporting import render_report

    print(render_report(result, out=out))


@app.command()
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


def _rates(scores: list[Score], name: str) -> str:
    """Shares with their intervals, one line each."""
    rows: list[dict[str, object]] = [
        {
            "task": s.y,
            name: s.value,
            "low": s.interval.low if s.interval else None,
            "high": s.interval.high if s.interval else None,
            "episodes": s.n,
        }
        for s in scores
    ]
    return table(rows, list(rows[0]))

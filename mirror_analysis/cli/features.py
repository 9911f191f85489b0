"""The commands that make episodes and features: episodes, extract."""

from __future__ import annotations

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
    Maps,
    Settings,
    Source,
    Trust,
    Workers,
)
from mirror_analysis.cli.terminal import emit, plain, progress, table


def episodes(
    source: Annotated[
        str,
        typer.Argument(
            help="metaworld or gym:ENVIRONMENT to collect; else a path, or READER:PATH, to"
            " describe or, with --out, to convert."
        ),
    ],
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Folder to write to: collected, or converted to LeRobotDataset v3.0."),
    ] = None,
    tasks: Annotated[str, typer.Option(help="Names with commas; all when not given.")] = "",
    per_task: Annotated[
        int, typer.Option(min=0, help="Episodes per task (successful ones), or per policy.")
    ] = 20,
    failures: Annotated[int, typer.Option(min=0, help="Failed episodes per task.")] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Of everything random.")] = 0,
    split: Annotated[str, typer.Option(help="Part of the data: fit, validation or test.")] = "fit",
    frames: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=1, help="Pictures per camera and episode; 16 to collect, else all."),
    ] = None,
    size: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=8, help="Height and width in pixels; 64 in metaworld, 128 in gym."),
    ] = None,
    policy: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="Execution checkpoint that acts in gym; once for each."),
    ] = None,
    camera: Annotated[str, typer.Option(help="View of gym, such as track.")] = "",
    horizon: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=1, help="Most steps of an episode of gym; its own limit if none."),
    ] = None,
    variant: Annotated[
        str, typer.Option(help="Another look of the same episodes of metaworld, as camera-side.")
    ] = "",
    trust: Trust = None,
    limit: Limit = None,
    codec: Annotated[str, typer.Option(help="Of converted pictures: av1, h264 or png.")] = "av1",
    workers: Workers = None,
    json: Json = False,
) -> None:
    """Collects simulator episodes, describes those of others, or converts them."""
    from mirror_analysis.cli.collecting import collected
    from mirror_analysis.cli.listing import describe_episodes
    from mirror_analysis.episodes import load_episodes

    with progress() as report:
        if source == "metaworld" or source.startswith("gym:"):
            found = collected(
                source,
                out,
                tasks=[name.strip() for name in tasks.split(",") if name.strip()],
                per_task=per_task,
                failures=failures,
                seed=seed,
                split=split,
                frames=frames or 16,
                size=size,
                policies=policy or (),
                camera=camera,
                horizon=horizon,
                variant=variant,
                trust=trust or (),
                workers=workers,
                report=report,
            )
        else:
            found = load_episodes(source, limit=limit, frames=frames)
            if out is not None:
                from mirror_analysis.episodes.lerobot_writer import write_lerobot

                told = lambda done, total: report("writing episodes", done, total)  # noqa: E731
                write_lerobot(found, out, codec=codec, progress=told)
    facts, rows = describe_episodes(found)
    head = "\n".join(plain(f"{key}: {value}") for key, value in facts.items())
    columns = ["task", "episodes", "successes", "instructions", "median_length"]
    emit({**facts, "by_task": rows}, as_json=json, text=f"{head}\n\n{table(rows, columns)}")


def extract(
    checkpoint: Checkpoint,
    episodes: Source,
    store: Annotated[Path, typer.Option(help="Folder where features are kept.")],
    pooling: Annotated[
        str,
        typer.Option(
            help="mean, last or steps (a row for every frame) over time, then /mean, /grid2,"
            " /grid4, /cls or /patches over space."
        ),
    ] = "mean",
    maps: Maps = None,
    settings: Settings = None,
    trust: Trust = None,
    limit: Limit = None,
    frames: Frames = None,
    batch_size: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=1, help="Episodes per forward pass; what fits when not given."),
    ] = None,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    device: Device = "cpu",
    include: Include = None,
    json: Json = False,
) -> None:
    """Extracts every layer of a model over episodes; goes on where it stopped."""
    from mirror_analysis.cli.options import loading
    from mirror_analysis.episodes import load_episodes
    from mirror_analysis.extraction import extract as run
    from mirror_analysis.models import load_model
    from mirror_analysis.streams import parse

    streams = parse(maps or ())
    model = load_model(
        checkpoint, device=device, trust=trust or (), include=include or (), **loading(settings)
    )
    with progress() as report:
        layers = run(
            model,
            load_episodes(episodes, limit=limit, frames=frames),
            pooling=pooling,
            batch_size=batch_size,
            device=device,
            dtype=dtype,
            streams=streams,
            store=store,
            progress=lambda p: report(f"extracting {model.name}", p.done, p.total),
        )
    rows: list[dict[str, object]] = [
        {"layer": name, "rows": len(f.values), "features": f.values.shape[1]}
        for name, f in layers.items()
    ]
    emit(rows, as_json=json, text=table(rows, ["layer", "rows", "features"]))

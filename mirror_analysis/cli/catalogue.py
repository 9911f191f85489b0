"""The commands that say what there is: list, inspect, check."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from mirror_analysis.cli.options import Checkpoint, Include, Json, Settings, Trust
from mirror_analysis.cli.terminal import emit, plain, progress, table


def list_(
    kind: Annotated[
        str,
        typer.Argument(help="checkpoints, families, measures, sources, probes or reports; all."),
    ] = "",
    include: Include = None,
    json: Json = False,
) -> None:
    """Lists what there is, with a line on each."""
    from mirror_analysis.cli.listing import listing

    found = listing(kind, include or ())
    columns = ["name", "role", "family", "from", "summary"]
    lines = [
        f"{name}\n{table(rows, columns if name == 'checkpoints' else ['name', 'summary'])}\n"
        for name, rows in found.items()
    ]
    emit(found, as_json=json, text="\n".join(lines).rstrip())


def inspect(
    path: Checkpoint,
    settings: Settings = None,
    trust: Trust = None,
    include: Include = None,
    json: Json = False,
) -> None:
    """Says what a checkpoint is: family, role, inputs, preparation, layers, weights."""
    from mirror_analysis.cli.listing import description
    from mirror_analysis.cli.options import loading

    found, layers = description(path, include or (), trust=trust or (), **loading(settings))
    head = "\n".join(plain(f"{key}: {value}") for key, value in found.items())
    text = f"{head}\n\n{table(layers, ['layer', 'width', 'kind', 'axes'])}"
    emit({**found, "layers": layers}, as_json=json, text=text)


def check(
    names: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Argument(help="Definitions to check; all if none."),
    ] = None,
    online: Annotated[
        bool, typer.Option("--online", help="Ask whether public checkpoints are where they were.")
    ] = False,
    include: Include = None,
    json: Json = False,
) -> None:
    """Validates definitions, checksums and layers; exit code 1 and all faults if any."""
    from mirror_analysis.cli.listing import check as find

    with progress() as report:
        counted, found = find(names or (), include or (), online=report if online else None)
    text = "\n".join(found) if found else f"{counted} definitions checked, no faults"
    emit({"checked": counted, "faults": found}, as_json=json, text=text)
    if found:
        raise typer.Exit(1)

"""The commands that train: train observation, train execution, train mirror."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from mirror_analysis.cli.options import (
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
)
from mirror_analysis.cli.terminal import emit, progress, table

train = typer.Typer(
    no_args_is_help=True, help="Trains the models of the reference pair, or any two together."
)
File = Annotated[Path, typer.Option("--out", help="Safetensors file to write.")]
Camera = Annotated[str, typer.Option(help="View; A to observe, B to act if not given.")]
Epochs = Annotated[Optional[int], typer.Option(min=1, help="Passes over the data.")]  # noqa: UP045
Seed = Annotated[int, typer.Option(min=0, help="Of weights, order and appearance.")]


@train.command("observation")
def observation(
    episodes: Source,
    out: File,
    camera: Camera = "",
    epochs: Epochs = None,
    seed: Seed = 0,
    device: Device = "cpu",
) -> None:
    """Trains a model that names the instruction, from scratch."""
    _alone("observation", episodes, out, camera, epochs, seed, device)


@train.command("execution")
def execution(
    episodes: Source,
    out: File,
    camera: Camera = "",
    epochs: Epochs = None,
    seed: Seed = 0,
    device: Device = "cpu",
) -> None:
    """Trains a model that acts as the expert does, from scratch."""
    _alone("execution", episodes, out, camera, epochs, seed, device)


def _alone(
    role: str, source: str, out: Path, camera: str, epochs: int | None, seed: int, device: str
) -> None:
    from mirror_analysis.cli.making import train as run

    with progress() as report:
        print(run(role, source, out, camera, epochs, seed, device, report))


@train.command("mirror")
def mirror(
    episodes: Source,
    out: Out,
    a: Annotated[
        str, typer.Option("--observation", help="Checkpoint that watches; from scratch if none.")
    ] = "",
    b: Annotated[
        str, typer.Option("--execution", help="Checkpoint that acts; from scratch if none.")
    ] = "",
    layer_a: Annotated[str, typer.Option(help="Aligned layer of A; last but one if none.")] = "",
    layer_b: Annotated[str, typer.Option(help="Aligned layer of B.")] = "",
    task_a: Annotated[str, typer.Option(help="video-text or classification.")] = "",
    task_b: Annotated[str, typer.Option(help="regression, discretised or diffusion.")] = "",
    map_a: MapsA = None,
    map_b: MapsB = None,
    set_a: SettingsA = None,
    set_b: SettingsB = None,
    camera_a: Annotated[str, typer.Option(help="View of A from scratch.")] = "A",
    camera_b: Annotated[str, typer.Option(help="View of B from scratch.")] = "B",
    pairing: Annotated[
        str, typer.Option(help="Positive pairs share their episode, instruction or task.")
    ] = "instruction",
    align_weight: Annotated[
        float, typer.Option(min=0, help="Lambda of the alignment; 0 trains them apart.")
    ] = 0.5,
    execution_weight: Annotated[float, typer.Option(min=0, help="Lambda of acting.")] = 1.0,
    temperature: Annotated[float, typer.Option(help="Of the alignment loss.")] = 0.1,
    gradient: Annotated[
        str, typer.Option(help="Whom the alignment may change: both, observation or execution.")
    ] = "both",
    target: Annotated[
        str,
        typer.Option(help="partner; or a control: shuffled, untrained, noise or identity."),
    ] = "partner",
    freeze: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="Part that keeps its weights, such as observation.network.trunk."),
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the episodes.")] = 50,
    batch: Annotated[int, typer.Option(min=2, help="Episodes per update.")] = 24,
    shown: Annotated[
        int, typer.Option("--shown", min=0, help="Frames of an episode in a batch; 0 for all.")
    ] = 8,
    nuisance: Annotated[
        bool, typer.Option(help="Show loaded models every episode in another appearance.")
    ] = False,
    learning_rate: Annotated[float, typer.Option(help="Peak of a one-cycle schedule.")] = 2e-3,
    weight_decay: Annotated[float, typer.Option(min=0, help="Of AdamW.")] = 1e-3,
    precision: Annotated[str, typer.Option(help="float32 or bfloat16.")] = "float32",
    seed: Seed = 0,
    limit: Limit = None,
    frames: Frames = None,
    trust: Trust = None,
    include: Include = None,
    device: Device = "cpu",
    json: Json = False,
) -> None:
    """Trains a model that watches and one that acts together, and aligns them.

    Runs under torchrun, too; a batch is then of all processes together.
    """
    import msgspec

    from mirror_analysis.alignment.joint.config import JointConfig
    from mirror_analysis.alignment.joint.launching import launched
    from mirror_analysis.cli.options import loading
    from mirror_analysis.episodes import Nuisance, load_episodes
    from mirror_analysis.errors import DefinitionError
    from mirror_analysis.mirroring import Side, losses, train_mirror
    from mirror_analysis.streams import parse

    settings = {
        "epochs": epochs, "batch": batch, "learning_rate": learning_rate,
        "weight_decay": weight_decay, "execution_weight": execution_weight,
        "align_weight": align_weight, "temperature": temperature, "pairing": pairing,
        "gradient": gradient, "target": target, "frozen": freeze or [], "precision": precision,
        "seed": seed, "device": device,
    }  # fmt: skip
    try:
        config = msgspec.convert(settings, JointConfig)
    except msgspec.ValidationError as error:
        raise DefinitionError(f"{error}; see `mirror train mirror --help`") from None
    disturbed = Nuisance() if nuisance else None
    further = {"trust": trust or (), "include": include or ()}
    sides = (
        Side(
            "observation", a, layer_a, task_a, camera_a, parse(map_a or ()), shown, disturbed,
            {**loading(set_a), **further},
        ),
        Side(
            "execution", b, layer_b, task_b, camera_b, parse(map_b or ()), shown, disturbed,
            {**loading(set_b), **further},
        ),
    )  # fmt: skip
    seen = load_episodes(episodes, limit=limit, frames=frames)
    with launched(device) as own, progress() as report:
        joint = train_mirror(
            *sides, seen, out=out, config=msgspec.structs.replace(config, device=own),
            progress=lambda done, total, loss: report("training both models", done, total),
        )  # fmt: skip
    rows: list[dict[str, object]] = [dict(row) for row in losses(joint.curve)]
    step = max(1, len(rows) // 10)
    told = [*rows[:-1:step], rows[-1]]
    data = {"out": str(out), "curve": rows}
    emit(data, as_json=json, text=f"{table(told, list(rows[0]))}\n\nmodels: {out}")

"""Options that several commands share, defined once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

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
Source = Annotated[
    str, typer.Option("--episodes", help="Episodes: a path, or READER:PATH of `mirror list`.")
]
Checkpoint = Annotated[
    str, typer.Argument(help="A path, catalogue name, hub id, or package.module:factory.")
]
Limit = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(min=0, help="Take the first so many episodes."),
]
Frames = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(min=1, help="Frames of each episode, evenly spaced; all when not given."),
]
Maps = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option("--map", help="MODEL_INPUT=EPISODE_STREAM, where their names differ."),
]
Settings = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option("--set", help="family=NAME, calls=RULE, or an option of the family."),
]
MapsA = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option("--map-a", help="INPUT_OF_A=EPISODE_STREAM, where their names differ."),
]
MapsB = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option("--map-b", help="INPUT_OF_B=EPISODE_STREAM."),
]
SettingsA = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option("--set-a", help="family=NAME, calls=RULE, or an option of A's family."),
]
SettingsB = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option("--set-b", help="The same for B."),
]
Trust = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option(help="A checkpoint whose own code may run, named exactly as it is given."),
]


def loading(pairs: list[str] | None) -> dict[str, Any]:
    """What `--set` says, as arguments of `load_model`.

    Raises:
        DefinitionError: if one is not NAME=VALUE, or a name is given twice.
    """
    from mirror_analysis.errors import DefinitionError

    found: dict[str, str] = {}
    for text in pairs or ():
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise DefinitionError(f"--set '{text}' is no setting; needed NAME=VALUE")
        if name in found:
            raise DefinitionError(f"--set gives '{name}' twice; give it once")
        found[name] = value
    arguments: dict[str, Any] = {k: found.pop(k) for k in ("family", "calls") if k in found}
    return {**arguments, "options": found}

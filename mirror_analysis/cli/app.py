"""The commands of `mirror`; each is a thin line from the shell to the library."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from mirror_analysis import __version__
from mirror_analysis.cli import (
    aligning,
    catalogue,
    features,
    policies,
    probing,
    studies,
    training,
)
from mirror_analysis.cli.terminal import faults

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Do two models represent the same episodes alike, and was that learned?",
)
_COMMANDS: dict[str, Callable[..., None] | typer.Typer] = {
    "list": catalogue.list_,
    "inspect": catalogue.inspect,
    "check": catalogue.check,
    "episodes": features.episodes,
    "extract": features.extract,
    "compare": studies.compare,
    "align": aligning.align,
    "train": training.train,
    "probe": probing.probe,
    "recognise": policies.recognise,
    "rollout": policies.rollout,
    "run": studies.run,
    "report": studies.report,
    "audit": studies.audit,
}
for _name, _command in _COMMANDS.items():
    if isinstance(_command, typer.Typer):
        app.add_typer(_command, name=_name)
    else:
        app.command(_name)(_command)


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

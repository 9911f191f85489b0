"""The commands that try models: recognise, rollout."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Optional

import typer

from mirror_analysis.cli.options import (
    Checkpoint,
    Device,
    Include,
    Json,
    Maps,
    Settings,
    Source,
    Trust,
    Workers,
)
from mirror_analysis.cli.terminal import emit, progress, table

if TYPE_CHECKING:
    from mirror_analysis.results import Score


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


def rollout(
    checkpoint: Checkpoint,
    env: Annotated[str, typer.Option(help="Gymnasium environment; Meta-World if none.")] = "",
    tasks: Annotated[str, typer.Option(help="Of Meta-World, with commas; all if none.")] = "",
    episodes: Annotated[int, typer.Option(min=1, help="Episodes, of each task.")] = 17,
    seed: Annotated[int, typer.Option(min=0, help="Of the environments.")] = 0,
    nuisance: Annotated[bool, typer.Option(help="Disturb the views as the study does.")] = False,
    variant: Annotated[
        str, typer.Option(help="Another look of Meta-World, such as camera-side.")
    ] = "",
    drop: Annotated[
        bool, typer.Option(help="Also in plain views: what nuisance or the variant costs.")
    ] = False,
    horizon: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=1, help="Most steps of an episode; the environment's own if none."),
    ] = None,
    camera: Annotated[str, typer.Option(help="View of Gymnasium, where the policy sees.")] = "",
    against: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="Another policy in the same episodes of Meta-World; may be repeated."),
    ] = None,
    maps: Maps = None,
    settings: Settings = None,
    trust: Trust = None,
    workers: Workers = None,
    include: Include = None,
    json: Json = False,
) -> None:
    """Lets a policy act: success in Meta-World, or return and success in Gymnasium."""
    from dataclasses import replace

    from mirror_analysis.cli.options import loading
    from mirror_analysis.episodes.nuisance import Nuisance
    from mirror_analysis.errors import DefinitionError
    from mirror_analysis.playing import PolicySource
    from mirror_analysis.rollout import rollout as run
    from mirror_analysis.rollout import rollout_against, rollout_drop
    from mirror_analysis.streams import parse

    chosen = loading(settings)
    policy = PolicySource(
        checkpoint,
        family=chosen.get("family"),
        options=tuple(chosen["options"].items()),
        streams=tuple(parse(maps or ()).items()),
        trust=tuple(trust or ()),
        include=tuple(map(str, include or ())),
    )
    chosen_tasks = [name.strip() for name in tasks.split(",") if name.strip()]
    if nuisance and variant:
        raise DefinitionError(
            f"--nuisance and --variant {variant} are two conditions; leave one out"
        )
    appearance = Nuisance() if nuisance else variant or None
    if (against or drop) and (camera or horizon is not None):
        raise DefinitionError(
            "--camera and --horizon belong to Gymnasium, --against and --drop to Meta-World; leave"
            " out the former"
        )
    if drop:
        if env or against or appearance is None:
            raise DefinitionError(
                "--drop compares one policy in Meta-World with and without --variant NAME or"
                " --nuisance; give one of these, and neither --env nor --against"
            )
        with progress() as report:
            scores = rollout_drop(
                policy,
                appearance,
                tasks=chosen_tasks,
                episodes=episodes,
                seed=seed,
                workers=workers,
                progress=lambda done, total: report("rolling out, by part", done, total),
            )
        emit(scores, as_json=json, text=_dropped(scores))
        return
    if against:
        if env:
            raise DefinitionError("--against compares in Meta-World; leave --env out")
        with progress() as report:
            scores = rollout_against(
                policy,
                [replace(policy, source=other) for other in against],
                tasks=chosen_tasks,
                episodes=episodes,
                seed=seed,
                appearance=appearance,
                workers=workers,
                progress=lambda done, total: report("rolling out, by part", done, total),
            )
        told = [s.summary for s in scores if s.y == "all tasks" or s.role == "difference"]
        emit(scores, as_json=json, text="\n".join(told))
        return
    with progress() as report:
        scores = run(
            policy,
            env=env or None,
            tasks=chosen_tasks,
            episodes=episodes,
            seed=seed,
            appearance=appearance,
            horizon=horizon,
            camera=camera or None,
            workers=workers,
            progress=lambda done, total: report("rolling out, by part", done, total),
        )
    emit(scores, as_json=json, text=_rates(scores, "success") if not env else _measured(scores))


def _dropped(scores: list[Score]) -> str:
    """Success per task in both conditions, and what is lost between them."""
    *rates, difference = scores
    half = len(rates) // 2
    rows: list[dict[str, object]] = [
        {"task": s.y, s.condition: s.value, t.condition: t.value, "episodes": s.n}
        for s, t in zip(rates[:half], rates[half:], strict=True)
    ]
    return f"{table(rows, list(rows[0]))}\n\n{difference.summary}"


def _measured(scores: list[Score]) -> str:
    """Return and success with their intervals, one line each."""
    rows: list[dict[str, object]] = [
        {
            "environment": s.y,
            "measure": s.measure,
            "value": s.value,
            "low": s.interval.low if s.interval else None,
            "high": s.interval.high if s.interval else None,
            "episodes": s.n,
        }
        for s in scores
    ]
    return table(rows, list(rows[0]))


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

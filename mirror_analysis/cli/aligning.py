"""The command that aligns two checkpoints: align."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

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
from mirror_analysis.cli.terminal import emit, progress, table

if TYPE_CHECKING:
    from mirror_analysis.alignment.linear import AlignmentConfig
    from mirror_analysis.results import Score
    from mirror_analysis.study.aligning import AlignmentReport


_SHOWN = 10  # layer pairs


def align(
    a: Checkpoint,
    b: Checkpoint,
    episodes: Source,
    out: Out,
    layers: Annotated[
        str, typer.Option(help="LAYER_OF_A,LAYER_OF_B; last but one if none; all for every pair.")
    ] = "",
    pairing: Annotated[
        str, typer.Option(help="What makes episodes partners: episode, instruction, task, ...")
    ] = "episode",
    temperature: Annotated[
        str, typer.Option(help="Of the loss; learned, or learned:0.1 with where it starts.")
    ] = "0.1",
    width: Annotated[int, typer.Option(min=1, help="Dimensions of the shared space.")] = 1024,
    seeds: Annotated[int, typer.Option(min=1, help="Contrastive fits; numbers are means.")] = 3,
    steps: Annotated[int, typer.Option(min=1, help="Updates at most.")] = 300,
    draws: Annotated[int, typer.Option(min=19, help="Permutations of the null.")] = 999,
    map_a: MapsA = None,
    map_b: MapsB = None,
    set_a: SettingsA = None,
    set_b: SettingsB = None,
    trust: Trust = None,
    limit: Limit = None,
    frames: Frames = None,
    device: Device = "cpu",
    workers: Workers = None,
    include: Include = None,
    json: Json = False,
) -> None:
    """Aligns two checkpoints by linear maps and shows Recall before and after, beside controls."""
    import msgspec

    from mirror_analysis.alignment.scoring import RetrievalConfig
    from mirror_analysis.cli.options import loading
    from mirror_analysis.episodes import load_episodes
    from mirror_analysis.models import load_model
    from mirror_analysis.streams import parse
    from mirror_analysis.study.aligning import align_checkpoints
    from mirror_analysis.study.alignment_parts import AlignmentPlan

    x_layer, y_layer = _layers(layers)
    plan = AlignmentPlan(
        x_layer,
        y_layer,
        whole=layers == "all",
        pairing=pairing,
        seeds=tuple(range(seeds)),
        fit=msgspec.structs.replace(_fit(temperature), width=width, steps=steps),
        judge=RetrievalConfig(recall=(1, 5, 10), draws=draws),
    )
    streams = parse(map_a or ()), parse(map_b or ())
    models = [
        load_model(
            source, device=device, trust=trust or (), include=include or (), **loading(chosen)
        )
        for source, chosen in ((a, set_a), (b, set_b))
    ]
    with progress() as told:
        report = align_checkpoints(
            models[0],
            models[1],
            load_episodes(episodes, limit=limit, frames=frames),
            out=out,
            plan=plan,
            x_streams=streams[0],
            y_streams=streams[1],
            device=device,
            workers=workers,
            include=include or (),
            progress=told,
        )
    emit(report, as_json=json, text=f"{_text(report)}\n\nwritten to {out}")


def _layers(text: str) -> tuple[str, str]:
    from mirror_analysis.errors import DefinitionError

    if text in ("", "all"):
        return "", ""
    names = [name.strip() for name in text.split(",")]
    if len(names) != 2 or not all(names):
        raise DefinitionError(
            f"--layers '{text}' names no pair; needed LAYER_OF_A,LAYER_OF_B, or all"
        )
    return names[0], names[1]


def _fit(temperature: str) -> AlignmentConfig:
    from mirror_analysis.alignment.linear import AlignmentConfig
    from mirror_analysis.errors import DefinitionError

    word, colon, start = temperature.partition(":")
    learned = word == "learned"
    number = (start if colon else "0.1") if learned else temperature
    try:
        value = float(number)
    except ValueError:
        raise DefinitionError(
            f"--temperature '{temperature}' is none; needed a number, learned, or learned:0.1"
        ) from None
    return AlignmentConfig(temperature=value, learn_temperature=learned)


def _text(report: AlignmentReport) -> str:
    """Recall@1 before and after, its differences, and with every layer pair the best ones."""
    from mirror_analysis.results import select

    n, plan = report.episodes, report.plan
    pairs = [
        s
        for s in select(report.scores, measure="recall_at_1", within="")
        if (s.x_layer, s.y_layer) == (plan.x_layer, plan.y_layer)
    ]
    inside = {
        (s.parameters["comparison"], s.parameters["method"]): s
        for s in select(report.scores, measure="recall_at_1", within="task")
        if s.role != "difference"
    }
    rows: list[dict[str, object]] = []
    for s in (s for s in pairs if s.role != "difference"):
        key = s.parameters["comparison"], s.parameters["method"]
        within = inside.get(key)
        rows.append(
            {
                "what": key[0],
                "maps": key[1],
                "recall@1": s.value,
                **_around(s),
                "within task": within.value if within else None,
                "by chance": within.null.mean if within and within.null else None,
            }
        )
    gallery = next((s.parameters["gallery"] for s in pairs if "gallery" in s.parameters), "")
    head = (
        f"{report.models['x']} {plan.x_layer} and {report.models['y']} {plan.y_layer}: Recall@1 in"
        f" a gallery of {gallery}, {n['fit']} episodes fitted on, {n['validation']} validated on,"
        f" {n['test']} tested on"
    )
    parts = [head, table(rows, list(rows[0]))]
    differences: list[dict[str, object]] = []
    for s in pairs:
        if s.role == "difference":
            shown = {"recall@1": s.value, **_around(s)}
            less = s.parameters["against"]
            differences.append(
                {"contrastive fit less": less} | {k: shown[k] for k in ("recall@1", "low", "high")}
            )
    if differences:
        parts.append(table(differences, list(differences[0])))
    cells = [
        s
        for s in select(report.scores, measure="recall_at_1", within="", role="pair")
        if (s.x_layer, s.y_layer) != (plan.x_layer, plan.y_layer)
    ]
    if cells:
        parts.append(_best(cells))
    return "\n\n".join(parts)


def _around(score: Score) -> dict[str, object]:
    found: dict[str, object] = {
        "low": score.interval.low if score.interval else None,
        "high": score.interval.high if score.interval else None,
        "null": score.null.mean if score.null else None,
        "p": score.p_value,
    }
    return found


def _best(cells: list[Score]) -> str:
    """The layer pairs with the largest recall, and how many there are."""
    known = sorted((s for s in cells if s.value is not None), key=lambda s: -(s.value or 0.0))
    rows = [
        {"layers": f"{s.x_layer} x {s.y_layer}", "recall@1": s.value, **_around(s),
         "p over all": s.p_max}
        for s in known[:_SHOWN]
    ]  # fmt: skip
    title = f"best {len(rows)} of {len(cells)} other layer pairs, contrastive"
    return f"{title}\n{table(rows, list(rows[0]))}" if rows else f"{title}: none is defined"

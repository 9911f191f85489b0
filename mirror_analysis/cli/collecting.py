"""What `mirror episodes` does where it has to make episodes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mirror_analysis.errors import DefinitionError

if TYPE_CHECKING:
    from mirror_analysis.episodes import Episodes

Report = Callable[[str, int, int], None]


def collected(
    source: str,
    out: Path | None,
    *,
    tasks: Sequence[str],
    per_task: int,
    failures: int,
    seed: int,
    split: str,
    frames: int,
    size: int | None,
    policies: Sequence[str],
    camera: str,
    horizon: int | None,
    trust: Sequence[str],
    workers: int | None,
    report: Report,
    variant: str = "",
) -> Episodes:
    """Collects in Meta-World by scripted experts, or in Gymnasium by policies.

    Raises:
        DefinitionError: if there is no folder to collect into, or a variant is asked of Gymnasium.
        UnknownNameError: if there is no such variant.
        MirrorError: whatever the collection finds wrong.
    """
    if out is None:
        raise DefinitionError("no folder to collect into; give one with --out DIR")
    if source == "metaworld":
        from mirror_analysis.episodes.metaworld import TASKS, collect
        from mirror_analysis.episodes.variants import find_variant

        return collect(
            out,
            tasks=tuple(tasks) or tuple(TASKS),
            successes=per_task,
            failures=failures,
            seed=seed,
            split=split,
            frames=frames,
            size=size or 64,
            variant=find_variant(variant) if variant else None,
            workers=workers,
            progress=lambda done, total: report("collecting, by task", done, total),
        )
    if variant:
        raise DefinitionError(
            f"--variant {variant} belongs to metaworld, not to {source}; leave it out"
        )
    from mirror_analysis.environments import collect_gym
    from mirror_analysis.playing import PolicySource

    return collect_gym(
        source.removeprefix("gym:"),
        out,
        policies=[PolicySource(policy, trust=tuple(trust)) for policy in policies],
        episodes=per_task,
        camera=camera or None,
        size=size or 128,
        horizon=horizon,
        frames=frames,
        seed=seed,
        workers=workers,
        progress=lambda done, total: report("collecting, by part", done, total),
    )

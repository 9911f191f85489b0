"""How every trained policy fares in its environment, the same situations for all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from mirror_analysis.definitions import EpisodesSection
from mirror_analysis.episodes.tasks import TASKS
from mirror_analysis.provenance import sha256_file
from mirror_analysis.results import Score
from mirror_analysis.rollout.metaworld import HORIZON, rollout_outcomes
from mirror_analysis.rollout.outcomes import Outcomes, load_outcomes, save_outcomes
from mirror_analysis.study.training_effects.readings import Reading, shares
from mirror_analysis.study.training_effects.runs import FILES, Run
from mirror_analysis.training_definitions import TrainingStudyDefinition


def act_all(
    wanted: Sequence[Run],
    definition: TrainingStudyDefinition,
    out: Path,
    *,
    workers: int | None,
    progress: Callable[[int, int], None],
) -> dict[Run, list[Reading]]:
    """Success rates of the policies of all runs; outcomes are kept in `rollouts/<run>.json`.

    Args:
        wanted: runs whose files are there.
        definition: of the study.
        out: folder of the study.
        workers: processes; None for as many as there are cores.
        progress: called with (policies done, policies in all).

    Returns:
        Run -> its readings; none where the study asks for no roll-outs.
    """
    e = definition.evaluation
    if not e.rollouts:
        return {}
    found = {run: kept for run in wanted if (kept := _kept(run, definition, out)) is not None}
    progress(len(found), len(wanted))
    for seed in definition.models.seeds:  # simulators are shared by those that act together
        missing = [run for run in wanted if run.seed == seed and run not in found]
        if missing:
            there, count = len(found), len(missing)

            def told(done: int, total: int, there: int = there, count: int = count) -> None:
                progress(there + done * count // total, len(wanted))

            found |= _act(missing, definition, out, workers, told)
    return {run: success_rates(found[run], folds=e.folds) for run in wanted}


def success_rates(outcomes: Outcomes, *, folds: int) -> list[Reading]:
    """Success over all tasks, then per task, with replicates over environment seeds.

    Args:
        outcomes: of one policy.
        folds: groups of episodes of the jackknife.
    """
    won = np.array(outcomes.success)
    task = np.repeat(np.array(outcomes.tasks), won.shape[1])
    unit = np.array([f"{t} {seed}" for t in outcomes.tasks for seed in outcomes.seeds])
    base = Score(
        "success_rate", 0.0, x="execution", y="", n=won.size, condition=outcomes.condition,
        parameters={"horizon": outcomes.horizon, "environment_seed": outcomes.environment_seed},
    )  # fmt: skip
    return shares(won.ravel(), task, unit, base=base, count=folds)


def _kept(run: Run, definition: TrainingStudyDefinition, out: Path) -> Outcomes | None:
    """Outcomes that are there, of these very weights and episodes."""
    file, mark = _files(run, out)
    if not (file.is_file() and mark.is_file() and mark.read_text().strip() == _weights(run, out)):
        return None
    kept = load_outcomes(file)
    return kept if _fits(kept, definition) else None


def _act(
    missing: Sequence[Run], definition: TrainingStudyDefinition, out: Path, workers: int | None,
    progress: Callable[[int, int], None],
) -> dict[Run, Outcomes]:  # fmt: skip
    e = definition.evaluation
    acted = rollout_outcomes(
        [run.folder(out) / FILES[1] for run in missing], tasks=_tasks(definition.episodes),
        episodes=e.rollouts, seed=e.rollout_seed, workers=workers, progress=progress,
    )  # fmt: skip
    found = dict(zip(missing, acted, strict=True))
    for run, outcomes in found.items():
        file, mark = _files(run, out)
        file.parent.mkdir(parents=True, exist_ok=True)
        mark.unlink(missing_ok=True)
        save_outcomes(outcomes, file)
        mark.write_text(f"{_weights(run, out)}\n")  # whose they are, once they are whole
    return found


def _files(run: Run, out: Path) -> tuple[Path, Path]:
    place = out / "rollouts"
    # The name of a condition may hold a dot, so no suffix is replaced.
    return place / f"{run.name}.json", place / f"{run.name}.sha256"


def _weights(run: Run, out: Path) -> str:
    return sha256_file(run.folder(out) / FILES[1])


def _tasks(section: EpisodesSection) -> tuple[str, ...]:
    return tuple(section.tasks) or tuple(TASKS)


def _fits(outcomes: Outcomes, definition: TrainingStudyDefinition) -> bool:
    """Whether these are the episodes the study asks for."""
    e, tasks = definition.evaluation, _tasks(definition.episodes)
    return (
        len(outcomes.seeds) == e.rollouts
        and outcomes.environment_seed == e.rollout_seed
        and outcomes.horizon == HORIZON
        and outcomes.condition == "plain"
        and outcomes.tasks == tasks
    )

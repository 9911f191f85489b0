"""Closed-loop success of a policy in its environment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mirror_analysis.episodes.metaworld import ROLLOUTS, TASKS
from mirror_analysis.episodes.nuisance import Nuisance, draw, jitter
from mirror_analysis.episodes.simulator import Simulator
from mirror_analysis.errors import DegenerateError, FormatError, UnknownNameError
from mirror_analysis.inference.proportion import wilson
from mirror_analysis.models import load_model
from mirror_analysis.models.model import ExecutionModel
from mirror_analysis.parallel import processes
from mirror_analysis.results import Score

HORIZON = 150  # environment steps an episode may take
_PART = 10  # episodes a worker does in one environment before it says so


@dataclass(frozen=True, repr=False)
class _Job:
    checkpoint: str
    include: tuple[str, ...]
    task: str
    seeds: tuple[int, ...]
    nuisance: Nuisance | None

    def __repr__(self) -> str:
        return f"{self.task}, environment seeds {self.seeds[0]} to {self.seeds[-1]}"


def rollout(
    checkpoint: str | Path,
    *,
    tasks: Sequence[str] = (),
    episodes: int = 17,
    seed: int = 0,
    nuisance: Nuisance | None = None,
    workers: int | None = None,
    include: Sequence[Path] = (),
    progress: Callable[[int, int], None] | None = None,
) -> list[Score]:
    """Lets a policy act in Meta-World and counts how often it succeeds.

    Args:
        checkpoint: an execution model, by catalogue name or file.
        tasks: names of tasks; empty for all.
        episodes: per task.
        seed: environment seeds are 2^31 + seed * 10 000 + episode: the same for every policy, so
            that two policies meet the same situations, and none that a collection uses.
        nuisance: changes of appearance, drawn once per episode; None for plain pictures.
        workers: processes; None for as many as there are cores.
        include: folders with definitions of your own.
        progress: called with (parts done, parts in all).

    Returns:
        "success_rate" in [0, 1] with its Wilson interval: one per task, then over all tasks.

    Raises:
        FormatError: if the checkpoint does not act.
        UnknownNameError: if a task is not known.
        DegenerateError: if fewer than one episode is asked for.
    """
    if episodes < 1:
        raise DegenerateError(f"{episodes} episodes per task asked for; needed at least 1")
    name = _policy(str(checkpoint), include).name
    for task in tasks:
        if task not in TASKS:
            raise UnknownNameError("task", task, TASKS)
    chosen = list(tasks) or list(TASKS)
    folders = tuple(str(folder) for folder in include)
    first = ROLLOUTS + seed * 10_000
    jobs = [
        _Job(str(checkpoint), folders, task, tuple(range(start, stop)), nuisance)
        for task in chosen
        for start in range(first, first + episodes, _PART)
        for stop in [min(start + _PART, first + episodes)]
    ]
    parts = processes(workers).map(_run, jobs, progress)
    won = np.array([success for part in parts for success in part])
    by_task = won.reshape(len(chosen), episodes)
    condition = "plain" if nuisance is None else "nuisance"
    scores = [
        _success_rate(name, task, row, condition, seed)
        for task, row in zip(chosen, by_task, strict=True)
    ]
    return [*scores, _success_rate(name, "all tasks", won, condition, seed)]


def _success_rate(
    name: str, task: str, won: np.ndarray[tuple[int, ...], np.dtype[np.bool_]], condition: str,
    seed: int,
) -> Score:  # fmt: skip
    count, trials = int(won.sum()), won.size
    return Score(
        "success_rate",
        count / trials,
        x=name,
        y=task,
        n=trials,
        interval=wilson(count, trials),
        parameters={"horizon": HORIZON, "successes": count, "environment_seed": seed},
        condition=condition,
    )


def _run(job: _Job) -> list[bool]:
    model = _policy(job.checkpoint, [Path(folder) for folder in job.include])
    camera = next(name for kind, _, name in (i.partition(":") for i in model.inputs) if name)
    with Simulator(job.task, cameras=(camera,)) as simulator:
        return [_succeeds(model, simulator, camera, job, seed) for seed in job.seeds]


def _succeeds(
    model: ExecutionModel, simulator: Simulator, camera: str, job: _Job, seed: int
) -> bool:
    change = None
    if job.nuisance is not None:
        change = draw(job.nuisance, f"{job.task}-{seed}", camera)
    model.reset()
    state = simulator.reset(seed)
    for _ in range(HORIZON):
        frames = simulator.render(camera)[None]
        if change is not None:
            frames = jitter(frames, change)
        action = model.act({camera: frames}, np.asarray(state, dtype=np.float32)[None])[0]
        state, success = simulator.step(action)
        if success:
            return True
    return False


def _policy(checkpoint: str, include: Sequence[Path]) -> ExecutionModel:
    model = load_model(checkpoint, include=include)
    if not isinstance(model, ExecutionModel):
        raise FormatError(
            f"{checkpoint} is an {model.role} model; a rollout needs an execution model, such as"
            " reference-execution-s0"
        )
    return model

"""Closed-loop success and return of a policy in its environment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mirror_analysis.episodes.environment import Environment, versions
from mirror_analysis.episodes.metaworld import ROLLOUTS, TASKS
from mirror_analysis.episodes.nuisance import Nuisance, draw, jitter
from mirror_analysis.episodes.simulator import Simulator
from mirror_analysis.errors import DefinitionError, DegenerateError, UnknownNameError
from mirror_analysis.inference.proportion import wilson
from mirror_analysis.models.model import ExecutionModel
from mirror_analysis.parallel import processes
from mirror_analysis.playing import RANDOM, PolicySource, play, policy_source
from mirror_analysis.results import Interval, Score

HORIZON = 150  # environment steps an episode may take
_PART = 10  # episodes a worker does in one environment before it says so


@dataclass(frozen=True, repr=False)
class _Job:
    policy: PolicySource
    task: str
    seeds: tuple[int, ...]
    nuisance: Nuisance | None

    def __repr__(self) -> str:
        return f"{self.task}, environment seeds {self.seeds[0]} to {self.seeds[-1]}"


@dataclass(frozen=True, repr=False)
class _Run:
    """Some episodes in a Gymnasium environment."""

    policy: PolicySource
    environment: str
    seeds: tuple[int, ...]
    camera: str | None
    size: int
    horizon: int | None

    def __repr__(self) -> str:
        return f"{self.environment}, environment seeds {self.seeds[0]} to {self.seeds[-1]}"


@dataclass(frozen=True)
class _Outcome:
    """One episode of a Gymnasium environment; success is None where nobody says."""

    total: float
    steps: int
    success: bool | None


def rollout(
    checkpoint: str | Path | PolicySource,
    *,
    env: str | None = None,
    tasks: Sequence[str] = (),
    episodes: int = 17,
    seed: int = 0,
    nuisance: Nuisance | None = None,
    camera: str | None = None,
    size: int = 128,
    horizon: int | None = None,
    workers: int | None = None,
    include: Sequence[Path] = (),
    progress: Callable[[int, int], None] | None = None,
) -> list[Score]:
    """Lets a policy act in Meta-World or a Gymnasium environment, and says how well it does.

    Args:
        checkpoint: an execution model, by catalogue name, file or as a `PolicySource`; in
            Gymnasium also "random".
        env: a Gymnasium environment such as "HalfCheetah-v5"; Meta-World when None.
        tasks: names of tasks of Meta-World; empty for all.
        episodes: per task, or in the environment.
        seed: environment seeds are 2^31 + seed * 10 000 + episode: the same for every policy, so
            that two policies meet the same situations, and none that a collection uses.
        nuisance: changes of appearance in Meta-World, drawn once per episode; None for plain
            pictures.
        camera: for a policy that sees a Gymnasium environment, from where.
        size: of its pictures in pixels.
        horizon: most steps in Gymnasium; the environment's own limit when None.
        workers: processes; None for as many as there are cores.
        include: folders with definitions of your own.
        progress: called with (parts done, parts in all).

    Returns:
        In Meta-World "success_rate" in [0, 1] with its Wilson interval: one per task, then over
        all tasks. In Gymnasium "return", the mean over episodes with Student's interval, every
        return among its parameters; then "success_rate" where the environment speaks of success.

    Raises:
        FormatError: if the checkpoint does not act.
        UnknownNameError: if a task or environment is not known.
        DegenerateError: if fewer than one episode is asked for.
        DefinitionError: if settings of Meta-World are given for Gymnasium, or the reverse.
        StreamError: if the environment lacks what the policy reads.

    Example:
        >>> rollout("tqc_HalfCheetah-v3.zip", env="HalfCheetah-v5", episodes=10)[0].value
        12236.0
    """
    if episodes < 1:
        raise DegenerateError(f"{episodes} episodes per task asked for; needed at least 1")
    source = policy_source(checkpoint, include=tuple(str(folder) for folder in include))
    if env is not None:
        if tasks or nuisance is not None:
            raise DefinitionError(
                f"tasks and nuisance belong to Meta-World, not to {env}; leave them out"
            )
        seeds = _seeds(episodes, seed)
        runs = [_Run(source, env, part, camera, size, horizon) for part in seeds]
        return _returns(runs, seed, workers, progress)
    if camera is not None or horizon is not None:
        raise DefinitionError("camera and horizon belong to Gymnasium; name its environment as env")
    name = _policy(source).name
    for task in tasks:
        if task not in TASKS:
            raise UnknownNameError("task", task, TASKS)
    chosen = list(tasks) or list(TASKS)
    jobs = [_Job(source, task, part, nuisance) for task in chosen
            for part in _seeds(episodes, seed)]  # fmt: skip
    parts = processes(workers).map(_run, jobs, progress)
    won = np.array([success for part in parts for success in part])
    by_task = won.reshape(len(chosen), episodes)
    condition = "plain" if nuisance is None else "nuisance"
    scores = [
        _success_rate(name, task, row, condition, seed)
        for task, row in zip(chosen, by_task, strict=True)
    ]
    return [*scores, _success_rate(name, "all tasks", won, condition, seed)]


def _seeds(episodes: int, seed: int) -> list[tuple[int, ...]]:
    """Environment seeds of all episodes, in parts a worker does in one environment."""
    first = ROLLOUTS + seed * 10_000
    end = first + episodes
    return [tuple(range(start, min(start + _PART, end))) for start in range(first, end, _PART)]


def _returns(
    runs: Sequence[_Run], seed: int, workers: int | None,
    progress: Callable[[int, int], None] | None,
) -> list[Score]:  # fmt: skip
    parts = processes(workers).map(_play, runs, progress)
    name, environment = parts[0][0], runs[0].environment
    outcomes = [outcome for _, part in parts for outcome in part]
    totals = np.array([outcome.total for outcome in outcomes])
    parameters: dict[str, str | int | float | bool] = {
        "environment_seed": seed,
        "mean_steps": float(np.mean([outcome.steps for outcome in outcomes])),
        "returns": " ".join(f"{total:.1f}" for total in totals),
        **versions(),
    }
    if len(totals) > 1:
        parameters["sd"] = float(totals.std(ddof=1))
    mean = Score(
        "return", float(totals.mean()), x=name, y=environment, n=len(totals),
        interval=_interval(totals), parameters=parameters,
    )  # fmt: skip
    judged = [outcome.success for outcome in outcomes if outcome.success is not None]
    if not judged:
        return [mean]
    won = Score(
        "success_rate", sum(judged) / len(judged), x=name, y=environment, n=len(judged),
        interval=wilson(sum(judged), len(judged)),
        parameters={"successes": sum(judged), "environment_seed": seed},
    )  # fmt: skip
    return [mean, won]


def _interval(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> Interval | None:
    """Student's interval of a mean; None of a single value."""
    if len(values) < 2:
        return None
    from scipy.stats import t

    half = float(t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5)
    mean = float(values.mean())
    return Interval(mean - half, mean + half, method=f"Student's t over {len(values)} episodes")


def _play(run: _Run) -> tuple[str, list[_Outcome]]:
    model = run.policy.load()
    trusted = run.environment in run.policy.trust
    with Environment(run.environment, camera=run.camera, size=run.size, trusted=trusted) as where:
        found = []
        for seed in run.seeds:
            course = play(
                where, model, seed=seed, horizon=run.horizon, streams=dict(run.policy.streams)
            )
            found.append(_Outcome(course.total, len(course.rewards), course.success))
    return RANDOM if model is None else model.name, found


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
    model = _policy(job.policy)
    camera = model.cameras[0].partition(":")[2]
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
        action = model.act(
            {f"camera:{camera}": frames, "states": np.asarray(state, dtype=np.float32)[None]}
        )[0]
        state, success = simulator.step(action)
        if success:
            return True
    return False


def _policy(source: PolicySource) -> ExecutionModel:
    model = source.load()
    if model is None:
        raise DefinitionError(f"the policy '{RANDOM}' acts in Gymnasium only; name env")
    return model

"""Roll-outs in Gymnasium: the return of a policy, and its success where that is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mirror_analysis.episodes.environment import Environment, versions
from mirror_analysis.episodes.metaworld import ROLLOUTS
from mirror_analysis.inference.proportion import wilson
from mirror_analysis.parallel import processes
from mirror_analysis.playing import RANDOM, PolicySource, play
from mirror_analysis.results import Interval, Score

_PART = 10  # episodes a worker does in one environment before it says so


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


def mean_return(
    policy: PolicySource,
    environment: str,
    *,
    episodes: int,
    seed: int = 0,
    camera: str | None = None,
    size: int = 128,
    horizon: int | None = None,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Score]:
    """What a policy earns in a Gymnasium environment; arguments and result as of `rollout`."""
    first = ROLLOUTS + seed * 10_000
    end = first + episodes
    parts = [tuple(range(start, min(start + _PART, end))) for start in range(first, end, _PART)]
    runs = [_Run(policy, environment, part, camera, size, horizon) for part in parts]
    found = processes(workers).map(_play, runs, progress)
    name = found[0][0]
    outcomes = [outcome for _, part in found for outcome in part]
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

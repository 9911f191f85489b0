"""How well a policy does in its environment, in numbers with intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from mirror_analysis.errors import DefinitionError, DegenerateError
from mirror_analysis.inference.proportion import wilson
from mirror_analysis.playing import PolicySource, policy_source
from mirror_analysis.results import Score
from mirror_analysis.rollout.appearance import Appearance, Look, look_of
from mirror_analysis.rollout.metaworld import rollout_outcomes
from mirror_analysis.rollout.outcomes import Outcomes
from mirror_analysis.rollout.paired import paired_success
from mirror_analysis.rollout.returns import mean_return


def rollout(
    checkpoint: str | Path | PolicySource,
    *,
    env: str | None = None,
    tasks: Sequence[str] = (),
    episodes: int = 17,
    seed: int = 0,
    appearance: Appearance | None = None,
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
        appearance: of Meta-World, as of `rollout_outcomes`: the name of a variant such as
            "camera-side", a `Variant`, or a `Nuisance`; None for plain pictures.
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
        UnknownNameError: if a task, variant or environment is not known.
        DegenerateError: if fewer than one episode is asked for.
        DefinitionError: if settings of Meta-World are given for Gymnasium, or the reverse.
        StreamError: if the environment lacks what the policy reads, or the policy reads no
            camera, though an appearance is given.

    Example:
        >>> rollout("tqc_HalfCheetah-v3.zip", env="HalfCheetah-v5", episodes=10)[0].value
        12236.0
    """
    if episodes < 1:
        raise DegenerateError(f"{episodes} episodes per task asked for; needed at least 1")
    source = policy_source(checkpoint, include=tuple(str(folder) for folder in include))
    if env is not None:
        if tasks or appearance is not None:
            raise DefinitionError(
                f"tasks, nuisance and variants belong to Meta-World, not to {env}; leave them out"
            )
        return mean_return(
            source, env, episodes=episodes, seed=seed, camera=camera, size=size, horizon=horizon,
            workers=workers, progress=progress,
        )  # fmt: skip
    if camera is not None or horizon is not None:
        raise DefinitionError("camera and horizon belong to Gymnasium; name its environment as env")
    (outcomes,) = rollout_outcomes(
        source, tasks=tasks, episodes=episodes, seed=seed, appearance=appearance, workers=workers,
        progress=progress,
    )  # fmt: skip
    return success_rates(outcomes)


def rollout_against(
    policy: str | Path | PolicySource,
    others: Sequence[str | Path | PolicySource],
    *,
    tasks: Sequence[str] = (),
    episodes: int = 17,
    seed: int = 0,
    appearance: Appearance | None = None,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Score]:
    """Lets policies act in the same episodes of Meta-World, and compares the first with the rest.

    Args:
        policy: an execution model, by catalogue name, file or as a `PolicySource`.
        others: what to compare it with.
        tasks: names of tasks; empty for all.
        episodes: per task, at least 2.
        seed: as in `rollout`.
        appearance: as in `rollout`, the same for all; None for plain pictures.
        workers: processes; None for as many as there are cores.
        progress: called with (parts done, parts in all).

    Returns:
        "success_rate" of each policy as of `success_rates`, in order; then for each of the others
        "success_rate_difference", the policy's minus the other's, as of `paired_success`.

    Raises:
        DegenerateError: if there are no others, or fewer than 2 episodes are asked for.
        MirrorError: as `rollout_outcomes` does.

    Example:
        >>> rollout_against("aligned.safetensors", ["independent.safetensors"])[-1].summary
        'aligned x independent: 0.029 [-0.004, 0.062], no relation gives 0.000, p 0.11'
    """
    if not others:
        raise DegenerateError("no policy to compare with; needed at least 1")
    _require_two(episodes)
    first, *rest = rollout_outcomes(
        [policy, *others], tasks=tasks, episodes=episodes, seed=seed, appearance=appearance,
        workers=workers, progress=progress,
    )  # fmt: skip
    rates = [score for outcomes in (first, *rest) for score in success_rates(outcomes)]
    return rates + [paired_success(first, other) for other in rest]


def rollout_drop(
    policy: str | Path | PolicySource,
    appearance: Appearance,
    *,
    tasks: Sequence[str] = (),
    episodes: int = 17,
    seed: int = 0,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Score]:
    """Lets a policy act in the same episodes of Meta-World in plain pictures and in others.

    Args:
        policy: an execution model, by catalogue name, file or as a `PolicySource`.
        appearance: as in `rollout`.
        tasks: names of tasks; empty for all.
        episodes: per task, at least 2.
        seed: as in `rollout`.
        workers: processes; None for as many as there are cores.
        progress: called with (parts done, parts in all).

    Returns:
        "success_rate" in plain pictures, then in the others, both as of `success_rates`; then
        "success_rate_difference", plain minus others, as of `paired_success`: how much is lost.

    Raises:
        DefinitionError: if the appearance is the plain one.
        DegenerateError: if fewer than 2 episodes are asked for.
        MirrorError: as `rollout_outcomes` does.

    Example:
        >>> tasks = ["drawer-open", "handle-press", "door-open"]
        >>> rollout_drop("reference-execution-s0", "camera-side", tasks=tasks, seed=1)[-1].value
        0.7254901960784313
    """
    if look_of(appearance) == Look():
        raise DefinitionError("nothing to lose in plain pictures; name a variant or give nuisance")
    _require_two(episodes)
    at, length = 0, 0

    def told(done: int, total: int) -> None:
        nonlocal length
        length = total
        if progress is not None:
            progress(at + done, 2 * total)

    found = []
    for shown in (appearance, None):  # in this order what cannot be is found out at once
        (outcomes,) = rollout_outcomes(
            policy, tasks=tasks, episodes=episodes, seed=seed, appearance=shown, workers=workers,
            progress=told,
        )  # fmt: skip
        found.append(outcomes)
        at = length
    other, plain = found
    return [*success_rates(plain), *success_rates(other), paired_success(plain, other)]


def success_rates(outcomes: Outcomes) -> list[Score]:
    """The share of episodes that were successes, with Wilson's interval.

    Args:
        outcomes: of one policy.

    Returns:
        "success_rate" in [0, 1]: one per task, then over all tasks.

    Example:
        >>> success_rates(load_outcomes(Path("rollouts/aligned-s0.json")))[-1].summary
        'reference-execution-s0 x all tasks: 0.752 [0.704, 0.795]'
    """
    won = np.array(outcomes.success)
    scores = [
        _success_rate(outcomes, task, row) for task, row in zip(outcomes.tasks, won, strict=True)
    ]
    return [*scores, _success_rate(outcomes, "all tasks", won)]


def _require_two(episodes: int) -> None:
    if episodes < 2:
        raise DegenerateError(f"{episodes} episodes per task to compare in; needed at least 2")


def _success_rate(
    outcomes: Outcomes, task: str, won: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]
) -> Score:
    count, trials = int(won.sum()), won.size
    return Score(
        "success_rate",
        count / trials,
        x=outcomes.policy,
        y=task,
        n=trials,
        interval=wilson(count, trials),
        parameters={
            "horizon": outcomes.horizon,
            "successes": count,
            "environment_seed": outcomes.environment_seed,
        },
        condition=outcomes.condition,
    )

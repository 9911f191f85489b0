"""Two policies, or two ways to train one, in the same episodes: does one succeed more often?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mirror_analysis.errors import DegenerateError, PairingError
from mirror_analysis.inference.estimate import Estimate
from mirror_analysis.inference.jackknife import folds
from mirror_analysis.results import Interval, Null, Score
from mirror_analysis.rollout.outcomes import Outcomes

_GROUPS = 32


def success_estimate(outcomes: Sequence[Outcomes]) -> Estimate:
    """The success rate per training seed, ready to be subtracted from that of another condition.

    The tasks are the ones that count, not a sample of tasks. Environment seeds are the sample:
    one seed draws the same random numbers in every task, so its episodes of all tasks are left
    out together in the jackknife.

    Args:
        outcomes: [training seed] in the same episodes.

    Returns:
        Success rates in [0, 1] with their jackknife replicates over groups of environment seeds,
        at most 32.

    Raises:
        PairingError: if they were not in the same episodes.
        DegenerateError: if there are no outcomes, or fewer than 2 environment seeds.

    Example:
        >>> difference = success_estimate(aligned) - success_estimate(independent)
        >>> difference.mean, difference.interval()
        (0.031, Interval(low=0.004, high=0.058, ...))
    """
    if not outcomes:
        raise DegenerateError("no outcomes to take a success rate of; needed at least one")
    for other in outcomes[1:]:
        _require_same_episodes(outcomes[0], other)
    seeds = outcomes[0].seeds
    if len(seeds) < 2:
        raise DegenerateError(
            f"outcomes of {len(seeds)} environment seed tell nothing of others; needed at least 2,"
            " so roll out more episodes per task"
        )
    won = np.array([one.success for one in outcomes], dtype=np.float64)  # [training, task, seed]
    fold = folds(np.array(seeds), count=_GROUPS)
    replicates = [won[:, :, fold != f].mean(axis=(1, 2)) for f in range(fold.max() + 1)]
    return Estimate(won.mean(axis=(1, 2)), np.stack(replicates, axis=1))


def paired_success(
    a: Outcomes | Sequence[Outcomes],
    b: Outcomes | Sequence[Outcomes],
    *,
    x: str = "",
    y: str = "",
) -> Score:
    """How much more often a succeeds than b in the same episodes.

    With one policy on either side p is McNemar's exact one, two-sided: of the episodes that only
    one of the two did, as many are a's as a fair coin would give. With several training seeds the
    interval holds for new seeds and new episodes, and there is no p.

    Args:
        a: outcomes of a policy, or of one training condition, [training seed].
        b: of another, with the same training seeds in the same order.
        x: what to call a; the name of its (first) policy when empty.
        y: what to call b.

    Returns:
        "success_rate_difference", a - b in [-1, 1], with a jackknife interval over environment
        seeds (and training seeds); none where no two episodes ended differently, for that does
        not show that none ever would. n counts the episodes of one policy.

    Raises:
        PairingError: if tasks, environment seeds, horizon or the number of training seeds differ.
        DegenerateError: if there are no outcomes, or fewer than 2 environment seeds.

    Source:
        McNemar 1947, in the exact form.

    Example:
        >>> paired_success(*rollout_outcomes(["aligned.safetensors", "independent.safetensors"]))
    """
    one, other = _listed(a), _listed(b)
    if len(one) != len(other):
        raise PairingError(
            f"{len(one)} training seeds against {len(other)}; compare the same seeds in the same"
            " order"
        )
    for left, right in zip(one, other, strict=True):
        _require_same_episodes(left, right)
    difference = success_estimate(one) - success_estimate(other)
    won = [np.array([outcomes.success for outcomes in side]) for side in (one, other)]
    only_a, only_b = int((won[0] & ~won[1]).sum()), int((won[1] & ~won[0]).sum())
    differing, episodes = only_a + only_b, won[0][0].size
    first, second = one[0], other[0]
    conditions = list(dict.fromkeys((first.condition, second.condition)))
    both = [outcomes.policy for outcomes in (first, second)]
    if both[0] == both[1] and len(conditions) == 2:
        both = [f"{name} ({word})" for name, word in zip(both, conditions, strict=True)]
    return Score(
        "success_rate_difference",
        difference.mean,
        x=x or both[0],
        y=y or both[1],
        n=episodes,
        interval=_interval(difference) if differing else None,
        null=_null(differing, episodes) if len(one) == 1 else None,
        p_value=mcnemar(only_a, only_b) if len(one) == 1 else None,
        parameters={
            "horizon": first.horizon,
            "environment_seed": first.environment_seed,
            "tasks": len(first.tasks),
            "training_seeds": len(one),
            "only_x": only_a,
            "only_y": only_b,
        },
        condition=", ".join(conditions),
        role="difference",
        note="" if differing else "no two episodes ended differently",
    )


def mcnemar(only_a: int, only_b: int) -> float:
    """McNemar's exact two-sided p (1947): min(1, 2 P(X <= min(a, b))) for X of a + b fair coins.

    Args:
        only_a: pairs in which a alone succeeded.
        only_b: pairs in which b alone did.

    Returns:
        In (0, 1]; 1 where there are no such pairs.

    Example:
        >>> mcnemar(9, 1)
        0.021484375
    """
    if only_a + only_b == 0:
        return 1.0
    from scipy.stats import binomtest

    return float(binomtest(only_a, only_a + only_b, 0.5).pvalue)


def _null(differing: int, episodes: int) -> Null:
    return Null(0.0, differing**0.5 / episodes, 0, "the two outcomes of each episode")


def _interval(difference: Estimate) -> Interval:
    found = difference.interval()
    method = found.method.replace("seeds", "training seeds").replace("units", "environment seeds")
    return Interval(max(-1.0, found.low), min(1.0, found.high), found.level, method)


def _listed(outcomes: Outcomes | Sequence[Outcomes]) -> list[Outcomes]:
    return [outcomes] if isinstance(outcomes, Outcomes) else list(outcomes)


def _require_same_episodes(a: Outcomes, b: Outcomes) -> None:
    for name in ("tasks", "seeds", "horizon"):
        if getattr(a, name) != getattr(b, name):
            what = "environment seeds" if name == "seeds" else name
            raise PairingError(
                f"{a.policy} and {b.policy} differ in their {what}; roll both out in one call of"
                " rollout_outcomes, or with the same tasks, episodes and seed"
            )

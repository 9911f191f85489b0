"""Estimates of mutual information against distributions whose information is known exactly."""

from __future__ import annotations

import numpy as np

from mirror_analysis.audit.checks import Check, Job, judged, near

_GROUP = "information"
_EXACT = (
    ("normal-bivariate-0.75", 0.413339),
    ("normal-dense-5x5-0.5", 0.592812),
    ("normal-dense-25x25-0.5", 1.292184),
    ("normal-dense-50x50-0.5", 1.624265),
    ("normal-sparse-25x25-2-pairs-0.8", 1.021651),
    ("student-identity-5x5-dof2", 0.448151),
    ("uniform-additive-0.1", 1.709438),
    ("uniform-additive-0.75", 0.333333),
)
_NORMAL = ("normal-bivariate-0.75", "normal-dense-5x5-0.5", "normal-sparse-25x25-2-pairs-0.8")
_NARROW = (
    "normal-bivariate-0.75",
    "normal-bivariate-0.75-half-cube",
    "normal-sparse-2x2-2-pairs-0.8",
    "student-identity-1x1-dof1-asinh",
    "uniform-additive-0.1",
    "uniform-additive-0.75",
)

_BOUNDED = (
    ("normal-bivariate-0.75", "quadratic"),
    ("normal-dense-5x5-0.5", "quadratic"),
    ("normal-sparse-25x25-2-pairs-0.8", "quadratic"),
    ("student-identity-1x1-dof1-asinh", "separable_mlp"),
    ("uniform-additive-0.75", "separable_mlp"),
)
# A lower bound that finds less than this part of what there is in few dimensions has not learnt.
_FOUND, _WIDE = 0.3, "25x25"


def jobs(quick: bool, seed: int) -> list[Job]:
    """Exact values, then each estimator on the tasks it is made for."""
    from mirror_analysis.information.variational import BOUNDS

    draws = 10 if quick else 40
    found = [Job(_GROUP, "exact values", exact)]
    for task in _NORMAL:
        arguments = {"task": task, "draws": draws, "seed": seed}
        found.append(Job(_GROUP, f"gaussian_mi, {task}", gaussian, arguments, 2.0))
    for task in _NARROW[:2] if quick else _NARROW:
        arguments = {"task": task, "draws": draws, "seed": seed}
        found.append(Job(_GROUP, f"ksg_mi, {task}", neighbours, arguments, 5.0))
    for bound in ("infonce",) if quick else BOUNDS:
        for task, critic in _BOUNDED[:1] if quick else _BOUNDED:
            arguments = {"bound": bound, "critic": critic, "task": task, "seed": seed}
            found.append(Job(_GROUP, f"{bound}, {task}", bounded, arguments, 2.0))
    return found


def exact() -> list[Check]:
    """The exact values, against those that were published."""
    from mirror_analysis.information.tasks import TASKS

    return [near(_GROUP, f"exact, {name}", TASKS[name].exact, v, 5e-7) for name, v in _EXACT]


def gaussian(task: str, draws: int, seed: int) -> list[Check]:
    """The mean of many estimates, within 4 standard errors: it is to be unbiased."""
    from mirror_analysis.information.gaussian import gaussian_mi
    from mirror_analysis.information.tasks import TASKS

    truth = TASKS[task].exact
    found = [gaussian_mi(*TASKS[task].sample(500, _seed(seed, i))) for i in range(draws)]
    error = 4 * float(np.std(found, ddof=1)) / draws**0.5
    note = f"mean of {draws} draws of 500; one is off by {np.std(found, ddof=1):.3f}"
    return [
        judged(
            _GROUP,
            f"gaussian_mi, {task}",
            float(np.mean(found)),
            low=truth - error,
            high=truth + error,
            note=note,
        )
    ]


def neighbours(task: str, draws: int, seed: int) -> list[Check]:
    """The mean of many estimates in few dimensions, within 0.03 nats or 5 %, and 4 standard errors.

    Neighbours in a strong relation see its curvature: the estimate is a little low, more so the
    stronger it is (Kraskov et al. 2004, figure 4).
    """
    from mirror_analysis.information.ksg import ksg_mi
    from mirror_analysis.information.tasks import TASKS

    truth = TASKS[task].exact
    found = [ksg_mi(*TASKS[task].sample(1000, _seed(seed, i))) for i in range(draws)]
    error = max(0.03, 0.05 * truth) + 4 * float(np.std(found, ddof=1)) / draws**0.5
    return [
        judged(
            _GROUP,
            f"ksg_mi, {task}",
            float(np.mean(found)),
            low=truth - error,
            high=truth + error,
            note=f"mean of {draws} draws of 1000",
        )
    ]


def bounded(bound: str, critic: str, task: str, seed: int) -> list[Check]:
    """A trained bound on unseen pairs: not above the truth by more than twice its half interval."""
    from mirror_analysis.information.config import EstimatorConfig
    from mirror_analysis.information.tasks import TASKS
    from mirror_analysis.information.variational import mutual_information

    truth = TASKS[task].exact
    x, y = TASKS[task].sample(4000, _seed(seed, 7))
    config = EstimatorConfig(steps=600, seeds=(seed,))
    score = mutual_information(x, y, bound=bound, critic=critic, draws=0, config=config)
    if score.value is None or score.interval is None:
        raise ValueError(f"no value: {score.undefined}")
    error = score.interval.high - score.interval.low
    return [
        judged(
            _GROUP,
            f"{bound}, {task}",
            score.value,
            low=None if _WIDE in task else _FOUND * truth,
            high=truth + error,
            note=f"{critic} critic, 1000 unseen pairs; exact {truth:.3f}",
        )
    ]


def _seed(seed: int, number: int) -> int:
    return 1000 * seed + number

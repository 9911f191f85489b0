"""Estimates of mutual information beside the exact value, per task and estimator, with seconds.

Run with `python benchmarks/information.py`; prints JSON. `--full` takes every task and critic.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable

import numpy as np

from mirror_analysis.errors import DegenerateError
from mirror_analysis.information import (
    TASKS,
    EstimatorConfig,
    gaussian_mi,
    ksg_mi,
    mutual_information,
)

SHORT = (
    "normal-bivariate-0.75",
    "normal-dense-5x5-0.5",
    "normal-sparse-25x25-2-pairs-0.8",
    "student-identity-5x5-dof2",
    "uniform-additive-0.1",
)
CRITICS = ("quadratic", "separable_linear", "separable_mlp")
BOUNDS = ("donsker_varadhan", "infonce", "jensen_shannon", "mine", "nwj", "smile")

Estimator = Callable[[np.ndarray, np.ndarray], float | None]


def variational(bound: str, critic: str, inputs: str = "standard") -> Estimator:
    config = EstimatorConfig(seeds=(0,), inputs=inputs)

    def estimate(x: np.ndarray, y: np.ndarray) -> float | None:
        try:
            score = mutual_information(x, y, bound=bound, critic=critic, draws=0, config=config)
        except DegenerateError:  # diverged, on heavy tails
            return None
        return score.value

    return estimate


def estimators(full: bool) -> dict[str, Estimator]:
    found: dict[str, Estimator] = {
        "gaussian_mi": gaussian_mi,
        "ksg_mi k=3": ksg_mi,
        "ksg_mi k=10": lambda x, y: ksg_mi(x, y, k=10),
    }
    for critic in CRITICS:
        for bound in BOUNDS if full or critic == "quadratic" else ("infonce",):
            found[f"{bound} {critic}"] = variational(bound, critic)
    for critic in ("quadratic", "separable_mlp"):
        label = f"infonce {critic} normal_scores"
        found[label] = variational("infonce", critic, "normal_scores")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--samples", type=int, default=5000)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--tasks", nargs="*", choices=sorted(TASKS))
    options = parser.parse_args()
    report = []
    for name in options.tasks or (sorted(TASKS) if options.full else SHORT):
        task = TASKS[name]
        samples = [task.sample(options.samples, seed) for seed in range(options.seeds)]
        for label, estimate in estimators(options.full).items():
            start = time.perf_counter()
            values = [estimate(x, y) for x, y in samples]
            known = [value for value in values if value is not None]
            report.append(
                {
                    "task": name,
                    "exact": round(task.exact, 6),
                    "estimator": label,
                    "values": [round(value, 4) for value in known],
                    "bias": round(float(np.mean(known)) - task.exact, 4) if known else None,
                    "undefined": len(values) - len(known),
                    "seconds": round((time.perf_counter() - start) / len(values), 2),
                }
            )
            print(report[-1], file=sys.stderr)
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()

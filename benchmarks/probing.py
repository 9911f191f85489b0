"""Probes of all layers, folds and strengths in one solve, beside scikit-learn's loop.

    python -m benchmarks.probing [--quick] [--rounds N] [--threads N] [--out FILE]

Both sides get the same standardised rows and folds, choose a strength on the same validation part
by the same rule, fit again and predict the same test rows; scikit-learn is called as anybody would,
one fit after the other, with its default solver and enough iterations, at its default tolerance and
at one where it has nearly converged. Sides take turns and the least time of each counts. Prints
JSON; rows go to standard error as they come.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.speed import record
from mirror_analysis.probing.folds import Fold, grouped_folds
from mirror_analysis.probing.nested import (
    knn_predictions,
    logistic_predictions,
    ridge_predictions,
)
from mirror_analysis.probing.settings import Probe

Values = np.ndarray


@dataclass(frozen=True)
class Size:
    """How much is decoded: layers of these widths over so many rows of so many classes."""

    rows: int = 720
    classes: int = 36
    widths: tuple[int, ...] = (128, 256, 512, 1024)
    folds: int = 5


QUICK = Size(360, 18, (128, 512), 3)


def drawn(size: Size, seed: int = 0) -> tuple[list[Values], Values, list[Fold]]:
    """Layers whose variances fall off as a power of rank, as those of networks do."""
    rng = np.random.default_rng(seed)
    y = np.arange(size.rows) % size.classes
    layers = []
    for width in size.widths:
        spectrum = np.arange(1, width + 1) ** -0.75
        centers = rng.normal(size=(size.classes, width)) * spectrum
        hidden = 0.55 * centers[y] + rng.normal(size=(size.rows, width)) * spectrum
        turned = hidden @ np.linalg.qr(rng.normal(size=(width, width)))[0]
        layers.append(np.maximum(turned, -0.5 * turned.std()).astype(np.float32))
    return layers, y, grouped_folds(np.arange(size.rows), count=size.folds, spread=y)


def standardised(x: Values, fit: Values, asked: Values) -> tuple[Values, Values]:
    mean, spread = x[fit].mean(axis=0), x[fit].std(axis=0)
    return (x[fit] - mean) / spread, (x[asked] - mean) / spread


def loop(
    layers: list[Values],
    y: Values,
    folds: list[Fold],
    make: Callable[[float, int], object],
    settings: tuple[float, ...],
    last: bool,
) -> list[Values]:
    """Layers x folds x settings, one fit after the other; predictions of all test rows."""
    found = []
    for x in layers:
        told = np.zeros_like(y)
        for fold in folds:
            fit, asked = standardised(x, fold.fit, fold.validation)
            scores = [
                make(s, len(fit)).fit(fit, y[fold.fit]).score(asked, y[fold.validation])  # type: ignore[attr-defined]
                for s in settings
            ]
            best = len(scores) - 1 - int(np.argmax(scores[::-1])) if last else np.argmax(scores)
            fit, asked = standardised(x, fold.known, fold.test)
            chosen = make(settings[best], len(fit)).fit(fit, y[fold.known])  # type: ignore[attr-defined]
            told[fold.test] = chosen.predict(asked)
        found.append(told)
    return found


Sides = tuple[Callable[[], list[Values]], Callable[[], list[Values]]]


def logistic(
    layers: list[Values], y: Values, folds: list[Fold], *, tolerance: float = 1e-4
) -> Sides:
    from sklearn.linear_model import LogisticRegression

    settings = Probe()
    classes = int(y.max()) + 1

    def ours() -> list[Values]:
        found = logistic_predictions(layers, y, folds, classes=classes, probe=settings)
        return [one.values[0] for one in found]

    def theirs() -> list[Values]:
        make = lambda s, n: LogisticRegression(  # noqa: E731
            C=1 / (s * n), tol=tolerance, max_iter=5000
        )
        return loop(layers, y, folds, make, settings.penalties("logistic"), last=False)

    return ours, theirs


def ridge(layers: list[Values], y: Values, folds: list[Fold]) -> Sides:
    from sklearn.linear_model import Ridge

    settings = Probe()
    rng = np.random.default_rng(1)
    quantity = layers[0][:, :4].sum(axis=1) + rng.normal(size=len(y)) * layers[0].std()
    quantity = quantity.astype(np.float64)

    def ours() -> list[Values]:
        ys = quantity[None, :, None]
        return [ridge_predictions(x, ys, folds, probe=settings).values[0, :, 0] for x in layers]

    def theirs() -> list[Values]:
        make = lambda s, n: Ridge(alpha=s * n)  # noqa: E731
        return loop(layers, quantity, folds, make, settings.penalties("ridge"), last=False)

    return ours, theirs


def knn(layers: list[Values], y: Values, folds: list[Fold]) -> Sides:
    from sklearn.neighbors import KNeighborsClassifier

    settings, classes = Probe(), int(y.max()) + 1

    def ours() -> list[Values]:
        return [
            knn_predictions(x, y[None], folds, classes=classes, probe=settings).values[0]
            for x in layers
        ]

    def theirs() -> list[Values]:
        make = lambda k, n: KNeighborsClassifier(k)  # noqa: E731
        return loop(layers, y, folds, make, settings.neighbours, last=True)

    return ours, theirs


SIDES: dict[str, Callable[[list[Values], Values, list[Fold]], Sides]] = {
    # At its default tolerance scikit-learn stops weakly penalised fits short of their optimum.
    "logistic": logistic,
    "logistic, scikit-learn at 1e-6": partial(logistic, tolerance=1e-6),
    "ridge": ridge,
    "knn": knn,
}


def measured(name: str, sides: Sides, warm: Sides, y: Values, rounds: int) -> dict[str, object]:
    """Least seconds of each side over the rounds, and how far their answers are apart."""
    walls, cpus, told = [[], []], [[], []], [[], []]  # type: ignore[var-annotated]
    for side in warm:
        side()
    for _ in range(rounds):
        for number, side in enumerate(sides):
            wall, cpu = time.perf_counter(), time.process_time()
            told[number] = side()
            walls[number].append(time.perf_counter() - wall)
            cpus[number].append(time.process_time() - cpu)
    row: dict[str, object] = {
        "estimator": name,
        "ours_s": round(min(walls[0]), 3),
        "scikit_learn_s": round(min(walls[1]), 3),
        "ratio": round(min(walls[1]) / min(walls[0]), 1),
        "cpu_ratio": round(min(cpus[1]) / min(cpus[0]), 1),
    }
    if name == "ridge":
        row["largest_difference"] = float(
            max(np.abs(a - b).max() for a, b in zip(*told, strict=True))
        )
        return row
    accuracies = [[float((t == y).mean()) for t in side] for side in told]
    row["accuracy"] = [round(float(np.mean(a)), 4) for a in accuracies]
    row["mean_difference_points"] = round(100 * float(np.subtract(*accuracies).mean()), 3)
    row["largest_layer_difference_points"] = round(
        100 * float(np.abs(np.subtract(*accuracies)).max()), 3
    )
    row["same_answers"] = round(
        float(np.mean([(a == b).mean() for a, b in zip(*told, strict=True)])), 4
    )
    return row


def main() -> None:
    """Runs every estimator and prints what it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes, seconds")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", nargs="+", choices=tuple(SIDES))
    parser.add_argument("--rows", type=int, help="instead of the row's own number")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    import torch
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(asked.threads)
    size = QUICK if asked.quick else Size()
    if asked.rows:
        size = Size(asked.rows, size.classes, size.widths, size.folds)
    layers, y, folds = drawn(size)
    rows = []
    with threadpool_limits(asked.threads), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, make in SIDES.items():
            if asked.only and name not in asked.only:
                continue
            sides = make(layers, y, folds)
            warm = make([x[:, :8] for x in layers[:1]], y, folds[:1])
            rows.append(measured(name, sides, warm, y, asked.rounds))
            sys.stderr.write(f"{rows[-1]}\n")
    found = {
        "machine": str(record.slug(record.machine(asked.threads))),
        "threads": asked.threads,
        "rows": size.rows,
        "classes": size.classes,
        "widths": list(size.widths),
        "folds": size.folds,
        "estimators": rows,
    }
    text = json.dumps(found, indent=1)
    if asked.out:
        asked.out.write_text(text + "\n")
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    main()

"""Probes of all layers, folds and strengths in one solve, beside scikit-learn's loop.

    python -m benchmarks.probing [--quick] [--rounds N] [--threads N] [--out FILE]

Both sides get the same float32 rows and folds, choose a strength on the same validation part by the
same rule, fit again and predict the same test rows; scikit-learn is called as anybody would, one
fit after the other, with its default solver and enough iterations. Logistic regression stops by a
tolerance, so it has two rows: both sides as they come, and each at the loosest of its tolerances
whose test accuracy is within 0.2 points of where scikit-learn in float64 converges (tol 1e-8), in
the mean over layers of the absolute difference. Ridge and neighbours are judged against labels
that were permuted and fitted again, so they have a second row with 20 labellings. Sides take turns
and the least time of each counts. Prints JSON; rows go to standard error as they come.
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


# Points of accuracy by which fits may differ from converged ones.
EQUAL = 0.2
# Ours and scikit-learn's, from loose to strict; each means something else.
TOLERANCES = ((3e-2, 1e-2, 5e-3, 2e-3, 1e-3), (1e-4, 1e-5, 1e-6, 1e-7, 1e-8))
EQUALLY = "logistic, equal accuracy"
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
    layers: list[Values],
    y: Values,
    folds: list[Fold],
    *,
    tolerances: tuple[float, float] = (Probe().tolerance, 1e-4),
) -> Sides:
    from sklearn.linear_model import LogisticRegression

    settings = Probe(tolerance=tolerances[0])
    classes = int(y.max()) + 1

    def ours() -> list[Values]:
        found = logistic_predictions(layers, y, folds, classes=classes, probe=settings)
        return [one.values[0] for one in found]

    def theirs() -> list[Values]:
        make = lambda s, n: LogisticRegression(  # noqa: E731
            C=1 / (s * n), tol=tolerances[1], max_iter=20_000
        )
        return loop(layers, y, folds, make, settings.penalties("logistic"), last=False)

    return ours, theirs


def accuracies(told: list[Values], y: Values) -> Values:
    """Of each layer, in points; of several labellings the first, which are the labels."""
    return np.array([100 * (np.atleast_2d(t)[0] == y).mean() for t in told])


def loosest(
    layers: list[Values], y: Values, folds: list[Fold], best: Values
) -> tuple[float, float]:
    """Loosest tolerance of each side that is as accurate as converged fits, as all stricter are."""
    found = []
    for side, (*looser, strictest) in enumerate(TOLERANCES):
        found.append(strictest)
        for tolerance in (strictest, *reversed(looser)):
            pair = (tolerance, tolerance)
            told = accuracies(logistic(layers, y, folds, tolerances=pair)[side](), y)
            if np.abs(told - best).mean() > EQUAL:
                break
            found[side] = tolerance
    return found[0], found[1]


def ridge(layers: list[Values], y: Values, folds: list[Fold], *, labellings: int = 1) -> Sides:
    from sklearn.linear_model import Ridge

    settings = Probe()
    rng = np.random.default_rng(1)
    quantity = layers[0][:, :4].sum(axis=1) + rng.normal(size=len(y)) * layers[0].std()
    drawn = permuted(quantity.astype(np.float64), labellings)

    def ours() -> list[Values]:
        ys = drawn[:, :, None]
        return [ridge_predictions(x, ys, folds, probe=settings).values[..., 0] for x in layers]

    def theirs() -> list[Values]:
        make = lambda s, n: Ridge(alpha=s * n)  # noqa: E731
        grid = settings.penalties("ridge")
        each = [loop(layers, ys, folds, make, grid, last=False) for ys in drawn]
        return [np.stack(told) for told in zip(*each, strict=True)]

    return ours, theirs


def knn(layers: list[Values], y: Values, folds: list[Fold], *, labellings: int = 1) -> Sides:
    from sklearn.neighbors import KNeighborsClassifier

    settings, classes = Probe(), int(y.max()) + 1
    drawn = permuted(y, labellings)

    def ours() -> list[Values]:
        return [
            knn_predictions(x, drawn, folds, classes=classes, probe=settings).values for x in layers
        ]

    def theirs() -> list[Values]:
        make = lambda k, n: KNeighborsClassifier(k)  # noqa: E731
        each = [loop(layers, ys, folds, make, settings.neighbours, last=True) for ys in drawn]
        return [np.stack(told) for told in zip(*each, strict=True)]

    return ours, theirs


def permuted(labels: Values, count: int) -> Values:
    """The labels as they are, and permuted for every further labelling."""
    rng = np.random.default_rng(2)
    return np.stack([labels] + [rng.permutation(labels) for _ in range(count - 1)])


SIDES: dict[str, Callable[[list[Values], Values, list[Fold]], Sides]] = {
    "logistic": logistic,
    "ridge": ridge,
    "knn": knn,
    "ridge, 20 labellings": partial(ridge, labellings=20),
    "knn, 20 labellings": partial(knn, labellings=20),
}
NAMES = ("logistic", EQUALLY, *(name for name in SIDES if name != "logistic"))


def measured(
    name: str, sides: Sides, warm: Sides, y: Values, rounds: int, best: Values | None
) -> dict[str, object]:
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
    if "ridge" in name:
        row["largest_difference"] = float(
            max(np.abs(a - b).max() for a, b in zip(*told, strict=True))
        )
        return row
    points = [accuracies(side, y) for side in told]
    row["accuracy"] = [round(float(np.mean(a)), 2) for a in points]
    apart = np.abs(points[0] - points[1])
    row["layers_apart_points"] = {
        "mean": round(float(apart.mean()), 3), "largest": round(float(apart.max()), 3),
    }  # fmt: skip
    if best is not None:
        row["from_converged_points"] = [round(float(np.abs(a - best).mean()), 3) for a in points]
    row["same_answers"] = round(
        float(np.mean([(a == b).mean() for a, b in zip(*told, strict=True)])), 4
    )
    return row


def total(rows: list[dict[str, object]], names: tuple[str, ...]) -> dict[str, object]:
    """Seconds of several rows together."""
    own = [row for row in rows if row["estimator"] in names]
    ours, theirs = (sum(float(str(row[k])) for row in own) for k in ("ours_s", "scikit_learn_s"))
    return {
        "estimator": "total of " + "; ".join(names),
        "ours_s": round(ours, 3),
        "scikit_learn_s": round(theirs, 3),
        "ratio": round(theirs / ours, 1),
    }


def main() -> None:
    """Runs every estimator and prints what it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes, seconds")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", nargs="+", choices=NAMES)
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
    asked_for = tuple(name for name in NAMES if not asked.only or name in asked.only)
    with threadpool_limits(asked.threads), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        best = None
        makers = dict(SIDES)
        if any("logistic" in name for name in asked_for):
            wide = [x.astype(np.float64) for x in layers]
            best = accuracies(logistic(wide, y, folds, tolerances=(1e-8, 1e-8))[1](), y)
        if EQUALLY in asked_for and best is not None:
            pair = loosest(layers, y, folds, best)
            makers[EQUALLY] = partial(logistic, tolerances=pair)
        for name in asked_for:
            make = makers[name]
            warm = make([x[:, :8] for x in layers[:1]], y, folds[:1])
            converged = best if "logistic" in name else None
            rows.append(measured(name, make(layers, y, folds), warm, y, asked.rounds, converged))
            if name == EQUALLY:
                rows[-1]["tolerances"] = list(pair)
            sys.stderr.write(f"{rows[-1]}\n")
        if asked_for == NAMES:
            rows.append(total(rows, (EQUALLY, "ridge", "knn")))
            rows.append(total(rows, (EQUALLY, *(n for n in NAMES if "labellings" in n))))
            sys.stderr.write(f"{rows[-2]}\n{rows[-1]}\n")
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

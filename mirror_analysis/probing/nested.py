"""Predictions of every test row, each fold's strength chosen on its validation part."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mirror_analysis.errors import DegenerateError
from mirror_analysis.probing.folds import Fold
from mirror_analysis.probing.logistic import logistic_path
from mirror_analysis.probing.nearest import nearest_rows, neighbour_means, neighbour_votes
from mirror_analysis.probing.ridge import ridge_path
from mirror_analysis.probing.settings import Probe
from mirror_analysis.probing.span import moments, span

# What the problems solved together may hold: little on a CPU, whose caches keep it at hand.
_BYTES = {"cpu": 1 << 27, "cuda": 1 << 29}
# Labellings predicted together.
_DRAWS = 25
# Scores that differ by less than rounding are equal.
_TIE = 1e-9
# Below this float32 cannot tell a small gradient from rounding.
_FINE = 1e-3

Told = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Predicted:
    """Predictions of test rows by fits that have not seen their groups.

    Attributes:
        values: [draw, row] class numbers or [draw, row, quantity]; -1 or NaN in rows that are
            not tested. The first draw is the observed labels.
        chosen: [fold] strength or number of neighbours, of the observed labels.
        constant: a fold in whose fit rows no feature varies, None if there is none.
    """

    values: NDArray[Any]
    chosen: NDArray[np.float64]
    constant: int | None


def logistic_predictions(
    layers: Sequence[NDArray[Any]],
    labels: NDArray[np.int64],
    folds: Sequence[Fold],
    *,
    classes: int,
    probe: Probe,
    told: Told | None = None,
) -> list[Predicted]:
    """All layers, folds and strengths in as few batched solves as widths and memory allow.

    Args:
        layers: each [row, feature].
        labels: [row] class numbers.
        folds: what is fitted, chosen and tested on.
        classes: how many there are.
        probe: the settings.
        told: called with (problems done, problems in all).
    """
    values = np.full((len(layers), 1, len(labels)), -1, dtype=np.int64)
    chosen = np.zeros((len(layers), len(folds)))
    strengths = torch.tensor(probe.penalties("logistic"), dtype=torch.float64)
    still = [_constant_fold(x, folds) for x in layers]
    done = sum(s is not None for s in still) * len(folds)
    widths: dict[int, list[int]] = {}
    for number, x in enumerate(layers):
        if still[number] is None:
            widths.setdefault(x.shape[1], []).append(number)
    for width, members in widths.items():
        problems = [(layer, fold) for layer in members for fold in range(len(folds))]
        most = _together(width, folds, classes, probe)
        for begin in range(0, len(problems), most):
            chunk = problems[begin : begin + most]
            found, best = _solve(layers, labels, folds, chunk, classes, strengths, probe)
            for (layer, fold), rows, one in zip(chunk, found, best, strict=True):
                values[layer, 0, folds[fold].test] = rows
                chosen[layer, fold] = float(strengths[one])
            done += len(chunk)
            if told is not None:
                told(done, len(layers) * len(folds))
    return [Predicted(v, c, s) for v, c, s in zip(values, chosen, still, strict=True)]


def _together(width: int, folds: Sequence[Fold], classes: int, probe: Probe) -> int:
    """How many problems are solved at once."""
    strengths = len(probe.penalties("logistic"))
    rows = max(len(fold.known) for fold in folds)
    axes = min(width, rows) + 1
    per_problem = 8 * 3 * rows * width + 4 * axes * (width + 3 * rows)
    per_problem += 4 * classes * (axes * (strengths + 14) + 5 * rows)
    return max(1, _BYTES.get(torch.device(probe.device).type, _BYTES["cuda"]) // per_problem)


def _solve(
    layers: Sequence[NDArray[Any]],
    labels: NDArray[np.int64],
    folds: Sequence[Fold],
    chunk: Sequence[tuple[int, int]],
    classes: int,
    strengths: Tensor,
    probe: Probe,
) -> tuple[list[NDArray[np.int64]], list[int]]:
    """Test predictions of each problem (layer, fold), and the number of the strength chosen."""
    dtype = torch.float32 if probe.tolerance >= _FINE else torch.float64

    def gathered(part: str) -> tuple[Tensor, Tensor]:
        """Features [problem, row, feature] and labels [problem, row], -1 in padding."""
        rows = [getattr(folds[fold], part) for _, fold in chunk]
        longest = max(map(len, rows))
        x = np.zeros((len(chunk), longest, layers[chunk[0][0]].shape[1]), dtype=np.float32)
        y = np.full((len(chunk), longest), -1, dtype=np.int64)
        for number, ((layer, _), own) in enumerate(zip(chunk, rows, strict=True)):
            x[number, : len(own)] = layers[layer][own]
            y[number, : len(own)] = labels[own]
        return torch.from_numpy(x).to(probe.device), torch.from_numpy(y).to(probe.device)

    own = strengths.to(probe.device).repeat(len(chunk), 1)
    x, y = gathered("fit")
    inner = span(x, y >= 0, dtype=dtype)
    path = logistic_path(inner, y, own, classes=classes, tolerance=probe.tolerance)
    x, y = gathered("validation")
    named = path.logits(inner.place(x.to(dtype))).argmax(dim=3)
    weight = _row_weights(y, classes, probe.balanced)
    right = ((named == y[:, None]) * weight[:, None]).sum(dim=2)
    # Of equally good strengths the strongest, which comes first.
    best = torch.tensor([_first_best(r) for r in right.cpu().numpy()], device=own.device)
    each = torch.arange(len(chunk), device=own.device)
    w, b = inner.weights(path.v[each, best])
    del path, inner
    x, y = gathered("known")
    outer = span(x, y >= 0, dtype=dtype)
    path = logistic_path(
        outer, y, own.gather(1, best[:, None]), classes=classes, tolerance=probe.tolerance,
        start=outer.coordinates(w, b),
    )  # fmt: skip
    x, y = gathered("test")
    found = path.logits(outer.place(x.to(dtype)))[:, 0].argmax(dim=2)
    counts = (y >= 0).sum(dim=1).tolist()
    return [f[:c].cpu().numpy() for f, c in zip(found, counts, strict=True)], best.tolist()


def ridge_predictions(
    x: NDArray[Any], ys: NDArray[np.float64], folds: Sequence[Fold], *, probe: Probe
) -> Predicted:
    """One layer, and any number of labellings, which share every decomposition.

    Args:
        x: [row, feature].
        ys: [draw, row, quantity].
        folds: what is fitted, chosen and tested on.
        probe: the settings.
    """
    values = np.full(ys.shape, np.nan)
    chosen = np.zeros(len(folds))
    strengths = torch.tensor([probe.penalties("ridge")], dtype=torch.float64, device=probe.device)
    features = torch.from_numpy(np.asarray(x, dtype=np.float64)).to(probe.device)
    labels = torch.from_numpy(ys).to(probe.device)
    for number, fold in enumerate(folds):
        inner, outer = (
            span(features[rows][None], torch.ones(1, len(rows), dtype=torch.bool).to(probe.device))
            for rows in (fold.fit, fold.known)
        )
        if bool(outer.spread.isinf().all()) or bool(inner.spread.isinf().all()):
            return Predicted(values, chosen, number)
        asked, tested = (
            inner.place(features[None, fold.validation]),
            outer.place(features[None, fold.test]),
        )
        for begin in range(0, len(ys), _DRAWS):
            part = labels[begin : begin + _DRAWS]
            fitted = ridge_path(inner, _side_by_side(part[:, fold.fit])[None], strengths)[0]
            truth = part[:, fold.validation].permute(1, 0, 2)
            error = _apart(asked @ fitted, truth) - truth
            total = (truth - truth.mean(dim=0)).square().sum(dim=0)
            # A quantity that does not vary here has no say.
            lost = error.square().sum(dim=1) / torch.where(total > 0, total, torch.inf)
            best = lost.mean(dim=2).argmin(dim=0)
            fitted = ridge_path(outer, _side_by_side(part[:, fold.known])[None], strengths)[0]
            fitted = _apart(fitted, truth)
            own = fitted[best, :, torch.arange(len(part), device=best.device)]
            values[begin : begin + _DRAWS, fold.test] = (tested @ own).cpu().numpy()
            if begin == 0:
                chosen[number] = float(strengths[0, best[0]])
    return Predicted(values, chosen, None)


def knn_predictions(
    x: NDArray[Any], ys: NDArray[Any], folds: Sequence[Fold], *, classes: int, probe: Probe
) -> Predicted:
    """One layer, and any number of labellings, which share every neighbour.

    Args:
        x: [row, feature].
        ys: [draw, row] class numbers, or [draw, row, quantity].
        folds: what is fitted, chosen and tested on.
        classes: how many there are; 0 for quantities.
        probe: the settings.

    Raises:
        DegenerateError: if there are fewer fit rows than the least number of neighbours.
    """
    least = min(len(fold.fit) for fold in folds)
    ks = [k for k in sorted(set(probe.neighbours)) if k <= least]
    if not ks:
        raise DegenerateError(
            f"{least} fit rows have no {min(probe.neighbours)} neighbours; ask for fewer"
            " neighbours or add episodes"
        )
    values = np.full(ys.shape, -1 if classes else np.nan, dtype=ys.dtype)
    chosen = np.zeros(len(folds))
    features = torch.from_numpy(np.asarray(x, dtype=np.float64)).to(probe.device)
    labels = torch.from_numpy(ys).to(probe.device)
    for number, fold in enumerate(folds):
        inner = _neighbours(features, fold.fit, fold.validation, ks[-1])
        outer = _neighbours(features, fold.known, fold.test, ks[-1])
        if inner is None or outer is None:
            return Predicted(values, chosen, number)
        for begin in range(0, len(ys), _DRAWS):
            part = labels[begin : begin + _DRAWS]
            draws = torch.arange(len(part), device=part.device)
            told = _told(part[:, fold.fit], inner, ks, classes)
            truth = part[:, fold.validation]
            if classes:
                weight = _row_weights(truth, classes, probe.balanced)
                good = ((told == truth) * weight).sum(dim=2)
            else:
                total = (truth - truth.mean(dim=1, keepdim=True)).square().sum(dim=1)
                lost = (told - truth).square().sum(dim=2)
                good = -(lost / torch.where(total > 0, total, torch.inf)).mean(dim=2)
            # Of numbers equally good up to rounding the largest, which is the smoothest.
            tied = good.flip(0) >= good.amax(dim=0) - _TIE
            best = len(ks) - 1 - tied.int().argmax(dim=0)
            told = _told(part[:, fold.known], outer, ks, classes)[best, draws]
            values[begin : begin + _DRAWS, fold.test] = told.cpu().numpy()
            if begin == 0:
                chosen[number] = ks[int(best[0])]
    return Predicted(values, chosen, None)


def _neighbours(
    features: Tensor, fit: NDArray[np.int64], asked: NDArray[np.int64], k: int
) -> Tensor | None:
    """Neighbours after standardising by the fit rows; None where no feature varies."""
    rows = features[fit]
    mean, spread = moments(rows[None], torch.ones(1, len(rows), dtype=torch.bool).to(rows.device))
    if bool(spread.isinf().all()):
        return None
    return nearest_rows((rows - mean) / spread, (features[asked] - mean) / spread, k=k)


def _told(labels: Tensor, found: Tensor, ks: Sequence[int], classes: int) -> Tensor:
    """[neighbours, draw, other] classes, or [neighbours, draw, other, quantity]."""
    if classes:
        return neighbour_votes(labels, found, ks, classes=classes)
    means = neighbour_means(_side_by_side(labels), found, ks)
    return _apart(means, labels.permute(1, 0, 2)).permute(0, 2, 1, 3)


def _side_by_side(ys: Tensor) -> Tensor:
    """[draw, row, quantity] as [row, draw * quantity]."""
    return ys.permute(1, 0, 2).flatten(1)


def _apart(together: Tensor, like: Tensor) -> Tensor:
    """[..., draw * quantity] as [..., draw, quantity], with as many of each as `like` has last."""
    return together.reshape(*together.shape[:-1], *like.shape[-2:])


def _row_weights(y: Tensor, classes: int, balanced: bool) -> Tensor:
    """[problem, row] weights that sum to 1: each row alike, or each class alike; 0 in padding."""
    there = (y >= 0).to(torch.float64)
    if balanced:
        counts = torch.zeros((*y.shape[:-1], classes), dtype=torch.float64, device=y.device)
        counts.scatter_add_(-1, y.clamp(min=0), there)
        there = there / counts.gather(-1, y.clamp(min=0)).clamp(min=1)
    return there / there.sum(dim=-1, keepdim=True)


def _first_best(scores: NDArray[np.float64]) -> int:
    """The first of the largest entries, up to rounding."""
    return int(np.argmax(scores >= scores.max() - _TIE))


def _constant_fold(x: NDArray[Any], folds: Sequence[Fold]) -> int | None:
    for number, fold in enumerate(folds):
        rows = torch.from_numpy(np.asarray(x[fold.fit], dtype=np.float64))[None]
        there = torch.ones(1, rows.shape[1], dtype=torch.bool)
        if bool(moments(rows, there)[1].isinf().all()):
            return number
    return None

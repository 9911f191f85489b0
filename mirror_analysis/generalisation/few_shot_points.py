"""Points of a few-shot curve: their interval, their differences and their table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy import stats

from mirror_analysis.errors import PairingError
from mirror_analysis.inference.proportion import wilson
from mirror_analysis.results import Interval, Score

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class Shots:
    """A point of the curve, and what it takes to subtract another from it.

    Attributes:
        score: the number with interval and null; undefined where labelled episodes are too few.
        values: [seed] mean over draws.
        replicates: [seed, fold] the same without each group of test episodes.
        by_draw: [seed, draw] over all test episodes; at "all" one column per group of labelled
            episodes that was left out.
        episodes: [episode] ids it was tested on, sorted.
    """

    score: Score
    values: NDArray[np.float64]
    replicates: NDArray[np.float64]
    by_draw: NDArray[np.float64]
    episodes: NDArray[np.str_]


def few_shot_gain(after: Sequence[Shots], before: Sequence[Shots]) -> list[Shots]:
    """The difference of two curves, point by point, on the same shots and test episodes.

    Args:
        after: one curve.
        before: another one of the same episodes, settings and training seeds.

    Returns:
        Points of role "difference", `after - before`.

    Raises:
        PairingError: if the curves are not of the same shots, draws, seeds and episodes.

    Example:
        >>> [point.score.interval for point in few_shot_gain(aligned, independent)]
    """
    if len(after) != len(before):
        raise PairingError(f"after has {len(after)} points and before {len(before)}; needed equal")
    points = []
    for a, b in zip(after, before, strict=True):
        same = (
            a.score.parameters == b.score.parameters
            and np.array_equal(a.episodes, b.episodes)
            and a.by_draw.shape == b.by_draw.shape
            and a.replicates.shape == b.replicates.shape
        )
        if not same:
            raise PairingError(
                f"after is of {_settings(a)} and before of {_settings(b)}; make both with the same"
                " settings from the same episodes"
            )
        score = msgspec.structs.replace(a.score, role="difference", null=None, p_value=None,
                                        ceiling=None)  # fmt: skip
        point = Shots(
            score,
            a.values - b.values,
            a.replicates - b.replicates,
            a.by_draw - b.by_draw,
            a.episodes,
        )
        points.append(point if score.undefined else with_interval(point, lowest=-1.0))
    return points


def curve_frame(curves: Mapping[str, Sequence[Shots]]) -> pd.DataFrame:
    """A tidy table of curves to plot, one row per point.

    Args:
        curves: name -> points.

    Returns:
        Columns curve, shots (labelled episodes per class, the mean at "all"), all, labelled
        (episodes shown), value, low, high, chance, n, role; points not defined are left out.

    Example:
        >>> table = curve_frame({"independent": before, "aligned": after})
        >>> table.pivot(index="shots", columns="curve", values="value")
    """
    import pandas as pd

    rows = [
        {
            "curve": name,
            **{k: point.score.parameters[k] for k in ("shots", "all", "labelled")},
            "value": point.score.value,
            "low": point.score.interval.low,
            "high": point.score.interval.high,
            "chance": None if point.score.null is None else point.score.null.mean,
            "n": point.score.n,
            "role": point.score.role,
        }
        for name, points in curves.items()
        for point in points
        if point.score.interval is not None
    ]
    return pd.DataFrame(rows)


def with_interval(point: Shots, *, lowest: float) -> Shots:
    """The point with its value and its interval, no lower than `lowest`."""
    parameters = point.score.parameters
    means, drawn = point.replicates.mean(axis=0), point.by_draw.mean(axis=0)
    parts = [(_jackknife(means), len(means) - 1)]
    if parameters["all"]:
        parts.append((_jackknife(drawn), len(drawn) - 1))
        shown = f"{len(drawn)} groups of labelled episodes"
    else:
        shots, smallest = int(parameters["shots"]), int(parameters["smallest"])
        factor = shots / (smallest - shots) + 1 / len(drawn)
        parts.append((factor * float(drawn.var(ddof=1)), smallest - 1))
        shown = f"{len(drawn)} draws of shots"
    seeds = len(point.values)
    if seeds > 1:
        parts.append((float(point.values.var(ddof=1)) / seeds, seeds - 1))
    variance = sum(part for part, _ in parts)
    value, n = float(point.values.mean()), point.score.n
    if variance > 0:
        # Satterthwaite, 1946.
        freedom = variance**2 / sum(part**2 / of for part, of in parts)
        half = float(stats.t.ppf(0.975, freedom)) * variance**0.5
        method = f"jackknife over {len(means)} groups of test episodes and {shown}"
        method += f" and {seeds} seeds" if seeds > 1 else ""
    else:
        half, method = wilson(0, n).high, f"Wilson, as nothing changes over {n} episodes"
    interval = Interval(max(value - half, lowest), min(value + half, 1.0), 0.95, method)
    score = msgspec.structs.replace(point.score, value=value, interval=interval)
    return replace(point, score=score)


def _jackknife(replicates: NDArray[np.float64]) -> float:
    count = len(replicates)
    return (count - 1) / count * float(np.square(replicates - replicates.mean()).sum())


def _settings(point: Shots) -> str:
    return f"{point.score.n} episodes with {point.score.parameters}"

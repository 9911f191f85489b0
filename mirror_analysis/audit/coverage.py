"""How often a 95 % interval holds the truth, on a model whose truth is known.

`x = Z A + noise`, `y = Z B + noise`, all normal. The interval is for the value expected with so
many rows (many measures drift with the number of rows, and say so through `chance`). For linear
CKA the value of infinitely many rows is known in closed form too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy import stats

from mirror_analysis.audit.checks import Check, Job, binomial_band, judged

if TYPE_CHECKING:
    from mirror_analysis.similarity.measures import Measure

_GROUP = "coverage"
_LEVEL = 0.95
# Neighbours are sought anew without each fold, and ranks of distances taken: fewer trials.
_SLOW = frozenset(
    {"cknna", "cycle_knn", "knn_edit_similarity", "knn_jaccard", "knn_lcs", "knn_rank_similarity",
     "mutual_knn", "rsa"}
)  # fmt: skip
# Leaving rows out moves these more than drawing rows anew does (neighbours are made and lost;
# correlations near 1 cannot rise), so their intervals err to the wide side: they must hold the
# value often enough, and how much too wide they are is said.
_WIDE = frozenset(
    {"cknna", "cycle_knn", "knn_edit_similarity", "knn_jaccard", "knn_lcs", "knn_rank_similarity",
     "mean_cca", "mutual_knn", "pwcca", "ridge_cca", "svcca"}
)  # fmt: skip
# Jackknifed over held-out errors, which leaves out that the map was fitted: too narrow where few
# rows fit it. Shown and not judged below so many rows.
_FITTED = frozenset({"linear_predictivity", "orthogonal_predictivity"})
_ENOUGH = 400
_QUICK = ("linear_cka", "mutual_knn", "svcca")
Rows = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Latent:
    """Two sides that see the same three latent variables, each through noise of its own.

    Attributes:
        x: [latent, x_feature] loadings; y: [latent, y_feature].
    """

    x: Rows
    y: Rows

    @staticmethod
    def make() -> Latent:
        """Loadings drawn once and for all."""
        rng = np.random.default_rng(20)
        return Latent(rng.standard_normal((3, 8)), rng.standard_normal((3, 6)))

    @property
    def linear_cka(self) -> float:
        """`|C_xy|² / (|C_xx| |C_yy|)` of the covariances."""
        cross = self.x.T @ self.y
        own = [side.T @ side + np.eye(side.shape[1]) for side in (self.x, self.y)]
        norms = np.linalg.norm(own[0]) * np.linalg.norm(own[1])
        return float(np.square(cross).sum() / norms)

    def draw(self, rng: np.random.Generator, rows: int) -> tuple[Rows, Rows]:
        """Independent rows."""
        latent = rng.standard_normal((rows, 3))
        x, y = (
            latent @ side + rng.standard_normal((rows, side.shape[1])) for side in (self.x, self.y)
        )
        return x, y


def jobs(quick: bool, seed: int) -> list[Job]:
    """One job for each measure and number of rows."""
    from mirror_analysis.similarity.measures import MEASURES

    found = []
    for measure in _QUICK if quick else MEASURES:
        trials = (50 if quick else 100) if measure in _SLOW else (100 if quick else 300)
        for rows in (100,) if quick else (100, 400):
            arguments = {"measure": measure, "rows": rows, "trials": trials, "seed": seed}
            cost = (0.1 if measure in _SLOW else 0.02) * trials * (rows / 100) ** 0.5
            found.append(Job(_GROUP, f"{measure}, {rows} rows", covered, arguments, cost))
    return found


def covered(measure: str | Measure, rows: int, trials: int, seed: int) -> list[Check]:
    """The share of intervals that hold the value expected of so many rows.

    A share outside the 99 % band is measured again on fresh draws, and missed only if it falls
    outside again.
    """
    name = measure if isinstance(measure, str) else measure.name
    low, high = binomial_band(trials, _LEVEL)
    model = Latent.make()
    found: list[Check] = []
    for attempt in (0, 1):
        first = found
        values, lows, highs = _intervals(model, measure, rows, trials, (seed, attempt))
        wanted = 2 * float(stats.norm.ppf((1 + _LEVEL) / 2)) * float(values.std(ddof=1))
        note = f"{trials} draws; {float(np.mean(highs - lows)) / wanted:.2f} of the width wanted"
        truths = {"expected value": (float(values.mean()), None if name in _WIDE else high)}
        if name == "linear_cka":
            truths["closed form"] = model.linear_cka, high
        found = [
            judged(
                _GROUP,
                f"{name}, {rows} rows: {word} held",
                float(np.mean((lows <= truth) & (truth <= highs))),
                low=low,
                high=most,
                note=note,
            )
            for word, (truth, most) in truths.items()
        ]
        if all(check.passed for check in found):
            break
    shares = " and ".join(f"{check.measured:.3f}" for check in first)
    words = f"; a first {trials} gave {shares}" if first else ""
    if name in _FITTED and rows < _ENOUGH:
        words += "; not judged: leaves out that the map was fitted"
        found = [msgspec.structs.replace(c, low=None, high=None, passed=None) for c in found]
    return [msgspec.structs.replace(check, note=check.note + words) for check in found]


def _intervals(
    model: Latent, measure: str | Measure, rows: int, trials: int, seed: tuple[int, int]
) -> tuple[Rows, Rows, Rows]:
    """Values and ends of their intervals, each [trial]."""
    from mirror_analysis.comparison import compare

    rng = np.random.default_rng(seed)
    out = []
    for _ in range(trials):
        x, y = model.draw(rng, rows)
        (score,) = compare(
            x, y, measures=[measure], draws=0, seed=int(rng.integers(1 << 31))
        ).scores
        if score.value is None or score.interval is None:
            raise ValueError(f"no interval: {score.undefined}")
        out.append((score.value, score.interval.low, score.interval.high))
    values, lows, highs = np.array(out).T
    return values, lows, highs

"""How often an unrelated pair is called related: at a level of 5 %, that is 5 % of the time.

Every draw has data of its own. Twenty y share one x and the orders of the null: given both,
each p is right by itself and independent of the others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mirror_analysis.audit.checks import Check, Job, binomial_band, judged, shown
from mirror_analysis.audit.unrelated import UNRELATED

if TYPE_CHECKING:
    from mirror_analysis.similarity.measures import Measure

_GROUP = "rejection"
_LEVEL, _TOGETHER = 0.05, 20
_PERMUTED = ("episodes", "flat", "gaussian", "grouped", "heavy", "shifted", "wide")
# Rows from which a comparison takes moments unasked, and where they are held to it.
_ROWS = 600
_LONG = ("gaussian", "heavy", "flat")
# A test at 5 % is exact with 20 k - 1 orders; those that cost most each get the fewest.
_DRAWS, _FEW = 99, 19
_SLOW = frozenset(
    {"knn_edit_similarity", "knn_lcs", "linear_predictivity", "orthogonal_predictivity", "pwcca"}
)
# Share neighbours, which are whole numbers: p's come in steps and may reject too seldom.
_DISCRETE = frozenset(
    {
        "cycle_knn",
        "knn_edit_similarity",
        "knn_jaccard",
        "knn_lcs",
        "knn_rank_similarity",
        "mutual_knn",
    }
)

# With more directions than rows all canonical correlations are 1.
_FORCED = frozenset({"mean_cca", "mean_squared_cca", "pwcca"})


def jobs(quick: bool, seed: int) -> list[Job]:
    """One job for each measure and situation, and the maximum over layer pairs."""
    from mirror_analysis.similarity.measures import DEFAULT, MEASURES

    trials = 200 if quick else 1000
    common = {"trials": trials, "seed": seed}
    found = [
        Job(
            _GROUP,
            f"{measure}, {situation}",
            rejected,
            {"situation": situation, "measure": measure, **common},
            0.005 * trials * (4 if measure in _SLOW else 1),
        )
        for situation in (("gaussian",) if quick else _PERMUTED)
        for measure in MEASURES
    ]
    for situation in _LONG[:1] if quick else _LONG:
        for measure in _with_moments():
            name = f"{measure}, {situation}, exact moments"
            arguments = {
                "situation": situation,
                "measure": measure,
                "trials": trials // 2,
                "seed": seed,
                "rows": _ROWS,
            }
            found.append(Job(_GROUP, name, rejected, arguments, 0.005 * trials))
    for measure in ("linear_cka",) if quick else DEFAULT:
        arguments = {"measure": measure, "trials": trials // 2, "seed": seed}
        name = f"{measure}: largest of 3 x 3 layer pairs"
        found.append(Job(_GROUP, name, largest, arguments, 0.015 * trials))
    arguments = {"measure": "linear_cka", "trials": 200, "seed": seed}
    name = "linear_cka: steps taken for independent"
    return [*found, Job(_GROUP, name, steps_exchanged, arguments)]


def _with_moments() -> list[str]:
    """Measures whose exact moments are known."""
    from mirror_analysis.similarity.measures import MEASURES, Measure, load_measure

    return [n for n in MEASURES if type(load_measure(n)).invariants is not Measure.invariants]


def rejected(
    situation: str, measure: str | Measure, trials: int, seed: int, rows: int | None = None
) -> list[Check]:
    """The share of unrelated pairs with p of at most 5 %.

    Of many right checks one in a hundred falls outside its band by chance. A share outside is
    therefore measured again on fresh draws, and missed only if it falls outside again.

    Args:
        situation: a name of `UNRELATED`.
        measure: name, or a measure with settings of its own.
        trials: unrelated pairs.
        seed: of everything.
        rows: when given, so many, and p's from exact moments instead of permutations.
    """
    low, high = binomial_band(trials, _LEVEL)
    name = name_of(measure)
    constant = situation == "wide" and name in _FORCED
    least = None if constant or name in _DISCRETE else low
    share = _share(situation, measure, trials, (seed, 0), rows)
    note = f"{trials} draws"
    if share > high or (least is not None and share < least):
        note += f"; a first {trials} gave {share:.3f}"
        share = _share(situation, measure, trials, (seed, 1), rows)
    note += "; 1 whatever the data, so nothing can stand out" if constant else ""
    title = f"{name}, {situation}" + (f", exact moments, n = {rows}" if rows else "")
    return [judged(_GROUP, title, share, low=least, high=high, note=note)]


def _share(
    situation: str,
    measure: str | Measure,
    trials: int,
    seed: tuple[int, int],
    rows: int | None = None,
) -> float:
    from mirror_analysis.comparison import compare

    rng = np.random.default_rng(seed)
    p: list[float] = []
    while len(p) < trials:
        drawn = UNRELATED[situation](rng, _TOGETHER, *([rows] if rows else []))
        found = compare(
            drawn.x,
            {str(i): y for i, y in enumerate(drawn.y)},
            measures=[measure],
            null="moments" if rows else "permutation",
            draws=_FEW if name_of(measure) in _SLOW else _DRAWS,
            folds=0,
            seed=int(rng.integers(1 << 31)),
            **drawn.options,
        )
        p += [_p(score.p_value, score.undefined) for score in found.scores]
    return _rejections(p[:trials])


def name_of(measure: str | Measure) -> str:
    """The name of a measure that is given by name or by itself."""
    return measure if isinstance(measure, str) else measure.name


def _p(value: float | None, reason: str) -> float:
    if value is None:
        raise ValueError(f"no p: {reason}")
    return value


def _rejections(p: list[float] | NDArray[np.float64]) -> float:
    return float(np.mean(np.asarray(p) <= _LEVEL + 1e-12))


def largest(measure: str | Measure, trials: int, seed: int) -> list[Check]:
    """The share of unrelated grids whose best cell is called related by `p_max`."""
    from mirror_analysis.comparison import compare

    rng = np.random.default_rng((seed, 2))
    low, high = binomial_band(trials, _LEVEL)
    p, uncorrected = [], []
    for _ in range(trials):
        x, y = (
            {str(i): rng.standard_normal((30, width)) for i, width in enumerate((3, 5, 20))}
            for _ in range(2)
        )
        found = compare(
            x, y, measures=[measure], draws=_DRAWS, folds=0, seed=int(rng.integers(1 << 31))
        )
        p.append(min(_p(s.p_max, s.undefined) for s in found.scores))
        uncorrected.append(min(_p(s.p_value, s.undefined) for s in found.scores))
    name = name_of(measure)
    note = f"{trials} grids; without the correction {_rejections(uncorrected):.3f}"
    least = None if name in _DISCRETE else low
    title = f"{name}: largest of 3 x 3 layer pairs"
    return [judged(_GROUP, title, _rejections(p), low=least, high=high, note=note)]


def steps_exchanged(measure: str | Measure, trials: int, seed: int) -> list[Check]:
    """What exchanging the steps of episodes one by one would do, for the reader."""
    share = _share("steps", measure, trials, (seed, 3))
    name = name_of(measure)
    note = "not judged: why the episode has to be the unit"
    return [shown(_GROUP, f"{name}, steps taken for independent", share, note)]

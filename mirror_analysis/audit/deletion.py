"""Whether a dissimilarity grows with the accuracy that is lost when components are deleted.

After Ding et al. 2021, section 4: CKA hears of leading components only, Procrustes of those too
that a probe still uses. What averages canonical correlations over the smaller rank hears of no
deleted component, and is shown beside them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mirror_analysis.audit.checks import Check, Job, judged, shown
from mirror_analysis.audit.digit_networks import digits, train

_GROUP = "deletion"
_KEPT = (1, 2, 3, 4, 6, 8, 10, 12, 16, 20, 24, 32, 40, 48, 56, 64)
_LAYERS = (2, 3, 4, 5)  # those of 64 channels
_MEASURES: dict[str, dict[str, Any]] = {
    "linear_cka": {},
    "linear_cka, biased": {"debiased": False},
    "mean_cca": {},
    "procrustes_similarity": {},
    "pwcca": {"weights": "x"},
    "rsa": {},
    "svcca": {},
}
_HIGHER = ("procrustes_similarity",)


def jobs(quick: bool, seed: int) -> list[Job]:
    """One job: probes of networks of several seeds."""
    arguments = {
        "networks": 3 if quick else 4,
        "layers": _LAYERS[:2] if quick else _LAYERS,
        "kept": _KEPT[::2] if quick else _KEPT,
        "seed": seed,
    }
    cost = 15.0 if quick else 90.0
    return [Job(_GROUP, "deleted components", delete, arguments, cost)]


def delete(networks: int, layers: tuple[int, ...], kept: tuple[int, ...], seed: int) -> list[Check]:
    """Rank correlations of dissimilarity and lost accuracy, averaged over references.

    The reference is a whole representation; the others are those of all seeds, reduced to their
    leading principal components.
    """
    made = [train(seed + number, epochs=8) for number in range(networks)]
    measures = {name: _function(name) for name in _MEASURES}
    ranks: dict[str, list[tuple[float, float]]] = {name: [] for name in measures}
    for layer in layers:
        reduced = [_reduced(net.pooled[layer], kept) for net in made]
        every = [pair for side in reduced for pair in side]
        for own in reduced:
            whole, accuracy = own[-1]
            lost = [abs(accuracy - other) for _, other in every]
            for name, measure in measures.items():
                apart = [1 - measure(whole, values) for values, _ in every]
                ranks[name].append(_ranks(apart, lost))
    spearman = {name: float(np.mean([r[0] for r in found])) for name, found in ranks.items()}
    kendall = {name: float(np.mean([r[1] for r in found])) for name, found in ranks.items()}
    checks = [
        *(
            judged(
                _GROUP, f"{name}: Spearman above linear_cka", rho - spearman["linear_cka"], low=0
            )
            for name, rho in spearman.items()
            if name in _HIGHER
        ),
        judged(_GROUP, "linear_cka: Spearman, lost accuracy", spearman["linear_cka"], low=0.3),
    ]
    for name in measures:
        note = f"Kendall {kendall[name]:.3f}"
        if name != "linear_cka":
            checks.append(shown(_GROUP, f"{name}: Spearman, lost accuracy", spearman[name], note))
    return checks


def _function(name: str) -> Callable[[NDArray[Any], NDArray[Any]], float]:
    from mirror_analysis import similarity

    measure = getattr(similarity, name.partition(",")[0])
    settings = _MEASURES[name]
    return lambda x, y: float(measure(x, y, **settings))


def _reduced(
    values: NDArray[np.float32], kept: tuple[int, ...]
) -> list[tuple[NDArray[np.float64], float]]:
    """By number of components: the unseen pictures, and how many of them a probe names right."""
    from sklearn.linear_model import RidgeClassifier

    _, labels, learnt = digits()
    centred = values.astype(np.float64) - values.mean(axis=0, dtype=np.float64)
    axes = np.linalg.svd(centred, full_matrices=False)[2]
    out = []
    for count in kept if kept[-1] == len(axes) else (*kept, len(axes)):
        scores = centred @ axes[:count].T
        probe = RidgeClassifier(1e-3).fit(scores[:learnt], labels[:learnt])
        accuracy = float(probe.score(scores[learnt:], labels[learnt:]))
        out.append((scores[learnt:] @ axes[:count], accuracy))
    return out


def _ranks(apart: list[float], lost: list[float]) -> tuple[float, float]:
    from scipy import stats

    return float(stats.spearmanr(apart, lost)[0]), float(stats.kendalltau(apart, lost)[0])

"""From parts to scores: means over seeds, differences, and the excess over the best control."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import msgspec
import numpy as np

from mirror_analysis.definitions import StudyDefinition
from mirror_analysis.inference.estimate import Estimate, excess, independent_difference
from mirror_analysis.results import Comparison, Interval, Null, Parameter, Role, Score
from mirror_analysis.study.contrasts import PAIR, Contrast
from mirror_analysis.study.parts import Part
from mirror_analysis.study.plan import OUTCOME_CONTRASTS, Piece

UNTRAINED = "untrained-untrained"


class Place(NamedTuple):
    """Where an averaged number belongs."""

    condition: str
    within: str
    measure: str
    contrast: str
    x_layer: str
    y_layer: str


@dataclass(frozen=True, eq=False)
class Summary:
    """Everything a study measured.

    Attributes:
        scores: per training seed and averaged, differences included.
        estimates: averaged numbers at the declared layers, to be subtracted.
    """

    scores: list[Score]
    estimates: Mapping[Place, Estimate]


def summarise(parts: Mapping[Piece, Part], definition: StudyDefinition) -> Summary:
    """Scores of all parts, averaged over draws and seeds, and their differences."""
    cells: dict[Place, dict[int, list[tuple[Score, list[float]]]]] = {}
    for piece, part in parts.items():
        for comparison in (part.overall, part.within):
            for place, score, replicates in _cells(piece, comparison, definition):
                by_seed = cells.setdefault(place, defaultdict(list))
                by_seed[piece.seed].append((score, replicates))
    scores: list[Score] = []
    estimates: dict[Place, Estimate] = {}
    for place, by_seed in cells.items():
        per_seed = {seed: _over_draws(draws) for seed, draws in by_seed.items()}
        known = {s: e for s, (_, e) in per_seed.items() if e is not None}
        if len(known) == len(per_seed):
            estimates[place] = Estimate.over_seeds(list(known.values()))
        declared = _is_declared(place, definition)
        seeded = [msgspec.structs.replace(score, seed=s) for s, (score, _) in per_seed.items()]
        if declared:
            scores += seeded
        scores.append(_over_seeds(seeded, estimates.get(place)))
    at_declared = {p: e for p, e in estimates.items() if _is_declared(p, definition)}
    scores += _differences(at_declared, scores)
    scores += _outcome_differences(at_declared, scores)
    return Summary(scores, at_declared)


def _cells(
    piece: Piece, comparison: Comparison | None, definition: StudyDefinition
) -> Iterator[tuple[Place, Score, list[float]]]:
    if comparison is None:
        return
    names = _names(piece.contrast)
    for score in comparison.scores:
        x_layer = score.x_layer if piece.contrast.x in ("trained", "untrained") else ""
        y_layer = score.y_layer if piece.contrast.y in ("trained", "untrained") else ""
        condition = piece.outcome or piece.condition
        if piece.outcome and piece.condition != "nuisance":
            condition = f"{piece.outcome} ({piece.condition})"
        place = Place(condition, score.within, score.measure, piece.contrast.key, x_layer, y_layer)
        if piece.kind == "alignment grid" and _is_declared(place, definition):
            continue  # the declared pair has a part of its own, with every seed of the fit
        parameters: dict[str, Parameter] = {**score.parameters, "comparison": piece.contrast.key}
        labelled = msgspec.structs.replace(
            score,
            x=names[0],
            y=names[1],
            x_layer=x_layer,
            y_layer=y_layer,
            condition=condition,
            role=piece.contrast.role,
            parameters=parameters,
        )
        key = (score.measure, score.x_layer, score.y_layer)
        yield place, labelled, list(comparison.replicates.get(key, []))


def _names(contrast: Contrast) -> tuple[str, str]:
    x = {"trained": "observation", "untrained": "observation-untrained"}
    y = {"trained": "execution", "untrained": "execution-untrained"}
    return x.get(contrast.x, contrast.x), y.get(contrast.y, contrast.y)


def _is_declared(place: Place, definition: StudyDefinition) -> bool:
    x, y = definition.models.x_layer, definition.models.y_layer
    return place.x_layer in ("", x) and place.y_layer in ("", y)


def _over_draws(draws: list[tuple[Score, list[float]]]) -> tuple[Score, Estimate | None]:
    """One seed's score: the mean over random initialisations, and its estimate if it has one."""
    scores = [score for score, _ in draws]
    if any(s.value is None or not r for s, r in draws):
        return _mean(scores, None), None
    estimate = Estimate.over_draws(
        [s.value for s in scores if s.value is not None], [r for _, r in draws]
    )
    return _mean(scores, estimate), estimate


def _over_seeds(scores: list[Score], estimate: Estimate | None) -> Score:
    return msgspec.structs.replace(_mean(scores, estimate), seed=None)


def _mean(scores: list[Score], estimate: Estimate | None) -> Score:
    """The averaged score; its p is the largest of those averaged, which errs to the safe side.

    Not defined where one of them is not; without an interval where one has no replicates.
    """
    values = [s.value for s in scores if s.value is not None]
    if len(values) < len(scores):
        return next(s for s in scores if s.value is None)
    first = scores[0]
    interval = first.interval
    if len(scores) > 1:
        interval = None if estimate is None else _reachable(estimate.interval(), first)
    nulls = [s.null for s in scores if s.null is not None]
    null = first.null
    if len(nulls) == len(scores) and null is not None:
        null = Null(
            float(np.mean([n.mean for n in nulls])),
            float(np.mean([n.sd for n in nulls])),
            null.draws,
            null.scheme,
        )
    return msgspec.structs.replace(
        first,
        value=float(np.mean(values)),
        interval=interval,
        null=null,
        p_value=_largest([s.p_value for s in scores]),
        p_max=_largest([s.p_max for s in scores]),
    )


def _reachable(interval: Interval, score: Score) -> Interval:
    """The part of an interval that the measure can reach: shares stay in [0, 1]."""
    low = max(interval.low, 0.0) if score.measure.startswith("recall_at_") else interval.low
    high = interval.high if score.ceiling is None else min(interval.high, score.ceiling)
    return msgspec.structs.replace(interval, low=low, high=high)


def _largest(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return max(known) if len(known) == len(values) else None


def _differences(estimates: Mapping[Place, Estimate], scores: list[Score]) -> Iterator[Score]:
    """The pair less each control and reference, then less the best control."""
    averaged = _averaged(scores)
    roles = {place.contrast: score.role for place, score in averaged.items()}
    for place, estimate in estimates.items():
        if place.contrast != PAIR:
            continue
        others = {
            other.contrast: value
            for other, value in estimates.items()
            if other[:3] == place[:3] and other.contrast != PAIR
        }
        base = averaged[place]
        for name, other in others.items():
            delta = estimate - other
            yield _difference(base, delta.mean, delta.interval(), {"against": name})
        controls = {n: e for n, e in others.items() if roles[n] == "control"}
        if len(controls) > 1:
            best, value, interval = excess(estimate, controls)
            yield _difference(base, value, interval, {"against": "best control", "best": best})


def _outcome_differences(
    estimates: Mapping[Place, Estimate], scores: list[Score]
) -> Iterator[Score]:
    """Success less failure, and the trained pair's less the untrained pair's."""
    averaged = _averaged(scores)
    for place in list(estimates):
        if place.contrast != PAIR or not place.condition.startswith("success"):
            continue
        failed = place.condition.replace("success", "failure", 1)
        condition = place.condition.replace("success", "success-failure", 1)
        found: dict[str, tuple[Estimate, Estimate]] = {}
        for contrast in OUTCOME_CONTRASTS:
            won = estimates.get(place._replace(contrast=contrast))
            lost = estimates.get(place._replace(contrast=contrast, condition=failed))
            if won is not None and lost is not None:
                found[contrast] = won, lost
        for contrast, (won, lost) in found.items():
            base = averaged[place._replace(contrast=contrast)]
            base = msgspec.structs.replace(base, condition=condition)
            yield _difference(base, *independent_difference(won, lost), {"against": "failure"})
        if len(found) == len(OUTCOME_CONTRASTS):
            (won, lost), (won_untrained, lost_untrained) = found[PAIR], found[UNTRAINED]
            value, interval = independent_difference(won - won_untrained, lost - lost_untrained)
            base = msgspec.structs.replace(averaged[place], condition=condition)
            yield _difference(base, value, interval, {"against": UNTRAINED})


def _averaged(scores: list[Score]) -> dict[Place, Score]:
    return {
        Place(
            s.condition,
            s.within,
            s.measure,
            str(s.parameters.get("comparison", "")),
            s.x_layer,
            s.y_layer,
        ): s
        for s in scores
        if s.seed is None and s.role != "difference"
    }


def _difference(
    base: Score, value: float, interval: object, parameters: dict[str, Parameter]
) -> Score:
    role: Role = "difference"
    return msgspec.structs.replace(
        base,
        value=value,
        interval=interval,
        role=role,
        null=None,
        p_value=None,
        p_max=None,
        ceiling=None,
        parameters={**base.parameters, **parameters},
    )

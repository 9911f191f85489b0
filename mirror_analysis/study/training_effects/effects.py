"""From readings to scores: means over seeds, gains over the baseline, excess over the controls."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import msgspec
import numpy as np

from mirror_analysis.inference.estimate import Estimate, excess
from mirror_analysis.inference.proportion import wilson
from mirror_analysis.results import Interval, Null, Parameter, Role, Score
from mirror_analysis.study.training_effects.readings import Reading
from mirror_analysis.study.training_effects.runs import Run
from mirror_analysis.training_definitions import ConditionRole, TrainingStudyDefinition

BEST_CONTROL = "best control"
OTHERS = "other aligned conditions"
ROLES: Mapping[ConditionRole, Role] = {
    "baseline": "reference",
    "aligned": "pair",
    "control": "control",
}
_TELLING = ("task", "maps", "probe", "model", "shots", "setting")


class Place(NamedTuple):
    """What a number is of, whatever the condition of training.

    Attributes:
        measure: name.
        views: "plain" or "nuisance".
        within: label inside whose groups it was taken.
        layer: of the model it is of, or of both.
        details: further parameters that tell numbers of one measure apart.
    """

    measure: str
    views: str
    within: str
    layer: tuple[str, str]
    details: tuple[tuple[str, Parameter], ...]

    @staticmethod
    def of(score: Score) -> Place:
        """Where a score belongs."""
        details = tuple((k, score.parameters[k]) for k in _TELLING if k in score.parameters)
        return Place(
            score.measure, score.condition, score.within, (score.x_layer, score.y_layer), details
        )

    @property
    def whole(self) -> bool:
        """Whether it is of all tasks together."""
        return "task" not in dict(self.details)


@dataclass(frozen=True, eq=False)
class _Cell:
    """One number of one condition over all training seeds."""

    score: Score
    estimate: Estimate | None


def effects(
    readings: Mapping[Run, Sequence[Reading]], definition: TrainingStudyDefinition
) -> list[Score]:
    """Scores of every condition, per seed and averaged, and what they are more than others.

    Averages are over training seeds. Differences are paired: the same seed (first weights, order
    of the data) and the same test episodes or environment seeds. Differences against the baseline
    are made for every other condition; for every aligned one also the excess over the best
    control, and over the best other aligned condition.

    Args:
        readings: of every run.
        definition: of the study.
    """
    table: dict[Place, dict[str, dict[int, Reading]]] = {}
    for run, found in readings.items():
        for reading in found:
            by_condition = table.setdefault(Place.of(reading.score), {})
            by_condition.setdefault(run.condition, {})[run.seed] = reading
    scores: list[Score] = []
    for place, by_condition in table.items():
        cells = {}
        for condition in (c.name for c in definition.conditions):
            if condition in by_condition:
                seeded = [
                    _labelled(r.score, condition, definition, seed)
                    for seed, r in by_condition[condition].items()
                ]
                cells[condition] = _averaged(seeded, list(by_condition[condition].values()))
                if place.whole:
                    scores += seeded
                scores.append(cells[condition].score)
        scores += _differences(cells, definition)
    return scores


def _labelled(
    score: Score, condition: str, definition: TrainingStudyDefinition, seed: int | None
) -> Score:
    parameters: dict[str, Parameter] = {**score.parameters, "comparison": condition}
    role = ROLES[definition.named(condition).role]
    return msgspec.structs.replace(score, role=role, seed=seed, parameters=parameters)


def _averaged(scores: list[Score], readings: Sequence[Reading]) -> _Cell:
    """The mean over seeds; not defined where one of them is not."""
    gone = next((s for s in scores if s.value is None), None)
    if gone is not None:
        return _Cell(msgspec.structs.replace(gone, seed=None, interval=None), None)
    values = [s.value for s in scores if s.value is not None]
    estimate = None
    if all(r.replicates for r in readings):
        estimate = Estimate(np.array(values), np.array([r.replicates for r in readings]))
    first = scores[0]
    nulls = [s.null for s in scores if s.null is not None]
    null = first.null
    if null is not None and len(nulls) == len(scores):
        means, sds = [n.mean for n in nulls], [n.sd for n in nulls]
        null = Null(float(np.mean(means)), float(np.mean(sds)), null.draws, null.scheme)
    mean = float(np.mean(values))
    score = msgspec.structs.replace(
        first,
        value=mean,
        seed=None,
        interval=None if estimate is None else _reachable(estimate, mean, first),
        null=null,
        p_value=_largest([s.p_value for s in scores]),
        p_max=_largest([s.p_max for s in scores]),
    )
    return _Cell(score, estimate)


def _reachable(estimate: Estimate, value: float, score: Score) -> Interval:
    """The part of an interval that the measure can reach; Wilson's where nothing ever varied."""
    interval = estimate.interval()
    share = score.ceiling == 1.0
    if share and interval.low == interval.high and value in (0.0, 1.0):
        return wilson(round(value * score.n), score.n)
    low = max(interval.low, 0.0) if share else interval.low
    high = interval.high if score.ceiling is None else min(interval.high, score.ceiling)
    return msgspec.structs.replace(interval, low=low, high=high)


def _largest(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return max(known) if len(known) == len(values) else None


def _differences(
    cells: Mapping[str, _Cell], definition: TrainingStudyDefinition
) -> Iterator[Score]:
    roles = {c.name: c.role for c in definition.conditions}
    known = {n: c.estimate for n, c in cells.items() if c.estimate is not None}
    base = known.get(definition.baseline)
    for name, estimate in known.items():
        if base is not None and name != definition.baseline:
            gain = estimate - base
            yield _difference(
                cells[name].score, gain.mean, gain.interval(), {"against": definition.baseline}
            )
        if roles[name] != "aligned":
            continue
        controls = {n: e for n, e in known.items() if roles[n] == "control"}
        others = {n: e for n, e in known.items() if roles[n] == "aligned" and n != name}
        for against, rivals in ((BEST_CONTROL, controls), (OTHERS, others)):
            if rivals:
                best, value, interval = excess(estimate, rivals)
                told: dict[str, Parameter] = {"against": against, "best": best}
                yield _difference(cells[name].score, value, interval, told)


def _difference(
    base: Score, value: float, interval: Interval, parameters: dict[str, Parameter]
) -> Score:
    role: Role = "difference"
    if base.ceiling == 1.0 and interval.low == interval.high:
        # No episode went otherwise in any run, which tells how rare that is and not that it never
        # happens.
        rare = wilson(0, base.n).high
        interval = Interval(
            value - rare, value + rare, 0.95, "Wilson's, of no episode that differs"
        )
    if base.ceiling == 1.0:  # a share, so no difference is larger than 1
        interval = msgspec.structs.replace(
            interval, low=max(interval.low, -1.0), high=min(interval.high, 1.0)
        )
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

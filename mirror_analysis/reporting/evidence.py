"""Looks scores up by what they compare, so that figures and tables show the same numbers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from mirror_analysis.reporting.wording import plain
from mirror_analysis.results import Result, Role, Score

OUTCOMES = ("success", "failure")
CONTRAST = "success-failure"
TRAINED = "trained-trained"
_RECALL = re.compile(r"recall_at_(\d+)")
_FIRST = ("linear_cka", "mutual_knn", "cknna", "svcca", "recall_at_1", "infonce")
_PANELS = 6
_STAGES = ("frozen", "before", "after")
_ROLES: tuple[Role, ...] = ("pair", "control", "reference")


@dataclass(frozen=True)
class Layers:
    """The declared layer pair, both names "" where none is declared."""

    x: str
    y: str


def comparison(score: Score) -> str:
    """The display key of a score, first model before second, such as "trained-untrained"."""
    named = score.parameters.get("comparison")
    if named is not None:
        return str(named)
    if score.role == "pair":
        return TRAINED
    sides = [_side(name) for name in (score.x, score.y)]
    return sides[0] if sides[0] == sides[1] and _is_control(sides[0]) else "-".join(sides)


def _side(name: str) -> str:
    if name.endswith("-untrained"):
        return "untrained"
    return "trained" if name in ("observation", "execution") else name


def _is_control(side: str) -> bool:
    return side not in ("trained", "untrained")


def measure(score: Score) -> str:
    """The measure of a score, Recall@k under the name of its k, such as "recall_at_5"."""
    k = score.parameters.get("k")
    return f"recall_at_{k}" if score.measure == "recall_at_k" and k is not None else score.measure


def is_outcome(score: Score) -> bool:
    """Whether a score is of successes, of failures, or of their difference."""
    return score.condition.startswith(OUTCOMES)


@dataclass(frozen=True)
class Evidence:
    """A result with its scores in reach.

    Attributes:
        result: what the study found.
    """

    result: Result

    @property
    def x(self) -> str:
        """Display name of the first model."""
        return self._named("x", "observation", "first")

    @property
    def y(self) -> str:
        """Display name of the second model."""
        return self._named("y", "execution", "second")

    def _named(self, side: str, without: str, place: str) -> str:
        models = self.result.models
        name = plain(models.get(side, without))
        # A model may meet itself, and a figure must still tell its rows from its columns.
        return f"{name} ({place})" if models.get("x") == models.get("y") and models else name

    @cached_property
    def layers(self) -> Layers:
        """The layer pair declared by the definition, or else the one the findings rest on."""
        definition = self.result.definition
        for source in (definition.get("headline"), definition.get("models"), definition):
            if isinstance(source, Mapping):
                x, y = source.get("x_layer"), source.get("y_layer")
                if isinstance(x, str) and isinstance(y, str):
                    return Layers(x, y)
        rests = [f.score for f in self.result.findings if f.score.x_layer and f.score.y_layer]
        keyed = [s for s in self.result.scores if s.role == "pair" and "comparison" in s.parameters]
        pairs = {(s.x_layer, s.y_layer) for s in keyed}
        if rests:
            return Layers(rests[0].x_layer, rests[0].y_layer)
        return Layers(*pairs.pop()) if len(pairs) == 1 else Layers("", "")

    @cached_property
    def conditions(self) -> list[str]:
        """Conditions of the videos, the one the headline rests on first."""
        plain = [s for s in self.result.scores if s.role in _ROLES and not is_outcome(s)]
        found = list(dict.fromkeys(s.condition for s in plain))
        first = self.result.findings[0].score.condition if self.result.findings else ""
        first = first if first in found and first else "nuisance"
        return sorted(found, key=lambda c: c != first)

    @cached_property
    def views(self) -> list[str]:
        """What follows the outcome in conditions such as "success (plain)", "" first."""
        found = {s.condition for s in self.result.scores if is_outcome(s)}
        ends = {c.removeprefix(OUTCOMES[0]) for c in found if c.startswith(OUTCOMES[0])}
        return sorted(end for end in ends if end[:1] in ("", " "))

    @cached_property
    def withins(self) -> list[str]:
        """Groups inside which measures were taken, "" (over all episodes) first."""
        found = dict.fromkeys(s.within for s in self.result.scores if s.role in _ROLES)
        return sorted(found, key=lambda w: w != "")

    @cached_property
    def measures(self) -> list[str]:
        """Measures of the trained pair in the order of the result, without Recall@k, k > 1."""
        pair = [s for s in self.result.scores if s.role == "pair"]
        names = dict.fromkeys(measure(s) for s in pair)
        return [m for m in names if m == "recall_at_1" or not _RECALL.fullmatch(m)]

    @cached_property
    def shown(self) -> list[str]:
        """The measures that figures show, at most six; tables have them all."""
        return sorted(self.measures, key=_rank)[:_PANELS]

    @cached_property
    def comparisons(self) -> dict[str, Role]:
        """Display keys at the declared layers with their roles: the pair, controls, references."""
        found: dict[str, Role] = {}
        for score in self.result.scores:
            if score.role in _ROLES and self._declared(score):
                found.setdefault(comparison(score), score.role)
        return dict(sorted(found.items(), key=lambda item: _ROLES.index(item[1])))

    @cached_property
    def seeds(self) -> list[int]:
        """Training seeds with scores of their own."""
        return sorted({s.seed for s in self.result.scores if s.seed is not None})

    @cached_property
    def ks(self) -> list[int]:
        """The k of the Recall@k that were measured."""
        names = {measure(s) for s in self.result.scores}
        return sorted(int(match[1]) for name in names if (match := _RECALL.fullmatch(name)))

    def one(
        self, key: str, measure: str, condition: str, within: str = "", seed: int | None = None
    ) -> Score | None:
        """A comparison at the declared layers, averaged over seeds unless one is named.

        A comparison without training, such as pixels, has the same score under every seed.
        """
        seed = seed if key in self._seeded else None
        return self._at.get((key, "", measure, condition, within, seed))

    def recall(
        self, key: str, k: int, condition: str, within: str = "", seed: int | None = None
    ) -> Score | None:
        """Recall@k of a comparison at the declared layers."""
        # A curve comes from one run of the retrieval, where there is one.
        curve = self.one(key, f"recall_at_k={k}", condition, within, seed)
        return curve or self.one(key, f"recall_at_{k}", condition, within, seed)

    def difference(
        self, key: str, against: str, measure: str, condition: str, within: str = "",
        seed: int | None = None,
    ) -> Score | None:  # fmt: skip
        """The difference of two comparisons, if the study took it."""
        return self._differences.get((key, against, measure, condition, within, seed))

    @cached_property
    def differences(self) -> list[Score]:
        """Every difference at the declared layers, in the order of the result."""
        scores = self.result.scores
        return [s for s in scores if s.role == "difference" and self._declared(s)]

    def outcomes(
        self, key: str, measure: str, within: str = "", view: str = ""
    ) -> tuple[Score | None, Score | None, Score | None]:
        """A comparison on successes, on failures, and the difference of the two."""
        success, failure = (
            self.one(key, measure, f"{outcome}{view}", within) for outcome in OUTCOMES
        )
        at = (measure, f"{CONTRAST}{view}", within)
        gap = self.difference(key, "failure", *at) or self.difference(key, "", *at)
        return success, failure, gap

    def best_control(
        self, measure: str, condition: str, within: str = "", seed: int | None = None
    ) -> tuple[str, Score] | None:
        """The matched control the excess was taken against, or else the largest one."""
        place = (TRAINED, "best control", measure, condition, within)
        excess = self.difference(*place, seed) or self.difference(*place)
        if excess is not None and isinstance(best := excess.parameters.get("best"), str):
            score = self.one(best, measure, condition, within, seed)
            if score is not None and score.value is not None:
                return best, score
        matched = [key for key, role in self.comparisons.items() if role == "control"]
        scores = [(key, self.one(key, measure, condition, within, seed)) for key in matched]
        known = [(s.value, key, s) for key, s in scores if s is not None and s.value is not None]
        if not known:
            return None
        _, key, score = max(known, key=lambda item: item[0])
        return key, score

    def grid(self, measure_name: str, condition: str, within: str) -> list[Score]:
        """One score per layer pair of the trained models, in layer order."""
        cells: dict[tuple[str, str], Score] = {}
        for s in sorted(self._pairs, key=_preference):
            if (measure(s), s.condition, s.within) == (measure_name, condition, within):
                cells.setdefault((s.x_layer, s.y_layer), s)
        order = [(s.x_layer, s.y_layer) for s in self._pairs]
        return [cells[pair] for pair in dict.fromkeys(order) if pair in cells]

    def over_seeds(self, cell: Score) -> list[Score]:
        """The scores of the same cell with training seeds of their own."""
        same = (measure(cell), cell.condition, cell.within, cell.x_layer, cell.y_layer)
        return [
            s for s in self._pairs
            if s.seed is not None
            and (measure(s), s.condition, s.within, s.x_layer, s.y_layer) == same
        ]  # fmt: skip

    @cached_property
    def _pairs(self) -> list[Score]:
        scores = self.result.scores
        return [s for s in scores if s.role == "pair" and s.x_layer and s.y_layer]

    def _declared(self, score: Score) -> bool:
        for name, layer, declared in (
            (score.x, score.x_layer, self.layers.x),
            (score.y, score.y_layer, self.layers.y),
        ):
            # Pixels, state and time have no layers to choose from.
            networked = score.role == "pair" or name.split("-")[0] in ("observation", "execution")
            if networked and declared and layer not in ("", declared):
                return False
        return True

    @cached_property
    def _at(self) -> dict[_Key, Score]:
        return _table(s for s in self.result.scores if s.role in _ROLES and self._declared(s))

    @cached_property
    def _seeded(self) -> set[str]:
        return {comparison(s) for s in self._at.values() if s.seed is not None}

    @cached_property
    def _differences(self) -> dict[_Key, Score]:
        return _table(self.differences)


_Key = tuple[str, str, str, str, str, int | None]


def _table(scores: Iterable[Score]) -> dict[_Key, Score]:
    """Scores by what they are; one without a mean over seeds stands under its lowest seed too."""
    table: dict[_Key, Score] = {}
    for s in sorted(scores, key=_preference):
        against = str(s.parameters.get("against", ""))
        names = [measure(s)]
        if s.measure == "recall_at_k":
            names.append(f"recall_at_k={s.parameters.get('k')}")
        for name in names:
            for seed in (s.seed, None):
                table.setdefault((comparison(s), against, name, s.condition, s.within, seed), s)
    return table


def _rank(name: str) -> int:
    return _FIRST.index(name) if name in _FIRST else len(_FIRST)


def _preference(score: Score) -> tuple[bool, int, bool, int, bool]:
    """Smallest for the score to show where several are of the same thing."""
    stage = _STAGES.index(score.stage) if score.stage in _STAGES else len(_STAGES)
    named = "comparison" in score.parameters
    return score.split != "test", stage, score.seed is not None, score.seed or 0, not named

"""Looks scores of a study of training up by condition, so that all parts show the same numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from mirror_analysis.reporting.wording import plain
from mirror_analysis.results import Parameter, Result, Role, Score

RECOGNITION, SUCCESS = "instruction_accuracy", "success_rate"
FITTED, TRAINED = "fitted on frozen features", "trained with the models"
BEST_CONTROL, OTHERS = "best control", "other aligned conditions"
_TELLING = ("task", "maps", "probe", "model", "shots", "setting")
_ROLES: Mapping[str, Role] = {"baseline": "reference", "aligned": "pair", "control": "control"}


@dataclass(frozen=True)
class Condition:
    """A way of training.

    Attributes:
        name: in scores.
        title: in words.
        role: "reference" for the baseline, "pair" where models were aligned to each other.
        pairing: what was a positive pair, "" where not told.
        temperature: of the alignment loss; None where not told.
    """

    name: str
    title: str
    role: Role
    pairing: str
    temperature: float | None


@dataclass(frozen=True)
class Published:
    """Numbers others reported of a condition, as shares."""

    recognition: float
    success: float

    def of(self, measure: str) -> float:
        """The number that belongs beside a measure of ours."""
        return self.recognition if measure == RECOGNITION else self.success


@dataclass(frozen=True)
class TrainingEvidence:
    """A result of a study of training with its scores in reach.

    Attributes:
        result: what the study found.
    """

    result: Result

    @staticmethod
    def fits(result: Result) -> bool:
        """Whether a result is of a study that trained models under conditions."""
        return bool(result.definition.get("conditions"))

    @property
    def x(self) -> str:
        """Display name of the model that watches."""
        return plain(self.result.models.get("x", "observation model"))

    @property
    def y(self) -> str:
        """Display name of the model that acts."""
        return plain(self.result.models.get("y", "execution model"))

    @cached_property
    def conditions(self) -> dict[str, Condition]:
        """Conditions by name: the baseline, the aligned, the controls, as they were declared."""
        training = _table(self.result.definition.get("training"))
        found = []
        for table in _tables(self.result.definition.get("conditions")):
            told = {**training, **{k: v for k, v in table.items() if v is not None}}
            temperature = told.get("temperature")
            name = str(table.get("name", ""))
            found.append(
                Condition(
                    name,
                    plain(table.get("title", name)),
                    _ROLES.get(str(table.get("role")), "reference"),
                    plain(told.get("pairing", "")),
                    float(temperature) if isinstance(temperature, int | float) else None,
                )
            )
        order: tuple[Role, ...] = ("reference", "pair", "control")
        return {c.name: c for c in sorted(found, key=lambda c: order.index(c.role))}

    @property
    def baseline(self) -> str:
        """Name of the condition that is subtracted, "" where none is declared."""
        return next((c.name for c in self.conditions.values() if c.role == "reference"), "")

    @property
    def headline(self) -> str:
        """Name of the condition findings are about."""
        declared = _table(self.result.definition.get("evaluation")).get("headline")
        aligned = [c.name for c in self.conditions.values() if c.role == "pair"]
        return declared if isinstance(declared, str) and declared in aligned else aligned[0]

    @cached_property
    def published(self) -> dict[str, Published]:
        """Condition -> published numbers."""
        tables = _tables(self.result.definition.get("published"))
        return {
            str(t["condition"]): Published(float(str(t["recognition"])), float(str(t["success"])))
            for t in tables
        }

    @property
    def source(self) -> str:
        """Where the published numbers stand."""
        return plain(self.result.definition.get("published_from", ""))

    @property
    def generalisation(self) -> Mapping[str, object]:
        """What was asked away from where probes were fitted; empty if nothing was."""
        return _table(self.result.definition.get("generalisation"))

    @cached_property
    def tasks(self) -> list[str]:
        """Names of the tasks that have numbers of their own."""
        found = (s.parameters.get("task") for s in self.result.scores)
        return list(dict.fromkeys(plain(task) for task in found if task))

    @cached_property
    def seeds(self) -> list[int]:
        """Training seeds with scores of their own."""
        return sorted({s.seed for s in self.result.scores if s.seed is not None})

    def title(self, name: str) -> str:
        """What to call a condition, or what a difference is against."""
        known = self.conditions.get(name)
        return known.title if known else plain(name)

    def one(
        self, condition: str, measure: str, views: str = "plain", within: str = "",
        **details: Parameter,
    ) -> Score | None:  # fmt: skip
        """A number of one condition, averaged over seeds.

        Args:
            condition: name.
            measure: name.
            views: "plain" or "nuisance".
            within: label inside whose groups it was taken.
            **details: further parameters that tell it apart, such as the task.
        """
        return self._at.get(("", condition, measure, views, within, frozenset(details.items())))

    def gain(
        self, condition: str, measure: str, views: str = "plain", within: str = "",
        against: str = "", **details: Parameter,
    ) -> Score | None:  # fmt: skip
        """What a condition has more than the baseline, or than what is named instead."""
        place = (condition, measure, views, within, frozenset(details.items()))
        return self._at.get((against or self.baseline, *place))

    def published_gain(self, condition: str, measure: str) -> float | None:
        """What was published of a condition, less what was published of the baseline."""
        own, base = self.published.get(condition), self.published.get(self.baseline)
        return None if own is None or base is None else own.of(measure) - base.of(measure)

    def curve(self, condition: str, loss: str) -> list[Score]:
        """A loss at the end of every pass, in order."""
        found = self._curves.get((condition, loss), [])
        return sorted(found, key=lambda s: float(s.parameters.get("update", 0)))

    @cached_property
    def _curves(self) -> dict[tuple[str, str], list[Score]]:
        found: dict[tuple[str, str], list[Score]] = {}
        for s in self.result.scores:
            if s.stage == "training":
                key = str(s.parameters.get("comparison")), s.measure
                found.setdefault(key, []).append(s)
        return found

    @cached_property
    def _at(self) -> dict[_Key, Score]:
        table: dict[_Key, Score] = {}
        for s in self.result.scores:
            if s.seed is None and s.stage != "training":
                against = str(s.parameters.get("against", ""))
                table.setdefault((against, str(s.parameters.get("comparison", "")), s.measure,
                                  s.condition, s.within, details(s)), s)  # fmt: skip
        return table


_Key = tuple[str, str, str, str, str, frozenset[tuple[str, Parameter]]]


def details(score: Score) -> frozenset[tuple[str, Parameter]]:
    """The parameters that tell numbers of one measure apart."""
    return frozenset((k, score.parameters[k]) for k in _TELLING if k in score.parameters)


def _table(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}


def _tables(value: object) -> list[Mapping[str, object]]:
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []

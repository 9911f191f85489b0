"""What aligned layers say elsewhere: from few labels, of the other model, in new tasks or looks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from mirror_analysis.alignment.linear import AlignmentConfig
from mirror_analysis.alignment.scoring import fit_pair
from mirror_analysis.errors import DefinitionError
from mirror_analysis.features import Index, Split
from mirror_analysis.generalisation import (
    ConditionsConfig,
    FewShotConfig,
    HeldOutConfig,
    JudgeConfig,
    Measured,
    Meeting,
    Parts,
    Rows,
    Subject,
    TransferConfig,
    across_conditions,
    across_models,
    few_shot_curve,
    held_out_groups,
    parts_of,
    shuffled_pairs,
)
from mirror_analysis.results import Parameter
from mirror_analysis.study.training_effects.probes import SIDES
from mirror_analysis.study.training_effects.readings import Reading
from mirror_analysis.training_definitions import (
    EvaluationSection,
    GeneralisationSection,
    TrainedModelsSection,
)

Side = Literal["x", "y"]

CROSSED = "fitted on the other model"
CEILING = "fitted on the model itself, in the shared space"
MIXED = "fitted on the other model, maps of shuffled pairs"
KNOWN_TASKS, NEW_TASKS = "tasks that were fitted on", "tasks that were held out"
PLAIN = "fitted on plain videos"


@dataclass(frozen=True)
class Asked:
    """What is asked elsewhere, and how it is judged.

    Attributes:
        section: which questions.
        models: the declared layers.
        evaluation: draws of the null and groups of the jackknife.
    """

    section: GeneralisationSection
    models: TrainedModelsSection
    evaluation: EvaluationSection

    def judged(self, labels: NDArray[np.generic]) -> JudgeConfig:
        """How predictions of such labels become numbers."""
        return JudgeConfig(
            metric="probe_r2" if labels.dtype.kind == "f" else "probe_accuracy",
            draws=self.evaluation.draws,
            folds=self.evaluation.folds,
        )

    def layer(self, side: Side) -> str:
        """The declared layer of a side."""
        return self.models.x_layer if side == "x" else self.models.y_layer

    def subject(self, side: Side, views: str) -> Subject:
        """What a number of one model is about."""
        return Subject(x=SIDES[side], x_layer=self.layer(side), condition=views)


def require_looks(names: Sequence[str]) -> None:
    """Makes sure that every look of the scene is known.

    Raises:
        UnknownNameError: if one is not.
        DefinitionError: if one is named twice.
    """
    from mirror_analysis.episodes.variants import find_variant

    for name in names:
        find_variant(name)
        if names.count(name) > 1:
            raise DefinitionError(f"look '{name}' is named twice; name each once")


def few_shot_readings(parts: Split, asked: Asked, *, views: str) -> Iterator[Reading]:
    """Accuracy of either model from a few labelled episodes of each class.

    Args:
        parts: the declared layers; fit and validation episodes are those that may be labelled.
        asked: which numbers of them, and of what.
        views: "plain" or "nuisance".
    """
    section, e = asked.section, asked.evaluation
    if not section.shots:
        return
    config = FewShotConfig(shots=tuple(section.shots), folds=e.folds, null_draws=e.draws)
    for side in SIDES:
        curve = few_shot_curve(
            [parts_of(parts, side, asked.layer(side))], section.target,
            subject=asked.subject(side, views), config=config,
        )  # fmt: skip
        for shots, point in zip(section.shots, curve, strict=True):
            told: dict[str, Parameter] = {"model": SIDES[side], "shots": shots}
            told = {**point.score.parameters, **told, "per_class": point.score.parameters["shots"]}
            replicates = point.replicates[0].tolist() if len(point.replicates) else []
            yield Reading(msgspec.structs.replace(point.score, parameters=told), replicates)


def transfer_readings(
    parts: Split, asked: Asked, *, alignment: AlignmentConfig, seed: int, views: str
) -> Iterator[Reading]:
    """Probes of one model put to the other through maps that are fitted here.

    Beside the transfer stand its ceiling, a probe of the same space fitted on the model that is
    tested, and its control: the same with maps fitted on pairs that were shuffled within tasks,
    which know the task and nothing else.

    Args:
        parts: the declared layers.
        asked: label.
        alignment: how maps are fitted.
        seed: of the maps.
        views: "plain" or "nuisance".
    """
    if not asked.section.transfer:
        return
    layers = (asked.models.x_layer, asked.models.y_layer)
    truth = parts.test.index.label(asked.section.target)
    meetings = {}
    for name, data in ((CROSSED, parts), (MIXED, shuffled_pairs(parts))):
        (maps,) = fit_pair(data, layers, alignment=alignment, seeds=[seed])
        meetings[name] = Meeting(parts, layers, maps)
    for direction, tested in (("x_to_y", "y"), ("y_to_x", "x")):
        found = {
            name: across_models(
                [meeting], asked.section.target, direction=direction,
                config=TransferConfig(judged=asked.judged(truth)),
            )
            for name, meeting in meetings.items()
        }  # fmt: skip
        numbers = {
            CROSSED: found[CROSSED].away,
            CEILING: found[CROSSED].refitted,
            MIXED: found[MIXED].away,
        }
        for setting, measured in numbers.items():
            assert measured is not None
            yield _reading(measured, tested, setting, asked, views)  # type: ignore[arg-type]


def held_out_readings(parts: Split, asked: Asked, *, views: str) -> Iterator[Reading]:
    """A label decoded in tasks that the probe was fitted on, and in tasks that it was not.

    Both probes see equally many episodes and are tested on the same ones. Episodes with a value
    that one task alone has are left out.

    Args:
        parts: the declared layers.
        asked: label.
        views: "plain" or "nuisance".
    """
    target = asked.section.held_out
    if not target:
        return
    shared = _in_several_tasks(parts.fit.index, target)
    judged = asked.judged(shared)
    for side in SIDES:
        home = parts_of(parts, side, asked.layer(side))
        told = [
            part.take(np.isin(part.index.label(target), shared))
            for part in (home.fit, home.validation, home.test)
        ]
        held = held_out_groups(
            [Parts(*told)], target, by="task", config=HeldOutConfig(judged=judged)
        )
        for setting, measured in ((KNOWN_TASKS, held.inside), (NEW_TASKS, held.outside)):
            yield _reading(measured, side, setting, asked, views)


def _in_several_tasks(index: Index, target: str) -> NDArray[np.generic]:
    """The values that more than one task has; of the others a probe of other tasks knows nothing.

    All values of a quantity.
    """
    labels, task = index.label(target), index.label("task")
    values = np.unique(labels)
    if labels.dtype.kind == "f":
        return values
    return values[[len(np.unique(task[labels == value])) > 1 for value in values]]


def look_readings(
    parts: Split, looks: Mapping[str, Mapping[Side, Rows]], asked: Asked
) -> Iterator[Reading]:
    """A probe fitted on plain videos, put to the test episodes there and under every other look.

    Args:
        parts: the declared layers on plain videos.
        looks: name -> side -> its layer over the same test episodes under that look of the scene.
        asked: label.
    """
    judged = asked.judged(parts.test.index.label(asked.section.target))
    for side in SIDES:
        home = parts_of(parts, side, asked.layer(side))
        for number, (look, rows) in enumerate(looks.items()):
            found = across_conditions(
                [home], [rows[side]], asked.section.target,
                config=ConditionsConfig(home="plain", away=look, judged=judged),
            )  # fmt: skip
            if number == 0:
                yield _reading(found.home, side, PLAIN, asked, "plain")
            yield _reading(found.away, side, PLAIN, asked, look)


def _reading(measured: Measured, side: Side, setting: str, asked: Asked, views: str) -> Reading:
    told: dict[str, Parameter] = {"model": SIDES[side], "setting": setting}
    score = msgspec.structs.replace(
        measured.score, x=SIDES[side], y="", x_layer=asked.layer(side), y_layer="",
        condition=views, parameters={**measured.score.parameters, **told},
    )  # fmt: skip
    return Reading(score, measured.estimate.replicates[0].tolist())

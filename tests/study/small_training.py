"""Studies of training without hours of it: a tiny one that runs, and simulated ones whose truth is
known."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import tiny_world as world

from mirror_analysis import catalog
from mirror_analysis.models.reference.family import ReferenceObservation, save
from mirror_analysis.results import Interval, Null, Result, Score
from mirror_analysis.rollout.metaworld import HORIZON
from mirror_analysis.rollout.outcomes import Outcomes
from mirror_analysis.study.training_effects.acting import success_rates
from mirror_analysis.study.training_effects.curves import LOSSES, curves
from mirror_analysis.study.training_effects.describing import display_names, notes
from mirror_analysis.study.training_effects.effects import effects
from mirror_analysis.study.training_effects.findings import findings
from mirror_analysis.study.training_effects.generalising import (
    CEILING,
    CROSSED,
    MIXED,
    NEW_TASKS,
    PLAIN,
)
from mirror_analysis.study.training_effects.readings import Reading, shares
from mirror_analysis.study.training_effects.running import Given
from mirror_analysis.study.training_effects.runs import (
    FILES,
    RECORD,
    Record,
    RunJob,
    TrainedAs,
    runs,
)
from mirror_analysis.training_definitions import TrainingStudyDefinition

TASKS = tuple(f"task-{letter}" for letter in "abc")
KNOWN = ("independent", "episode", "instruction", "task", "shuffled", "untrained", "noise",
         "instruction-0.02", "instruction-0.2")  # fmt: skip


def definition(name: str = "explicit-alignment", **sections: object) -> TrainingStudyDefinition:
    """A shipped study made small; keywords replace keys of a section, or a whole list."""
    table = msgspec.to_builtins(catalog.definition("reports", name))
    table["conditions"] = [c for c in table["conditions"] if c["name"] in KNOWN]
    small: dict[str, object] = {
        "models": {"seeds": [0, 1]},
        "episodes": {"fit_successes": 8, "test_successes": 6, "frames": world.TIME,
                     "tasks": list(world.TASKS)},
        "training": {"epochs": 2, "batch": 8, "frames": 2, "width": 16},
        "alignment": {"width": 16, "steps": 4, "probe_seeds": [0]},
        "generalisation": {"shots": [], "transfer": False, "held_out": "", "looks": []},
        "evaluation": {"draws": 19, "folds": 4, "gallery": 8, "k": 3, "rollouts": 3, "probes": []},
    }  # fmt: skip
    for changes in (small, sections):
        for key, value in changes.items():
            table[key] = {**table[key], **value} if isinstance(value, dict) else value
    return msgspec.convert({**table, "quick": {}}, TrainingStudyDefinition)


def two(**sections: object) -> TrainingStudyDefinition:
    """The smallest study: trained apart, aligned, and one control."""
    kept = [c for c in msgspec.to_builtins(definition())["conditions"]
            if c["name"] in ("independent", "instruction", "shuffled")]  # fmt: skip
    return definition(conditions=kept, published=[], published_from="", **sections)


def given() -> Given:
    demonstrations = world.episodes(fit=8, test=0, fit_failures=0, test_failures=0)
    return Given(demonstrations, world.episodes(fit=8, test=6, fit_failures=0, test_failures=0))


def train_randomly(job: RunJob) -> dict[str, list[float]]:
    """Weights drawn from the name of the run in place of training."""
    number = sum(map(ord, job.run.name))
    names = sorted({episode.instruction for episode in job.episodes})
    watcher = ReferenceObservation(
        world.observation(number).module, name="observation", camera="A", instructions=names
    )
    save(watcher, job.folder / FILES[0], provenance={})
    save(world.execution(number), job.folder / FILES[1], provenance={})
    return {"update": [1.0, 2.0], **{loss: [2.0, 1.0] for loss in LOSSES}}


class Simulated:
    """Draws what trained pairs would show, given what each condition truly adds.

    Episodes differ in difficulty and training seeds in luck, the same for every condition.

    Args:
        definition: of the study.
        gains: condition -> (recognition, success, agreement) it truly adds to the baseline.
        seed: of all draws.
        count: test episodes, and environment seeds, of each task.
    """

    def __init__(
        self, definition: TrainingStudyDefinition, gains: dict[str, tuple[float, float, float]],
        *, seed: int = 0, count: int = 16,
    ) -> None:  # fmt: skip
        self.definition, self.gains, self.count = definition, gains, count
        self.rng = np.random.default_rng(seed)
        self.difficulty = self.rng.normal(0, 0.08, (2, len(TASKS) * count))
        self.fold_noise = self.rng.standard_normal(definition.evaluation.folds)
        self.luck = {s: self.rng.normal(0, 0.01, 3) for s in definition.models.seeds}

    def readings(self) -> dict:
        return {run: self._of(run.condition, run.seed) for run in runs(self.definition)}

    def _of(self, condition: str, seed: int) -> list[Reading]:
        gain = np.array(self.gains.get(condition, (0.0, 0.0, 0.0))) + self.luck[seed]
        folds = self.definition.evaluation.folds
        task = np.repeat(TASKS, self.count)
        unit = np.array([f"{t}-{i % self.count}" for i, t in enumerate(task)])
        found: list[Reading] = []
        for views, level in (("plain", 0.75), ("nuisance", 0.68)):
            right = self.rng.random(len(task)) < level + gain[0] + self.difficulty[0]
            base = Score("instruction_accuracy", 0.0, x="observation", y="", n=0, condition=views)
            found += shares(right, task, unit, base=base, count=folds, chance=1 / 12)
            for measure, within, level, extra in (
                ("recall_at_1", "", 0.5, {"maps": "fitted on frozen features", "gallery": 64}),
                ("recall_at_1", "", 0.45, {"maps": "trained with the models", "gallery": 64}),
                ("recall_at_1", "task", 0.3, {"maps": "fitted on frozen features"}),
                ("linear_cka", "", 0.45, {}),
                ("linear_cka", "task", 0.3, {}),
                ("mutual_knn", "task", 0.2, {}),
                ("probe_accuracy", "task", 0.7, {"probe": "side", "model": "observation"}),
                ("probe_accuracy", "task", 0.6, {"probe": "side", "model": "execution"}),
                ("few_shot_accuracy", "", 0.4, {"model": "execution", "shots": 1}),
                ("few_shot_accuracy", "", 0.6, {"model": "execution", "shots": "all"}),
                ("probe_accuracy", "", 0.5, {"model": "execution", "setting": CROSSED}),
                ("probe_accuracy", "", 0.2, {"model": "execution", "setting": MIXED}),
                ("probe_accuracy", "", 0.8, {"model": "execution", "setting": CEILING}),
                ("probe_accuracy", "task", 0.55, {"model": "observation", "setting": NEW_TASKS}),
            ):
                if extra.get("maps", "").startswith("trained") and condition == "noise":
                    continue
                found.append(self._drawn(measure, views, within, level + gain[2], dict(extra)))
        for look, loss in (("plain", 0.0), ("camera-side", 0.3)):
            told = {"model": "observation", "setting": PLAIN}
            found.append(self._drawn("probe_accuracy", look, "", 0.7 - loss + gain[2], told))
        base = Score("instruction_accuracy", 0.0, x="observation", y="", n=0,
                     condition="camera-side")  # fmt: skip
        right = self.rng.random(len(task)) < 0.5
        found += shares(right, task, unit, base=base, count=folds, chance=1 / 12)
        won = self.rng.random(len(task)) < 0.8 + gain[1] + self.difficulty[1]
        grid = won.reshape(len(TASKS), self.count)
        outcomes = Outcomes(
            "execution", TASKS, tuple(range(self.count)),
            tuple(tuple(map(bool, row)) for row in grid),
            tuple(tuple(50 if w else HORIZON for w in row) for row in grid), HORIZON, 0, "plain",
        )  # fmt: skip
        return [*found, *success_rates(outcomes, folds=folds)]

    def _drawn(
        self, measure: str, views: str, within: str, level: float, parameters: dict
    ) -> Reading:
        value = float(level + self.rng.normal(0, 0.01))
        replicates = value + 0.02 / len(self.fold_noise) ** 0.5 * (
            self.fold_noise + 0.3 * self.rng.standard_normal(len(self.fold_noise))
        )
        score = Score(
            measure, value, x="observation", y="execution", n=len(TASKS) * self.count,
            x_layer="penultimate", y_layer="vision", within=within, condition=views,
            interval=Interval(value - 0.05, value + 0.05), null=Null(0.02, 0.01, 99, "episodes"),
            p_value=0.01, ceiling=1.0, parameters=parameters,
        )  # fmt: skip
        return Reading(score, replicates.tolist())


def trained(definition: TrainingStudyDefinition, out: Path) -> None:
    """Records of runs whose losses fall as they do in training."""
    rng = np.random.default_rng(0)
    for run in runs(definition):
        updates = np.arange(1, 51)
        settings = definition.trained_as(run.condition)
        fall = {"observation": (0.5, 2.5), "execution": (0.01, 0.08),
                "alignment": (1.0, 2.5 if settings.target == "partner" else 1.0)}  # fmt: skip
        curve = {
            name: (low + span * np.exp(-updates / 12) * rng.normal(1, 0.03, 50)).tolist()
            for name, (low, span) in fall.items()
        }
        folder = run.folder(out)
        folder.mkdir(parents=True)
        record = Record(TrainedAs(settings, run.seed, "A", "B", "0f"),
                        {"update": (10.0 * updates).tolist(), **curve})  # fmt: skip
        (folder / RECORD).write_bytes(msgspec.json.encode(record))


def result(
    definition: TrainingStudyDefinition, gains: dict[str, tuple[float, float, float]], out: Path,
    **changes: int,
) -> Result:  # fmt: skip
    """What a study would find."""
    from synthetic_result import provenance

    scores = effects(Simulated(definition, gains, **changes).readings(), definition)
    trained(definition, out)
    scores += curves(runs(definition), out, definition, episodes=360)
    return Result(
        study=definition.name,
        title=definition.title,
        models=display_names(definition),
        definition=msgspec.to_builtins(definition),
        provenance=provenance(),
        data={"test episodes": 96, "tasks": list(TASKS)},
        findings=findings(scores, definition),
        scores=scores,
        maps=[],
        notes=notes(definition),
    )

"""Schema of a study that trains models itself, under conditions that are compared."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from mirror_analysis.definitions import (
    AlignmentSection,
    Count,
    EpisodesSection,
    Name,
    Names,
    NonNegative,
    NuisanceSection,
    Positive,
    Seeds,
    Size,
    Text,
)

Share = Annotated[float, Meta(ge=0, le=1)]
Pairing = Literal["episode", "instruction", "task"]
Gradient = Literal["both", "observation", "execution"]
Target = Literal["partner", "shuffled", "untrained", "noise", "identity"]
ConditionRole = Literal["baseline", "aligned", "control"]

OVERRIDES = ("align_weight", "pairing", "temperature", "target", "gradient", "weight_decay")
"""What a condition may change of the section `training`."""


class TrainedModelsSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which models are trained: the reference pair, once per condition and seed.

    Attributes:
        x_layer: declared layer of the observation model, chosen before looking.
        y_layer: declared layer of the execution model.
        x_camera: what the observation model watches.
        y_camera: what the execution model acts from.
        seeds: of training; a seed gives every condition the same first weights and data order.
    """

    x_layer: Text
    y_layer: Text
    x_camera: Text
    y_camera: Text
    seeds: Seeds


class DemonstrationsSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What models are trained on; nothing is measured on these episodes.

    Attributes:
        per_task: successful episodes of each task.
        seed: of their collection, another than those of the section `episodes`.
    """

    per_task: Size
    seed: Count


class TrainingSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How both models are trained together, where a condition does not say otherwise.

    Attributes:
        epochs: passes over the demonstrations.
        batch: episodes per update.
        frames: of each episode in a batch that each model is shown, drawn anew every time.
        learning_rate: peak.
        weight_decay: of the optimiser.
        execution_weight: of the execution model's loss.
        align_weight: of the alignment loss; 0 trains the two models apart.
        align_warmup: share of the updates over which that weight rises from 0.
        align_until: share of the updates after which it is 0 again.
        temperature: of the alignment loss.
        width: dimensions of the shared space.
        pairing: which rows are positives of one another: of one episode, instruction or task.
        gradient: which model the alignment may change.
        target: what models are aligned to: their partner, or as a control a shuffled partner,
            the partner's untrained twin, noise, or a code of the label that pairs.
        frozen: first words of the names of parameters that are not trained.
        precision: of the arithmetic.
    """

    epochs: Size
    batch: Annotated[int, Meta(ge=2)]
    frames: Size
    learning_rate: Positive
    weight_decay: NonNegative
    execution_weight: NonNegative
    align_weight: NonNegative
    align_warmup: Share
    align_until: Share
    temperature: Positive
    width: Size
    pairing: Pairing
    gradient: Gradient
    target: Target
    frozen: list[Text]
    precision: Literal["float32", "bfloat16"]


class TrainingCondition(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One way of training; what it leaves out is as the section `training` says.

    Attributes:
        name: how runs and numbers are called.
        title: in words.
        role: "baseline" is subtracted, "aligned" is under study, "control" has what alignment
            brings besides: pressure on the representation without what the partner knows.
        align_weight: of the alignment loss.
        pairing: which rows are positives.
        temperature: of the alignment loss.
        target: what models are aligned to.
        gradient: which model the alignment may change.
        weight_decay: of the optimiser.
    """

    name: Name
    title: Text
    role: ConditionRole
    align_weight: NonNegative | None = None
    pairing: Pairing | None = None
    temperature: Positive | None = None
    target: Target | None = None
    gradient: Gradient | None = None
    weight_decay: NonNegative | None = None


class EvaluationSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is measured of every trained pair.

    Attributes:
        headline: the aligned condition that findings are about, chosen before looking.
        rollouts: environment seeds per task in which each policy acts; 0 for none.
        rollout_seed: of the environments, the same for every policy.
        measures: similarities of the declared layers.
        probes: names of probe definitions, asked of the declared layers; may be empty.
        k: neighbours, where a measure looks at neighbours.
        variance: share of the variance that is kept, where a measure reduces dimensions.
        draws: permutations of the null.
        folds: groups of episodes of the jackknife.
        gallery: episodes among which retrieval has to find the right one.
        recall: the k of Recall@k, none above the gallery.
    """

    headline: Name
    rollouts: Count
    rollout_seed: Count
    measures: Names
    probes: list[Name]
    k: Size
    variance: Annotated[float, Meta(gt=0, le=1)]
    draws: Annotated[int, Meta(ge=19)]
    folds: Annotated[int, Meta(ge=2)]
    gallery: Annotated[int, Meta(ge=2)]
    recall: Annotated[list[Size], Meta(min_length=1)]

    def __post_init__(self) -> None:
        if 1 not in self.recall:
            raise ValueError("recall lacks 1, on which the findings rest")
        if max(self.recall) > self.gallery:
            raise ValueError(f"recall {max(self.recall)} exceeds the gallery of {self.gallery}")


class GeneralisationSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is asked of the declared layers away from where probes were fitted.

    Attributes:
        target: label that is decoded from few episodes, across models and across looks.
        shots: labelled episodes per class of the few-shot curve, "all" for every one; may be empty.
        transfer: whether probes fitted on one model are put to the other.
        held_out: label that is decoded in tasks that no probe was fitted on; it must mean the same
            in all of them; "" for none.
        looks: names of variants of the scene in which the test episodes are drawn again; may be
            empty.
    """

    target: Text
    shots: list[Size | Literal["all"]]
    transfer: bool
    held_out: str
    looks: list[Name]


class PublishedNumbers(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What was published of a condition; printed beside our numbers and never mixed with them.

    Attributes:
        condition: name of the condition it belongs to.
        recognition: share of episodes that were recognised.
        success: share of episodes in which the policy succeeded.
    """

    condition: Name
    recognition: Share
    success: Share


class TrainingStudyDefinition(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A study of what a way of training changes.

    Attributes:
        name: the stem of the file.
        title: of the report.
        summary: one line.
        question: what the report answers.
        models: which models.
        demonstrations: what they are trained on.
        episodes: what they are measured on: alignments and probes are fitted on the fit episodes,
            numbers come from the test episodes.
        nuisance: changes of appearance of the episodes that are measured on.
        training: how they are trained.
        conditions: ways of training that are compared, one of them the baseline.
        alignment: how the linear alignment is fitted again on frozen features.
        evaluation: what is measured.
        generalisation: what is measured elsewhere; nothing when None.
        published_from: where the published numbers stand, and of what they are.
        published: numbers others reported of the same conditions; may be empty.
        quick: section -> key -> value that replaces the one above in a quick run.
    """

    name: Name
    title: Text
    summary: Text
    question: Text
    models: TrainedModelsSection
    demonstrations: DemonstrationsSection
    episodes: EpisodesSection
    nuisance: NuisanceSection
    training: TrainingSection
    conditions: list[TrainingCondition]
    alignment: AlignmentSection
    evaluation: EvaluationSection
    generalisation: GeneralisationSection | None = None
    published_from: str = ""
    published: list[PublishedNumbers] = []
    quick: dict[str, dict[str, object]] = {}

    def __post_init__(self) -> None:
        counted = Counter(condition.name for condition in self.conditions)
        for name, times in counted.items():
            if times > 1:
                raise ValueError(
                    f"{times} conditions are named '{name}'; needed names of their own"
                )
        baselines = [c.name for c in self.conditions if c.role == "baseline"]
        if len(baselines) != 1:
            raise ValueError(f"{len(baselines)} conditions have the role baseline; needed one")
        aligned = [c.name for c in self.conditions if c.role == "aligned"]
        if self.evaluation.headline not in aligned:
            raise ValueError(
                f"headline '{self.evaluation.headline}' is no aligned condition (aligned:"
                f" {', '.join(aligned) or 'none'})"
            )
        for condition in self.conditions:
            weight = self.trained_as(condition.name).align_weight
            if (weight == 0) != (condition.role == "baseline") and condition.role != "control":
                raise ValueError(
                    f"condition '{condition.name}' is {condition.role} and has align_weight"
                    f" {weight:g}; a baseline needs 0, an aligned condition more"
                )
        for numbers in self.published:
            if numbers.condition not in counted:
                raise ValueError(f"published numbers are of no condition '{numbers.condition}'")
        if self.demonstrations.seed in (self.episodes.seed_fit, self.episodes.seed_test):
            raise ValueError(
                f"demonstrations have the seed {self.demonstrations.seed} of the episodes that are"
                " measured on; must differ"
            )
        if self.published and not self.published_from:
            raise ValueError("published numbers need published_from")

    @property
    def baseline(self) -> str:
        """Name of the condition that is subtracted."""
        return next(c.name for c in self.conditions if c.role == "baseline")

    def named(self, condition: str) -> TrainingCondition:
        """A condition by name."""
        return next(c for c in self.conditions if c.name == condition)

    def trained_as(self, condition: str) -> TrainingSection:
        """The section `training` with what a condition changes in place."""
        own = self.named(condition)
        changes = {key: value for key in OVERRIDES if (value := getattr(own, key)) is not None}
        return msgspec.structs.replace(self.training, **changes)

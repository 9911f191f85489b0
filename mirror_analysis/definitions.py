"""Schemas of the catalogue: what a checkpoint, a probe and a study are, as frozen values."""

from __future__ import annotations

from datetime import date
from pathlib import PurePosixPath
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Name = Annotated[str, Meta(pattern=r"^[a-z0-9]+([.-][a-z0-9]+)*$")]
Text = Annotated[str, Meta(min_length=1)]
Count = Annotated[int, Meta(ge=0)]
Size = Annotated[int, Meta(ge=1)]
Positive = Annotated[float, Meta(gt=0)]
NonNegative = Annotated[float, Meta(ge=0)]
Seeds = Annotated[list[Count], Meta(min_length=1)]
Names = Annotated[list[Text], Meta(min_length=1)]
Address = Annotated[str, Meta(pattern=r"^https://[^\s/]+(/\S*)?$")]
Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
Role = Literal["observation", "execution"]


class CheckpointDefinition(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A model whose weights are known, with what was measured of it when it was made.

    Attributes:
        name: the stem of the file.
        summary: one line.
        role: "observation" recognises what it sees; "execution" gives actions.
        family: which loader reads it.
        file: weights, relative to the folder of the definition; "" when not bundled.
        sha256: of that file; "" when not bundled.
        size_bytes: of that file; 0 when not bundled.
        parameters: number of trained scalars.
        seed: of its training.
        license: SPDX identifier.
        source: how it was made: the command.
        trained: day of training.
        commit: source revision it was trained with, "" when there was none.
        data: fingerprint of the training episodes.
        metrics: what was measured on held-out episodes, by name.
        layers: names of its layers, in forward order.
        inputs: the streams of an episode it needs, such as "camera:A".
        camera: the camera it was trained on.
    """

    name: Name
    summary: Text
    role: Role
    family: Literal["reference"]
    file: str
    sha256: Annotated[str, Meta(pattern="^([0-9a-f]{64})?$")]
    size_bytes: Count
    parameters: Size
    seed: Count
    license: Text
    source: Text
    trained: date
    commit: str
    data: Text
    metrics: dict[str, float]
    layers: Names
    inputs: Names
    camera: Text

    def __post_init__(self) -> None:
        if _leads_out(self.file):
            raise ValueError(f"file '{self.file}' must lie in the folder of its definition")
        if bool(self.file) != bool(self.sha256):
            raise ValueError("file and sha256 must both be given or both be empty")


class PublicFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file of a public checkpoint, as far as it was looked up.

    Attributes:
        path: where it lies inside the hub model, repository, package or folder.
        sha256: of its bytes; left out when unknown.
        size_bytes: of the file; left out when unknown.
    """

    path: Text
    sha256: Sha256 | None = None
    size_bytes: Size | None = None

    def __post_init__(self) -> None:
        if _leads_out(self.path):
            raise ValueError(f"path '{self.path}' must lie inside what is published")


class PublicCheckpoint(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A checkpoint that others publish: where it is, and nothing that was not looked up.

    Exactly one of `hub`, `url` and `package` is given; it tells this schema from the bundled one.

    Attributes:
        name: the stem of the file.
        summary: one line.
        role: "observation" recognises what it sees; "execution" gives actions.
        family: which loader reads it.
        hub: id of a model on the Hugging Face hub.
        url: a GitHub repository; a folder, ending in "/", that holds the files; or a page on which
            they are found by hand.
        package: a distribution of the Python package index that ships the files, "name==version".
        revision: commit of the hub model or repository; left out when unknown.
        files: weights to take, the one to load first; left out where a hub model is taken whole.
        license: SPDX identifier, or the name stated at its source; "not stated" where none is.
        license_source: the page that states it, or does not.
        reference: paper or documentation.
        inputs: kinds of streams of an episode it needs.
        note: what a user has to know; "" for nothing.
        checked: what was looked up, each with the address it was found at.
    """

    name: Name
    summary: Text
    role: Role
    family: Literal[
        "arp", "exported", "lerobot", "onnx", "open_clip", "openvla", "perceptron", "robomimic",
        "sb3", "tflite", "timm", "torchscript", "transformers", "transformers-text", "viclip",
    ]  # fmt: skip
    license: Text
    license_source: Address
    reference: Address
    inputs: Annotated[list[Literal["camera", "instruction", "states"]], Meta(min_length=1)]
    checked: Names
    hub: Annotated[str, Meta(pattern=r"^[\w.-]+/[\w.-]+$")] | None = None
    url: Address | None = None
    package: Annotated[str, Meta(pattern=r"^[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*$")] | None = None
    revision: Annotated[str, Meta(pattern="^[0-9a-f]{40}$")] | None = None
    files: list[PublicFile] = []
    note: str = ""

    def __post_init__(self) -> None:
        given = [key for key in PUBLIC_PLACES if getattr(self, key) is not None]
        if len(given) != 1:
            raise ValueError(f"one of hub, url and package is needed, not {len(given)} of them")
        if self.package is not None and not (self.files and self.revision is None):
            raise ValueError("a package needs files, and its version takes the place of a revision")
        for text in self.checked:
            if "https://" not in text:
                raise ValueError(f"checked '{text}' lacks the address where it was looked up")

    @property
    def place(self) -> str:
        """Where it is published, in a word or an address."""
        return self.hub or self.url or f"package {self.package}"


PUBLIC_PLACES = ("hub", "url", "package")


class ProbeDefinition(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is decoded from a representation, and what is held out while doing so.

    Attributes:
        name: the stem of the file.
        summary: one line.
        target: label that is decoded; several for quantities that are decoded together.
        kind: whether the target is a class or a quantity.
        layers: layers that are decoded from; "all" for each in turn.
        held_out: test rows share no episode, no instruction or no task with the fit rows; or
            "split", where the label of that name says what is fitted and what is tested on.
        estimator: logistic regression, ridge regression or nearest neighbours.
        folds: parts of the cross-validation.
        level: whether a row is an "episode" or a "step" of one.
        within: label inside whose groups episodes trade labels under the null, such as "task";
            "" for over all.
        strengths: penalties per row to choose from; left out for powers of ten.
        neighbours: numbers of neighbours to choose from; left out for 1 to 50.
    """

    name: Name
    summary: Text
    target: Text | Names
    kind: Literal["classification", "regression"]
    layers: Literal["all"] | Names
    held_out: Literal["episode", "instruction", "task", "split"]
    estimator: Literal["logistic", "ridge", "knn"]
    folds: Annotated[int, Meta(ge=2)]
    level: Literal["episode", "step"] = "episode"
    within: str = ""
    strengths: list[Positive] = []
    neighbours: list[Size] = []

    def __post_init__(self) -> None:
        wrong = {"classification": "ridge", "regression": "logistic"}[self.kind]
        if self.estimator == wrong:
            raise ValueError(f"estimator '{wrong}' does not do {self.kind}")
        if self.kind == "classification" and not isinstance(self.target, str):
            raise ValueError("a class is one label; give target as text, or kind 'regression'")
        if self.strengths and self.estimator == "knn":
            raise ValueError("estimator 'knn' has no strengths; give neighbours")
        if self.neighbours and self.estimator != "knn":
            raise ValueError(f"estimator '{self.estimator}' has no neighbours; give strengths")


class ModelsSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which models are compared.

    Attributes:
        x: catalogue stem of the first; its checkpoints are "<stem>-s<seed>".
        y: catalogue stem of the second.
        seeds: training seeds; seed s of x meets seed s of y.
        x_layer: declared headline layer of x, chosen before looking.
        y_layer: declared headline layer of y.
        untrained_draws: random initialisations of each untrained twin.
    """

    x: Name
    y: Name
    seeds: Seeds
    x_layer: Text
    y_layer: Text
    untrained_draws: Size

    def checkpoints(self) -> list[str]:
        """Names of all checkpoints, those of x first."""
        return [f"{stem}-s{seed}" for stem in (self.x, self.y) for seed in self.seeds]


class EpisodesSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which episodes are collected. Fit and test episodes come from different seeds.

    Attributes:
        source: where episodes come from.
        tasks: names of tasks; empty for all.
        fit_successes: successful episodes per task to fit on.
        fit_failures: failed episodes per task to fit on.
        test_successes: successful episodes per task that numbers come from.
        test_failures: failed episodes per task that numbers come from.
        frames: frames per episode.
        size: height and width of a frame, in pixels.
        seed_fit: of the fit episodes.
        seed_test: of the test episodes.
    """

    source: Literal["metaworld"]
    tasks: list[Text]
    fit_successes: Size
    fit_failures: Count
    test_successes: Size
    test_failures: Count
    frames: Size
    size: Annotated[int, Meta(ge=8)]
    seed_fit: Count
    seed_test: Count

    def __post_init__(self) -> None:
        if self.seed_fit == self.seed_test:
            raise ValueError(f"seed_fit and seed_test are both {self.seed_fit}; must differ")


class NuisanceSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Changes of appearance, drawn for each episode and each view independently.

    Attributes:
        gain_low: least factor on a colour channel.
        gain_high: largest factor on a colour channel.
        offset_low: least offset of a colour channel, in levels of 255.
        offset_high: largest offset of a colour channel, in levels of 255.
        shift: largest displacement of the picture along each axis, in pixels.
        seed: of the draws.
    """

    gain_low: Positive
    gain_high: Positive
    offset_low: float
    offset_high: float
    shift: Count
    seed: Count

    def __post_init__(self) -> None:
        if self.gain_low > self.gain_high or self.offset_low > self.offset_high:
            raise ValueError("gain_low and offset_low must not exceed gain_high and offset_high")


class AlignmentSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the linear alignment is fitted on frozen features.

    Attributes:
        width: dimensions of the shared space.
        temperature: of the contrastive loss.
        learning_rate: of the optimiser.
        weight_decay: of the optimiser.
        batch: pairs per step; the loss contrasts each with the others.
        steps: at most.
        patience: validation checks without improvement before stopping.
        probe_seeds: seeds of the fit; numbers are means over them.
    """

    width: Size
    temperature: Positive
    learning_rate: Positive
    weight_decay: NonNegative
    batch: Annotated[int, Meta(ge=2)]
    steps: Size
    patience: Size
    probe_seeds: Seeds


class MeasuresSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is computed on every pair of layers.

    Attributes:
        names: measures.
        k: neighbours, where a measure looks at neighbours.
        variance: share of the variance that is kept, where a measure reduces dimensions.
        draws: permutations of the null.
        folds: groups of episodes of the jackknife.
        gallery: episodes among which retrieval has to find the right one.
        recall: the k of Recall@k, none above the gallery.
        grids: contrasts that are measured between all layers, such as "trained-trained".
        alignment_grids: conditions in which an alignment is fitted for every layer pair.
    """

    names: Names
    k: Size
    variance: Annotated[float, Meta(gt=0, le=1)]
    draws: Annotated[int, Meta(ge=19)]
    folds: Annotated[int, Meta(ge=2)]
    gallery: Annotated[int, Meta(ge=2)]
    recall: Annotated[list[Size], Meta(min_length=1)]
    grids: list[Text]
    alignment_grids: list[Literal["plain", "nuisance"]]

    def __post_init__(self) -> None:
        if 1 not in self.recall:
            raise ValueError("recall lacks 1, on which the findings rest")
        if max(self.recall) > self.gallery:
            raise ValueError(f"recall {max(self.recall)} exceeds the gallery of {self.gallery}")


class MapsSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How both models are drawn in one plane.

    Attributes:
        methods: ways of reducing to two dimensions; may be empty.
        perplexity: of t-SNE.
        neighbors: of UMAP.
    """

    methods: list[Literal["tsne", "umap"]]
    perplexity: Positive
    neighbors: Annotated[int, Meta(ge=2)]


class StudyDefinition(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A study: what is asked, of which models, on which episodes, in which measures.

    Attributes:
        name: the stem of the file.
        title: of the report.
        summary: one line.
        question: what the report answers.
        models: which models.
        episodes: which episodes.
        nuisance: changes of their appearance.
        alignment: how the alignment is fitted.
        measures: what is computed.
        maps: what is drawn.
        quick: section -> key -> value that replaces the one above in a quick run.
    """

    name: Name
    title: Text
    summary: Text
    question: Text
    models: ModelsSection
    episodes: EpisodesSection
    nuisance: NuisanceSection
    alignment: AlignmentSection
    measures: MeasuresSection
    maps: MapsSection
    quick: dict[str, dict[str, object]] = {}


def _leads_out(path: str) -> bool:
    """Whether a path of a definition could point outside the folder it is relative to."""
    parts = PurePosixPath(path).parts
    return path.startswith("/") or ".." in parts or "\\" in path or ":" in path

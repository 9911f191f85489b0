"""How many labelled episodes a representation needs: accuracy against shots per class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from mirror_analysis.errors import DegenerateError, PairingError
from mirror_analysis.features import Index
from mirror_analysis.generalisation.few_shot_points import Shots, with_interval
from mirror_analysis.generalisation.few_shot_probes import Classifier, Prepared, classify, prepare
from mirror_analysis.generalisation.judging import Subject
from mirror_analysis.generalisation.parts import Parts
from mirror_analysis.generalisation.shots import Pool, episodes_of, labelled_pool
from mirror_analysis.inference.jackknife import folds
from mirror_analysis.inference.permutation import p_value, permutations
from mirror_analysis.results import Null, Score

Codes = NDArray[np.int64]


class FewShotConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a curve is made of.

    Attributes:
        shots: labelled episodes per class of each point; "all" shows every labelled episode.
        draws: sets of episodes drawn for each number of shots.
        classifier: how a class is told from them.
        metric: "accuracy" or "balanced_accuracy".
        folds: groups of test episodes of the jackknife.
        labelled_folds: groups of labelled episodes left out at "all", where nothing is drawn.
        null_draws: permutations of the null.
        seed: of everything drawn.
    """

    shots: tuple[Annotated[int, Meta(ge=1)] | Literal["all"], ...] = (1, 2, 5, 10, "all")
    draws: Annotated[int, Meta(ge=2)] = 50
    classifier: Classifier = Classifier()
    metric: Literal["accuracy", "balanced_accuracy"] = "accuracy"
    folds: Annotated[int, Meta(ge=2)] = 32
    labelled_folds: Annotated[int, Meta(ge=2)] = 10
    null_draws: Annotated[int, Meta(ge=1)] = 999
    seed: int = 0


def few_shot_curve(
    trained: Sequence[Parts],
    target: str,
    *,
    subject: Subject | None = None,
    config: FewShotConfig | None = None,
) -> list[Shots]:
    """Accuracy on the test episodes from a few labelled episodes of each class.

    Labelled are the fit and validation episodes. Which of them are shown depends on their ids
    and labels only, so two representations of the same episodes see the same shots, and their
    curves can be subtracted with `few_shot_gain`. Features are centred and scaled by the
    labelled episodes, whose labels take no part in that.

    The interval covers new test episodes, new labelled episodes and, with several of them, new
    training seeds; their variances add. That of the labelled episodes is the variance between
    draws of k out of N times `k / (N - k) + 1 / draws`: exact for a statistic that is linear in
    the episodes shown and on the wide side for any other, since the mean over all sets of k out
    of N varies at most `k / N` as much as one fresh set.

    Args:
        trained: one per training seed, over the same episodes.
        target: class of the episode that is told.
        subject: what the numbers are about.
        config: settings.

    Returns:
        One point per number of shots, in the order asked. The null exchanges the labels of test
        episodes with everything fitted as it was.

    Raises:
        DegenerateError: if there are no seeds, fewer than 2 classes, test classes never
            labelled, a label that varies inside episodes, or constant features.
        PairingError: if training seeds have other episodes.

    Source:
        Hoeffding 1948, theorem 5.2 (the variance of a mean over subsets).

    Example:
        >>> curve = few_shot_curve(seeds, "instruction")
        >>> [round(point.score.value, 2) for point in curve]
        [0.31, 0.44, 0.62, 0.7, 0.81]
    """
    settings, about = config or FewShotConfig(), subject or Subject()
    if not trained:
        raise DegenerateError("no features to show shots of; needed those of at least one seed")
    scaled, test = settings.classifier.scaled, trained[0].test
    data = [prepare(p.labelled.values, p.test.values, scaled=scaled) for p in trained]
    pool = labelled_pool(trained[0].labelled.index, target)
    for parts in trained[1:]:
        for mine, first in ((parts.labelled, trained[0].labelled), (parts.test, test)):
            if not np.array_equal(mine.index.episode, first.index.episode):
                raise PairingError(
                    "training seeds have different episodes; extract all of them from the same"
                )
    unknown = np.setdiff1d(test.index.label(target), pool.classes)
    if len(unknown):
        raise DegenerateError(
            f"'{target}' is {unknown[0]} in a test episode but in no labelled one; leave those"
            " test episodes out"
        )
    asked = _Asked(data, pool, test.index, target, settings, about)
    return [_point(asked, shots) for shots in settings.shots]


@dataclass(frozen=True, eq=False)
class _Asked:
    """Everything that all points are made from."""

    data: Sequence[Prepared]
    pool: Pool
    test: Index
    target: str
    config: FewShotConfig
    subject: Subject

    @property
    def truth(self) -> Codes:
        """[test row] class numbers."""
        return np.searchsorted(self.pool.classes, self.test.label(self.target)).astype(np.int64)

    def said(self, shown: Sequence[Codes]) -> Codes:
        """[seed, set, test row] class numbers."""
        classifier = self.config.classifier
        return np.stack([classify(d, shown, self.pool, classifier=classifier) for d in self.data])


def _point(asked: _Asked, shots: int | Literal["all"]) -> Shots:
    config, pool = asked.config, asked.pool
    score = _blank(asked, shots)
    if score.undefined:
        none = np.empty((len(asked.data), 0))
        return Shots(score, np.empty(0), none, none, np.unique(asked.test.episode))
    if shots == "all":
        said = asked.said([np.arange(len(pool.code))])
        parts = min(config.labelled_folds, sum(len(members) for members in pool.members))
        without = asked.said([pool.without(n, parts, config.seed) for n in range(parts)])
    else:
        said = asked.said([pool.draw(shots, n, config.seed) for n in range(config.draws)])
        without = said
    truth = asked.truth
    whole = np.ones(len(truth), dtype=bool)
    by_draw = np.array(
        [[_share(s == truth, truth, whole, config.metric) for s in sets] for sets in without]
    )
    # [seed, test row, class] share of the sets that say so.
    votes = (said[..., None] == np.arange(len(pool.classes))).mean(axis=1)
    own = votes[:, np.arange(len(truth)), truth]
    fold = folds(asked.test.episode, within=truth, count=config.folds, seed=config.seed)
    kept = [fold != number for number in range(int(fold.max()) + 1)]
    values = np.array([_share(row, truth, whole, config.metric) for row in own])
    replicates = np.array([[_share(row, truth, k, config.metric) for k in kept] for row in own])
    null = _null(votes.mean(axis=0), truth, asked)
    score = msgspec.structs.replace(
        score, null=Null(float(null.mean()), float(null.std()), len(null), "labels of episodes"),
        p_value=float(p_value(values.mean(), null)),
    )  # fmt: skip
    episodes = np.unique(asked.test.episode)
    return with_interval(Shots(score, values, replicates, by_draw, episodes), lowest=0.0)


def _blank(asked: _Asked, shots: int | Literal["all"]) -> Score:
    """The score of a point before it is known, with the reason where it will not be."""
    config, pool, about = asked.config, asked.pool, asked.subject
    sizes = [len(members) for members in pool.members]
    labelled = sum(sizes) if shots == "all" else shots * len(sizes)
    per_class = labelled / len(sizes)
    need, reason = 2 if shots == "all" else shots + 1, ""
    if pool.smallest < need:
        fewest = pool.classes[int(np.argmin(sizes))]
        reason = (
            f"'{asked.target}' {fewest} has {pool.smallest} labelled episodes; {shots} shots with"
            f" an interval need {need}"
        )
    return Score(
        f"few_shot_{config.metric}", None, x=about.x, y=about.y,
        x_layer=about.x_layer, y_layer=about.y_layer,
        n=len(np.unique(asked.test.episode)), stage=about.stage, condition=about.condition,
        role=about.role, ceiling=1.0, undefined=reason,
        parameters={
            "target": asked.target, "classifier": config.classifier.kind, "all": shots == "all",
            "shots": int(per_class) if per_class == int(per_class) else per_class,
            "labelled": labelled, "classes": len(sizes), "smallest": pool.smallest,
            "draws": 1 if shots == "all" else config.draws, "seeds": len(asked.data),
        },
    )  # fmt: skip


def _null(votes: NDArray[np.float64], truth: Codes, asked: _Asked) -> NDArray[np.float64]:
    """[draw] values where test episodes have exchanged their labels."""
    first, of_row = episodes_of(asked.test, asked.target)
    names, config = asked.test.episode[first], asked.config
    whole, rows = np.ones(len(truth), dtype=bool), np.arange(len(truth))
    null = []
    for order in permutations(names, draws=config.null_draws, seed=config.seed):
        exchanged = truth[first[order]][of_row]
        null.append(_share(votes[rows, exchanged], exchanged, whole, config.metric))
    return np.array(null)


def _share(
    credit: NDArray[np.generic], truth: Codes, kept: NDArray[np.bool_], metric: str
) -> float:
    if metric == "accuracy":
        return float(credit[kept].mean())
    counts = np.bincount(truth[kept])
    sums = np.bincount(truth[kept], credit[kept])
    return float((sums[counts > 0] / counts[counts > 0]).mean())

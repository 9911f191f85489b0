"""What probes said of test rows, as a number with interval, null and the means to subtract it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from mirror_analysis.errors import DegenerateError, PairingError, ShapeError
from mirror_analysis.features import Index
from mirror_analysis.inference.estimate import Estimate
from mirror_analysis.inference.jackknife import folds
from mirror_analysis.inference.permutation import p_value, permutations
from mirror_analysis.inference.proportion import wilson
from mirror_analysis.results import Interval, Null, Parameter, Role, Score

Labels = NDArray[np.generic]
Metric = Literal["probe_accuracy", "probe_balanced_accuracy", "probe_r2"]

# An interval narrower than this is rounding.
_ROUNDING = 1e-9


class Subject(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a number is about.

    Attributes:
        x: name of the model.
        x_layer: its layer.
        y: name of the other model, where there are two.
        y_layer: its layer.
        stage: "frozen", "before" or "after" alignment.
        condition: condition of the study.
        role: "pair" under study, or "control".
    """

    x: str = "x"
    x_layer: str = ""
    y: str = ""
    y_layer: str = ""
    stage: str = "frozen"
    condition: str = ""
    role: Role = "pair"


class JudgeConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How predictions become a number.

    Attributes:
        metric: "probe_accuracy" (share of rows), "probe_balanced_accuracy" (mean over classes
            of the share of their rows) or "probe_r2" (1 less squared errors over squares about
            the mean of the test rows).
        within: label inside whose groups the null exchanges episodes, and about whose means
            R² is taken; "" for over all.
        unit: what is independent: "episode", or a label such as "task" for an interval and a
            null that hold for new tasks.
        draws: permutations of the null.
        folds: groups of units of the jackknife.
        seed: of permutations and folds.
    """

    metric: Metric = "probe_accuracy"
    within: str = ""
    unit: str = "episode"
    draws: Annotated[int, Meta(ge=1)] = 999
    folds: Annotated[int, Meta(ge=2)] = 32
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Prediction:
    """What one probe said of test rows.

    Attributes:
        said: [row] predicted classes or quantities.
        truth: [row] true ones.
        index: which row is what.
    """

    said: Labels
    truth: Labels
    index: Index


@dataclass(frozen=True, eq=False)
class Measured:
    """A score, and what it takes to subtract another from it.

    Attributes:
        score: the number with interval and null.
        estimate: [seed] values and [seed, fold] jackknife replicates.
        episodes: [episode] ids it was tested on, sorted.
    """

    score: Score
    estimate: Estimate
    episodes: NDArray[np.str_]


def judge(
    predictions: Sequence[Prediction],
    *,
    config: JudgeConfig,
    subject: Subject | None = None,
    parameters: dict[str, Parameter] | None = None,
    note: str = "",
) -> Measured:
    """The value of predictions on the same test rows by one probe per training seed.

    The null exchanges the labels of whole test episodes with the probes as they were fitted; for
    other units it takes what each unit has above that with a random sign. The interval leaves out
    groups of units, and covers new training seeds where there are several.

    Args:
        predictions: one per training seed, all of the same rows.
        config: metric, null and interval.
        subject: what the number is about.
        parameters: entered in the score.
        note: entered in the score.

    Returns:
        A score named after the metric, at most 1.

    Raises:
        DegenerateError: if there is nothing to judge, or the truth does not vary.
        PairingError: if seeds were tested on different rows.
        ShapeError: if labels vary inside episodes of different lengths, which cannot be
            exchanged.

    Example:
        >>> judge([Prediction(said, truth, index)], config=JudgeConfig()).score.value
        0.75
    """
    first = _same_rows(predictions)
    truth, index = first.truth, first.index
    groups = index.label(config.within) if config.within else None
    if len(np.unique(truth)) < 2:
        raise DegenerateError(
            f"all {len(truth)} test rows have the same label {truth[0]}; there is nothing to"
            " decode, so test on episodes that differ in it"
        )
    everything = np.ones(len(truth), dtype=bool)
    fold = _folds(index, config, groups)
    kept = [fold != number for number in range(int(fold.max()) + 1)]
    said = [p.said for p in predictions]
    values = np.array([_value(s, truth, groups, everything, config.metric) for s in said])
    replicates = np.array(
        [[_value(s, truth, groups, keep, config.metric) for keep in kept] for s in said]
    )
    null = _null(said, truth, index, groups, config)
    estimate = Estimate(values, replicates)
    units = len(np.unique(_units(index, config)))
    about = subject or Subject()
    score = Score(
        config.metric,
        estimate.mean,
        x=about.x,
        y=about.y,
        n=units,
        x_layer=about.x_layer,
        y_layer=about.y_layer,
        interval=bounded_interval(
            estimate, n=units, lowest=-np.inf if config.metric == "probe_r2" else 0.0
        ),
        null=Null(float(null.mean()), float(null.std()), len(null), _scheme(config)),
        p_value=float(p_value(estimate.mean, null)),
        ceiling=1.0,
        parameters={**(parameters or {}), "unit": config.unit, "seeds": len(values)},
        within=config.within,
        stage=about.stage,
        condition=about.condition,
        role=about.role,
        note=note,
    )
    return Measured(score, estimate, np.unique(index.episode))


def measure_mean(
    values: NDArray[np.generic],
    index: Index,
    *,
    measure: str,
    config: JudgeConfig | None = None,
    subject: Subject | None = None,
) -> Measured:
    """The mean of one number per training seed and row, such as closed-loop success.

    Args:
        values: [seed, row] in [0, 1]; row i is the same episode for all seeds.
        index: which row is what.
        measure: its name, such as "success".
        config: its `unit`, `folds` and `seed` say how the interval is made.
        subject: what the number is about.

    Raises:
        ShapeError: if values are not [seed, row], or do not fit the index.
        DegenerateError: if a value is outside [0, 1].

    Example:
        >>> measure_mean(succeeded, index, measure="success").score.summary
        'policy: 0.853 [0.801, 0.905]'
    """
    settings = config or JudgeConfig()
    table = np.asarray(values, dtype=np.float64)
    if table.ndim != 2 or table.shape[1] != len(index) or not table.size:
        raise ShapeError(
            f"{measure} has shape {table.shape} and {len(index)} labels; needed [seed, row] and"
            " a label per row"
        )
    if not ((table >= 0) & (table <= 1)).all():
        raise DegenerateError(f"{measure} holds a value outside 0 to 1; needed shares or outcomes")
    fold = _folds(index, settings, index.labels.get("task"))
    numbers = range(int(fold.max()) + 1)
    estimate = Estimate(
        table.mean(axis=1),
        np.stack([table[:, fold != number].mean(axis=1) for number in numbers], axis=1),
    )
    about, units = subject or Subject(), len(np.unique(_units(index, settings)))
    score = Score(
        measure,
        estimate.mean,
        x=about.x,
        y=about.y,
        n=units,
        x_layer=about.x_layer,
        y_layer=about.y_layer,
        interval=bounded_interval(estimate, n=units, lowest=0.0),
        ceiling=1.0,
        parameters={"unit": settings.unit, "seeds": len(table)},
        stage=about.stage,
        condition=about.condition,
        role=about.role,
    )
    return Measured(score, estimate, np.unique(index.episode))


def bounded_interval(
    estimate: Estimate, *, n: int, lowest: float, highest: float = 1.0
) -> Interval:
    """The part of an estimate's interval that it can reach.

    Where no group of units changes the value (all right, all wrong, no episode on which two
    probes differ), the jackknife sees no spread although there is some; Wilson's bound on a share
    of which 0 of n episodes were seen then takes its place.
    """
    interval = estimate.interval()
    if interval.high - interval.low > _ROUNDING:
        return msgspec.structs.replace(
            interval, low=max(interval.low, lowest), high=min(interval.high, highest)
        )
    unseen = wilson(0, n).high
    return Interval(
        max(estimate.mean - unseen, lowest), min(estimate.mean + unseen, highest), 0.95,
        f"Wilson, as none of {n} units changes the value",
    )  # fmt: skip


def _scheme(config: JudgeConfig) -> str:
    exchanged = (
        f"labels of episodes within {config.within}" if config.within else "labels of episodes"
    )
    if config.unit == "episode":
        return exchanged
    return f"sign of each {config.unit}'s excess over exchanged {exchanged}"


def _same_rows(predictions: Sequence[Prediction]) -> Prediction:
    if not predictions:
        raise DegenerateError("no predictions to judge; needed those of at least one seed")
    first = predictions[0]
    for other in predictions[1:]:
        same = (
            np.array_equal(first.index.episode, other.index.episode)
            and np.array_equal(first.index.step, other.index.step)
            and np.array_equal(first.truth, other.truth)
        )
        if not same:
            raise PairingError(
                "training seeds were tested on different rows; extract all of them from the same"
                " episodes"
            )
    return first


def _folds(index: Index, config: JudgeConfig, groups: Labels | None) -> NDArray[np.int64]:
    within = groups if config.unit == "episode" else None
    return folds(_units(index, config), within=within, count=config.folds, seed=config.seed)


def _units(index: Index, config: JudgeConfig) -> Labels:
    return index.episode if config.unit == "episode" else index.label(config.unit)


def _orders(
    truth: Labels, index: Index, groups: Labels | None, config: JudgeConfig
) -> NDArray[np.int64]:
    names, first, of_row = np.unique(index.episode, return_index=True, return_inverse=True)
    if (truth == truth[first][of_row]).all():
        # One label per episode can be exchanged whatever their lengths.
        inside = None if groups is None else groups[first]
        drawn = permutations(names, within=inside, draws=config.draws, seed=config.seed)
        return first[drawn][:, of_row]
    return permutations(index.episode, within=groups, draws=config.draws, seed=config.seed)


def _null(
    said: Sequence[Labels],
    truth: Labels,
    index: Index,
    groups: Labels | None,
    config: JudgeConfig,
) -> NDArray[np.float64]:
    """[draw] values without a relation."""
    whole = config.unit == "episode"
    units = _units(index, config)
    codes = (
        np.zeros(len(truth), dtype=np.int64) if whole else np.unique(units, return_inverse=True)[1]
    )

    def earned(labels: Labels) -> NDArray[np.float64]:
        credit = np.mean([_credits(s, labels, groups, config.metric) for s in said], axis=0)
        return np.asarray(np.bincount(codes, credit) / len(credit), dtype=np.float64)

    exchanged = np.array([earned(truth[o]) for o in _orders(truth, index, groups, config)])
    if whole:
        return exchanged[:, 0]
    # A probe that knows nothing of a new group still says something there that may be right
    # for all its episodes alike, or wrong; only the side it errs to is random.
    chance = exchanged.mean(axis=0)
    rng = np.random.default_rng(config.seed)
    signs = rng.choice([-1.0, 1.0], size=(config.draws, len(chance)))
    return chance.sum() + signs @ (earned(truth) - chance)


def _value(
    said: Labels, truth: Labels, groups: Labels | None, keep: NDArray[np.bool_], metric: Metric
) -> float:
    inside = None if groups is None else groups[keep]
    return float(_credits(said[keep], truth[keep], inside, metric).mean())


def _credits(
    said: Labels, truth: Labels, groups: Labels | None, metric: Metric
) -> NDArray[np.float64]:
    """[row] what each row earns; the value is their mean."""
    if metric == "probe_r2":
        return _explained(said, truth, groups)
    right = (said == truth).astype(np.float64)
    if metric == "probe_accuracy":
        return right
    codes = np.unique(truth, return_inverse=True)[1]
    counts = np.bincount(codes)
    return right * len(right) / (counts[codes] * len(counts))


def _explained(said: Labels, truth: Labels, groups: Labels | None) -> NDArray[np.float64]:
    true = truth.astype(np.float64)
    codes = np.unique(np.zeros(len(true)) if groups is None else groups, return_inverse=True)[1]
    means = np.bincount(codes, true) / np.bincount(codes)
    squares = np.square(true - means[codes])
    total = squares.sum()
    if not total > 0:
        raise DegenerateError(
            "the target does not vary inside any group of the test rows; R² has nothing to"
            " explain, so take it over all or test on more episodes"
        )
    return (squares - np.square(true - said.astype(np.float64))) * (len(true) / total)

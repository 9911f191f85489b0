"""Probes fitted under one condition and tested under another: camera, appearance, embodiment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import msgspec
import numpy as np

from mirror_analysis.errors import DegenerateError, ShapeError
from mirror_analysis.generalisation.decoding import decode_folds, estimator_of, is_quantity
from mirror_analysis.generalisation.gains import above_controls, paired_gain
from mirror_analysis.generalisation.judging import (
    JudgeConfig,
    Measured,
    Prediction,
    Subject,
    judge,
)
from mirror_analysis.generalisation.parts import Parts, Rows
from mirror_analysis.inference.estimate import Estimate
from mirror_analysis.probing.folds import Fold
from mirror_analysis.probing.settings import Probe
from mirror_analysis.results import Score


class ConditionsConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a probe is taken from one condition to another.

    Attributes:
        home: name of the condition fitted under.
        away: name of the condition tested under.
        probe: estimator, strengths, tolerance and device.
        judged: metric, null and interval.
    """

    home: str = "home"
    away: str = "away"
    probe: Probe = Probe()
    judged: JudgeConfig = JudgeConfig()


@dataclass(frozen=True, eq=False)
class Conditions:
    """One probe under two conditions.

    Attributes:
        home: fitted and tested under the first condition.
        away: fitted under the first, tested under the second.
        refitted: fitted and tested under the second, on the test episodes of `away`: what is
            there to be decoded; None where no episodes of it may be fitted on.
        drop: home - away; paired where both have the same test episodes.
        shortfall: refitted - away, paired: what the probe misses of what is there.
        controls: name -> the same of other features of the same episodes.
        excess: `away` above the best control; None without controls.
    """

    home: Measured
    away: Measured
    refitted: Measured | None
    drop: Measured
    shortfall: Measured | None
    controls: Mapping[str, Conditions]
    excess: Measured | None

    @property
    def scores(self) -> list[Score]:
        """Every number, the controls' last."""
        own = [self.home, self.away, self.refitted, self.drop, self.shortfall, self.excess]
        return [m.score for m in own if m is not None] + [
            s for c in self.controls.values() for s in c.scores
        ]


def across_conditions(
    home: Sequence[Parts],
    away: Sequence[Parts] | Sequence[Rows],
    target: str,
    *,
    controls: Mapping[str, tuple[Sequence[Parts], Sequence[Parts] | Sequence[Rows]]] | None = None,
    subject: Subject | None = None,
    config: ConditionsConfig | None = None,
) -> Conditions:
    """Decodes a label under another condition than the probe was fitted under.

    Args:
        home: features under the first condition, one per training seed.
        away: features of the same models under the second: of the same episodes (another camera,
            other colours) or of others with the same labels (failures). Parts where it may be
            fitted on too, rows where it is tested on only.
        target: label that is decoded.
        controls: name -> (home, away) of a control, such as the untrained twins.
        subject: what the numbers are about.
        config: settings.

    Returns:
        The values with interval and null, the drop from home to away and the shortfall from what
        a probe fitted there finds.

    Raises:
        DegenerateError: if away has classes that home has not, or a side is empty or constant.
        ShapeError: if the two have other numbers of seeds or features.
        PairingError: if training seeds have other test episodes.

    Example:
        >>> turned = across_conditions(seeds, seeds_of_other_camera, "instruction")
        >>> turned.drop.score.summary
    """
    settings, about = config or ConditionsConfig(), subject or Subject()
    if len(home) != len(away) or not home:
        raise ShapeError(
            f"{settings.home} has {len(home)} training seeds and {settings.away} {len(away)};"
            " needed the same models under both"
        )
    estimator = estimator_of(home[0].test.index.label(target), settings.probe)
    said: dict[str, list[Prediction]] = {"home": [], "away": [], "refitted": []}
    for number, here in enumerate(home):
        there: Parts | Rows = away[number]
        test = there.test if isinstance(there, Parts) else there
        _need_same(here, test, target, settings)
        own, other = _ask(here, [here.test, test], target, settings.probe)
        said["home"].append(own)
        said["away"].append(other)
        if isinstance(there, Parts):
            said["refitted"] += _ask(there, [test], target, settings.probe)
    fitted = {"home": settings.home, "away": settings.home, "refitted": settings.away}
    tested = {"home": settings.home, "away": settings.away, "refitted": settings.away}
    measured = {
        name: judge(
            predictions,
            config=settings.judged,
            subject=about,
            parameters={
                "target": target, "estimator": estimator,
                "fitted": fitted[name], "tested": tested[name],
            },
        )
        for name, predictions in said.items()
        if predictions
    }  # fmt: skip
    refitted = measured.get("refitted")
    shortfall = None
    if refitted is not None:
        shortfall = paired_gain(
            refitted, measured["away"],
            note=f"what a probe fitted under {settings.home} misses under {settings.away}",
        )  # fmt: skip
    drop = _drop(measured["home"], measured["away"], said, settings)
    twins = {
        name: across_conditions(
            *pair, target, config=settings,
            subject=msgspec.structs.replace(about, x=f"{name} {about.x}", role="control"),
        )
        for name, pair in (controls or {}).items()
    }  # fmt: skip
    excess = None
    if twins:
        excess = above_controls(measured["away"], {n: t.away for n, t in twins.items()})
    return Conditions(measured["home"], measured["away"], refitted, drop, shortfall, twins, excess)


def _ask(parts: Parts, tests: Sequence[Rows], target: str, probe: Probe) -> list[Prediction]:
    rows = [parts.fit, parts.validation, *tests]
    ends = np.cumsum([0, *map(len, rows)])
    fit, validation, *asked = (np.arange(a, b) for a, b in pairwise(ends))
    said = decode_folds(
        np.concatenate([part.values for part in rows]),
        np.concatenate([part.index.label(target) for part in rows]),
        [Fold(fit, validation, np.concatenate(asked))],
        probe=probe,
    )
    return [
        Prediction(said[where], test.index.label(target), test.index)
        for where, test in zip(asked, tests, strict=True)
    ]


def _need_same(home: Parts, test: Rows, target: str, config: ConditionsConfig) -> None:
    widths = home.fit.values.shape[1], test.values.shape[1]
    if widths[0] != widths[1]:
        raise ShapeError(
            f"{config.home} has {widths[0]} features and {config.away} {widths[1]}; take the same"
            " layer of the same model under both"
        )
    known = home.fit.index.label(target)
    if is_quantity(known, config.probe):
        return
    unknown = np.setdiff1d(test.index.label(target), known)
    if len(unknown):
        raise DegenerateError(
            f"'{target}' is {unknown[0]} under {config.away} but never in the fit episodes of"
            f" {config.home}; choose a target that has the same values under both"
        )


def _drop(
    home: Measured,
    away: Measured,
    said: Mapping[str, Sequence[Prediction]],
    config: ConditionsConfig,
) -> Measured:
    here, there = said["home"][0].index, said["away"][0].index
    note = f"what the value loses from {config.home} to {config.away}"
    if np.array_equal(np.unique(here.episode), np.unique(there.episode)):
        return paired_gain(home, away, note=note)
    # Leaving a group out of either of two independent samples moves the difference alone.
    estimate = Estimate(
        home.estimate.values - away.estimate.values,
        np.concatenate(
            [
                home.estimate.replicates - away.estimate.values[:, None],
                home.estimate.values[:, None] - away.estimate.replicates,
            ],
            axis=1,
        ),
    )
    score = msgspec.structs.replace(
        home.score, value=estimate.mean, interval=estimate.interval(), null=None, p_value=None,
        ceiling=None, role="difference", n=home.score.n + away.score.n,
        note=f"{note}; the test episodes are others, so what is hard about them counts too",
    )  # fmt: skip
    both = np.concatenate([home.episodes, away.episodes])
    return Measured(score, estimate, both)

"""Probes tested on instructions, tasks or outcomes that they were not fitted on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from mirror_analysis.errors import DegenerateError, UnknownNameError
from mirror_analysis.generalisation.decoding import decode_folds, estimator_of, is_quantity
from mirror_analysis.generalisation.gains import above_controls, paired_gain
from mirror_analysis.generalisation.judging import (
    JudgeConfig,
    Measured,
    Prediction,
    Subject,
    judge,
)
from mirror_analysis.generalisation.parts import Parts
from mirror_analysis.probing.folds import Fold
from mirror_analysis.probing.settings import Probe
from mirror_analysis.results import Parameter, Score

Labels = NDArray[np.generic]


class HeldOutConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is held out, and how.

    Attributes:
        groups: values of the label that are held out together, such as ("False",); empty to
            hold out every group once, in `parts` turns.
        parts: turns in which all groups are held out; with fewer groups, each group alone.
        seed: of the division into turns, and of the episodes drawn for equal numbers.
        unit: what interval and null are for: "group", new groups like those held out, or
            "episode", new episodes of these very groups. With `groups` named, always "episode".
        probe: estimator, strengths, tolerance and device.
        judged: metric, null and interval; where its `within` is "", the groups themselves. Its
            `unit` is not used.
    """

    groups: tuple[str, ...] = ()
    parts: Annotated[int, Meta(ge=2)] = 6
    seed: int = 0
    unit: Literal["group", "episode"] = "group"
    probe: Probe = Probe()
    judged: JudgeConfig = JudgeConfig()


@dataclass(frozen=True, eq=False)
class HeldOut:
    """A probe inside and outside of what it was fitted on, on the same test episodes.

    Attributes:
        inside: fitted on all groups, on as many episodes as `outside`.
        outside: fitted without the groups it is tested on.
        drop: inside - outside.
        controls: name -> the same of other features of the same episodes.
        excess: `outside` above the best control; None without controls.
    """

    inside: Measured
    outside: Measured
    drop: Measured
    controls: Mapping[str, HeldOut]
    excess: Measured | None

    @property
    def scores(self) -> list[Score]:
        """Every number, the controls' last."""
        own = [self.inside, self.outside, self.drop, *([self.excess] if self.excess else [])]
        return [m.score for m in own] + [s for c in self.controls.values() for s in c.scores]


def held_out_groups(
    trained: Sequence[Parts],
    target: str,
    *,
    by: str,
    controls: Mapping[str, Sequence[Parts]] | None = None,
    subject: Subject | None = None,
    config: HeldOutConfig | None = None,
) -> HeldOut:
    """Decodes a label in groups of episodes that the probe was not fitted on.

    The target must mean the same in all groups: the side of the goal, success, the position of
    an object. In each turn one probe is fitted without some groups and another one on all groups
    (on equally many episodes, so that the drop is not one of fewer examples); both are tested on
    the test episodes of the groups that were held out. Strengths are chosen on the validation
    episodes of the groups fitted on.

    Args:
        trained: one per training seed, over the same episodes.
        target: label that is decoded.
        by: label whose groups are held out, such as "task", "instruction" or "success".
        controls: name -> the same features of a control, such as the untrained twins, in the
            order of the training seeds.
        subject: what the numbers are about.
        config: settings.

    Returns:
        Both values with their interval and null, the paired drop, and the excess over controls.
        A probe says nothing of what it has not seen and yet is right, or wrong, about most
        episodes of a new group alike; so group by group is what counts as evidence, and with
        `unit="episode"` the numbers are about these groups and no others.

    Raises:
        DegenerateError: if the target cannot be decoded across the groups: it is constant in
            each of them, has values there that no other group has, or groups lack fit episodes.
        UnknownNameError: if a label or a group is not known.
        PairingError: if training seeds or controls have other test episodes.

    Source:
        Gulrajani and Lopez-Paz 2021 (choices without a look at what is held out).

    Example:
        >>> held = held_out_groups(seeds, "side", by="task", controls={"untrained": twins})
        >>> held.outside.score.summary, held.drop.score.interval
    """
    settings, about = config or HeldOutConfig(), subject or Subject()
    judged = msgspec.structs.replace(
        settings.judged,
        within=settings.judged.within or by,
        unit="episode" if settings.groups or settings.unit == "episode" else by,
    )
    if not trained:
        raise DegenerateError("no features to hold out of; needed those of at least one seed")
    inside, outside = _both(trained, target, by, settings)
    labels = trained[0].test.index.label(target)
    named: dict[str, Parameter] = {
        "target": target, "held_out": by, "estimator": estimator_of(labels, settings.probe),
    }  # fmt: skip
    first = judge(
        inside, config=judged, subject=about, parameters={**named, "fitted": "inside"},
        note=f"fitted on every {by}, on as many episodes as without those tested",
    )  # fmt: skip
    second = judge(
        outside, config=judged, subject=about, parameters={**named, "fitted": "outside"},
        note=f"fitted without the {by} tested",
    )  # fmt: skip
    drop = paired_gain(first, second, note=f"what the value loses where the {by} was held out")
    twins = {
        name: held_out_groups(
            parts, target, by=by, config=settings,
            subject=msgspec.structs.replace(about, x=f"{name} {about.x}", role="control"),
        )
        for name, parts in (controls or {}).items()
    }  # fmt: skip
    excess = above_controls(second, {n: t.outside for n, t in twins.items()}) if twins else None
    return HeldOut(first, second, drop, twins, excess)


def _both(
    trained: Sequence[Parts], target: str, by: str, config: HeldOutConfig
) -> tuple[list[Prediction], list[Prediction]]:
    """Predictions inside and outside of each training seed."""
    inside: list[Prediction] = []
    outside: list[Prediction] = []
    for parts in trained:
        joined = _Joined(parts, target, by)
        turns = _turns(joined, config)
        asked = np.flatnonzero(np.isin(joined.groups_of("test"), np.concatenate(turns)))
        _need_variation(joined, np.concatenate(turns))
        without = [_need_shared(joined, joined.without(turn), config) for turn in turns]
        across = [
            joined.evenly(fold, np.random.default_rng([config.seed, number]))
            for number, fold in enumerate(without)
        ]
        for folds, found in ((across, inside), (without, outside)):
            said = decode_folds(joined.values, joined.labels, folds, probe=config.probe)
            test = parts.test.take(asked).index
            found.append(Prediction(said[joined.where["test"]][asked], test.label(target), test))
    return inside, outside


class _Joined:
    """All rows of one training seed under one count, and what they are."""

    def __init__(self, parts: Parts, target: str, by: str) -> None:
        named = {"fit": parts.fit, "validation": parts.validation, "test": parts.test}
        self.target, self.by = target, by
        self.values = np.concatenate([p.values for p in named.values()])
        self.labels = np.concatenate([p.index.label(target) for p in named.values()])
        self.groups = np.concatenate([p.index.label(by).astype(str) for p in named.values()])
        self.episodes = np.concatenate([p.index.episode for p in named.values()])
        ends = np.cumsum([0, *(len(p) for p in named.values())])
        self.where = {
            n: np.arange(a, b) for n, a, b in zip(named, ends[:-1], ends[1:], strict=True)
        }

    def groups_of(self, part: str) -> NDArray[np.str_]:
        """The group of each row of a part."""
        return self.groups[self.where[part]]

    def without(self, turn: NDArray[np.str_]) -> Fold:
        """Fitted and chosen on all other groups, tested on these."""
        held = np.isin(self.groups, turn)
        fit, validation, test = (rows[held[rows]] if name == "test" else rows[~held[rows]]
                                 for name, rows in self.where.items())  # fmt: skip
        return Fold(fit, validation, test)

    def evenly(self, like: Fold, rng: np.random.Generator) -> Fold:
        """As many episodes as `like` has, of every group in its proportion, tested on the same."""
        return Fold(
            self._drawn(self.where["fit"], like.fit, rng),
            self._drawn(self.where["validation"], like.validation, rng),
            like.test,
        )

    def _drawn(
        self, rows: NDArray[np.int64], like: NDArray[np.int64], rng: np.random.Generator
    ) -> NDArray[np.int64]:
        names, first = np.unique(self.episodes[rows], return_index=True)
        groups = self.groups[rows][first]
        # A random order inside groups, then evenly over groups by the rank's share.
        rank = np.empty(len(names))
        for group in np.unique(groups):
            members = np.flatnonzero(groups == group)
            rank[rng.permutation(members)] = (np.arange(len(members)) + rng.random()) / len(members)
        wanted = len(np.unique(self.episodes[like]))
        chosen = names[np.argsort(rank, kind="stable")[:wanted]]
        return rows[np.isin(self.episodes[rows], chosen)]


def _turns(joined: _Joined, config: HeldOutConfig) -> list[NDArray[np.str_]]:
    """Groups that are held out together, turn by turn."""
    by, there = joined.by, np.unique(joined.groups_of("test"))
    for group in config.groups:
        if group not in there:
            raise UnknownNameError(f"{by} of the test episodes", group, there.tolist())
    if len(np.unique(joined.groups_of("fit"))) < 2:
        raise DegenerateError(
            f"the fit episodes have one {by} only; needed at least 2, one to hold out and one to"
            " fit on"
        )
    asked = np.array(config.groups) if config.groups else there
    for name in ("fit", "validation"):
        missing = np.setdiff1d(asked, joined.groups_of(name))
        if len(missing):
            raise DegenerateError(
                f"{len(missing)} of {len(asked)} {by} groups have no {name} episodes (first"
                f" {missing[0]}), so there is no value to fall from; use across_conditions with"
                " those episodes as the other condition"
            )
    if config.groups:
        return [asked]
    order = np.random.default_rng(config.seed).permutation(there)
    return [order[i :: min(config.parts, len(there))] for i in range(min(config.parts, len(there)))]


def _need_variation(joined: _Joined, groups: NDArray[np.str_]) -> None:
    of_row, truth = joined.groups_of("test"), joined.labels[joined.where["test"]]
    if all(len(np.unique(truth[of_row == group])) < 2 for group in groups):
        raise DegenerateError(
            f"'{joined.target}' is constant in every {joined.by} that is held out, so decoding it"
            f" is to recognise the {joined.by}; choose a target that varies inside, such as the"
            " side of the goal or success"
        )


def _need_shared(joined: _Joined, fold: Fold, config: HeldOutConfig) -> Fold:
    """The fold, if what it is tested on means something where it is fitted."""
    if is_quantity(joined.labels, config.probe):
        return fold
    unknown = np.setdiff1d(joined.labels[fold.test], joined.labels[fold.fit])
    if len(unknown):
        by, first = joined.by, fold.test[joined.labels[fold.test] == unknown[0]][0]
        raise DegenerateError(
            f"'{joined.target}' is {unknown[0]} in {by} {joined.groups[first]}, which is held out,"
            f" but never in those fitted on; choose a target that is defined across every {by},"
            " hold out fewer, or leave those episodes out"
        )
    return fold

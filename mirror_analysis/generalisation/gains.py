"""Before and after: paired differences over training seeds and episodes, beside a control's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec
import numpy as np

from mirror_analysis.errors import DegenerateError, PairingError
from mirror_analysis.generalisation.judging import Measured, bounded_interval
from mirror_analysis.inference.estimate import excess


def paired_gain(after: Measured, before: Measured, *, note: str = "") -> Measured:
    """How much a number rose, seed by seed on the same test episodes.

    `after - before`. What both share (the draw of test episodes, and the training seed where
    seed s of one goes with seed s of the other) cancels out of the interval. With one training
    seed the interval holds for new episodes only.

    Args:
        after: one measure.
        before: the same measure on the same episodes, folds and seeds.
        note: what the difference is, one sentence.

    Returns:
        A score of role "difference", in the unit of the measure.

    Raises:
        PairingError: if the two are not the same measure of the same episodes.
        ShapeError: if they have other seeds or folds.

    Example:
        >>> paired_gain(aligned, independent).score.interval
    """
    a, b = after.score, before.score
    for name in ("measure", "n", "within"):
        if getattr(a, name) != getattr(b, name):
            raise PairingError(
                f"after has {name} {getattr(a, name)} and before {getattr(b, name)}; a gain is of"
                " one measure on the same episodes"
            )
    _need_same_episodes(after, before)
    estimate = after.estimate - before.estimate
    interval = bounded_interval(
        estimate, n=a.n, lowest=-1.0 if _bounded(a.measure) else -float("inf"),
        highest=1.0 if _bounded(a.measure) else float("inf"),
    )  # fmt: skip
    score = msgspec.structs.replace(
        a, value=estimate.mean, interval=interval, null=None, p_value=None, ceiling=None,
        role="difference", note=note or _note(len(estimate.values)),
    )  # fmt: skip
    return Measured(score, estimate, after.episodes)


@dataclass(frozen=True, eq=False)
class Gain:
    """A gain beside what its controls gain.

    Attributes:
        gain: of the models under study.
        controls: name -> gain of a control.
        excess: the gain above the largest of the controls' gains.
    """

    gain: Measured
    controls: Mapping[str, Measured]
    excess: Measured


def excess_gain(gain: Measured, controls: Mapping[str, Measured]) -> Gain:
    """The gain above the best control's gain.

    Args:
        gain: what `paired_gain` gave for the models under study.
        controls: name -> what it gave for a control, with the same seeds and folds.

    Raises:
        DegenerateError: if there is no control, or something is not a difference.
        ShapeError: if a control has other seeds or folds.

    Example:
        >>> excess_gain(gain, {"shuffled": paired_gain(shuffled, independent)}).excess.score
    """
    for name, part in {"gain": gain, **controls}.items():
        if part.score.role != "difference":
            raise DegenerateError(
                f"'{name}' is a {part.score.role}, not a difference; make it with paired_gain"
            )
    return Gain(gain, dict(controls), above_controls(gain, controls))


def above_controls(measured: Measured, controls: Mapping[str, Measured]) -> Measured:
    """How far a number stands above the best of its controls, paired over seeds and episodes.

    Args:
        measured: a number, or a gain.
        controls: name -> the same of a control, with the same seeds and folds.

    Returns:
        A score of role "difference" whose interval has the least of the ends of the paired
        differences from each control, and whose parameter "control" names the best one.

    Raises:
        DegenerateError: if there is no control.
        PairingError: if a control was tested on other episodes.
        ShapeError: if a control has other seeds or folds.

    Source:
        Berger 1982 (intersection-union test).

    Example:
        >>> above_controls(outside, {"untrained": twin}).score.interval.low > 0
        True
    """
    for control in controls.values():
        _need_same_episodes(measured, control)
    best, value, interval = excess(measured.estimate, {n: c.estimate for n, c in controls.items()})
    score = msgspec.structs.replace(
        measured.score, value=value, interval=interval, null=None, p_value=None, ceiling=None,
        role="difference", note=f"above the best control, '{best}'",
        parameters={**measured.score.parameters, "control": best},
    )  # fmt: skip
    return Measured(score, measured.estimate - controls[best].estimate, measured.episodes)


def _need_same_episodes(one: Measured, other: Measured) -> None:
    if not np.array_equal(one.episodes, other.episodes):
        raise PairingError(
            f"{one.score.measure} was tested on {len(one.episodes)} episodes and what it is"
            f" compared with on {len(other.episodes)} that are not the same; test both on the same"
        )


def _bounded(measure: str) -> bool:
    return not measure.endswith("r2")


def _note(seeds: int) -> str:
    return "" if seeds > 1 else "one training seed: the interval holds for new episodes only"

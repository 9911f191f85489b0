"""Shares and their differences in points of a hundred, as such results are usually told."""

from __future__ import annotations

import msgspec

from mirror_analysis.reporting import wording
from mirror_analysis.results import Score

POINTS = "percentage points"


def in_points(score: Score) -> Score:
    """The same score times 100."""
    interval = score.interval and msgspec.structs.replace(
        score.interval, low=100 * score.interval.low, high=100 * score.interval.high
    )
    value = None if score.value is None else 100 * score.value
    return msgspec.structs.replace(score, value=value, interval=interval)


def spoken_points(score: Score) -> str:
    """A difference in points in words: "+3.1 (-0.4 to +6.6) points"."""
    told = in_points(score)
    if told.value is None:
        return "not defined"
    text = wording.signed(told.value, 1)
    if told.interval is not None:
        low, high = (wording.signed(end, 1) for end in (told.interval.low, told.interval.high))
        text += f" ({low} to {high})"
    return f"{text} points"

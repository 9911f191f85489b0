"""A probe of one model put to another through an alignment of the two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import msgspec
import numpy as np
from numpy.typing import NDArray

from mirror_analysis.errors import UnknownNameError
from mirror_analysis.features import Paired, Split
from mirror_analysis.generalisation.conditions import (
    Conditions,
    ConditionsConfig,
    across_conditions,
)
from mirror_analysis.generalisation.judging import JudgeConfig, Subject
from mirror_analysis.generalisation.parts import Parts, Rows
from mirror_analysis.inference.permutation import permutations
from mirror_analysis.probing.settings import Probe

Direction = Literal["x_to_y", "y_to_x"]


@runtime_checkable
class Maps(Protocol):
    """What brings two models into one space, such as a `LinearAlignment`."""

    def embed_x(self, x: NDArray[np.floating]) -> Any:
        """[sample, width] of [sample, x_feature]."""

    def embed_y(self, y: NDArray[np.floating]) -> Any:
        """[sample, width] of [sample, y_feature]."""


@dataclass(frozen=True, eq=False)
class Meeting:
    """Two layers and the maps that were fitted to bring them together.

    Attributes:
        data: rows of both models; the maps have seen its fit and validation parts only.
        layers: layer of x and layer of y.
        maps: fitted on those layers.
    """

    data: Split
    layers: tuple[str, str]
    maps: Maps


class TransferConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a probe crosses.

    Attributes:
        centred: whether each side's mean over its fit rows is taken off in the shared space. A
            contrastive fit leaves the two sides apart by a constant, which no pair notices and
            every probe does. No label takes part in it.
        probe: estimator, strengths, tolerance and device.
        judged: metric, null and interval.
    """

    centred: bool = True
    probe: Probe = Probe()
    judged: JudgeConfig = JudgeConfig()


def across_models(
    seeds: Sequence[Meeting],
    target: str,
    *,
    direction: Direction = "x_to_y",
    controls: Mapping[str, Sequence[Meeting]] | None = None,
    subject: Subject | None = None,
    config: TransferConfig | None = None,
) -> Conditions:
    """Decodes a label from one model with a probe that was fitted on the other.

    Both are mapped into the shared space; the probe is fitted and chosen on fit and validation
    episodes of the first and tested on test episodes of the second.

    Args:
        seeds: one meeting per training seed, over the same episodes.
        target: label that is decoded.
        direction: "x_to_y" fits on x and tests on y.
        controls: name -> meetings of a control: the same features with maps fitted on shuffled
            pairs, the untrained twins with maps of their own.
        subject: what the numbers are about.
        config: settings.

    Returns:
        `away` is the transfer, `home` the same probe on its own model, `refitted` the ceiling: a
        probe of the shared space fitted and tested on the second model; `shortfall` is what the
        transfer lacks to the ceiling on the same test rows, `excess` what it has over the best
        control.

    Raises:
        DegenerateError: if parts share episodes, or the label has too few values.
        PairingError: if seeds or controls have other test episodes.
        UnknownNameError: if a layer or label is not known.

    Source:
        Liang et al. 2022 (the gap between the sides of a contrastive space).

    Example:
        >>> crossed = across_models([Meeting(data, ("conv3", "trunk"), aligned)], "instruction")
        >>> crossed.away.score.value, crossed.refitted.score.value
    """
    settings, about = config or TransferConfig(), subject or Subject(y="y")
    names = (about.x, about.y) if direction == "x_to_y" else (about.y, about.x)
    home, away = _sides(seeds, direction, settings)
    made = {name: _sides(meetings, direction, settings) for name, meetings in
            (controls or {}).items()}  # fmt: skip
    return across_conditions(
        home,
        away,
        target,
        controls=made,
        subject=about,
        config=ConditionsConfig(
            home=f"{names[0]} in the shared space", away=f"{names[1]} in the shared space",
            probe=settings.probe, judged=settings.judged,
        ),
    )  # fmt: skip


def shuffled_pairs(data: Split, *, within: str = "task", seed: int = 0) -> Split:
    """The same split with the rows of y exchanged among whole episodes, the test left as it is.

    Maps fitted on it know what a label inside which it is shuffled tells, and nothing of which
    episode goes with which.

    Args:
        data: matched rows.
        within: label inside whose groups episodes are exchanged; "" for over all.
        seed: of the exchange.

    Raises:
        DegenerateError: if every group has one episode only.
        ShapeError: if episodes of a group have different numbers of rows.

    Example:
        >>> control = fit_pair(shuffled_pairs(data), layers, alignment=config, seeds=[0])[0]
    """

    def shuffled(part: Paired, number: int) -> Paired:
        groups = part.index.label(within) if within else None
        (order,) = permutations(part.index.episode, within=groups, draws=1, seed=2 * seed + number)
        return Paired(part.x, {n: v[order] for n, v in part.y.items()}, part.index)

    return Split(shuffled(data.fit, 0), shuffled(data.validation, 1), data.test)


def _sides(
    seeds: Sequence[Meeting], direction: Direction, config: TransferConfig
) -> tuple[list[Parts], list[Parts]]:
    x = [_side(meeting, "x", config) for meeting in seeds]
    y = [_side(meeting, "y", config) for meeting in seeds]
    return (x, y) if direction == "x_to_y" else (y, x)


def _side(meeting: Meeting, side: Literal["x", "y"], config: TransferConfig) -> Parts:
    """One side in the shared space."""
    parts = (meeting.data.fit, meeting.data.validation, meeting.data.test)
    layer = meeting.layers[0 if side == "x" else 1]
    layers = parts[0].x if side == "x" else parts[0].y
    if layer not in layers:
        raise UnknownNameError(f"layer of {side}", layer, layers)
    embed = meeting.maps.embed_x if side == "x" else meeting.maps.embed_y
    there = [
        np.asarray(embed((part.x if side == "x" else part.y)[layer]), dtype=np.float64)
        for part in parts
    ]
    shift = there[0].mean(axis=0) if config.centred else 0.0
    return Parts(*(Rows(v - shift, p.index) for v, p in zip(there, parts, strict=True)))

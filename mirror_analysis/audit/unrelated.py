"""Two representations that have nothing to do with one another, in the shapes they come in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Unrelated:
    """One draw of one x and several y, independent of it and of one another.

    Attributes:
        x: [sample, x_feature].
        y: each [sample, y_feature].
        options: of `compare`: how rows may trade places.
    """

    x: Rows
    y: tuple[Rows, ...]
    options: Mapping[str, Any]


def gaussian(rng: np.random.Generator, count: int, rows: int = 40) -> Unrelated:
    """Independent rows of 6 and 5 normal features."""
    draw = rng.standard_normal
    return Unrelated(draw((rows, 6)), tuple(draw((rows, 5)) for _ in range(count)), {})


def wide(rng: np.random.Generator, count: int, rows: int = 40) -> Unrelated:
    """More features than rows."""
    draw, more = rng.standard_normal, rows + rows // 4
    return Unrelated(draw((rows, more)), tuple(draw((rows, more)) for _ in range(count)), {})


def heavy(rng: np.random.Generator, count: int, rows: int = 40) -> Unrelated:
    """Student t with 2 degrees of freedom: a few rows rule."""
    x, *y = (rng.standard_t(2, (rows, width)) for width in (6, *[5] * count))
    return Unrelated(x, tuple(y), {})


def flat(rng: np.random.Generator, count: int, rows: int = 40) -> Unrelated:
    """Two directions hold nearly all of the variance of 20 features."""

    def side() -> Rows:
        latent = rng.standard_normal((rows, 2)) @ rng.standard_normal((2, 20))
        return latent + 0.01 * rng.standard_normal((rows, 20))

    return Unrelated(side(), tuple(side() for _ in range(count)), {})


def grouped(rng: np.random.Generator, count: int) -> Unrelated:
    """4 groups of 12 rows whose means lie far apart on both sides: only inside is no relation."""
    groups = np.repeat(np.arange(4), 12)

    def side(width: int) -> Rows:
        return 5 * rng.standard_normal((4, width))[groups] + rng.standard_normal((48, width))

    return Unrelated(side(6), tuple(side(5) for _ in range(count)), {"within": groups})


def episodes(rng: np.random.Generator, count: int) -> Unrelated:
    """24 episodes of 4 steps, each step nearly the one before: episodes trade places whole."""
    names, steps, memory = np.repeat(np.arange(24), 4), 4, 0.95

    def side(width: int) -> Rows:
        state = rng.standard_normal((24, width))
        out = []
        for _ in range(steps):
            out.append(state)
            state = memory * state + (1 - memory**2) ** 0.5 * rng.standard_normal((24, width))
        return np.stack(out, axis=1).reshape(24 * steps, width)

    return Unrelated(side(6), tuple(side(5) for _ in range(count)), {"units": names})


def steps(rng: np.random.Generator, count: int) -> Unrelated:
    """The same episodes whose steps trade places one by one, as if they were independent."""
    made = episodes(rng, count)
    return Unrelated(made.x, made.y, {})


def shifted(rng: np.random.Generator, count: int) -> Unrelated:
    """10 episodes of 12 steps that go round in a circle of smooth noise, so that any is the first.

    Every episode has a mean of its own on both sides, and these agree: steps are shifted around
    inside their episodes, which asks about time inside them and about nothing else.
    """
    weights = np.exp(-np.minimum(np.arange(12), 12 - np.arange(12)) / 2)
    place = 3 * rng.standard_normal((10, 1, 3))

    def side(width: int) -> Rows:
        noise = rng.standard_normal((10, 12, width))
        smooth = np.fft.ifft(np.fft.fft(noise, axis=1) * np.fft.fft(weights)[:, None], axis=1).real
        means = place @ rng.standard_normal((3, width))
        return (means + smooth).reshape(120, width)

    names = np.repeat(np.arange(10), 12)
    options = {"units": names, "exchange": "steps"}
    return Unrelated(side(6), tuple(side(5) for _ in range(count)), options)


UNRELATED: dict[str, Callable[..., Unrelated]] = {
    "episodes": episodes,
    "flat": flat,
    "gaussian": gaussian,
    "grouped": grouped,
    "heavy": heavy,
    "shifted": shifted,
    "steps": steps,
    "wide": wide,
}
"""Name of the situation -> what draws it for (generator, number of y), and rows in some."""

"""Planted features: what can be decoded from them, and where, is known."""

from __future__ import annotations

import numpy as np
import pytest

from mirror_analysis.features import Index, Paired, Split
from mirror_analysis.generalisation.parts import Parts, Rows

PARTS = ("fit", "validation", "test")


def index_of(count: int, prefix: str = "e", *, rows: int = 1, **labels: np.ndarray) -> Index:
    """`rows` rows of each of `count` episodes, labels given per episode."""
    names = np.array([f"{prefix}{i:04d}" for i in range(count)])
    return Index(
        np.repeat(names, rows),
        np.tile(np.arange(rows, dtype=np.int64), count),
        {name: np.repeat(values, rows) for name, values in labels.items()},
    )


class World:
    """Episodes of several tasks, each with a side of its goal that does not depend on the task.

    Sizes are episodes per task in the fit, validation and test part.
    """

    def __init__(
        self, seed: int = 0, *, tasks: int = 6, sizes: tuple[int, int, int] = (20, 10, 20)
    ) -> None:
        self.rng = np.random.default_rng(seed)
        self.indices = {}
        for part, size in zip(PARTS, sizes, strict=True):
            count = tasks * size
            task = np.repeat([f"task{i}" for i in range(tasks)], size)
            side = np.where(self.rng.random(count) < 0.5, "left", "right")
            self.indices[part] = index_of(
                count, part[0], task=task, side=side, place=self.rng.standard_normal(count)
            )

    def noise(self, part: str, width: int) -> np.ndarray:
        return self.rng.standard_normal((len(self.indices[part]), width))

    def sign(self, part: str) -> np.ndarray:
        return np.where(self.indices[part].label("side") == "left", -1.0, 1.0)

    def task(self, part: str) -> np.ndarray:
        return np.array([int(name[4:]) for name in self.indices[part].label("task")])

    def parts(self, make) -> Parts:
        """Features of every part, made of its name."""
        return Parts(*(Rows(make(part), self.indices[part]) for part in PARTS))

    def split(self, x, y) -> Split:
        return Split(
            *(
                Paired({"l": np.float32(x(part))}, {"l": np.float32(y(part))}, self.indices[part])
                for part in PARTS
            )
        )


@pytest.fixture
def world():
    return World


@pytest.fixture
def index():
    return index_of

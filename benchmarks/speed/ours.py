"""This project's side of every row, through its public interface."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks.speed.floors import chunks

Values = Callable[[], Any]


def grid(
    *,
    x_layers: np.ndarray,
    y_layers: np.ndarray,
    measures: Sequence[str],
    settings: dict[str, Any] | None = None,
) -> Values:
    """All layer pairs in the measures named; settings are those of `similarity.grid.grid`."""
    import mirror_analysis.similarity.grid as layers

    x, y = ({f"layer{i}": v for i, v in enumerate(side)} for side in (x_layers, y_layers))

    def work() -> list[float]:
        made = layers.grid(x, y, measures=list(measures), **(settings or {}))
        return [float("nan") if s.value is None else s.value for s in made.scores]

    return work


def pair(*, x: np.ndarray, y: np.ndarray, measures: Sequence[str]) -> Values:
    """One pair of layers in the measures named, values alone."""
    return grid(
        x_layers=x[None], y_layers=y[None], measures=measures, settings={"draws": 0, "folds": 0}
    )


def streaming(*, x: np.ndarray, y: np.ndarray, rows: int, chunk: int, folds: int = 0) -> Values:
    """Linear CKA of rows that come in chunks, `rows` in all."""
    from mirror_analysis.similarity.streaming import stream_linear_cka

    def work() -> float | None:
        parts = chunks(len(x), rows, chunk)
        return stream_linear_cka(((x[p], y[p]) for p in parts), folds=folds).value

    return work


def motion(*, paths: np.ndarray, squared: bool, threads: int) -> Values:
    """All pairs of trajectories, with distances or squared distances of the steps added up."""
    from mirror_analysis.similarity.motion.alignment import Block, dtw_distances

    blocks = (Block("all", slice(None), "squared", unit="mixed"),) if squared else ()

    def work() -> list[float]:
        made = dtw_distances(paths, blocks=blocks, step_pattern="symmetric1", threads=threads)
        first = made[0, 1:]
        return (first.sqrt() if squared else first).tolist()

    return work

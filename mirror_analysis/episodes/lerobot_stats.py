"""Statistics of features as LeRobotDataset files carry them: per episode, and over all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

Stats = dict[str, NDArray[Any]]

_QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
NAMES = ("min", "max", "mean", "std", "count", *_QUANTILES)
"""Of the statistics of one feature, in the order of the files."""


def vector_stats(values: NDArray[np.generic]) -> Stats:
    """Statistics of each number of a feature over the frames of an episode.

    The standard deviation is that of the population.

    Args:
        values: [time, number].

    Returns:
        name -> [number] float64; count -> [1] int64, the frames.

    Example:
        >>> vector_stats(np.array([[0.0], [2.0]]))["std"]
        array([1.])
    """
    exact = values.astype(np.float64)
    found: Stats = {
        "min": exact.min(axis=0),
        "max": exact.max(axis=0),
        "mean": exact.mean(axis=0),
        "std": exact.std(axis=0),
        "count": np.array([len(exact)], dtype=np.int64),
    }
    quantiles = np.quantile(exact, list(_QUANTILES.values()), axis=0)
    return found | dict(zip(_QUANTILES, quantiles, strict=True))


def picture_stats(frames: NDArray[np.uint8]) -> Stats:
    """Statistics of each colour over at most some hundred frames of an episode, in 0 to 1.

    Of large pictures only every so many-th row and column counts, as in the reference writer.

    Args:
        frames: [time, height, width, 3].

    Returns:
        name -> [3, 1, 1] float64; count -> [1] int64, the frames that were looked at.
    """
    time, height, width, _ = frames.shape
    count = max(min(100, time), min(int(time**0.75), 10_000))
    chosen = np.round(np.linspace(0, time - 1, count)).astype(np.int64)
    stride = max(height, width) // 150 if max(height, width) >= 300 else 1
    bins = np.zeros((3, 256), dtype=np.int64)
    for row in chosen:
        small = frames[row, ::stride, ::stride]
        for colour in range(3):
            bins[colour] += np.bincount(small[..., colour].ravel(), minlength=256)
    levels, total = np.arange(256) / 255, bins.sum(axis=1)
    mean = bins @ levels / total
    cumulative = bins.cumsum(axis=1)
    found: Stats = {
        "min": levels[(bins > 0).argmax(axis=1)],
        "max": levels[255 - (bins[:, ::-1] > 0).argmax(axis=1)],
        "mean": mean,
        "std": np.sqrt(np.maximum(bins @ levels**2 / total - mean**2, 0)),
    }
    for name, share in _QUANTILES.items():
        found[name] = levels[(cumulative >= share * total[:, None]).argmax(axis=1)]
    shaped: Stats = {name: values.reshape(3, 1, 1) for name, values in found.items()}
    return {name: shaped.get(name, np.array([count], dtype=np.int64)) for name in NAMES}


@final
class Overall:
    """Statistics over all episodes, from those of each: one episode is held at a time.

    Mean and standard deviation are exact; quantiles are the mean of the episodes' quantiles,
    weighted by their frames, which is what the reference writer gives.
    """

    def __init__(self) -> None:
        self._features: dict[str, Stats] = {}

    def add(self, stats: Mapping[str, Stats]) -> None:
        """Takes in the statistics of one more episode, by feature."""
        for name, new in stats.items():
            old = self._features.get(name)
            self._features[name] = dict(new) if old is None else _joined(old, new)

    def as_lists(self) -> dict[str, dict[str, object]]:
        """Feature -> statistic -> nested lists, fit for JSON."""
        return {
            feature: {name: stats[name].tolist() for name in NAMES}
            for feature, stats in self._features.items()
        }


def _joined(old: Stats, new: Stats) -> Stats:
    before, after = float(old["count"][0]), float(new["count"][0])
    share = after / (before + after)
    drift = new["mean"] - old["mean"]
    variance = (1 - share) * old["std"] ** 2 + share * new["std"] ** 2
    found: Stats = {
        "min": np.minimum(old["min"], new["min"]),
        "max": np.maximum(old["max"], new["max"]),
        "mean": old["mean"] + share * drift,
        "std": np.sqrt(variance + share * (1 - share) * drift**2),
        "count": old["count"] + new["count"],
    }
    return found | {q: (1 - share) * old[q] + share * new[q] for q in _QUANTILES}

"""Representations with the labels of their rows, and the one place where rows are matched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import msgspec
import numpy as np
from numpy.typing import NDArray

from mirror_analysis.errors import DegenerateError, PairingError, ShapeError, UnknownNameError


class FeatureKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a feature array is, so that no two different things are taken for one another.

    Attributes:
        checkpoint: name of the model, such as "reference-observation-s0".
        weights: sha256 of its weights.
        layer: layer name, such as "conv3".
        pooling: how many vectors became one per row, over time and over tokens or places, such
            as "mean", "last" or "mean/cls".
        episodes: fingerprint of the episodes, their nuisance included.
        batch_size: episodes of a forward pass, 0 where it was left to the extraction.
        dtype: precision the model ran in.
        settings: everything else that decides the features, such as which call of a layer counts.
    """

    checkpoint: str
    weights: str
    layer: str
    pooling: str
    episodes: str
    batch_size: int = 0
    dtype: str = "float32"
    settings: dict[str, str] = {}


@dataclass(frozen=True, eq=False)
class Index:
    """Which row is what.

    Attributes:
        episode: [sample] episode ids.
        step: [sample] the last frame the row has seen.
        labels: name -> [sample]; such as task, instruction, success.
    """

    episode: NDArray[np.str_]
    step: NDArray[np.int64]
    labels: Mapping[str, NDArray[np.generic]]

    def __len__(self) -> int:
        return len(self.episode)

    def label(self, name: str) -> NDArray[np.generic]:
        """One label of every row.

        Raises:
            UnknownNameError: if the rows do not carry it.
        """
        if name not in self.labels:
            raise UnknownNameError("label", name, self.labels)
        return self.labels[name]

    def take(self, rows: NDArray[np.generic]) -> Index:
        """The index of the chosen rows (positions or a mask)."""
        labels = {name: values[rows] for name, values in self.labels.items()}
        return Index(self.episode[rows], self.step[rows], labels)


@dataclass(frozen=True, eq=False)
class Features:
    """One layer's representation of every row.

    Attributes:
        key: what it is.
        values: [sample, feature] float32, finite.
        index: which row is what.

    Raises:
        ShapeError: if values are not two-dimensional or do not fit the index.
        DegenerateError: if a value is NaN or infinite.
    """

    key: FeatureKey
    values: NDArray[np.float32]
    index: Index

    def __post_init__(self) -> None:
        name = f"features of layer '{self.key.layer}' of {self.key.checkpoint}"
        if self.values.ndim != 2:
            raise ShapeError(
                f"{name} have shape {self.values.shape}; needed [sample, feature], so pool them"
            )
        if len(self.values) != len(self.index):
            raise ShapeError(f"{name} have {len(self.values)} rows but {len(self.index)} labels")
        bad = ~np.isfinite(self.values).all(axis=1)
        if bad.any():
            first = self.index.episode[bad][0]
            raise DegenerateError(
                f"{name} hold NaN or infinity in {int(bad.sum())} of {len(self.values)} rows"
                f" (first in episode {first}); check the checkpoint and its input normalisation"
            )

    def take(self, rows: NDArray[np.generic]) -> Features:
        """The chosen rows (positions or a mask)."""
        return replace(self, values=self.values[rows], index=self.index.take(rows))


Layers = Mapping[str, Features]
"""Layer name -> features; all layers of one model over the same rows, in forward order."""


@dataclass(frozen=True, eq=False)
class Paired:
    """Two stacks of layers over the same rows, row i of every array being the same moment.

    Attributes:
        x: layer -> [sample, feature] of the first model.
        y: layer -> [sample, feature] of the second model.
        index: which row is what.
    """

    x: Mapping[str, NDArray[np.float32]]
    y: Mapping[str, NDArray[np.float32]]
    index: Index

    def __len__(self) -> int:
        return len(self.index)

    def take(self, rows: NDArray[np.generic]) -> Paired:
        """The chosen rows (positions or a mask)."""
        return Paired(
            {name: values[rows] for name, values in self.x.items()},
            {name: values[rows] for name, values in self.y.items()},
            self.index.take(rows),
        )


@dataclass(frozen=True, eq=False)
class Split:
    """Disjoint sets of whole episodes.

    Attributes:
        fit: what is fitted on.
        validation: what choices are made on.
        test: what numbers come from.
    """

    fit: Paired
    validation: Paired
    test: Paired


def pair(x: Layers, y: Layers) -> Paired:
    """Matches the rows of two models by (episode, step): the only place where that is done.

    Rows come out in the order of x.

    Raises:
        PairingError: if either side has a row the other lacks, a row twice, or a label on
            which they disagree.
    """
    x_index, y_index = _common_index(x, "x"), _common_index(y, "y")
    x_rows, y_rows = _positions(x_index, "x"), _positions(y_index, "y")
    for side, other, rows, others in (("x", "y", x_rows, y_rows), ("y", "x", y_rows, x_rows)):
        missing = [row for row in rows if row not in others]
        if missing:
            episode, step = missing[0]
            raise PairingError(
                f"{len(missing)} of {len(rows)} rows of {side} are missing in {other}, first"
                f" episode {episode} step {step}; extract both models from the same episodes"
            )
    order = np.array([y_rows[row] for row in x_rows], dtype=np.int64)
    labels = dict(x_index.labels)
    for name, values in y_index.labels.items():
        aligned = values[order]
        if name in labels and not np.array_equal(labels[name], aligned):
            raise PairingError(
                f"x and y disagree on the label '{name}' of the same rows;"
                " extract both models from the same episodes"
            )
        labels[name] = aligned
    return Paired(
        {name: features.values for name, features in x.items()},
        {name: features.values[order] for name, features in y.items()},
        Index(x_index.episode, x_index.step, labels),
    )


def _common_index(layers: Layers, side: str) -> Index:
    if not layers:
        raise PairingError(f"{side} has no layers; needed at least one")
    first = next(iter(layers.values())).index
    for name, features in layers.items():
        same = features.index is first or (
            np.array_equal(features.index.episode, first.episode)
            and np.array_equal(features.index.step, first.step)
        )
        if not same:
            raise PairingError(
                f"layer '{name}' of {side} has other rows than its first layer;"
                " extract all layers in one pass"
            )
    return first


def _positions(index: Index, side: str) -> dict[tuple[str, int], int]:
    rows = {
        (str(e), int(s)): i for i, (e, s) in enumerate(zip(index.episode, index.step, strict=True))
    }
    if len(rows) != len(index):
        raise PairingError(
            f"{side} has {len(index) - len(rows)} repeated (episode, step) rows;"
            " give every episode an id of its own"
        )
    return rows


def split(paired: Paired, *, by: str = "split", validation: float = 0.2, seed: int = 0) -> Split:
    """Divides rows into fit, validation and test by a label of the episodes.

    Episodes labelled "test" are the test; the rest are fitted on, of which a share of whole
    episodes, drawn within each task where tasks are known, is held out for choices.

    Args:
        paired: rows with a label `by` of "fit" or "test".
        by: name of that label.
        validation: share of the fit episodes held out, in (0, 1).
        seed: of the draw.

    Raises:
        DegenerateError: if a part would be empty.
    """
    label = paired.index.label(by)
    test = label == "test"
    rng = np.random.default_rng(seed)
    ids, first = np.unique(paired.index.episode[~test], return_index=True)
    tasks = paired.index.labels.get("task")
    groups = tasks[~test][first] if tasks is not None else np.zeros(len(ids), dtype=np.int64)
    held: set[str] = set()
    for group in np.unique(groups):
        members = ids[groups == group]
        held.update(rng.permutation(members)[: round(validation * len(members))].tolist())
    is_held = np.isin(
        paired.index.episode, np.array(sorted(held), dtype=paired.index.episode.dtype)
    )
    parts = {"fit": ~test & ~is_held, "validation": ~test & is_held, "test": test}
    for name, mask in parts.items():
        if not mask.any():
            raise DegenerateError(
                f"no episodes left for {name}: of {len(np.unique(paired.index.episode))} episodes"
                f" {len(np.unique(paired.index.episode[test]))} are labelled test;"
                " collect more episodes or label them by split"
            )
    return Split(*(paired.take(mask) for mask in parts.values()))

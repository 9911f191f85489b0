"""What an alignment has to beat: representations nobody learned, as features like any other."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from mirror_analysis.episodes import Episode, Episodes
from mirror_analysis.errors import DegenerateError, ShapeError, StreamError
from mirror_analysis.features import FeatureKey, Features, Index, Layers
from mirror_analysis.models.reference.family import proprioception as felt


def pixels(episodes: Episodes, camera: str, *, cells: int = 16) -> Layers:
    """Mean picture of each episode, averaged in cells x cells squares, [sample, cells^2 * 3]."""
    episodes.require(camera)

    def mean_picture(episode: Episode) -> NDArray[np.float64]:
        frames = episode.frames(camera).mean(axis=0)
        if min(frames.shape[:2]) < cells:
            raise ShapeError(
                f"camera '{camera}' of episode {episode.id} has {frames.shape[0]} x"
                f" {frames.shape[1]} pixels; needed at least the {cells} cells a side"
            )
        rows = np.array_split(frames, cells, axis=0)
        return np.stack(
            [cell.mean(axis=(0, 1)) for row in rows for cell in np.array_split(row, cells, axis=1)]
        ).ravel()

    return _layers(episodes, f"pixels {camera}", mean_picture)


def inputs(episodes: Episodes, streams: Sequence[str]) -> Layers:
    """Mean over time of the vectors a model is given, side by side, [sample, number]."""

    def given(episode: Episode) -> NDArray[np.float32]:
        return np.concatenate([episode.stream(name).mean(axis=0) for name in streams])

    return _layers(episodes, f"input {', '.join(streams)}", given)


def state(episodes: Episodes) -> Layers:
    """Mean over time of the full state: hand, objects and goal, without noise."""
    return _layers(episodes, "state", lambda episode: episode.states.mean(axis=0))


def proprioception(episodes: Episodes) -> Layers:
    """Mean over time of what the policy feels: hand position and gripper opening."""
    return _layers(
        episodes,
        "proprioception",
        lambda episode: felt(episode.states, needed_by="proprioception").mean(axis=0),
    )


def time(episodes: Episodes) -> Layers:
    """Length of the episode in steps and in its logarithm, [sample, 2]."""
    return _layers(
        episodes, "time", lambda episode: np.array([episode.length, np.log(episode.length)])
    )


def identity(episodes: Episodes, label: str) -> Layers:
    """One column per value of a label: what somebody knows who knows the label and no more."""
    labels = episodes.labels()
    if label not in labels:
        raise StreamError(
            f"episodes carry no label '{label}'; they have {', '.join(sorted(labels))}"
        )
    values = labels[label]
    known = np.unique(values)
    codes = (values[:, None] == known[None, :]).astype(np.float32)
    return _wrap(episodes, f"{label} identity", codes)


def index(episodes: Episodes) -> Index:
    """Row labels of one row per episode, as `extract` gives them."""
    return Index(
        np.array([episode.id for episode in episodes]),
        np.array([episode.steps[-1] for episode in episodes], dtype=np.int64),
        episodes.labels(),
    )


def _layers(
    episodes: Episodes, name: str, describe: Callable[[Episode], NDArray[np.generic]]
) -> Layers:
    if not len(episodes):
        raise DegenerateError(f"no episodes to take {name} of; needed at least one")
    values = np.stack([describe(episode) for episode in episodes]).astype(np.float32)
    return _wrap(episodes, name, values)


def _wrap(episodes: Episodes, name: str, values: NDArray[np.float32]) -> Layers:
    digest = hashlib.sha256(name.encode()).hexdigest()
    key = FeatureKey(name, digest, name, "mean", episodes.fingerprint)
    return {name: Features(key, values, index(episodes))}

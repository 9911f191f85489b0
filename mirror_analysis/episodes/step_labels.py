"""Facts about single frames, as labels of the rows of features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mirror_analysis.episodes.episode import Episode, Episodes
from mirror_analysis.episodes.replays import Replay
from mirror_analysis.errors import DegenerateError, PairingError
from mirror_analysis.features import Features, Index, Layers

STATE = 39
"""Numbers in Meta-World's state, of which 4 to 6 are the position of the first object."""

_OBJECT = slice(4, 7)
_AXES = ("object_x", "object_y", "object_z")


def step_index(episodes: Episodes, *, replays: Mapping[str, Replay] | None = None) -> Index:
    """The rows of all stored frames, episode by episode, labelled with what is known of each.

    Beside the labels of its episode a frame has

    | label | what | of |
    | --- | --- | --- |
    | `progress` | step / (length - 1), in [0, 1] | any episodes |
    | `action_0` ... | what the unhindered expert would do now, else the action taken | any |
    | `object_x`, `object_y`, `object_z` | position of the first object, metres | Meta-World |
    | `contact`, `phase` | as `Replay` says | replayed ones |

    Positions are those that Meta-World's state tells: the handle, button or knob that the hand
    works on rather than the middle of the thing. A label is there where all episodes have it.

    Args:
        episodes: whose frames.
        replays: episode id -> what `replay` found, for `contact` and `phase`.

    Raises:
        DegenerateError: if there are no episodes.
        PairingError: if an episode was not replayed.

    Example:
        >>> step_index(episodes, replays=replay(episodes)).label("phase")
    """
    _require(episodes)
    counts = [len(episode.steps) for episode in episodes]
    ids = np.array([episode.id for episode in episodes]).repeat(counts)
    labels = {name: values.repeat(counts) for name, values in episodes.labels().items()}
    every = [_labels(episode, replays) for episode in episodes]
    shared = [name for name in every[0] if all(name in one for one in every)]
    labels |= {name: np.concatenate([one[name] for one in every]) for name in shared}
    return Index(ids, np.concatenate([episode.steps for episode in episodes]), labels)


def episode_index(episodes: Episodes) -> Index:
    """The rows of whole episodes, as `extract` gives them, and where their objects start.

    Returns:
        Labels of the episodes, then, in Meta-World, `object_x`, `object_y` and `object_z` of
        the first stored frame, metres.

    Raises:
        DegenerateError: if there are no episodes.
    """
    _require(episodes)
    labels = dict(episodes.labels())
    if all(_has_object(episode) for episode in episodes):
        starts = np.stack([episode.states[0, _OBJECT] for episode in episodes])
        labels |= dict(zip(_AXES, starts.T, strict=True))
    last = np.array([episode.steps[-1] for episode in episodes], dtype=np.int64)
    return Index(np.array([episode.id for episode in episodes]), last, labels)


def relabelled(layers: Layers, index: Index) -> dict[str, Features]:
    """The same features under the labels of another index, matched by (episode, step).

    Args:
        layers: features of one model; "steps" go with `step_index`, others with `episode_index`.
        index: has every row of the features; it may have more.

    Raises:
        PairingError: if a row of the features is not in the index, or a row of a whole episode
            would get the labels of one of its frames.
    """
    many = len(np.unique(index.episode)) < len(index)
    for name, features in layers.items():
        if many and not features.key.pooling.startswith("steps"):
            raise PairingError(
                f"layer '{name}' was pooled by '{features.key.pooling}' to one row per episode but"
                " the index has one per frame; extract 'steps', or use episode_index"
            )
    places = {
        (str(e), int(s)): i for i, (e, s) in enumerate(zip(index.episode, index.step, strict=True))
    }
    done: dict[int, Index] = {}
    found = {}
    for name, features in layers.items():
        rows = features.index
        if id(rows) not in done:
            done[id(rows)] = _matched(rows, index, places)
        found[name] = replace(features, index=done[id(rows)])
    return found


def _matched(rows: Index, index: Index, places: Mapping[tuple[str, int], int]) -> Index:
    wanted = [(str(e), int(s)) for e, s in zip(rows.episode, rows.step, strict=True)]
    missing = [row for row in wanted if row not in places]
    if missing:
        episode, step = missing[0]
        raise PairingError(
            f"{len(missing)} of {len(wanted)} rows of the features have no labels, first episode"
            f" {episode} step {step}; make the index of the episodes they were extracted from"
        )
    return index.take(np.array([places[row] for row in wanted], dtype=np.int64))


def _labels(
    episode: Episode, replays: Mapping[str, Replay] | None
) -> dict[str, NDArray[np.generic]]:
    actions = episode.extras.get("expert_actions", episode.actions)
    found: dict[str, NDArray[np.generic]] = {"progress": episode.steps / max(episode.length - 1, 1)}
    found |= {f"action_{i}": column for i, column in enumerate(actions.reshape(len(actions), -1).T)}
    if _has_object(episode):
        found |= dict(zip(_AXES, episode.states[:, _OBJECT].T, strict=True))
    if replays is not None:
        if episode.id not in replays:
            raise PairingError(
                f"episode {episode.id} was not replayed; replay all the episodes that are labelled"
            )
        replayed = replays[episode.id]
        found |= {"contact": replayed.contact, "phase": replayed.phase}
    return found


def _has_object(episode: Episode) -> bool:
    return episode.states.shape[1] == STATE


def _require(episodes: Sequence[Episode]) -> None:
    if not len(episodes):
        raise DegenerateError("no episodes to label; needed at least one")

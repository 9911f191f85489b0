"""What happened once in front of the cameras, and an immutable collection of such episodes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, final, overload

import msgspec
import numpy as np
from numpy.typing import NDArray

from mirror_analysis.errors import (
    DegenerateError,
    FormatError,
    PairingError,
    ShapeError,
    StreamError,
)

Label = str | int | float | bool
FrameLoader = Callable[[str], NDArray[np.uint8]]

_FIELDS = ("task", "instruction", "success", "length")


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class Episode:
    """One execution of one instruction: what was seen, felt and done, frame by frame.

    Every array is indexed by [time], the stored frames. The pictures stay on disk until
    `frames(camera)` asks for them.

    Attributes:
        id: name of the episode, unique within its collection.
        task: what kind of thing is done, such as "drawer-open".
        instruction: what was asked for, such as "open the drawer on the left".
        success: whether the instruction was carried out.
        states: [time, state] float32; state may be 0 where none was recorded.
        actions: [time, action] float32; actions[t] is taken after seeing frame t.
        timestamps: [time] float64 seconds since the start of the episode, not decreasing.
        steps: [time] int64 environment step of each stored frame, increasing, in [0, length).
        length: environment steps of the whole episode.
        cameras: names of the views, in the order of the source.
        loader: gives [time, height, width, 3] uint8 for one of the cameras.
        digest: sha256 of the contents, the pictures and any nuisance included.
        labels: facts about the whole episode, such as split, seed or target coordinates.
        extras: more arrays of [time, ...], such as expert_actions.

    Raises:
        ShapeError: if an array has the wrong number of axes, or lengths disagree.
        FormatError: if an array has another type of number, or steps are out of order.
        DegenerateError: if an array holds NaN or infinity.
    """

    id: str
    task: str
    instruction: str
    success: bool
    states: NDArray[np.float32]
    actions: NDArray[np.float32]
    timestamps: NDArray[np.float64]
    steps: NDArray[np.int64]
    length: int
    cameras: tuple[str, ...]
    loader: FrameLoader = field(repr=False)
    digest: str
    labels: Mapping[str, Label] = field(default_factory=dict)
    extras: Mapping[str, NDArray[np.generic]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, axes, dtype in (
            ("steps", "[time]", np.int64),
            ("states", "[time, state]", np.float32),
            ("actions", "[time, action]", np.float32),
            ("timestamps", "[time]", np.float64),
        ):
            self._check_array(name, getattr(self, name), axes, np.dtype(dtype))
        if not len(self.steps):
            raise ShapeError(f"episode {self.id} has no frames; needed at least one")
        for name, values in (*self._arrays(), *self.extras.items()):
            if len(values) != len(self.steps):
                raise ShapeError(
                    f"episode {self.id} has {len(self.steps)} steps but {len(values)} {name};"
                    " give one of each per stored frame"
                )
            if np.issubdtype(values.dtype, np.floating) and not np.isfinite(values).all():
                raise DegenerateError(
                    f"{name} of episode {self.id} hold NaN or infinity; leave the episode out"
                )
        if (np.diff(self.steps) <= 0).any() or not 0 <= self.steps[0] <= self.steps[-1] < (
            self.length
        ):
            raise FormatError(
                f"steps of episode {self.id} run from {self.steps[0]} to {self.steps[-1]};"
                f" needed increasing steps in 0 to {self.length - 1}, its length less one"
            )
        if (np.diff(self.timestamps) < 0).any():
            raise FormatError(
                f"timestamps of episode {self.id} decrease; give seconds since its start, in order"
            )

    def frames(self, camera: str) -> NDArray[np.uint8]:
        """What one camera saw, read now.

        Args:
            camera: one of `cameras`.

        Returns:
            [time, height, width, 3] RGB, the first row the top one.

        Raises:
            StreamError: if there is no such camera.
            ShapeError: if the pictures do not fit the episode.
        """
        if camera not in self.cameras:
            there = ", ".join(self.cameras) if self.cameras else "none"
            raise StreamError(f"episode {self.id} has no camera '{camera}' (cameras: {there})")
        pictures = self.loader(camera)
        fits = pictures.ndim == 4 and pictures.shape[-1] == 3
        if not fits or len(pictures) != len(self.steps) or pictures.dtype != np.uint8:
            raise ShapeError(
                f"camera '{camera}' of episode {self.id} gave {pictures.dtype}"
                f" {list(pictures.shape)}; needed uint8 [{len(self.steps)}, height, width, 3]"
            )
        return pictures

    @property
    def streams(self) -> dict[str, tuple[int, ...]]:
        """What a model can read of it: stream -> shape per frame, () where it is not known yet.

        "camera:NAME" for every view, "states" and "actions" where they were recorded,
        "instruction" where there is one, "array:NAME" for every extra of numbers.
        """
        found: dict[str, tuple[int, ...]] = {f"camera:{camera}": () for camera in self.cameras}
        for name in ("states", "actions"):
            if getattr(self, name).size:
                found[name] = getattr(self, name).shape[1:]
        if self.instruction:
            found["instruction"] = ()
        for name, values in self.extras.items():
            if np.issubdtype(values.dtype, np.number):
                found[f"array:{name}"] = (int(np.prod(values.shape[1:])),)
        return found

    def stream(self, name: str) -> NDArray[Any]:
        """One of `streams`, [time, ...]: pictures uint8, vectors float32, words as they are.

        Raises:
            StreamError: if there is no such stream.
        """
        kind, _, what = name.partition(":")
        if name not in self.streams:
            there = ", ".join(self.streams) or "none"
            raise StreamError(f"episode {self.id} has no stream '{name}' (streams: {there})")
        if kind == "camera":
            return self.frames(what)
        if kind == "instruction":
            return np.full(len(self.steps), self.instruction)
        if kind == "array":
            return self.extras[what].reshape(len(self.steps), -1).astype(np.float32)
        return getattr(self, name)

    @classmethod
    def from_frames(cls, frames: Mapping[str, NDArray[np.uint8]], **fields: Any) -> Episode:
        """An episode whose pictures are in memory.

        Args:
            frames: camera -> [time, height, width, 3] uint8.
            **fields: the other attributes, except cameras, loader and digest.

        Example:
            >>> Episode.from_frames({"A": pictures}, id="0", task="wave", instruction="wave",
            ...                     success=True, states=states, actions=actions,
            ...                     timestamps=steps / 10, steps=steps, length=80)
        """
        held = dict(frames)
        episode = cls(
            **fields, cameras=tuple(held), loader=held.__getitem__, digest="not yet known"
        )
        digest = hashlib.sha256(f"{episode.id}\0{episode.task}\0{episode.length}".encode())
        pictures = [(f"frames/{camera}", episode.frames(camera)) for camera in held]
        for name, values in (*episode._arrays(), *episode.extras.items(), *pictures):
            digest.update(f"\0{name} {values.dtype} {values.shape}\0".encode())
            digest.update(np.ascontiguousarray(values).tobytes())
        return cls(
            **fields, cameras=episode.cameras, loader=episode.loader, digest=digest.hexdigest()
        )

    def _arrays(self) -> tuple[tuple[str, NDArray[np.generic]], ...]:
        return (
            ("states", self.states),
            ("actions", self.actions),
            ("timestamps", self.timestamps),
            ("steps", self.steps),
        )

    def _check_array(
        self, name: str, values: NDArray[np.generic], axes: str, dtype: np.dtype[Any]
    ) -> None:
        if values.ndim != axes.count(",") + 1:
            raise ShapeError(
                f"{name} of episode {self.id} have shape {list(values.shape)}; needed {axes}"
            )
        if values.dtype != dtype:
            raise FormatError(
                f"{name} of episode {self.id} are {values.dtype}; needed {dtype}, so convert them"
            )


@final
class Episodes(Sequence[Episode]):
    """Episodes in a fixed order, each with an id of its own.

    Args:
        episodes: any iterable of them.

    Raises:
        PairingError: if two have the same id.
    """

    def __init__(self, episodes: Iterable[Episode]) -> None:
        self._episodes = tuple(episodes)
        seen: set[str] = set()
        for episode in self._episodes:
            if episode.id in seen:
                raise PairingError(
                    f"two episodes are named {episode.id}; give every episode an id of its own"
                )
            seen.add(episode.id)

    def __len__(self) -> int:
        return len(self._episodes)

    @overload
    def __getitem__(self, index: int) -> Episode: ...

    @overload
    def __getitem__(self, index: slice) -> Episodes: ...

    def __getitem__(self, index: int | slice) -> Episode | Episodes:
        if isinstance(index, slice):
            return Episodes(self._episodes[index])
        return self._episodes[index]

    def __repr__(self) -> str:
        tasks = len({episode.task for episode in self})
        return f"Episodes({len(self)} of {tasks} tasks, cameras {', '.join(self.cameras)})"

    @property
    def fingerprint(self) -> str:
        """Sha256 of what the episodes are, whatever their order; reads no pictures."""
        lines = sorted(
            msgspec.json.encode([e.id, e.digest, e.task, e.instruction, e.success]) for e in self
        )
        return hashlib.sha256(b"\n".join(lines)).hexdigest()

    @property
    def cameras(self) -> tuple[str, ...]:
        """Cameras that every episode has, in the order of the first."""
        if not self._episodes:
            return ()
        shared = set.intersection(*(set(episode.cameras) for episode in self))
        return tuple(camera for camera in self[0].cameras if camera in shared)

    @cached_property
    def streams(self) -> dict[str, tuple[int, ...]]:
        """Streams that every episode has with the same shape, in the order of the first."""
        if not self._episodes:
            return {}
        every = [episode.streams.items() for episode in self]
        return {k: v for k, v in self[0].streams.items() if all((k, v) in e for e in every)}

    def require(self, camera: str) -> None:
        """Makes sure that every episode has a camera.

        Raises:
            StreamError: if one lacks it.
        """
        lacking = [episode for episode in self if camera not in episode.cameras]
        if lacking:
            there = ", ".join(self.cameras) if self.cameras else "none"
            raise StreamError(
                f"{len(lacking)} of {len(self)} episodes have no camera '{camera}', first"
                f" {lacking[0].id} (cameras of all: {there})"
            )

    def frames(self, camera: str) -> NDArray[np.uint8]:
        """What one camera saw in every episode, read now; all of it is in memory at once.

        Returns:
            [episode, time, height, width, 3] RGB.

        Raises:
            StreamError: if an episode lacks the camera.
            ShapeError: if episodes differ in their number of frames, or pictures in size.
            DegenerateError: if there are no episodes.
        """
        self.require(camera)
        if not self._episodes:
            raise DegenerateError("no episodes to take frames of; needed at least one")
        counts = {len(episode.steps) for episode in self}
        if len(counts) > 1:
            raise ShapeError(
                f"episodes have between {min(counts)} and {max(counts)} frames; needed equally"
                " many, so collect them with one --frames"
            )
        found = [episode.frames(camera) for episode in self]
        sizes = {pictures.shape[1:] for pictures in found}
        if len(sizes) > 1:
            raise ShapeError(
                f"pictures of camera '{camera}' have {len(sizes)} sizes, such as"
                f" {list(min(sizes))} and {list(max(sizes))}; needed one"
            )
        return np.stack(found)

    def take(self, rows: NDArray[np.generic] | Sequence[int]) -> Episodes:
        """The chosen episodes.

        Args:
            rows: positions, or a mask of [episode].

        Raises:
            ShapeError: if a mask has another length.
        """
        chosen = np.asarray(rows)
        if chosen.dtype == np.bool_:
            if chosen.shape != (len(self),):
                raise ShapeError(
                    f"a mask of shape {list(chosen.shape)} cannot choose from {len(self)}"
                    " episodes; needed one value per episode"
                )
            chosen = np.flatnonzero(chosen)
        return Episodes([self._episodes[int(row)] for row in chosen])

    def where(self, **labels: Label) -> Episodes:
        """The episodes whose task, instruction, success, length or label has the given value.

        Raises:
            StreamError: if an episode lacks such a label.

        Example:
            >>> episodes.where(split="test", success=True)
        """
        return Episodes([e for e in self if all(_label(e, k) == v for k, v in labels.items())])

    def labels(self) -> dict[str, NDArray[np.generic]]:
        """Facts about whole episodes that all of them carry.

        Returns:
            name -> [episode]: task, instruction, success and length first, then the labels.
        """
        shared = set.intersection(*(set(e.labels) for e in self)) if self._episodes else set()
        names = dict.fromkeys(n for e in self._episodes[:1] for n in e.labels if n in shared)
        return {name: np.array([_label(e, name) for e in self]) for name in (*_FIELDS, *names)}


def _label(episode: Episode, name: str) -> Label:
    if name in _FIELDS:
        return getattr(episode, name)
    if name not in episode.labels:
        there = ", ".join((*_FIELDS, *sorted(episode.labels)))
        raise StreamError(f"episode {episode.id} has no label '{name}' (labels: {there})")
    return episode.labels[name]

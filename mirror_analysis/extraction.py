"""Runs a model over episodes and keeps every layer, in one pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mirror_analysis.errors import (
    DegenerateError,
    ShapeError,
    StreamError,
    UnknownNameError,
)
from mirror_analysis.features import Features, Index
from mirror_analysis.store import FeatureStore, Row, StackKey
from mirror_analysis.streams import resolve

if TYPE_CHECKING:
    import torch

    from mirror_analysis.episodes import Episode, Episodes
    from mirror_analysis.models.model import LayerInfo, Model
    from mirror_analysis.models.recording.pooling import Pooling

_BATCH = 16  # episodes
_ACCELERATED = 8  # times as many frames at once on a device of its own
_PRECISIONS = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Progress:
    """How far an extraction is.

    Attributes:
        done: episodes whose features are there.
        total: episodes asked for.
        stored: of the done, those that were in the store before.
        damaged: shards of the store that were damaged, set aside, and computed anew.
    """

    done: int
    total: int
    stored: int
    damaged: tuple[str, ...] = ()


def extract(
    model: Model,
    episodes: Episodes,
    *,
    layers: Sequence[str] | None = None,
    pooling: str = "mean",
    batch_size: int | None = None,
    device: str = "cpu",
    dtype: str = "float32",
    streams: Mapping[str, str] | None = None,
    store: FeatureStore | Path | str | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> dict[str, Features]:
    """The features of every layer of a model over episodes, one row per episode or per frame.

    The step of a row is the environment step of its frame: with "steps" one row for each stored
    frame, episode by episode, which repeats the episode's labels; else one for the whole
    episode, at its last frame. What a layer does with the frames around a row is the model's
    affair: a transformer over time has seen later ones, too. The model is left as it was found:
    its training flags, its device, and without hooks.

    Args:
        model: what runs.
        episodes: what it runs over.
        layers: names of the layers wanted; when None all, or of "steps" all that give a vector
            for every frame.
        pooling: over time, "mean", the "last" frame, or "steps" for none; then after a slash
            over space, "mean" (when left out), "grid2" or "grid4", which keep where things are,
            and of tokens "cls" or "patches".
        batch_size: episodes per forward pass; when None, 16 or as many as the model takes
            frames at once. Only episodes with equally many frames share one.
        device: where the model runs, such as "cpu" or "cuda".
        dtype: "float32", or "bfloat16" or "float16" for what autocast runs so; kept in float32.
        streams: model input -> stream of the episodes, where their names differ.
        store: a folder where features are kept as they come. Rows found there are not computed
            again, so an interrupted run goes on where it stopped.
        progress: told after every batch.

    Returns:
        Layer -> features [episode, feature] in the order of the episodes, or [episode * time,
        feature], time running fastest; layers in forward order.

    Raises:
        UnknownNameError: if a layer or pooling does not exist.
        ShapeError: if "steps" are asked of a layer without a vector for every frame, or of a
            model without any other.
        StreamError: if the episodes lack an input of the model; says which `streams` would fit.
        DegenerateError: if there are no episodes, or a feature is NaN or infinite.
        HookError: if a layer does not run or is not what it declares.
        DeviceError: if the device or precision is not there.
        StoreError: if the store is something else or damaged beyond its shards.

    Example:
        >>> features = extract(model, episodes, pooling="last", store="features/")
        >>> features["conv4"].values.shape
        (720, 64)
    """
    from mirror_analysis.models.model import require_device
    from mirror_analysis.models.recording.pooling import Pooling

    rule = Pooling.parse(pooling)
    infos = _choose(model, layers, rule)
    target = require_device(device)
    if dtype not in _PRECISIONS:
        raise UnknownNameError("dtype", dtype, _PRECISIONS)
    if batch_size is not None and batch_size < 1:
        raise DegenerateError(f"batch_size is {batch_size}; needed at least 1 episode")
    items = list(episodes)
    if not items:
        raise DegenerateError(f"no episodes to run {model.name} over; needed at least one")
    wires = resolve(model.name, model.needs, episodes.streams, streams)
    index, starts = _index(episodes, items, rule)
    key = StackKey(
        model.name,
        model.weights_sha256,
        str(rule),
        episodes.fingerprint,
        tuple(f"{name}={stream}" if name != stream else name for name, stream in wires.items()),
        batch_size=batch_size or 0,
        dtype=dtype,
        settings=dict(model.settings),
    )
    rows: list[Row] = list(zip(index.episode.tolist(), index.step.tolist(), strict=True))
    stack = _Stack(key, rows, list(infos), _open(store))
    where = partial(_rows, starts)
    most = model.frames_at_once * (1 if target.type == "cpu" else _ACCELERATED)
    batches = _batches([len(e.steps) for e in items], batch_size, most)
    plan = [(b, stack.missing(where(b))) for b in batches]
    work = [(batch, names) for batch, names in plan if names]
    done = stored = len(items) - sum(len(batch) for batch, _ in work)
    if progress is not None:
        progress(Progress(done, len(items), stored, stack.damaged))
    if work:
        with _running(model, target, dtype):
            for (batch, names), loaded in _look_ahead(items, work, wires):
                wanted = [infos[name] for name in names]
                values = _forward(model, loaded, wanted, rule, most)
                part = index.take(where(batch))
                for name in names:
                    Features(key.layer(name), values[name], part)  # refuses NaN before it is kept
                stack.add(where(batch), values)
                done += len(batch)
                if progress is not None:
                    progress(Progress(done, len(items), stored, stack.damaged))
    return {name: Features(key.layer(name), stack.values[name], index) for name in infos}


class _Stack:
    """The rows of all layers, filled from the store first and from the model then."""

    def __init__(
        self, key: StackKey, rows: list[Row], layers: list[str], store: FeatureStore | None
    ) -> None:
        self.key, self.rows, self.store = key, rows, store
        self.values: dict[str, NDArray[np.float32]] = {}
        self.there = {name: np.zeros(len(rows), dtype=np.bool_) for name in layers}
        self.damaged: tuple[str, ...] = ()
        if store is not None:
            found = store.read(key, rows, layers)
            self.values.update(found.values)
            self.there.update(found.there)
            self.damaged = found.damaged
            store.set_aside(key, found.damaged)

    def missing(self, batch: NDArray[np.int64]) -> list[str]:
        """Layers of which a row of the batch is missing: the batch is run whole for them."""
        return [name for name, there in self.there.items() if not there[batch].all()]

    def add(self, batch: NDArray[np.int64], values: dict[str, NDArray[np.float32]]) -> None:
        if self.store is not None:
            self.store.write(self.key, [self.rows[i] for i in batch], values)
        for name, part in values.items():
            if name not in self.values:
                shape = (len(self.rows), part.shape[1])
                self.values[name] = np.full(shape, np.nan, dtype=np.float32)
            self.values[name][batch] = part
            self.there[name][batch] = True


class _Loaded:
    """Frames of an episode, already decoded, under the names the model gives its inputs."""

    def __init__(self, episode: Episode, streams: Mapping[str, NDArray[Any]], part: slice) -> None:
        self.id = episode.id
        self.instruction = episode.instruction
        self.length = episode.length
        self.steps = episode.steps[part]
        self.timestamps = episode.timestamps[part]
        self._episode, self._streams = episode, streams
        self._part = part

    @classmethod
    def of(cls, episode: Episode, wires: Mapping[str, str]) -> _Loaded:
        streams = {name: episode.stream(stream) for name, stream in wires.items()}
        return cls(episode, streams, slice(None))

    def stream(self, name: str) -> NDArray[Any]:
        if name not in self._streams:
            raise StreamError(
                f"the model reads '{name}' but declares only {sorted(self._streams)};"
                " add it to the model's inputs"
            )
        return self._streams[name][self._part]

    def frames(self, part: slice) -> _Loaded:
        return _Loaded(self._episode, self._streams, part)


def _choose(model: Model, layers: Sequence[str] | None, pooling: Pooling) -> dict[str, LayerInfo]:
    from mirror_analysis.models.recording.pooling import has_steps

    known = {info.name: info for info in model.layers()}
    for name in layers or ():
        if name not in known:
            raise UnknownNameError(f"layer of {model.name}", name, known)
    chosen = {name: info for name, info in known.items() if layers is None or name in layers}
    if pooling.time != "steps":
        return chosen
    stepped = {name: info for name, info in chosen.items() if has_steps(info)}
    whole = [name for name in chosen if name not in stepped]
    if whole and (layers is not None or not stepped):
        raise ShapeError(
            f"layer '{whole[0]}' of {model.name} ({known[whole[0]].axes}) has no vector for every"
            " frame, so 'steps' cannot keep them apart; leave it out, or use 'mean'"
        )
    return stepped


def _index(
    episodes: Episodes, items: Sequence[Episode], pooling: Pooling
) -> tuple[Index, NDArray[np.int64]]:
    """Which row is what, and [episode + 1] the first row of each episode and the end."""
    steps = [e.steps if pooling.time == "steps" else e.steps[-1:] for e in items]
    counts = np.array([len(of_one) for of_one in steps])
    ids = np.array([episode.id for episode in items], dtype=np.str_)
    labels = {name: values.repeat(counts) for name, values in episodes.labels().items()}
    index = Index(ids.repeat(counts), np.concatenate(steps).astype(np.int64), labels)
    return index, np.concatenate([[0], np.cumsum(counts)])


def _rows(starts: NDArray[np.int64], batch: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows of the episodes of a batch."""
    return np.concatenate([np.arange(starts[i], starts[i + 1]) for i in batch])


def _open(store: FeatureStore | Path | str | None) -> FeatureStore | None:
    return store if store is None or isinstance(store, FeatureStore) else FeatureStore(store)


def _batches(times: Sequence[int], size: int | None, frames: int) -> list[NDArray[np.int64]]:
    """Positions of the episodes of each batch; the same whatever is already stored."""
    lengths = np.asarray(times)
    batches = []
    for time in dict.fromkeys(times):
        positions = np.flatnonzero(lengths == time)
        step = size or max(1, min(_BATCH, frames // time))
        batches += [positions[i : i + step] for i in range(0, len(positions), step)]
    return batches


_Work = tuple[NDArray[np.int64], list[str]]


def _look_ahead(
    items: Sequence[Episode], work: Sequence[_Work], wires: Mapping[str, str]
) -> Iterator[tuple[_Work, list[_Loaded]]]:
    """The batches in order, each decoded while the one before it is in the network."""

    def load(batch: NDArray[np.int64]) -> list[_Loaded]:
        return [_Loaded.of(items[i], wires) for i in batch]

    with ThreadPoolExecutor(max_workers=1) as thread:
        following = thread.submit(load, work[0][0])
        for i, entry in enumerate(work):
            loaded = following.result()
            if i + 1 < len(work):
                following = thread.submit(load, work[i + 1][0])
            yield entry, loaded


def _forward(
    model: Model, loaded: list[_Loaded], layers: list[LayerInfo], pooling: Pooling, most: int
) -> dict[str, NDArray[np.float32]]:
    """The layers of a batch, in parts of the time where frames do not depend on one another."""
    frames = len(loaded[0].steps)
    length = max(1, most // len(loaded)) if model.framewise else frames
    if frames <= length:
        return _part(model, loaded, layers, pooling)
    starts = range(0, frames, length)
    if pooling.time == "last":
        starts = starts[-1:]
    total: dict[str, NDArray[np.float64]] = {}
    kept: dict[str, list[NDArray[np.float32]]] = {info.name: [] for info in layers}
    for start in starts:
        part = slice(start, min(start + length, frames))
        found = _part(model, [one.frames(part) for one in loaded], layers, pooling)
        if pooling.time == "steps":
            for name, values in found.items():
                kept[name].append(values.reshape(len(loaded), part.stop - part.start, -1))
            continue
        share = 1.0 if pooling.time == "last" else (part.stop - part.start) / frames
        for name, values in found.items():
            total[name] = total.get(name, 0.0) + share * values.astype(np.float64)
    if pooling.time == "steps":
        return {name: np.concatenate(parts, 1).reshape(len(loaded) * frames, -1)
                for name, parts in kept.items()}  # fmt: skip
    return {name: values.astype(np.float32) for name, values in total.items()}


def _part(
    model: Model, loaded: list[_Loaded], layers: list[LayerInfo], pooling: Pooling
) -> dict[str, NDArray[np.float32]]:
    from mirror_analysis.models.recording.hooks import record

    size, time = len(loaded), len(loaded[0].steps)
    with record(model.taps(), layers, pooling=pooling, episodes=size, time=time) as recording:
        model.forward_batch(loaded)
    return {name: values.numpy() for name, values in recording.features().items()}


@contextmanager
def _running(model: Model, device: torch.device, dtype: str) -> Iterator[None]:
    """In evaluation mode, without gradients, on the device; all put back afterwards."""
    import torch

    flags = [(module, module.training) for module in model.module.modules()]
    before = model.device
    try:
        model.module.eval()
        model.to(device)
        low = dtype != "float32"
        with torch.inference_mode(), torch.autocast(device.type, getattr(torch, dtype), low):
            yield
    finally:
        model.to(before)
        for module, flag in flags:
            module.training = flag

"""Features on disk: shards that are whole or absent, and a manifest of the rows they hold."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from mirror_analysis.errors import ShapeError, StoreError
from mirror_analysis.features import FeatureKey
from mirror_analysis.writing import write_whole

Row = tuple[str, int]
"""An episode's id and the environment step of the last frame seen."""

_MARKER = "store.json"
_MANIFEST = "manifest.jsonl"
_SCHEMA = 1


class StackKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the layers of one model over one set of episodes have in common.

    Attributes:
        checkpoint: name of the model.
        weights: sha256 of its weights.
        pooling: how many vectors became one per row.
        episodes: fingerprint of the episodes, their nuisance included.
        inputs: streams the model read, such as "camera:A" or "camera=camera:A".
        batch_size: episodes of a forward pass, 0 where it was left to the extraction.
        dtype: precision the model ran in.
        settings: everything else that decides the features, such as which call of a layer counts.
    """

    checkpoint: str
    weights: str
    pooling: str
    episodes: str
    inputs: tuple[str, ...] = ()
    batch_size: int = 0
    dtype: str = "float32"
    settings: dict[str, str] = {}

    def layer(self, name: str) -> FeatureKey:
        """The key of one layer."""
        return FeatureKey(
            self.checkpoint,
            self.weights,
            name,
            self.pooling,
            self.episodes,
            self.batch_size,
            self.dtype,
            self.settings,
        )

    @property
    def folder(self) -> str:
        """Name of the folder its shards lie in: readable first, unique second."""
        digest = hashlib.sha256(msgspec.json.encode(self)).hexdigest()
        return f"{re.sub(r'[^A-Za-z0-9.-]+', '_', self.checkpoint)[:60]}-{digest[:24]}"


class _Marker(msgspec.Struct, frozen=True):
    format: str = "mirror-analysis feature store"
    schema: int = _SCHEMA


class _Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    schema: int
    key: str
    shard: str
    sha256: str
    layers: list[str]
    episodes: list[str]
    steps: list[int]

    @property
    def rows(self) -> list[Row]:
        return list(zip(self.episodes, self.steps, strict=True))


@dataclass(frozen=True, eq=False)
class Stored:
    """What a store holds of the rows and layers asked for.

    Attributes:
        values: layer -> [sample, feature] float32 in the order of the rows asked for; rows that
            are not stored hold NaN, layers of which nothing is stored are absent.
        there: layer -> [sample] whether the row is stored.
        damaged: names of shards whose bytes are not the ones recorded; their rows count as not
            stored.
    """

    values: Mapping[str, NDArray[np.float32]]
    there: Mapping[str, NDArray[np.bool_]]
    damaged: tuple[str, ...]


class FeatureStore:
    """A folder of features, safe against being killed and against a second writer.

    A shard is named by the hash of its bytes, written under another name, synced and renamed;
    then one line is added to the manifest. Whatever is not in the manifest does not exist.

    Raises:
        StoreError: if the folder holds something else, or a later version of a store.

    Example:
        >>> store = FeatureStore("features/")
        >>> store.write(key, [("ep0", 119), ("ep1", 87)], {"conv1": values})
        >>> store.read(key, [("ep0", 119)], ["conv1"]).values["conv1"].shape
        (1, 16)
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        if self.folder.exists() and not self.folder.is_dir():
            raise StoreError(f"{self.folder} is a file; needed a folder for the feature store")
        self.folder.mkdir(parents=True, exist_ok=True)
        marker = self.folder / _MARKER
        if not marker.is_file():
            strangers = [p.name for p in self.folder.iterdir() if not p.name.startswith(".")]
            if strangers and not marker.is_file():
                raise StoreError(
                    f"{self.folder} is not a feature store but holds {sorted(strangers)[0]};"
                    " name a new or empty folder"
                )
            _write_durably(marker, msgspec.json.encode(_Marker()))
        try:
            found = msgspec.json.decode(marker.read_bytes(), type=_Marker)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise StoreError(
                f"{marker} cannot be read ({error}); name a new folder for the store"
            ) from None
        if found != _Marker():
            raise StoreError(
                f"{self.folder} is a '{found.format}' of schema {found.schema}; this version"
                f" reads schema {_SCHEMA}, so name a new folder or update"
            )

    def read(self, key: StackKey, rows: Sequence[Row], layers: Sequence[str]) -> Stored:
        """Reads what is stored of some rows; every shard is checked against its sha256.

        Args:
            key: whose features.
            rows: (episode id, step) of each sample wanted.
            layers: names of the layers wanted.

        Raises:
            StoreError: if the manifest is damaged other than at its torn end, or belongs to
                another key.
        """
        position = {row: i for i, row in enumerate(rows)}
        values: dict[str, NDArray[np.float32]] = {}
        there = {name: np.zeros(len(rows), dtype=np.bool_) for name in layers}
        damaged: list[str] = []
        for line in self._lines(key):
            pairs = [(i, position[row]) for i, row in enumerate(line.rows) if row in position]
            wanted = [
                name
                for name in line.layers
                if name in there and not all(there[name][to] for _, to in pairs)
            ]
            if not wanted:
                continue
            arrays = self._shard(key, line)
            if arrays is None:
                damaged.append(line.shard)
                continue
            source = np.array([i for i, _ in pairs])
            target = np.array([to for _, to in pairs])
            for name in wanted:
                stack = values.get(name)
                if stack is None:
                    shape = (len(rows), arrays[name].shape[1])
                    stack = values[name] = np.full(shape, np.nan, dtype=np.float32)
                if stack.shape[1] != arrays[name].shape[1]:
                    raise StoreError(
                        f"shard {line.shard} in {self.folder / key.folder} holds layer '{name}'"
                        f" with {arrays[name].shape[1]} features, an earlier one with"
                        f" {stack.shape[1]}; remove that folder and extract again"
                    )
                stack[target] = arrays[name][source]
                there[name][target] = True
        return Stored(values, there, tuple(damaged))

    def write(
        self, key: StackKey, rows: Sequence[Row], layers: Mapping[str, NDArray[np.float32]]
    ) -> str:
        """Adds one shard.

        Args:
            key: whose features.
            rows: (episode id, step) of each sample.
            layers: layer -> [sample, feature] float32.

        Returns:
            The shard's name.

        Raises:
            ShapeError: if a layer does not have a row for each sample.
        """
        import safetensors.numpy

        for name, values in layers.items():
            if values.ndim != 2 or len(values) != len(rows) or values.dtype != np.float32:
                raise ShapeError(
                    f"layer '{name}' to be stored is {values.dtype} of shape {values.shape};"
                    f" needed float32 of {len(rows)} rows and a feature axis"
                )
        folder = self.folder / key.folder
        if not folder.is_dir():
            folder.mkdir(exist_ok=True)
            _sync(self.folder)
        data = safetensors.numpy.save({n: np.ascontiguousarray(v) for n, v in layers.items()})
        sha256 = hashlib.sha256(data).hexdigest()
        # Named by its content, so that two processes writing the same rows never meet.
        shard = f"{sha256[:32]}.safetensors"
        _write_durably(folder / shard, data)
        line = _Line(
            schema=_SCHEMA,
            key=key.folder,
            shard=shard,
            sha256=sha256,
            layers=list(layers),
            episodes=[episode for episode, _ in rows],
            steps=[int(step) for _, step in rows],
        )
        _append(folder / _MANIFEST, msgspec.json.encode(line) + b"\n")
        return shard

    def set_aside(self, key: StackKey, shards: Sequence[str]) -> None:
        """Renames damaged shards to "<shard>.damaged", so that they can be looked at later."""
        for shard in shards:
            path = self.folder / key.folder / shard
            if path.is_file():
                path.replace(path.with_name(f"{shard}.damaged"))

    def _lines(self, key: StackKey) -> list[_Line]:
        path = self.folder / key.folder / _MANIFEST
        if not path.is_file():
            return []
        # What follows the last newline was torn off by a kill, or is being written just now.
        whole = path.read_bytes().split(b"\n")[:-1]
        lines = []
        for number, text in enumerate(whole, 1):
            try:
                line = msgspec.json.decode(text, type=_Line)
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                raise StoreError(
                    f"line {number} of {path} is damaged ({error}); delete the line and extract"
                    " again: only its rows are computed anew"
                ) from None
            if line.key != key.folder or Path(line.shard).name != line.shard:
                raise StoreError(
                    f"line {number} of {path} belongs to {line.key}, not to {key.folder};"
                    " do not copy manifests between folders, and delete this one"
                )
            lines.append(line)
        return list({(line.shard, *line.layers, *line.rows): line for line in lines}.values())

    def _shard(self, key: StackKey, line: _Line) -> dict[str, NDArray[np.float32]] | None:
        import safetensors.numpy

        try:
            data = (self.folder / key.folder / line.shard).read_bytes()
        except FileNotFoundError:
            return None
        if hashlib.sha256(data).hexdigest() != line.sha256:
            return None
        return safetensors.numpy.load(data)


def _write_durably(path: Path, data: bytes) -> None:
    """Writes a file that is there whole or not at all, even after a power cut."""
    write_whole(path, data)
    _sync(path.parent)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _append(path: Path, line: bytes) -> None:
    """Adds a line under a lock that the system takes back if the process dies."""
    with _locked(path) as descriptor:
        # A torn last line would become a damaged one in the middle.
        end = _end_of_last_line(descriptor)
        os.ftruncate(descriptor, end)
        os.lseek(descriptor, end, os.SEEK_SET)
        while line:
            line = line[os.write(descriptor, line) :]
        os.fsync(descriptor)
    if end == 0:
        _sync(path.parent)


@contextmanager
def _locked(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


def _end_of_last_line(descriptor: int) -> int:
    size = os.fstat(descriptor).st_size
    position, block = size, 65536
    while position > 0:
        start = max(0, position - block)
        found = os.pread(descriptor, position - start, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        position = start
    return 0

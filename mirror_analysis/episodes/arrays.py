"""Episodes as a folder of npz files and a manifest: whole or absent, the same bytes every time."""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import final

import msgspec
import numpy as np
from numpy.typing import NDArray

from mirror_analysis.episodes.episode import Episode, Episodes, Label
from mirror_analysis.episodes.thinning import thinned
from mirror_analysis.errors import ChecksumError, FormatError, MirrorError, MissingFileError
from mirror_analysis.files.archives import Archive
from mirror_analysis.files.npz import read_npz
from mirror_analysis.files.places import contents, inside
from mirror_analysis.provenance import sha256_file
from mirror_analysis.writing import write_whole

SUMMARY = "a folder of npz files with a manifest, as collecting writes it"
MANIFEST = "manifest.jsonl"

_ARRAYS = {
    "states": np.dtype(np.float32),
    "actions": np.dtype(np.float32),
    "timestamps": np.dtype(np.float64),
    "steps": np.dtype(np.int64),
}
_FRAMES, _EXTRAS = "frames/", "extras/"
_MOST_LINES = 2**30  # bytes of the manifest
_LEVEL = 4  # deflate: 6 takes twice as long for 3 % less


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One line of the manifest.

    Attributes:
        id: name of the episode.
        file: its npz file, relative to the folder.
        sha256: of that file.
        task: what kind of thing is done.
        instruction: what was asked for.
        success: whether it was carried out.
        length: environment steps of the whole episode.
        labels: facts about the whole episode.
    """

    id: str
    file: str
    sha256: str
    task: str
    instruction: str
    success: bool
    length: int
    labels: dict[str, Label] = {}


def recognise(path: Path) -> bool:
    """Whether it is a folder whose manifest has the lines of one."""
    if not (path / MANIFEST).is_file():
        return False
    try:
        with inside(path, MANIFEST).open("rb") as file:
            msgspec.json.decode(file.readline(1 << 20), type=Record)
    except (MirrorError, OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return False
    return True


def read(path: Path, *, limit: int | None = None, frames: int | None = None) -> Episodes:
    """Reads a folder of episodes, with so many frames of each; see `read_arrays`."""
    return thinned(read_arrays(path, limit=limit), frames)


def read_arrays(folder: Path, *, limit: int | None = None, verify: bool = False) -> Episodes:
    """Reads a folder of episodes; the pictures stay on disk until they are asked for.

    Args:
        folder: holds `manifest.jsonl` and the npz files it names, each with the keys
            `frames/<camera>`, `states`, `actions`, `timestamps`, `steps`, `extras/<name>`.
        limit: read only the first so many.
        verify: compare every file with its sha256 first.

    Raises:
        MissingFileError: if the folder, the manifest or a file is not there.
        ChecksumError: if a file was changed and `verify` is set.
        FormatError: if a line or a file is not what it should be.
        ShapeError: if the arrays of an episode do not fit together.
    """
    return read_records(folder, read_manifest(folder)[:limit], verify=verify)


def read_records(folder: Path, records: Iterable[Record], *, verify: bool = False) -> Episodes:
    """Reads some of the episodes of a folder; see `read_arrays`."""
    return Episodes([_read_episode(folder, record, verify) for record in records])


def read_manifest(folder: Path) -> list[Record]:
    """The lines of a folder's manifest.

    A last line that was cut off while it was written does not count.

    Raises:
        MissingFileError: if the folder or its manifest is not there.
        FormatError: if a line is not a record, or two have the same id.
    """
    if not folder.is_dir():
        raise MissingFileError(f"no folder {folder}; give one that holds {MANIFEST}")
    path = inside(folder, MANIFEST)
    if not path.is_file():
        raise MissingFileError(f"no {MANIFEST} in {folder}; needed one line per episode")
    return _parse_manifest(path)[0]


def write_episode(folder: Path, episode: Episode, *, file: str | None = None) -> Record:
    """Adds one episode to a folder; opens and closes an `ArraysWriter` for it."""
    return ArraysWriter(folder).add(episode, file=file)


@final
class ArraysWriter:
    """Adds episodes to a folder, which is made where there is none.

    A file gets its name once it is complete, and its line in the manifest after that, so an
    interrupted run leaves whole episodes only and can go on where it stopped.

    Args:
        folder: where to write.

    Raises:
        FormatError: if the folder has a manifest that cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        with _locked(folder):
            self._records = {record.id: record for record in _mend_manifest(folder / MANIFEST)}

    @property
    def records(self) -> list[Record]:
        """What the folder holds, in the order of the manifest."""
        return list(self._records.values())

    def add(self, episode: Episode, *, file: str | None = None) -> Record:
        """Writes an episode and its line.

        Args:
            episode: its pictures are read now.
            file: name inside the folder; `<id>.npz` when not given.

        Returns:
            The line.

        Raises:
            FormatError: if the folder has an episode of that id, or the name leaves the folder.
        """
        if episode.id in self._records:
            raise FormatError(
                f"{self.folder} already has an episode {episode.id};"
                " give every episode an id of its own"
            )
        name = file if file is not None else f"{episode.id}.npz"
        path = _inside(self.folder, name)
        data = encode(episode)
        write_whole(path, data)
        record = Record(
            id=episode.id,
            file=name,
            sha256=hashlib.sha256(data).hexdigest(),
            task=episode.task,
            instruction=episode.instruction,
            success=bool(episode.success),
            length=int(episode.length),
            labels={name: _plain(value) for name, value in episode.labels.items()},
        )
        with _locked(self.folder), (self.folder / MANIFEST).open("ab") as manifest:
            manifest.write(msgspec.json.encode(record) + b"\n")
            manifest.flush()
            os.fsync(manifest.fileno())
        self._records[record.id] = record
        return record


def merge_manifest(folder: Path, records: Iterable[Record]) -> None:
    """Makes a folder's manifest hold the lines of folders inside it.

    Lines of these folders that are not given are taken out; all others stay where they are.

    Args:
        folder: has the manifest, or gets one.
        records: with files in folders inside it, such as "a/0.npz".
    """
    new = {record.id: record for record in records}
    inner = {PurePosixPath(record.file).parent for record in new.values()}
    with _locked(folder):
        old = {record.id: record for record in _mend_manifest(folder / MANIFEST)}
        merged = {
            key: record
            for key, record in old.items()
            if key in new or PurePosixPath(record.file).parent not in inner
        } | new
        if list(merged.values()) != list(old.values()):
            lines = [msgspec.json.encode(record) + b"\n" for record in merged.values()]
            write_whole(folder / MANIFEST, b"".join(lines))


def encode(episode: Episode) -> bytes:
    """The npz file of an episode, its pictures read now; the same episode gives the same bytes."""
    arrays: dict[str, NDArray[np.generic]] = {name: getattr(episode, name) for name in _ARRAYS}
    arrays |= {f"{_EXTRAS}{name}": values for name, values in episode.extras.items()}
    return pack(arrays | {f"{_FRAMES}{name}": episode.frames(name) for name in episode.cameras})


def pack(arrays: Mapping[str, NDArray[np.generic]]) -> bytes:
    """The bytes of a compressed npz file; the same arrays give the same bytes.

    `numpy.savez` records the time of writing, so its files differ from run to run.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, values in arrays.items():
            member = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            member.compress_type = zipfile.ZIP_DEFLATED
            content = io.BytesIO()
            np.lib.format.write_array(content, np.ascontiguousarray(values), allow_pickle=False)
            archive.writestr(member, content.getvalue(), compresslevel=_LEVEL)
    return buffer.getvalue()


def _plain(value: Label) -> Label:
    return value.item() if isinstance(value, np.generic) else value


def _read_episode(folder: Path, record: Record, verify: bool) -> Episode:
    path = _inside(folder, record.file)
    if not path.is_file():
        raise MissingFileError(
            f"{path} of episode {record.id} is not there; restore it or take its line out of"
            f" {MANIFEST}"
        )
    if verify and (found := sha256_file(path)) != record.sha256:
        raise ChecksumError(
            f"{path} has sha256 {found[:12]}..., but {MANIFEST} says {record.sha256[:12]}...;"
            " fetch or collect the episode again"
        )
    names = _names(path)
    lacking = [name for name in _ARRAYS if name not in names]
    if lacking:
        raise FormatError(f"{path} has no array '{lacking[0]}'; needed {', '.join(_ARRAYS)}")
    cameras = [name.removeprefix(_FRAMES) for name in names if name.startswith(_FRAMES)]
    held = read_npz(path, names=[*_ARRAYS, *(n for n in names if n.startswith(_EXTRAS))])
    for name, dtype in _ARRAYS.items():
        if held[name].dtype != dtype:
            raise FormatError(f"'{name}' in {path} is {held[name].dtype}; needed {dtype}")
    arrays = {name: held.pop(name) for name in _ARRAYS}
    extras = {name.removeprefix(_EXTRAS): values for name, values in held.items()}
    return Episode(
        id=record.id,
        task=record.task,
        instruction=record.instruction,
        success=record.success,
        length=record.length,
        cameras=tuple(cameras),
        loader=partial(_read_frames, path),
        digest=record.sha256,
        labels=record.labels,
        extras=extras,
        **arrays,
    )


def _read_frames(path: Path, camera: str) -> NDArray[np.uint8]:
    name = f"{_FRAMES}{camera}"
    found = read_npz(path, names=[name])
    if name not in found:
        raise FormatError(f"{path} has no array '{name}' any more; restore it")
    return found[name]


def _names(path: Path) -> list[str]:
    """Names of the arrays in a file."""
    with Archive(path) as archive:
        return [name.removesuffix(".npy") for name in archive.names]


def _inside(folder: Path, name: str) -> Path:
    path = folder / name
    if not name or not path.resolve().is_relative_to(folder.resolve()):
        raise FormatError(f"file '{name}' lies outside {folder}; needed a path inside the folder")
    return path


def _parse_manifest(path: Path) -> tuple[list[Record], int]:
    """The records and how many bytes of the file they fill."""
    records: dict[str, Record] = {}
    size = 0
    data = contents(path, "a list of episodes", most=_MOST_LINES)
    for number, line in enumerate(data.splitlines(keepends=True), start=1):
        if line.strip():
            try:
                record = msgspec.json.decode(line, type=Record)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                if not line.endswith(b"\n"):
                    break
                raise FormatError(f"line {number} of {path} is not an episode: {error}") from None
            if record.id in records:
                raise FormatError(
                    f"line {number} of {path} repeats the id {record.id};"
                    " give every episode an id of its own"
                )
            records[record.id] = record
        size += len(line)
    return list(records.values()), size


def _mend_manifest(path: Path) -> list[Record]:
    if not path.exists():
        return []
    records, size = _parse_manifest(path)
    with path.open("r+b") as manifest:
        manifest.truncate(size)
        if size:
            manifest.seek(size - 1)
            if manifest.read(1) != b"\n":
                manifest.write(b"\n")
    return records


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with (folder / ".lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield

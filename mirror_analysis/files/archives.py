"""Zip and tar archives whose every member is checked before the first is read."""

from __future__ import annotations

import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedIOBase
from pathlib import Path
from typing import cast

from mirror_analysis.errors import FormatError
from mirror_analysis.files.bounded import BoundedFile
from mirror_analysis.files.places import check_name, name_of, reason, require_file, shown

_MOST_MEMBERS = 200_000
_MOST_DIRECTORY = 64 * 2**20  # bytes of a zip's list of members
_CHUNK = 2**20
_SMALL = 256 * 2**20  # bytes an archive may unfold to whatever its own size
_RATIO = 100
_FAULTS = (
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    tarfile.TarError,
    zlib.error,
    OSError,
    EOFError,
    ValueError,
    RuntimeError,
    LookupError,
    TypeError,
    OverflowError,
    MemoryError,
)


class Archive:
    """A zip or tar archive, open for reading; use it in a `with` statement.

    Refused on opening: names that lead out of the folder, members twice, links and devices,
    encryption, compression other than deflate, members that overlap or lie outside the file,
    more than 200,000 members, and more than 256 MiB that is also more than 100 times the file.
    Archives inside an archive are bytes like any other.

    Args:
        source: a file, or its bytes.

    Raises:
        MissingFileError: if there is no such file.
        FormatError: if it is no such archive, damaged, or refused.

    Example:
        >>> with Archive(Path("policy.zip")) as archive:
        ...     weights = archive.read("policy.pth")
    """

    def __init__(self, source: Path | bytes) -> None:
        self.name = name_of(source)
        if isinstance(source, Path):
            require_file(source, "a zip or tar archive")
        self._file = BoundedFile(source)
        try:
            with self._words("cannot be opened"):
                start = self._file.read(4)
                if start[:2] == b"PK":
                    self._zip = _open_zip(self._file, self.name)
                    self._sizes = {i.filename: i.file_size for i in self._zip.infolist()}
                else:
                    self._tar = _open_tar(self._file, self.name)
                    self._sizes = {m.name: m.size for m in self._tar.getmembers() if m.isfile()}
        except BaseException:
            self._file.close()
            raise

    _zip: zipfile.ZipFile | None = None
    _tar: tarfile.TarFile | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The members that are files, in the order of the archive."""
        return tuple(name for name in self._sizes if not name.endswith("/"))

    def __contains__(self, name: object) -> bool:
        return name in self._sizes

    def size(self, name: str) -> int:
        """Bytes of a member.

        Raises:
            FormatError: if there is no such member.
        """
        if name not in self._sizes:
            listing = ", ".join(shown(n) for n in self.names[:8]) or "nothing"
            raise FormatError(f"{self.name} has no member {shown(name)}; it holds {listing}")
        return self._sizes[name]

    def read(self, name: str, *, most: int = 2**31) -> bytes:
        """All bytes of a member.

        Args:
            name: one of `names`.
            most: how many bytes it may have.

        Raises:
            FormatError: if there is no such member, it is larger, or damaged.
        """
        return bytes(self.buffer(name, most=most))

    def buffer(self, name: str, *, most: int = 2**40) -> bytearray:
        """All bytes of a member, to be changed freely; see `read`."""
        size = self.size(name)
        if size > most:
            raise FormatError(
                f"member {shown(name)} of {self.name} holds {size} bytes; needed at most {most}"
            )
        data = bytearray()
        with self._words(f"is damaged at its member {shown(name)}"), self._open(name) as member:
            while part := member.read(min(_CHUNK, size + 1 - len(data))):
                data += part
        if len(data) != size:
            raise FormatError(
                f"member {shown(name)} of {self.name} has {len(data)} bytes where its header says"
                f" {size}; fetch the archive anew"
            )
        return data

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _open(self, name: str) -> BufferedIOBase:
        if self._zip is not None:
            return cast(BufferedIOBase, self._zip.open(name))
        assert self._tar is not None
        member = self._tar.extractfile(name)
        if member is None:
            raise ValueError("it is a folder")
        return cast(BufferedIOBase, member)

    @contextmanager
    def _words(self, what: str) -> Iterator[None]:
        try:
            yield
        except _FAULTS as error:
            raise FormatError(
                f"{self.name} {what}: {reason(error)}; needed a whole zip or tar archive, so fetch"
                " it anew"
            ) from None


def _open_zip(file: BoundedFile, name: str) -> zipfile.ZipFile:
    # What zipfile itself will go by, found in the same way, before it makes an object of each.
    end = zipfile._EndRecData(file)  # type: ignore[attr-defined]
    if end is None:
        raise ValueError("it has no list of members at its end")
    if end[5] > _MOST_DIRECTORY or end[4] > _MOST_MEMBERS:
        raise FormatError(
            f"{name} lists {end[4]} members in {end[5]} bytes; needed at most {_MOST_MEMBERS}"
        )
    archive = zipfile.ZipFile(file)
    members = archive.infolist()
    _check_totals(name, [(m.orig_filename, m.file_size) for m in members], file.size)
    for member in members:
        mode = member.external_attr >> 16
        if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise FormatError(_not_a_file(name, member.orig_filename))
        if member.flag_bits & 0x61:
            raise FormatError(
                f"member {shown(member.filename)} of {name} is encrypted or patched; needed plain"
                " members, so pack it anew without a password"
            )
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise FormatError(
                f"member {shown(member.filename)} of {name} is compressed by method"
                f" {member.compress_type}; needed stored or deflated, so pack it anew"
            )
    _check_places(file, members, archive.start_dir, name)
    return archive


def _check_places(
    file: BoundedFile, members: list[zipfile.ZipInfo], directory: int, name: str
) -> None:
    end, before = 0, ""
    for member in sorted(members, key=lambda m: m.header_offset):
        file.seek(member.header_offset)
        header = file.read(30)
        if member.header_offset < end:
            raise FormatError(
                f"members {shown(before)} and {shown(member.filename)} of {name} overlap; needed"
                " members one after another, so fetch the archive anew"
            )
        if len(header) < 30 or header[:4] != b"PK\x03\x04":
            raise ValueError(f"member {member.filename!r} has no header")
        length, extra = (int.from_bytes(header[i : i + 2], "little") for i in (26, 28))
        end = member.header_offset + 30 + length + extra + member.compress_size
        before = member.filename
        if end > directory:
            raise ValueError(f"member {member.filename!r} ends behind the list of members")
        if member.compress_type == zipfile.ZIP_STORED and member.compress_size != member.file_size:
            raise ValueError(f"member {member.filename!r} has two sizes")


def _open_tar(file: BoundedFile, name: str) -> tarfile.TarFile:
    file.seek(0)
    archive = tarfile.open(fileobj=file, mode="r:")
    found: list[tuple[str, int]] = []
    while (member := archive.next()) is not None:
        found.append((member.name, member.size))
        if not (member.isreg() or member.isdir()) or member.issparse():
            raise FormatError(_not_a_file(name, member.name))
        if member.size < 0 or member.offset_data + member.size > file.size:
            raise ValueError(f"member {member.name!r} ends behind the file")
        if len(found) > _MOST_MEMBERS:
            break
    _check_totals(name, found, file.size)
    return archive


def _check_totals(name: str, members: list[tuple[str, int]], size: int) -> None:
    if len(members) > _MOST_MEMBERS:
        raise FormatError(f"{name} has more than {_MOST_MEMBERS} members; give a smaller archive")
    seen: set[str] = set()
    for member, _ in members:
        check_name(member, f"{name} has the member")
        if member.rstrip("/") in seen:
            raise FormatError(
                f"{name} has the member {shown(member)} twice; needed each once, so pack it anew"
            )
        seen.add(member.rstrip("/"))
    total = sum(n for _, n in members)
    if total > max(_SMALL, _RATIO * size):
        raise FormatError(
            f"{name} claims to unfold from {size} to {total} bytes; needed at most {_RATIO} times"
            " its size, so unpack it yourself where you trust it"
        )


def _not_a_file(name: str, member: str) -> str:
    return (
        f"{name} has the member {shown(member)}, a link, device or sparse file; needed plain files"
    )

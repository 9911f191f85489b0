"""Archives are checked before a member is read."""

import io
import stat
import struct
import tarfile
import zipfile

import pytest

from mirror_analysis.errors import FormatError, MissingFileError
from mirror_analysis.files.archives import Archive


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def tarred(*members: tuple[tarfile.TarInfo, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for info, data in members:
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def refused(data: bytes, words: str) -> None:
    with pytest.raises(FormatError, match=words) as caught, Archive(data) as archive:
        for name in archive.names:
            archive.read(name)
    assert "\n" not in str(caught.value)


MEMBERS = {"a.txt": b"hello" * 100, "folder/b.bin": b"", "c": b"\0" * 5000}


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_zip_is_read(tmp_path, method) -> None:
    path = tmp_path / "x"
    path.write_bytes(zipped(MEMBERS | {"folder/": b""}, method))
    with Archive(path) as archive:
        assert archive.names == tuple(MEMBERS)
        assert {name: archive.read(name) for name in archive.names} == MEMBERS
        assert "a.txt" in archive and "z" not in archive and archive.size("c") == 5000
        with pytest.raises(FormatError, match=r"has no member 'z'; it holds 'a\.txt', 'folder"):
            archive.read("z")
        with pytest.raises(FormatError, match=r"'c' of .* holds 5000 bytes; needed at most 4999"):
            archive.read("c", most=4999)


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_a_tar_is_read(form) -> None:
    folder = tarfile.TarInfo("folder")
    folder.type = tarfile.DIRTYPE
    data = tarred((folder, b""), *[(tarfile.TarInfo(n), d) for n, d in MEMBERS.items()], form=form)
    with Archive(data) as archive:
        assert {name: archive.read(name) for name in archive.names} == MEMBERS


NAMES = {
    "/etc/passwd": "absolute",
    "../x": "climbing",
    "a/../../x": "climbing",
    "C:/x": "absolute",
    "a\\b": "not a plain name",
    "x" * 2000: "2000 characters long",
}


@pytest.mark.parametrize("name", NAMES, ids=lambda name: name[:12])
def test_names_that_lead_out_are_refused(name) -> None:
    refused(zipped({name: b""}), NAMES[name])
    refused(tarred((tarfile.TarInfo(name), b"")), NAMES[name])


def test_links_and_devices_are_refused() -> None:
    for kind in (stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR):
        info = zipfile.ZipInfo("x")
        info.external_attr = (kind | 0o777) << 16
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr(info, "/etc/passwd")
        refused(buffer.getvalue(), "has the member 'x', a link, device or sparse file")
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
        info = tarfile.TarInfo("x")
        info.type, info.linkname = kind, "/etc/passwd"
        refused(tarred((info, b"")), "has the member 'x', a link, device or sparse file")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_member_twice_is_refused() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("x", "1")
        archive.writestr("x", "2")
    refused(buffer.getvalue(), "has the member 'x' twice")
    refused(tarred((tarfile.TarInfo("x"), b"1"), (tarfile.TarInfo("x"), b"2")), "'x' twice")


def test_other_compression_and_encryption_are_refused() -> None:
    refused(zipped({"x": b"1" * 99}, zipfile.ZIP_LZMA), "compressed by method 14")
    data = bytearray(zipped({"x": b"1"}, zipfile.ZIP_STORED))
    data[data.rindex(b"PK\1\2") + 8] |= 1
    refused(bytes(data), "'x' of .* is encrypted or patched")


def test_a_bomb_is_refused_by_what_it_claims(monkeypatch) -> None:
    monkeypatch.setattr("mirror_analysis.files.archives._SMALL", 10_000)
    refused(zipped({"x": b"\0" * 10**6}), r"claims to unfold from \d+ to 1000000 bytes")
    with Archive(zipped({"x": b"\0" * 9000})) as archive:
        assert len(archive.read("x")) == 9000


def sizes(data: bytes, compressed: int | None, full: int | None) -> bytes:
    """The archive of one member with other sizes in its list of members."""
    changed = bytearray(data)
    place = changed.rindex(b"PK\1\2")
    for offset, size in ((20, compressed), (24, full)):
        if size is not None:
            struct.pack_into("<I", changed, place + offset, size)
    return bytes(changed)


def test_lying_sizes_are_refused() -> None:
    data = zipped({"x": b"\0" * 10**6})
    refused(sizes(data, None, 1000), "is damaged at its member 'x': Bad CRC-32")
    refused(sizes(data, None, 2 * 10**6), "'x' .* has 1000000 bytes where its header says 2000000")
    refused(sizes(data, 2**31, None), "ends behind the list of members")
    stored = zipped({"x": b"abc"}, zipfile.ZIP_STORED)
    refused(sizes(stored, None, 4), "has two sizes")
    refused(sizes(stored, 2, 2), "is damaged at its member 'x': Bad CRC-32")


def test_overlapping_members_are_refused() -> None:
    data = bytearray(zipped({"a": b"1" * 50, "b": b"2" * 50}, zipfile.ZIP_STORED))
    second = data.rindex(b"PK\1\2")
    struct.pack_into("<I", data, second + 42, 0)
    refused(bytes(data), "members 'a' and 'b' of .* overlap")
    data = bytearray(zipped({"a": b"1" * 50}, zipfile.ZIP_STORED))
    struct.pack_into("<I", data, data.rindex(b"PK\1\2") + 42, 5)
    refused(bytes(data), "has no header")


def test_too_many_members_are_refused(monkeypatch) -> None:
    data = zipped({str(i): b"" for i in range(20)})
    tar = tarred(*[(tarfile.TarInfo(str(i)), b"") for i in range(20)])
    monkeypatch.setattr("mirror_analysis.files.archives._MOST_MEMBERS", 19)
    refused(data, "lists 20 members in")
    refused(tar, "has more than 19 members")
    monkeypatch.setattr("mirror_analysis.files.archives._MOST_MEMBERS", 100)
    monkeypatch.setattr("mirror_analysis.files.archives._MOST_DIRECTORY", 100)
    refused(data, r"lists 20 members in \d+ bytes")


def test_damaged_archives_are_refused(tmp_path) -> None:
    data = zipped(MEMBERS)
    for size in range(0, len(data), 7):
        refused(data[:size], "cannot be opened|damaged")
    tar = tarred((tarfile.TarInfo("x"), b"1" * 2000))
    refused(tar[:1000], "ends behind the file|cannot be opened")
    refused(b"garbage" * 300, "cannot be opened.*needed a whole zip or tar archive")
    header = bytearray(tar)
    header[124:136] = b"77777777777\0"
    refused(bytes(header), "cannot be opened")
    with pytest.raises(MissingFileError, match="is not there; needed a zip or tar"):
        Archive(tmp_path / "none")


def test_a_lying_header_of_a_tar_takes_no_memory() -> None:
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 2**60
    data = info.tobuf(tarfile.GNU_FORMAT) + b"\0" * 1024
    refused(data, "cannot be opened|ends behind")


def test_an_archive_inside_is_bytes() -> None:
    inner = zipped({"../x": b""})
    with Archive(zipped({"inner.zip": inner})) as archive:
        assert archive.read("inner.zip") == inner

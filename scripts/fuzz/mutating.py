"""Ways to damage a file: at random, but aimed at what readers trust."""

from __future__ import annotations

import io
import random
import re
import struct
import zipfile
import zlib
from collections.abc import Callable

_WORDS = [0, 1, 2, 127, 128, 255, 256, 2**15, 2**16 - 1, 2**24, 2**31 - 1, 2**31, 2**32 - 1]
_WORDS += [2**40, 2**62, 2**63 - 1, 2**63, 2**64 - 1]
_TEXTS = [
    b"0", b"-1", b"1e999", b"NaN", b"99999999999999999999", b"4294967296", b"null", b"true", b"[]",
    b"{}", b'""', b'"../../x"', b'"/etc/passwd"', b"[" * 200, b'{"a":' * 200, b"\\ud800", b"1e-300",
    b'"{x.__class__}"', b"[[[[1]]]]",
]  # fmt: skip
_VALUE = re.compile(rb'-?\d+(?:\.\d+)?|"[^"\\]{0,80}"|true|false|null')
_PNG = b"\x89PNG\r\n\x1a\n"


def mutated(data: bytes, chance: random.Random, other: bytes = b"") -> bytes:
    """A damaged copy, made with one to four changes.

    Args:
        data: a sound file.
        chance: decides everything.
        other: another file, from which parts may come.
    """
    if data[:2] == b"PK" and chance.random() < 0.7:
        return _members_changed(data, chance)
    if data[:8] == _PNG and chance.random() < 0.7:
        return _chunks_changed(data, chance)
    for _ in range(chance.choice([1, 1, 1, 2, 4])):
        data = chance.choice(_changes(data))(data, chance, other)
    return data


Change = Callable[[bytes, random.Random, bytes], bytes]


def _changes(data: bytes) -> list[Change]:
    changes: list[Change] = [_flip, _flip, _set, _length, _length, _splice, _cut, _double, _swap]
    if data.lstrip()[:1] in (b"{", b"["):
        changes += [_value] * 9
    elif _VALUE.search(data[:65536]):
        changes.append(_value)
    return changes


def _place(data: bytes, chance: random.Random) -> int:
    """A place in the file; headers and trailers more often than the middle."""
    where = chance.random()
    if where < 0.4:
        return chance.randrange(min(len(data), 512)) if data else 0
    if where < 0.6:
        return max(len(data) - 1 - chance.randrange(512), 0)
    return chance.randrange(len(data)) if data else 0


def _flip(data: bytes, chance: random.Random, other: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(chance.choice([1, 1, 2, 8]) if data else 0):
        changed[_place(data, chance)] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _set(data: bytes, chance: random.Random, other: bytes) -> bytes:
    at = _place(data, chance)
    return data[:at] + chance.randbytes(chance.choice([1, 1, 2, 4, 16])) + data[at + 1 :]


def _length(data: bytes, chance: random.Random, other: bytes) -> bytes:
    """Another number where one stands that may be a length or an offset."""
    form = chance.choice(["<B", "<H", "<I", "<I", "<Q", "<Q", ">H", ">I", ">Q"])
    size = struct.calcsize(form)
    for _ in range(30):
        at = _place(data, chance)
        if at + size > len(data):
            continue
        (old,) = struct.unpack_from(form, data, at)
        if old <= 2 * len(data) or chance.random() < 0.05:
            new = chance.choice([*_WORDS, old + 1, old - 1, 2 * old, len(data)]) % 256**size
            return data[:at] + struct.pack(form, new) + data[at + size :]
    return data


def _splice(data: bytes, chance: random.Random, other: bytes) -> bytes:
    source = other if other and chance.random() < 0.3 else data
    start, size = _place(source, chance), chance.choice([1, 4, 16, 64, 1024])
    at = _place(data, chance)
    kept = at + (size if chance.random() < 0.7 else 0)
    return data[:at] + source[start : start + size] + data[kept:]


def _cut(data: bytes, chance: random.Random, other: bytes) -> bytes:
    at = _place(data, chance)
    if chance.random() < 0.5:
        return data[:at]
    return data[:at] + data[at + chance.choice([1, 2, 8, 100]) :]


def _double(data: bytes, chance: random.Random, other: bytes) -> bytes:
    at, size = _place(data, chance), chance.choice([1, 8, 64, 512])
    times = chance.choice([2, 2, 3, 50])
    return data[:at] + data[at : at + size] * times + data[at + size :]


def _swap(data: bytes, chance: random.Random, other: bytes) -> bytes:
    one, two = sorted((_place(data, chance), _place(data, chance)))
    size = min(chance.choice([1, 4, 32]), two - one, len(data) - two)
    parts = data[one : one + size], data[two : two + size]
    return data[:one] + parts[1] + data[one + size : two] + parts[0] + data[two + size :]


def _value(data: bytes, chance: random.Random, other: bytes) -> bytes:
    """Another number, text or structure in JSON and the like."""
    found = list(_VALUE.finditer(data[:262144]))
    if not found:
        return data
    at = chance.choice(found)
    new = chance.choice([*_TEXTS, chance.choice(found).group()])
    return data[: at.start()] + new + data[at.end() :]


def _members_changed(data: bytes, chance: random.Random) -> bytes:
    """One member of a zip changed inside, its checksum made anew; or dropped, named otherwise."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = {info.filename: archive.read(info) for info in archive.infolist()}
    except (zipfile.BadZipFile, ValueError, zlib.error, NotImplementedError):
        return _flip(data, chance, b"")
    small = [name for name in members if len(members[name]) < 2**20] or list(members)
    # Programs and descriptions are where the faults are; one member in three is any.
    telling = [n for n in small if n.endswith((".pkl", ".json", ".py", "data", ".npy", "_config"))]
    name = chance.choice(telling if telling and chance.random() < 0.67 else small)
    what = chance.random()
    if what < 0.85:
        members[name] = mutated(members[name], chance, members[chance.choice(small)])
    elif what < 0.9:
        members.pop(name)
    elif what < 0.95:
        members[_renamed(name, chance)] = members.pop(name)
    else:
        members[name] = members[chance.choice(small)]
    buffer = io.BytesIO()
    method = chance.choice([zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for member, content in members.items():
            archive.writestr(member, content)
    return buffer.getvalue()


def _renamed(name: str, chance: random.Random) -> str:
    odd = ["../" + name, "/" + name, name + "/", name.upper(), "x" * 300, name.replace("/", "\\")]
    return chance.choice([*odd, f"{name}2", "data.pkl"])


def _chunks_changed(data: bytes, chance: random.Random) -> bytes:
    """A chunk of a PNG changed, its checksum made anew."""
    chunks, at = [], 8
    while at + 12 <= len(data):
        (size,) = struct.unpack_from(">I", data, at)
        chunks.append([data[at + 4 : at + 8], data[at + 8 : at + 8 + size]])
        at += 12 + size
    chunk = chance.choice(chunks)
    if chance.random() < 0.2:
        chunks.insert(chance.randrange(len(chunks)), list(chunk))
    if chance.random() < 0.1:
        chunk[0] = chance.choice([b"IHDR", b"PLTE", b"iCCP", b"zTXt", b"acTL", b"tRNS", b"eXIf"])
    chunk[1] = mutated(chunk[1], chance)
    packed = [
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    ]
    return _PNG + b"".join(packed)


def framed_anew(data: bytes, chance: random.Random, masked: Callable[[bytes], int]) -> bytes:
    """A TFRecord file with one record changed and the checksums made anew.

    Args:
        data: a sound file.
        chance: decides everything.
        masked: the masked CRC-32C of bytes.
    """
    records, at = [], 0
    while at + 16 <= len(data):
        (size,) = struct.unpack_from("<Q", data, at)
        records.append(data[at + 12 : at + 12 + size])
        at += 16 + size
    which = chance.randrange(len(records))
    records[which] = mutated(records[which], chance)
    parts = []
    for record in records:
        length = struct.pack("<Q", len(record))
        parts += [length, struct.pack("<I", masked(length))]
        parts += [record, struct.pack("<I", masked(record))]
    return b"".join(parts)

"""Files of torch.save, read as data.

`torch.load(weights_only=True)` runs nothing either, but believes what a file says of sizes. Here a
storage is as large as the bytes that are there, and a tensor is checked against its storage.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mirror_analysis.errors import FormatError
from mirror_analysis.files.archives import Archive
from mirror_analysis.files.graphs import check_graph
from mirror_analysis.files.inert import Named
from mirror_analysis.files.pickle_operations import run
from mirror_analysis.files.pickled_arrays import known_values
from mirror_analysis.files.pickled_tensors import (
    Storage,
    StorageKind,
    known_tensors,
    size_of,
)
from mirror_analysis.files.pickles import AllBut, refusal
from mirror_analysis.files.places import contents, name_of, require_file, shown
from mirror_analysis.files.stack_machine import PickleFault, StackMachine

_OLD = "a file of torch.save before 1.6, which is read at once,"
_MOST_OLD = 2**34  # bytes of such a file
_MAGIC = 0x1950A86A20F9469CFC6C
_MOST_PICKLE = 2**28  # bytes of the part that says what the tensors are
_KEY = re.compile(r"[\w.-]{1,200}")


def read_torch(source: Path | bytes, *, most: int = 2**37) -> object:
    """What `torch.save` wrote, with every tensor on the CPU wherever it was.

    Both forms are read, the zip of today and the one before version 1.6. Allowed is what
    `read_pickle` allows; parameters come back as tensors, and a bare storage as a tensor of one
    axis. Tensors that shared memory share it still.

    Args:
        source: a file, or its bytes.
        most: bytes it may hold.

    Returns:
        Usually a dict: name -> tensor, or of such dicts.

    Raises:
        MissingFileError: if there is no such file.
        FormatError: if it is no such file, damaged, lies about a size, or needs a class that is
            not on the list.

    Example:
        >>> sorted(read_torch(Path("policy.pth")))[0]
        'action_net.bias'
    """
    name = name_of(source)
    if isinstance(source, Path):
        with require_file(source, "a file of torch.save", most=most).open("rb") as file:
            start = file.read(512)
    else:
        start = source[:512]
    try:
        if start[:2] == b"PK":
            with Archive(source) as archive:
                value = _read_zip(archive)
        elif start[257:262] == b"ustar" or start[:4] == b"././":
            raise FormatError(
                f"{name} is a tar as torch before 0.1.10 wrote it; needed a later form, so load it"
                " with that torch and save it anew"
            )
        else:
            value = read_legacy(contents(source, _OLD, most=min(most, _MOST_OLD)))
        value = _plain(value)
        check_graph(value)
    except PickleFault as fault:
        raise FormatError(refusal(name, fault)) from None
    return value


def read_legacy(data: bytes) -> object:
    """The form before version 1.6: five pickles in a row, then the storages.

    Raises:
        PickleFault: if it is not that, damaged, or refused.
    """
    at = 0
    heads: list[object] = []
    for _ in range(3):
        head = StackMachine(data, start=at, known={})
        heads.append(run(head))
        at = head.at
        if heads[0] != _MAGIC:
            raise PickleFault("it does not start as files of torch.save do")
    if heads[1] != 1001 or not isinstance(heads[2], dict):
        raise PickleFault("it is of a protocol other than 1001")
    order = "little" if heads[2].get("little_endian", True) is True else "big"
    storages: dict[str, Storage] = {}
    claimed = 0

    def storage(reference: object) -> Storage:
        nonlocal claimed
        kind, key, count, *rest = _reference(reference)
        if rest[0] is not None:
            raise PickleFault("a storage that is a part of another")
        if key in storages:
            if storages[key].dtype != kind or len(storages[key]) != count:
                raise PickleFault(f"storage {shown(key)} twice with two sizes")
            return storages[key]
        # The bytes follow the pickles, so they have to be there before there is memory for them.
        claimed += count * size_of(kind)
        if claimed > len(data):
            raise PickleFault(f"storages of {claimed} bytes in a file of {len(data)}")
        storages[key] = Storage(kind, _zeros(count * size_of(kind)))
        return storages[key]

    machine = StackMachine(
        data, start=at, known=known_values() | known_tensors(), persistent=storage
    )
    value = run(machine)
    keys = StackMachine(data, start=machine.at, known={})
    listed = run(keys)
    if not isinstance(listed, list) or sorted(map(str, listed)) != sorted(storages):
        raise PickleFault("its list of storages is not that of its tensors")
    _fill(data, keys.at, [storages[str(key)] for key in listed], order)
    return value


def _fill(data: bytes, at: int, storages: list[Storage], order: str) -> None:
    for storage in storages:
        size = len(storage.data)
        count = int.from_bytes(data[at : at + 8], order)  # type: ignore[arg-type]
        if len(data) < at + 8 + size or count != len(storage):
            raise PickleFault(f"a storage at byte {at} that is cut, or {count} numbers long")
        _copy(storage, data[at + 8 : at + 8 + size], order)
        at += 8 + size


def _read_zip(archive: Archive) -> object:
    tops = [name for name in archive.names if name.split("/")[1:] == ["data.pkl"]]
    if len(tops) != 1:
        raise FormatError(
            f"{archive.name} is a zip without one data.pkl; needed a file of torch.save"
        )
    top = tops[0].removesuffix("data.pkl")
    if f"{top}constants.pkl" in archive:
        raise FormatError(
            f"{archive.name} is a TorchScript program; needed weights as torch.save writes them,"
            " so load it as TorchScript"
        )
    return read_storages(archive, top, "data")


def read_storages(archive: Archive, top: str, part: str, *, everything: bool = False) -> object:
    """What the pickle `top + part + ".pkl"` makes over the storages in `top + part + "/"`.

    Args:
        archive: a zip of torch.save or torch.jit.save.
        top: the folder in it, ending in "/", or "".
        part: "data", or "constants" of a TorchScript file.
        everything: whether classes that are not on the list become inert records.

    Raises:
        PickleFault: if it is refused, or a storage has not the size that is claimed.
        FormatError: if the archive is damaged.
    """
    order = "little"
    if f"{top}byteorder" in archive:
        order = archive.read(f"{top}byteorder", most=16).decode("ascii", "replace")
    if order not in ("little", "big"):
        raise FormatError(f"{archive.name} names the byte order {shown(order)}")
    storages: dict[str, Storage] = {}

    def storage(reference: object) -> Storage:
        kind, key, count, *_ = _reference(reference)
        if key not in storages:
            member = f"{top}{part}/{key}"
            if not _KEY.fullmatch(key) or member not in archive:
                raise PickleFault(f"a storage {shown(key)} that is not there")
            needed, size = count * size_of(kind), archive.size(member)
            if needed != size:
                raise PickleFault(f"a storage of {needed} bytes where {size} are there")
            storages[key] = Storage(kind, _zeros(0))
            _copy(storages[key], archive.buffer(member), order)
        found = storages[key]
        if found.dtype != kind or len(found) != count:
            raise PickleFault(f"storage {shown(key)} twice with two sizes")
        return found

    known = known_values() | known_tensors()
    machine = StackMachine(
        archive.read(f"{top}{part}.pkl", most=_MOST_PICKLE),
        known=known,
        records=AllBut(known) if everything else (),
        persistent=storage,
    )
    return run(machine)


def _reference(reference: object) -> tuple[str, str, int, Any]:
    """Type, key and count of ("storage", class, key, device, count[, part of another])."""
    if not isinstance(reference, tuple) or not 5 <= len(reference) <= 6:
        raise PickleFault("a reference to something other than a storage")
    word, kind, key, _, count = reference[:5]
    if word != "storage" or not isinstance(kind, StorageKind) or not isinstance(key, str):
        raise PickleFault("a reference to something other than a storage")
    if type(count) is not int or not 0 <= count < 2**48:
        raise PickleFault(f"a storage of {str(count)[:40]} numbers")
    return kind.dtype, key, count, reference[5] if len(reference) == 6 else None


def _zeros(size: int) -> Any:
    import torch

    return torch.zeros(size, dtype=torch.uint8)


def _copy(storage: Storage, data: bytes | bytearray, order: str) -> None:
    import torch

    if not data:
        return
    read = torch.frombuffer(bytearray(data) if isinstance(data, bytes) else data, dtype=torch.uint8)
    # A complex number is two numbers.
    wide = size_of(storage.dtype) // (2 if storage.dtype.startswith("complex") else 1)
    if order == "big" and wide > 1:
        read = read.reshape(-1, wide).flip(1).reshape(-1).contiguous()
    if storage.dtype == "bool" and bool((read > 1).any()):
        raise PickleFault("truth values other than 0 and 1")
    if len(storage.data) == len(read):
        storage.data.copy_(read)
    else:
        storage.data = read


def _plain(value: Any) -> Any:
    """A storage, type or class that is all a file holds, as what a caller knows."""
    import torch

    if isinstance(value, Storage):
        return value.data.view(getattr(torch, value.dtype))
    if isinstance(value, StorageKind | Named):
        raise PickleFault("a class in the place of a value")
    return value

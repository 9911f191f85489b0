"""Files of safetensors, read and written; nothing a header claims is believed."""

from __future__ import annotations

import hashlib
import json
import math
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import msgspec
import torch
from torch import Tensor

from mirror_analysis.errors import ChecksumError, FormatError
from mirror_analysis.files.places import reason, require_file, shown

_MAX_HEADER = 16 * 2**20  # bytes; a model of ten thousand tensors needs about one mebibyte
_MAX_RANK = 16
_MAX_SIZE = 2**40

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}

# First bytes -> what such a file is, for the words of an error only.
_OTHERS = {
    b"PK\x03\x04": "a zip archive, as torch.save writes",
    b"\x80": "a pickle, which can run code when read",
    b"\x89HDF": "an HDF5 file",
    b"version https://git-lfs": "a Git LFS pointer in place of the file itself",
    b"<": "a web page",
}


class _Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    dtype: str
    shape: list[int]
    data_offsets: tuple[int, int]


def read_safetensors(
    path: Path, *, sha256: str | None = None
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Reads a safetensors file whose header has been checked against the file first.

    The header may hold 16 MiB at most; every tensor must lie inside the file; together they
    must fill it without gap or overlap.

    Args:
        path: the file.
        sha256: 64 hexadecimal digits its bytes must hash to, where they are known.

    Returns:
        Name -> tensor on the CPU, in the order of the file, and the metadata.

    Raises:
        MissingFileError: if there is no such file.
        ChecksumError: if the bytes are not the ones named.
        FormatError: if it is not a whole safetensors file.
    """
    require_file(path, "a safetensors file")
    with path.open("rb") as file:
        if sha256 is not None:
            found = hashlib.file_digest(file, "sha256").hexdigest()
            if found != sha256.lower():
                raise ChecksumError(
                    f"{path} has the sha256 {found} but its record says {sha256};"
                    " fetch the file anew"
                )
            file.seek(0)
        entries, metadata = _read_header(file, path)
        return {name: _read_tensor(file, name, e, path) for name, e in entries.items()}, metadata


def read_header(path: Path) -> tuple[dict[str, tuple[str, tuple[int, ...]]], dict[str, str]]:
    """What a safetensors file says it holds, checked as when it is read; no tensor is read.

    Args:
        path: the file.

    Returns:
        Name -> (type such as "F32", shape), in the order of the file, and the metadata.

    Raises:
        MissingFileError: if there is no such file.
        FormatError: if it is not a whole safetensors file.
    """
    require_file(path, "a safetensors file")
    with path.open("rb") as file:
        entries, metadata = _read_header(file, path)
    return {name: (e.dtype, tuple(e.shape)) for name, e in entries.items()}, metadata


def _read_header(file: IO[bytes], path: Path) -> tuple[dict[str, _Entry], dict[str, str]]:
    size = os.fstat(file.fileno()).st_size
    start = file.read(8)
    length = int.from_bytes(start, "little")
    if len(start) < 8 or length > min(_MAX_HEADER, size - 8):
        limit = f"it holds {size} bytes and the cap is {_MAX_HEADER}"
        words = f"its header claims {length} bytes where {limit}" if len(start) == 8 else limit
        raise FormatError(_not_safetensors(file, path, words))
    try:
        raw = msgspec.json.decode(file.read(length), type=dict[str, msgspec.Raw])
        metadata = msgspec.json.decode(raw.pop("__metadata__", b"{}"), type=dict[str, str])
        entries = {name: msgspec.json.decode(value, type=_Entry) for name, value in raw.items()}
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        words = f"its header cannot be read: {reason(error)}"
        raise FormatError(_not_safetensors(file, path, words)) from None
    ordered = dict(sorted(entries.items(), key=lambda item: item[1].data_offsets))
    end = 0
    for name, entry in ordered.items():
        _check_entry(name, entry, end, path)
        end = entry.data_offsets[1]
    if end != size - 8 - length:
        raise FormatError(
            f"{path} is damaged: its tensors need {end} bytes but {size - 8 - length} follow the"
            " header; fetch the file anew"
        )
    return ordered, metadata


def _check_entry(name: str, entry: _Entry, end: int, path: Path) -> None:
    if entry.dtype not in _DTYPES:
        raise FormatError(
            f"tensor {shown(name)} in {path} has the type {shown(entry.dtype)}; readable are"
            f" {', '.join(_DTYPES)}"
        )
    # Empty tensors too: their strides are products of the sides.
    sides = math.prod(max(n, 1) for n in entry.shape[:_MAX_RANK])
    if len(entry.shape) > _MAX_RANK or min(entry.shape, default=0) < 0 or sides > _MAX_SIZE:
        raise FormatError(
            f"tensor {shown(name)} in {path} claims the shape {str(entry.shape)[:80]}; needed at"
            f" most {_MAX_RANK} axes and {_MAX_SIZE} numbers"
        )
    first, last = entry.data_offsets
    if first != end:
        what = "overlaps the tensor before it" if first < end else "leaves a gap before it"
        raise FormatError(
            f"tensor {shown(name)} in {path} {what} (starts at {first}, needed {end});"
            " write the file anew"
        )
    needed = math.prod(entry.shape) * _DTYPES[entry.dtype].itemsize
    if last - first != needed:
        raise FormatError(
            f"tensor {shown(name)} in {path} spans {last - first} bytes but {entry.dtype}"
            f" {str(entry.shape)[:80]} needs {needed}; write the file anew"
        )


def _read_tensor(file: IO[bytes], name: str, entry: _Entry, path: Path) -> Tensor:
    # Allocated as bytes first: the size is known to be that of the file, whatever the shape says.
    flat = torch.empty(entry.data_offsets[1] - entry.data_offsets[0], dtype=torch.uint8)
    read = file.readinto(flat.numpy().data)  # type: ignore[attr-defined]
    if read != len(flat):
        raise FormatError(f"{path} ended inside tensor {shown(name)}; is it still being written?")
    if entry.dtype == "BOOL" and bool((flat > 1).any()):
        raise FormatError(
            f"tensor {shown(name)} in {path} is BOOL but holds bytes other than 0 and 1"
        )
    return flat.view(_DTYPES[entry.dtype]).reshape(entry.shape)


def _not_safetensors(file: IO[bytes], path: Path, words: str) -> str:
    file.seek(0)
    start = file.read(32)
    for magic, kind in _OTHERS.items():
        if start.startswith(magic):
            return (
                f"{path} looks like {kind}; needed safetensors, so convert it where it was made"
                " with safetensors.torch.save_file"
            )
    return f"{path} is not a whole safetensors file: {words}; fetch or write it anew"


def write_safetensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> str:
    """Writes a safetensors file whole or not at all; equal content gives equal bytes.

    Args:
        path: where to.
        tensors: name -> tensor, of any device.
        metadata: words kept in the header.

    Returns:
        The sha256 of the file.

    Raises:
        FormatError: if a tensor's name or type cannot be written.
    """
    header: dict[str, object] = {}
    if metadata:
        header["__metadata__"] = dict(sorted(metadata.items()))
    offset = 0
    # Widest type first keeps every tensor aligned.
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].dtype.itemsize, item[0]))
    for name, tensor in ordered:
        if name == "__metadata__" or tensor.dtype not in _NAMES or tensor.layout != torch.strided:
            raise FormatError(
                f"tensor {shown(name)} of type {tensor.dtype} ({tensor.layout}) cannot be written"
                f" to {path}; needed a dense tensor of {', '.join(_NAMES.values())} with another"
                " name than __metadata__"
            )
        end = offset + tensor.numel() * tensor.dtype.itemsize
        header[name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    digest = hashlib.sha256()
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.partial")
    try:
        with temporary.open("xb") as file:
            for part in (len(text).to_bytes(8, "little"), text):
                digest.update(part)
                file.write(part)
            for _, tensor in ordered:
                flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
                digest.update(flat.numpy().data)
                file.write(flat.numpy().data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return digest.hexdigest()

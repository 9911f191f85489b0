"""A folder that episodes are collected into: how it was collected, and what of it is whole."""

from __future__ import annotations

from pathlib import Path

import msgspec

from mirror_analysis.episodes.arrays import Record
from mirror_analysis.errors import FormatError, MirrorError, StoreError
from mirror_analysis.provenance import sha256_file
from mirror_analysis.writing import write_whole

SETTINGS = "collection.json"


def settle(folder: Path, settings: msgspec.Struct) -> None:
    """Writes down how a folder is collected, or makes sure that it was collected so.

    Raises:
        FormatError: if what was written down cannot be read.
        StoreError: if it was collected with other settings.
    """
    path = folder / SETTINGS
    if not path.exists():
        write_whole(path, msgspec.json.encode(settings) + b"\n")
        return
    try:
        before = msgspec.json.decode(path.read_bytes(), type=type(settings))
    except (msgspec.DecodeError, MirrorError) as error:
        raise FormatError(f"{path} cannot be read ({error}); choose another folder") from None
    for field in settings.__struct_fields__:
        was, now = getattr(before, field), getattr(settings, field)
        if was != now:
            was, now = ("none" if value is msgspec.UNSET else value for value in (was, now))
            raise StoreError(
                f"{folder} was collected with {field} {was}, not {now};"
                " ask for the same again or choose another folder"
            )


def is_whole(folder: Path, record: Record) -> bool:
    """Whether the file of an episode is there with the bytes that were written."""
    path = folder / record.file
    return path.is_file() and sha256_file(path) == record.sha256

"""The walk through an HDF5 file that `hdf5` has done in a process of its own."""

from __future__ import annotations

import math
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mirror_analysis.errors import FormatError
from mirror_analysis.files.places import reason, shown

if TYPE_CHECKING:
    import h5py

_MEMORY = 2**30  # bytes on top of what Python and h5py take
_MOST_OBJECTS = 1_000_000
_DEEPEST = 64
_SMALL = 64 * 2**20  # bytes a dataset may have whatever it takes in the file
_RATIO = 1100  # the most deflate can gain
_CHUNK = 2**28  # bytes of a chunk, all of which are in memory to read one number
_SLICE = 256
_DEFLATE = 1
# Deflate, shuffle, fletcher32, n-bit and scale-offset are the library's own; 32000 is LZF.
_FILTERS = {1, 2, 3, 5, 6, 32000}


def check_hdf5(path: Path) -> None:
    """Refuses a file that leads elsewhere, claims what it does not hold, or is damaged.

    Args:
        path: the file.

    Raises:
        FormatError: with the words that follow the name of the file.
    """
    import h5py

    try:
        with h5py.File(path, "r") as file:
            for place, found in _objects(file):
                if isinstance(found, h5py.Dataset):
                    _check_dataset(found, place, path.stat().st_size)
                for name in found.attrs:
                    _check_size(found.attrs.get_id(name), f"{place}@{name}", path.stat().st_size)
                    found.attrs[name]
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, MemoryError) as error:
        raise FormatError(
            f"is a damaged HDF5 file: {reason(error)}; fetch or write it anew"
        ) from None


def _objects(file: h5py.File) -> Iterator[tuple[str, Any]]:
    import h5py

    seen = 0
    root = file["/"]
    yield "/", root
    stack: list[tuple[Any, str, tuple[int, ...]]] = [(root, "", (_address(root),))]
    while stack:
        group, place, above = stack.pop()
        for key in group:
            where = f"{place}/{key}"
            seen += 1
            if seen > _MOST_OBJECTS or len(above) > _DEEPEST:
                raise FormatError(
                    f"has more than {_MOST_OBJECTS} objects or {_DEEPEST} levels; divide it"
                )
            link = group.get(key, getlink=True)
            if isinstance(link, h5py.SoftLink):
                continue
            if not isinstance(link, h5py.HardLink):
                raise FormatError(
                    f"has the link {shown(where)} to another file; needed all data in one file, so"
                    " copy it in"
                )
            found = group[key]
            yield where, found
            if isinstance(found, h5py.Group):
                if _address(found) in above:
                    raise FormatError(
                        f"has the group {shown(where)}, which contains itself; needed a tree"
                    )
                stack.append((found, where, (*above, _address(found))))


def _check_dataset(dataset: h5py.Dataset, where: str, size: int) -> None:
    if dataset.external is not None or dataset.is_virtual:
        raise FormatError(
            f"has the dataset {shown(where)}, whose data is in other files; needed all data in one"
            " file, so copy it in"
        )
    properties = dataset.id.get_create_plist()
    filters = {properties.get_filter(i)[0] for i in range(properties.get_nfilters())}
    if filters - _FILTERS:
        raise FormatError(
            f"has the dataset {shown(where)}, compressed by filter {min(filters - _FILTERS)}, which"
            " needs a plug-in; needed gzip or lzf, so write it anew"
        )
    # A dataset of no extent has no shape.
    claimed = math.prod(dataset.shape or (0,)) * dataset.id.get_type().get_size()
    stored = dataset.id.get_storage_size()
    if claimed > max(_SMALL, _RATIO * min(stored, size)):
        raise FormatError(
            f"has the dataset {shown(where)}, which claims {claimed} bytes but takes {stored} of"
            f" the file's {size}; fetch or write it anew"
        )
    if dataset.chunks is not None:
        _check_chunks(dataset, where, packed=_DEFLATE in filters)
    if dataset.dtype.hasobject and dataset.shape:
        for start in range(0, len(dataset), _SLICE):
            dataset[start : start + _SLICE]
    elif dataset.dtype.hasobject and dataset.shape is not None:
        dataset[()]


def _check_chunks(dataset: h5py.Dataset, where: str, *, packed: bool) -> None:
    full = math.prod(dataset.chunks) * dataset.id.get_type().get_size()
    if full > _CHUNK:
        raise FormatError(
            f"has the dataset {shown(where)} in chunks of {full} bytes; needed at most {_CHUNK}, so"
            " write it anew in smaller ones"
        )
    if not packed:
        return
    large: list[tuple[int, ...]] = []

    def look(chunk: Any) -> None:
        # What deflate can make of a smaller one is no danger.
        if chunk.size * _RATIO > _CHUNK:
            large.append(tuple(chunk.chunk_offset))

    dataset.id.chunk_iter(look)
    for offset in large:
        _, data = dataset.id.read_direct_chunk(offset)
        if len(data) > 2 * full + 2**16 or _unfolded(data, 2 * full) > full + 64:
            raise FormatError(
                f"has the dataset {shown(where)}, a chunk of which unfolds to more than its {full}"
                " bytes; fetch or write it anew"
            )


def _unfolded(data: bytes, most: int) -> int:
    inflater, total = zlib.decompressobj(), 0
    while data and total <= most:
        total += len(inflater.decompress(data, 2**20))
        data = inflater.unconsumed_tail
    return total


def _check_size(attribute: Any, where: str, size: int) -> None:
    claimed = math.prod(attribute.shape or (0,)) * attribute.get_type().get_size()
    if claimed > max(2**16, size):
        raise FormatError(
            f"has the attribute {shown(where)}, which claims {claimed} bytes of the file's {size};"
            " fetch or write it anew"
        )


def _address(group: Any) -> int:
    import h5py

    return h5py.h5o.get_info(group.id).addr


def _bound_memory() -> None:
    import h5py  # what it takes itself is not counted

    h5py.get_config()
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        most = pages * resource.getpagesize() + _MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (ImportError, OSError, ValueError):
        # Systems without these limits read without.
        return


if __name__ == "__main__":
    _bound_memory()
    try:
        check_hdf5(Path(sys.argv[1]))
    except FormatError as fault:
        sys.stdout.write(f"refused: {fault}\n")
        sys.exit(1)

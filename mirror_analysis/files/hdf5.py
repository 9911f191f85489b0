"""HDF5 files whose every link and dataset is checked before the first is read."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from mirror_analysis.errors import FormatError, MissingDependencyError
from mirror_analysis.files.kinds import kind_of
from mirror_analysis.files.places import reason, require_file

if TYPE_CHECKING:
    import h5py

_PATIENCE = 20  # seconds the walk through a small file may take; damage can send it in circles
_PACE = 2**20  # bytes for which there is a second more
_LONGEST = 1800  # seconds in all


@contextmanager
def open_hdf5(path: Path) -> Iterator[h5py.File]:
    """An HDF5 file, open for reading, that leads nowhere else.

    Refused on opening: links to other files, data kept in other files, virtual datasets, groups
    that contain themselves, filters that need a plug-in, and datasets above 64 MiB that claim
    more than 1100 times what they take in the file.

    The library that reads HDF5 allocates what a damaged file says before it looks. So a file is
    first walked through in a process of its own with bounded memory, which also reads all
    attributes and all data of variable length, once for as long as the file stays as it is.

    Args:
        path: the file.

    Yields:
        The `h5py.File`.

    Raises:
        MissingFileError: if there is no such file.
        MissingDependencyError: if h5py is not installed.
        FormatError: if it is no HDF5 file, damaged (found now or while it is used), or refused.

    Example:
        >>> with open_hdf5(Path("low_dim_v141.hdf5")) as file:
        ...     names = sorted(file["data"])
    """
    require_file(path, "an HDF5 file")
    try:
        import h5py
    except ModuleNotFoundError:
        raise MissingDependencyError(
            "h5py", f"reading {path}", "install mirror-analysis[hdf5]"
        ) from None
    if kind_of(path) != "hdf5":
        raise FormatError(f"{path} is not an HDF5 file; needed one that starts as they do")
    place = path.resolve()
    status = place.stat()
    fault = _fault(place, status.st_size, status.st_mtime_ns, status.st_ino)
    if fault:
        raise FormatError(f"{path} {fault}")
    # h5py passes on what the library met as one of these; in the caller's block too, when data
    # that was not looked at turns out to be damaged. A fault of the caller's own stays itself.
    try:
        with h5py.File(path, "r") as opened:
            yield opened
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, MemoryError) as error:
        if not _raised_by_h5py(error):
            raise
        raise FormatError(
            f"{path} is a damaged HDF5 file, or lacks a part: {reason(error)}; fetch or write it"
            " anew"
        ) from None


def _raised_by_h5py(error: BaseException) -> bool:
    trace, name = error.__traceback__, ""
    while trace is not None:
        name = str(trace.tb_frame.f_globals.get("__name__", ""))
        trace = trace.tb_next
    return name.partition(".")[0] == "h5py"


@lru_cache(maxsize=4096)
def _fault(path: Path, size: int, changed: int, number: int) -> str:
    """What is wrong with a file, found in a process of its own; "" when nothing is."""
    longest = min(_PATIENCE + size // _PACE, _LONGEST)
    root = str(Path(__file__).parents[2])
    paths = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    try:
        done = subprocess.run(
            [sys.executable, "-m", "mirror_analysis.files.hdf5_check", str(path)],
            env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            errors="replace",
            timeout=longest,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return (
            f"takes more than {longest} seconds to walk through, as damaged ones do; write it anew"
        )
    if done.returncode == 0:
        return ""
    if done.returncode == 1 and done.stdout.startswith("refused: "):
        return done.stdout.removeprefix("refused: ").strip()
    # Killed by what the library did, or out of the memory it was given.
    return "is a damaged HDF5 file, on which its library fails; fetch or write it anew"

"""Parquet files of anybody: sizes are looked at first, rows come in small batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mirror_analysis.episodes.parquet_footer import Chunk, read_footer
from mirror_analysis.errors import FormatError, MirrorError
from mirror_analysis.files.places import require_file, shown

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

MOST_BYTES = 8 * 2**30
"""Of one file; data sets are divided into files of some 100 MB."""
MOST_ROWS = 50_000_000
"""Of one file: 19 days at 30 rows a second."""
MOST_COLUMNS = 20_000
"""Leaf columns of one file."""
MOST_CHUNK = 2**30
"""Unpacked bytes of one column in one row group."""

_BATCH = 64 * 2**20  # bytes of a batch, if every value were as long as its whole column
_MOST_BATCH_ROWS = 8192
_MOST_TEXT = 256 * 2**20
_RATIO = 1000  # of what a file unpacks to; zeros reach any, recordings some tens
_ALWAYS = 64 * 2**20  # bytes that any file may unpack to


@contextmanager
def open_parquet(path: Path, *, most: int = MOST_BYTES) -> Iterator[ParquetFile]:
    """A Parquet file whose declared sizes are within bounds; what fails inside is in words.

    Args:
        path: the file.
        most: bytes it may hold.

    Raises:
        MissingFileError: if there is no such file.
        FormatError: if it is no Parquet file, damaged, or larger than what is read.

    Example:
        >>> with open_parquet(path) as file:
        ...     column_names(file)
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    require_file(path, "a Parquet file", most=most)
    try:
        with path.open("rb") as source:
            file = pq.ParquetFile(
                source,
                pre_buffer=False,
                thrift_string_size_limit=64 * 2**20,
                thrift_container_size_limit=4_000_000,
                arrow_extensions_enabled=False,
            )
            _check_sizes(path, file)
            yield file
    except MirrorError:
        raise
    except (pa.ArrowException, OSError, ValueError, KeyError, OverflowError, MemoryError) as error:
        raise FormatError(
            f"{path} is not a readable Parquet file: {shown(error)}; fetch it again"
        ) from None


def column_names(file: ParquetFile) -> list[str]:
    """Names of the columns, nested ones counted once."""
    return list(file.schema_arrow.names)


def batches(
    path: Path,
    file: ParquetFile,
    columns: Sequence[str],
    *,
    where: tuple[str, int, int] | None = None,
) -> Iterator[pa.RecordBatch]:
    """Rows of some columns, in order, a bounded number of bytes at a time.

    Args:
        path: of the file.
        file: from `open_parquet`.
        columns: which.
        where: a column of integers, its least and its largest value: groups of rows whose
            statistics tell that they hold none between are left out.

    Raises:
        FormatError: if a column is not there, or larger than what is read.
    """
    lacking = [name for name in columns if name not in file.schema_arrow.names]
    if lacking:
        there = ", ".join(file.schema_arrow.names[:20])
        raise FormatError(f"{path} has no column {shown(lacking[0])} (columns: {there})")
    held = {
        group: [chunk for chunk in chunks if _under(chunk.path, columns)]
        for group, chunks in enumerate(read_footer(path))
        if where is None or _may_hold(chunks, *where)
    }
    claimed = 0
    for chunk in (chunk for chunks in held.values() for chunk in chunks):
        unpacked = max(chunk.unpacked, chunk.values * 8)
        if unpacked > MOST_CHUNK:
            raise FormatError(
                f"column {shown(chunk.path)} of {path} takes {unpacked} bytes; needed at most"
                f" {MOST_CHUNK} in a group of rows, so write it in smaller groups"
            )
        claimed += unpacked
    size = path.stat().st_size
    if claimed > max(_ALWAYS, _RATIO * size):
        raise FormatError(
            f"{path} of {size} bytes unpacks to {claimed}; needed at most {_RATIO} times its size,"
            " so write it without such repetition"
        )
    for group, chunks in held.items():
        longest = max((chunk.unpacked for chunk in chunks if chunk.is_text), default=1)
        yield from file.iter_batches(
            batch_size=int(np.clip(_BATCH // max(longest, 1), 1, _MOST_BATCH_ROWS)),
            row_groups=[group],
            columns=list(columns),
            use_threads=False,
        )


def plain_rows(path: Path, columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """A small table as plain values, such as the list of episodes.

    Args:
        path: the file.
        columns: which; all when not given.

    Raises:
        MissingFileError: if there is no such file.
        FormatError: if it is no Parquet file, or a large one.
    """
    rows: list[dict[str, Any]] = []
    size = 0
    with open_parquet(path) as file:
        for batch in batches(path, file, column_names(file) if columns is None else columns):
            size += batch.nbytes
            if size > _MOST_TEXT:
                raise FormatError(
                    f"{path} takes more than {_MOST_TEXT} bytes; needed a table of a line each"
                )
            rows += batch.to_pylist()
    return rows


def numbers(path: Path, name: str, column: pa.Array) -> NDArray[np.generic]:
    """A column of numbers, or of lists of numbers of one length, as an array.

    Args:
        path: of the file, for messages.
        name: of the column, for messages.
        column: of one batch.

    Returns:
        [row, number], lists inside lists laid out in one row.

    Raises:
        FormatError: if a value is missing or not a number, or lists differ in length.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    rows = len(column)
    while (
        pa.types.is_list(column.type)
        or pa.types.is_large_list(column.type)
        or (pa.types.is_fixed_size_list(column.type))
    ):
        if column.null_count or len(pc.unique(pc.list_value_length(column))) > 1:
            raise FormatError(
                f"lists in column {shown(name)} of {path} differ in length or are missing; needed"
                " one length throughout"
            )
        column = column.flatten()
    kind = column.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        raise FormatError(f"column {shown(name)} of {path} holds {kind}; needed numbers")
    if column.null_count:
        raise FormatError(f"column {shown(name)} of {path} has missing values; fill them in")
    values = column.to_numpy(zero_copy_only=False)
    return values.reshape(rows, -1) if rows else values.reshape(0, 0)


def _check_sizes(path: Path, file: ParquetFile) -> None:
    facts = file.metadata
    if facts.num_rows > MOST_ROWS or facts.num_columns > MOST_COLUMNS:
        raise FormatError(
            f"{path} has {facts.num_rows} rows of {facts.num_columns} columns; needed at most"
            f" {MOST_ROWS} and {MOST_COLUMNS}"
        )
    if facts.num_row_groups > max(facts.num_rows, 1):
        raise FormatError(f"{path} has more groups of rows than rows; write it anew")


def _under(path: str, columns: Sequence[str]) -> bool:
    return any(path == name or path.startswith(f"{name}.") for name in columns)


def _may_hold(chunks: Sequence[Chunk], column: str, low: int, high: int) -> bool:
    bounds = next((chunk.bounds for chunk in chunks if chunk.path == column), None)
    return bounds is None or (bounds[0] <= high and bounds[1] >= low)

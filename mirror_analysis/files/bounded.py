"""A file that gives no more than it holds, however much is asked of it at once."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import BinaryIO


class BoundedFile(io.BufferedIOBase):
    """A file opened for reading whose `read(n)` never allocates more than is left.

    Python's own files allocate `n` bytes before they look how many there are, so that a length
    of a lying header could take the memory.
    """

    def __init__(self, source: Path | bytes) -> None:
        self._file: BinaryIO = (
            io.BytesIO(source) if isinstance(source, bytes) else source.open("rb")
        )
        if isinstance(source, bytes):
            self.size = len(source)
        else:
            self.size = os.fstat(self._file.fileno()).st_size

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Goes to a place, as files do.

        Raises:
            ValueError: if it is before the start or cannot be a place.
        """
        try:
            return self._file.seek(offset, whence)
        except (OverflowError, OSError) as error:
            raise ValueError(str(error)) from None

    def tell(self) -> int:
        """Where the next byte comes from."""
        return self._file.tell()

    def read(self, size: int | None = -1, /) -> bytes:
        """At most `size` bytes, and at most those that are left."""
        left = max(self.size - self.tell(), 0)
        return self._file.read(left if size is None or size < 0 else min(size, left))

    def close(self) -> None:
        """Closes the file."""
        self._file.close()
        super().close()

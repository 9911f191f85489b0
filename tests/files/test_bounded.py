"""A file that gives no more than it holds."""

import tracemalloc

import pytest

from mirror_analysis.files.bounded import BoundedFile


@pytest.mark.parametrize("kind", ["file", "bytes"])
def test_reading_is_that_of_files_without_their_memory(tmp_path, kind) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"0123456789")
    with BoundedFile(path if kind == "file" else b"0123456789") as file:
        assert file.readable() and file.seekable() and file.size == 10
        tracemalloc.start()
        try:
            assert file.read(2**34) == b"0123456789"
            assert tracemalloc.get_traced_memory()[1] < 2**20
        finally:
            tracemalloc.stop()
        assert file.seek(3) == 3 and file.read(2) == b"34" and file.tell() == 5
        assert file.read() == b"56789" and file.read(5) == b""
        assert file.seek(100) == 100 and file.read(5) == b"" and file.read() == b""
        assert file.seek(-1, 2) == 9 and file.read(None) == b"9"
        for offset in (-1, 2**70):
            with pytest.raises(ValueError, match=r"."):
                file.seek(offset)

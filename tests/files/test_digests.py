"""Fingerprints of files."""

import hashlib

import pytest

from mirror_analysis.errors import MissingFileError
from mirror_analysis.files import digests
from mirror_analysis.files.digests import content_digest


def test_small_files_are_hashed_whole(tmp_path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"abc")
    assert content_digest(path) == hashlib.sha256(b"abc").hexdigest()
    with pytest.raises(MissingFileError, match="is a folder; needed a file"):
        content_digest(tmp_path)


def test_large_files_are_hashed_by_blocks(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(digests, "_WHOLE", 1000)
    monkeypatch.setattr(digests, "_BLOCK", 10)
    path = tmp_path / "x"
    data = bytes(i % 251 for i in range(64 * 20))
    expected = hashlib.sha256(b"sampled 1280 ")
    for block in range(64):
        start = block * 1270 // 63
        expected.update(data[start : start + 10])
    path.write_bytes(data)
    assert content_digest(path) == expected.hexdigest()
    for place, differs in ((0, True), (1279, True), (15, False)):
        path.write_bytes(data[:place] + b"\xff" + data[place + 1 :])
        assert (content_digest(path) != expected.hexdigest()) is differs
    path.write_bytes(data + b"x")
    assert content_digest(path) != expected.hexdigest()

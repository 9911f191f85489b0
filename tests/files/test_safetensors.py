from __future__ import annotations

import hashlib
import json
import os
import pickle
import struct

import pytest
import safetensors.torch
import torch

from mirror_analysis.errors import ChecksumError, FormatError, MissingFileError
from mirror_analysis.files.safetensors import read_safetensors, write_safetensors


def tensors() -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    return {
        "b.weight": torch.randn(3, 5, generator=g),
        "a.bias": torch.tensor([1.0, float("nan"), float("inf")], dtype=torch.float64),
        "half": torch.randn(7, generator=g).bfloat16(),
        "count": torch.tensor(3, dtype=torch.int64),
        "mask": torch.tensor([True, False, True]),
        "bytes": torch.arange(5, dtype=torch.uint8),
        "nothing": torch.zeros(0, 4),
        "strided": torch.arange(12.0).reshape(3, 4).T,
    }


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> None:
    assert left.keys() == right.keys()
    for name, tensor in left.items():
        assert tensor.dtype == right[name].dtype
        torch.testing.assert_close(tensor, right[name], rtol=0, atol=0, equal_nan=True)


def forge(path, header: object, data: bytes = b"", *, length: int | None = None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


def entry(first: int, last: int, *, dtype: str = "F32", shape: list[int] | None = None):
    shape = [(last - first) // 4] if shape is None else shape
    return {"dtype": dtype, "shape": shape, "data_offsets": [first, last]}


# -- good files -------------------------------------------------------------------------------


def test_what_is_written_is_read_back_by_us_and_by_safetensors(tmp_path) -> None:
    path = tmp_path / "model.safetensors"
    digest = write_safetensors(path, tensors(), {"made": "here", "a": "b"})
    read, metadata = read_safetensors(path, sha256=digest)
    same(read, tensors())
    same(safetensors.torch.load_file(path), tensors())
    assert metadata == {"made": "here", "a": "b"}
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()


def test_what_safetensors_writes_is_read(tmp_path) -> None:
    path = tmp_path / "model.safetensors"
    given = {name: tensor.contiguous() for name, tensor in tensors().items()}
    safetensors.torch.save_file(given, path, metadata={"format": "pt"})
    read, metadata = read_safetensors(path)
    same(read, given)
    assert metadata == {"format": "pt"}


def test_equal_content_gives_equal_bytes(tmp_path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    write_safetensors(one, tensors(), {"a": "1", "b": "2"})
    write_safetensors(two, dict(reversed(tensors().items())), {"b": "2", "a": "1"})
    assert one.read_bytes() == two.read_bytes()


def test_tensors_read_do_not_share_memory(tmp_path) -> None:
    path = tmp_path / "model.safetensors"
    write_safetensors(path, {"a": torch.zeros(2), "b": torch.zeros(2)})
    read, _ = read_safetensors(path)
    read["a"].fill_(1.0)
    assert read["b"].tolist() == [0.0, 0.0]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch) -> None:
    path = tmp_path / "model.safetensors"
    write_safetensors(path, {"a": torch.zeros(2)})
    before = path.read_bytes()

    def fail(descriptor: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        write_safetensors(path, {"a": torch.ones(2)})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("a", torch.zeros(2, dtype=torch.complex64)),
        ("__metadata__", torch.zeros(2)),
        ("a", torch.eye(2).to_sparse()),
    ],
)
def test_what_cannot_be_written_is_refused(tmp_path, name, tensor) -> None:
    with pytest.raises(FormatError, match=f"tensor '{name}' of type .* cannot be written to"):
        write_safetensors(tmp_path / "x", {name: tensor})
    assert list(tmp_path.iterdir()) == []


# -- other files ------------------------------------------------------------------------------


def test_a_missing_file_and_a_folder_are_named(tmp_path) -> None:
    with pytest.raises(MissingFileError, match="is not there; needed a safetensors file"):
        read_safetensors(tmp_path / "none.safetensors")
    with pytest.raises(MissingFileError, match="is a folder; needed"):
        read_safetensors(tmp_path)


def test_another_checksum_is_refused_before_the_content_is_looked_at(tmp_path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"garbage")
    with pytest.raises(ChecksumError, match=r"has the sha256 \w{64} but its record says 0000"):
        read_safetensors(path, sha256="0" * 64)


class Bomb:
    def __reduce__(self):
        return (os.mkdir, ("exploded",))


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_a_pickle_is_named_and_never_run(tmp_path, monkeypatch, protocol) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps([Bomb()], protocol=protocol))
    with pytest.raises(FormatError, match=r"looks like a pickle.*needed safetensors, so convert"):
        read_safetensors(path)
    assert not (tmp_path / "exploded").exists()


def test_other_known_files_are_named(tmp_path) -> None:
    path = tmp_path / "x"
    torch.save({"a": torch.zeros(2)}, path)
    with pytest.raises(FormatError, match=r"zip archive, as torch\.save writes"):
        read_safetensors(path)
    for start, words in (
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"\x89HDF\r\n\x1a\n" + b"\0" * 50, "HDF5"),
    ):
        path.write_bytes(start)
        with pytest.raises(FormatError, match=words):
            read_safetensors(path)


# -- hostile files ----------------------------------------------------------------------------

GOOD = entry(0, 8)


@pytest.mark.parametrize(
    ("header", "data", "length", "words"),
    [
        (b"", b"", None, "header cannot be read"),
        (b"{}", b"", 2**63, "header claims 9223372036854775808 bytes where it holds 10 bytes"),
        (b"{}", b"", 3, "header claims 3 bytes where it holds 10"),
        (b"[1, 2]", b"", None, "header cannot be read: Expected `object`"),
        (b"\xff\xfe{}", b"", None, "header cannot be read"),
        (b'{"\xff": 1}', b"", None, "header cannot be read"),
        (b"[" * 100_000, b"", None, "header cannot be read"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, b"", None, "header cannot be read"),
        (b'{"__metadata__":' + b"[" * 90_000 + b"]" * 90_000 + b"}", b"", None, "cannot be read"),
        ({"__metadata__": {"a": 1}}, b"", None, "header cannot be read: Expected `str`"),
        ({"a": {**GOOD, "code": "x"}}, b"\0" * 8, None, "unknown field `code`"),
        ({"a": {"dtype": "F32", "shape": [2]}}, b"", None, "missing required field"),
        ({"a": entry(0, 8, shape=["2"])}, b"\0" * 8, None, "header cannot be read: Expected `int"),
        ({"a": entry(0, 8)}, b"\0" * 7, None, "tensors need 8 bytes but 7 follow"),
        ({"a": entry(0, 8)}, b"\0" * 9, None, "tensors need 8 bytes but 9 follow"),
        ({"a": entry(0, 8), "b": entry(4, 12)}, b"\0" * 12, None, "'b' .* overlaps the tensor"),
        ({"a": entry(0, 8), "b": entry(0, 8)}, b"\0" * 8, None, "'b' .* overlaps the tensor"),
        ({"a": entry(0, 4), "b": entry(8, 12)}, b"\0" * 12, None, "'b' .* leaves a gap before it"),
        ({"a": entry(-8, 0)}, b"\0" * 8, None, "'a' .* overlaps the tensor before it"),
        ({"a": entry(0, 8, shape=[3])}, b"\0" * 8, None, r"spans 8 bytes but F32 \[3\] needs 12"),
        ({"a": entry(0, -8, shape=[2])}, b"", None, r"spans -8 bytes"),
        ({"a": entry(0, 8, shape=[-1, -2])}, b"\0" * 8, None, r"claims the shape \[-1, -2\]"),
        ({"a": entry(0, 0, shape=[0, 2**62])}, b"", None, "claims the shape"),
        ({"a": entry(0, 0, shape=[0, 2**39, 2**39])}, b"", None, "claims the shape"),
        ({"a": entry(0, 4, shape=[1] * 17)}, b"\0" * 4, None, "at most 16 axes"),
        ({"a": entry(0, 8, dtype="F32;x")}, b"\0" * 8, None, "has the type 'F32;x'; readable are"),
        ({"a": entry(0, 2, dtype="BOOL", shape=[2])}, b"\1\2", None, "bytes other than 0 and 1"),
    ],
)
def test_a_lying_file_is_refused_in_words(tmp_path, header, data, length, words) -> None:
    path = forge(tmp_path / "x.safetensors", header, data, length=length)
    with pytest.raises(FormatError, match=words) as caught:
        read_safetensors(path)
    assert "\n" not in str(caught.value)


def test_every_truncation_is_refused(tmp_path) -> None:
    whole = tmp_path / "whole"
    write_safetensors(whole, {"a": torch.zeros(3), "b": torch.ones(2, 2)})
    data = whole.read_bytes()
    path = tmp_path / "cut"
    for size in range(len(data)):
        path.write_bytes(data[:size])
        with pytest.raises(FormatError, match="fetch"):
            read_safetensors(path)


def test_a_header_over_the_cap_is_not_read(tmp_path) -> None:
    path = tmp_path / "x"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", 2**24 + 1))
        file.truncate(2**25)
    with pytest.raises(FormatError, match=r"claims 16777217 bytes .* the cap is 16777216"):
        read_safetensors(path)


def test_a_file_that_shrinks_while_it_is_read_is_named(tmp_path, monkeypatch) -> None:
    path = forge(tmp_path / "x", {"a": entry(0, 8)}, b"\0" * 8)
    grown = os.stat_result((*os.stat(path)[:6], path.stat().st_size, *os.stat(path)[7:10]))
    path.write_bytes(path.read_bytes()[:-4])
    with monkeypatch.context() as patch:
        patch.setattr("mirror_analysis.files.safetensors.os.fstat", lambda descriptor: grown)
        with pytest.raises(FormatError, match="ended inside tensor 'a'; is it still being written"):
            read_safetensors(path)

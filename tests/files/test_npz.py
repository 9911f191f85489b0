"""Arrays of numpy, without pickles."""

import io
import zipfile

import numpy as np
import pytest

from mirror_analysis.errors import FormatError, MissingFileError
from mirror_analysis.files.npz import read_npz

ARRAYS = {
    "a": np.arange(6.0).reshape(2, 3),
    "b": np.asfortranarray(np.arange(6).reshape(2, 3)),
    "c": np.array(["x", "yz"]),
    "d": np.array(5),
    "e": np.zeros((0, 3), np.uint8),
}


def packed(save, **arrays) -> bytes:
    buffer = io.BytesIO()
    save(buffer, **arrays)
    return buffer.getvalue()


def npy(array, **options) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_archives_are_read(save, tmp_path) -> None:
    path = tmp_path / "x"
    path.write_bytes(packed(save, **ARRAYS))
    read = read_npz(path)
    assert list(read) == list(ARRAYS)
    for name, array in ARRAYS.items():
        assert read[name].dtype == array.dtype and (read[name] == array).all()
    read["a"][0, 0] = 7


def test_some_arrays_are_read_alone() -> None:
    data = packed(np.savez, a=np.eye(2), b=np.arange(3), c=np.array([{}], dtype=object))
    assert list(read_npz(data, names=["b", "nowhere"])) == ["b"]
    with pytest.raises(FormatError, match="bytes of arrays; needed at most 8"):
        read_npz(data, names=["a"], most=8)


def test_single_arrays_are_read(tmp_path) -> None:
    path = tmp_path / "x"
    path.write_bytes(npy(ARRAYS["a"]))
    assert (read_npz(path)[""] == ARRAYS["a"]).all()
    assert (read_npz(path.read_bytes())[""] == ARRAYS["a"]).all()
    with pytest.raises(MissingFileError, match="is a folder"):
        read_npz(tmp_path)


def forged(header: str, content: bytes = b"\0" * 16) -> bytes:
    text = header.encode()
    return b"\x93NUMPY\x01\0" + len(text).to_bytes(2, "little") + text + content


def header(descr: object = "<f8", shape: object = (2,), order: object = False) -> str:
    return repr({"descr": descr, "fortran_order": order, "shape": shape})


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (npy(np.array([{}], object), allow_pickle=True), "objects are not read"),
        (forged(header("|O")), "objects are not read"),
        (forged(header([("x", "|O")])), "objects are not read"),
        (forged(header("f8,f8")), "objects are not read"),
        (forged(header(shape=(3,))), r"16 bytes for <f8 \(3,\)"),
        (forged(header(shape=(2**60,))), "is not a whole array"),
        (forged(header(shape=(0, 2**60)), b""), "is not a whole array"),
        (forged(header(shape=(-2,))), "is not a whole array"),
        (forged(header(shape=(True, 2))), "is not a whole array"),
        (forged(header(shape=(1,) * 40)), "is not a whole array"),
        (forged(header("<S0", (9,)), b""), "is not a whole array"),
        (forged(header(shape=[2])), "objects are not read"),
        (forged("__import__('os').mkdir('ran')"), "is not a whole array"),
        (forged("{"), "is not a whole array"),
        (forged("(" * 5000), "is not a whole array"),
        (forged("{}"), "is not a whole array"),
        (b"\x93NUMPY\x01\0\xff\xff{", "claims a header of 65535 bytes"),
        (b"\x93NUMPY\x02\0\xff\xff\xff\xff{", "claims a header of 4294967295 bytes"),
        (b"\x93NUMPY\x07\0\0\0", "is not an array as numpy writes it"),
    ],
)
def test_hostile_arrays_are_refused(data, words) -> None:
    with pytest.raises(FormatError, match=words):
        read_npz(data)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.npy", data)
    with pytest.raises(FormatError, match=words):
        read_npz(buffer.getvalue())


def test_sizes_are_bounded() -> None:
    with pytest.raises(FormatError, match=r"holds \d+ bytes of arrays; needed at most 100"):
        read_npz(packed(np.savez, **ARRAYS), most=100)
    with pytest.raises(FormatError, match=r"needed an \.npy file of at most 100"):
        read_npz(npy(ARRAYS["a"]), most=100)

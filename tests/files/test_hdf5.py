"""HDF5 files lead nowhere else and claim no more than they hold."""

import subprocess
import sys

import h5py
import numpy as np
import pytest

from mirror_analysis.errors import FormatError, MissingDependencyError, MissingFileError
from mirror_analysis.files import hdf5, hdf5_check
from mirror_analysis.files.hdf5 import open_hdf5
from mirror_analysis.files.hdf5_check import check_hdf5


def good(path, **options) -> None:
    with h5py.File(path, "w", **options) as file:
        demo = file.create_group("data/demo_0")
        demo["actions"] = np.arange(6.0).reshape(3, 2)
        pixels = np.zeros((3, 8, 8, 3), np.uint8)
        demo.create_dataset("obs/image", data=pixels, compression="gzip", shuffle=True)
        demo.create_dataset("obs/other", data=pixels, compression="lzf", fletcher32=True)
        file["names"] = np.array(["a", "bcd"], dtype=h5py.string_dtype())
        file["name"] = "x"
        file["none"] = h5py.Empty("f4")
        file["data"].attrs["env_args"] = '{"env_name": "Lift"}'
        file["again"] = file["data/demo_0/actions"]
        file["soft"] = h5py.SoftLink("/data")


@pytest.mark.parametrize("options", [{}, {"libver": "latest"}, {"userblock_size": 512}], ids=str)
def test_files_are_read(tmp_path, options) -> None:
    path = tmp_path / "x"
    good(path, **options)
    check_hdf5(path)
    with open_hdf5(path) as file:
        assert file["data/demo_0/actions"][2, 1] == 5 and file["names"][1] == b"bcd"
        assert file["soft"].attrs["env_args"] == '{"env_name": "Lift"}'
        with pytest.raises(ValueError, match="no write intent"):
            file["new"] = 1


def test_a_file_is_walked_through_once_until_it_changes(tmp_path, monkeypatch) -> None:
    path = tmp_path / "x"
    good(path)
    calls = []

    def run(command, **options):
        calls.append(command[-1])
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(hdf5.subprocess, "run", run)
    for _ in range(3):
        with open_hdf5(path):
            pass
    assert calls == [str(path)]
    with h5py.File(path, "a") as file:
        file["more"] = np.zeros(1000)
    with open_hdf5(path):
        pass
    assert len(calls) == 2


def test_other_files_are_named(tmp_path, monkeypatch) -> None:
    with (
        pytest.raises(MissingFileError, match="is a folder; needed an HDF5 file"),
        open_hdf5(tmp_path),
    ):
        pass
    path = tmp_path / "x"
    path.write_bytes(b"hello")
    with pytest.raises(FormatError, match="is not an HDF5 file"), open_hdf5(path):
        pass
    good(path)
    monkeypatch.setitem(sys.modules, "h5py", None)
    words = r"needs h5py, which is not installed; install mirror-analysis\[hdf5\]"
    with pytest.raises(MissingDependencyError, match=words), open_hdf5(path):
        pass


def test_faults_in_the_block_are_in_words(tmp_path) -> None:
    path = tmp_path / "x"
    good(path)
    with pytest.raises(FormatError, match="is a damaged HDF5 file, or lacks a part"):
        with open_hdf5(path) as file:
            file["no such group"]
    for fault in (FormatError("its own words"), ValueError("its own words")):
        with pytest.raises(type(fault), match=r"^its own words$"), open_hdf5(path):
            raise fault


def test_the_process_says_what_it_found(tmp_path, monkeypatch) -> None:
    path = tmp_path / "x"
    with h5py.File(path, "w") as file:
        file["link"] = h5py.ExternalLink("/etc/passwd", "/")
    with pytest.raises(FormatError, match=r"x has the link '/link' to another file; needed all"):
        with open_hdf5(path):
            pass
    good(path)
    for code, words in ((-11, "on which its library fails"), (1, "on which its library fails")):
        monkeypatch.setattr(
            hdf5.subprocess,
            "run",
            lambda command, code=code, **o: subprocess.CompletedProcess(command, code, "", "x"),
        )
        hdf5._fault.cache_clear()
        with pytest.raises(FormatError, match=words), open_hdf5(path):
            pass

    def late(command, **options):
        raise subprocess.TimeoutExpired(command, 1)

    monkeypatch.setattr(hdf5.subprocess, "run", late)
    hdf5._fault.cache_clear()
    with pytest.raises(FormatError, match="takes more than 20 seconds"), open_hdf5(path):
        pass
    hdf5._fault.cache_clear()


def external_data(file) -> None:
    file.create_dataset("x", (4,), "u1", external=[("/etc/passwd", 0, 4)])


def virtual(file) -> None:
    layout = h5py.VirtualLayout((4,), "f8")
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", (4,))
    file.create_virtual_dataset("x", layout)


def own_loop(file) -> None:
    file.create_group("a/b")
    file["a/b/c"] = file["a"]


def deep(file) -> None:
    file.create_group("/".join("g" * 70))


def huge(file) -> None:
    file.create_dataset("x", (2**40,), "f8", chunks=(1024,))


def huge_chunks(file) -> None:
    file.create_dataset("x", (2**28,), "f8", chunks=(2**26,))


def plugin(file) -> None:
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_chunk((4,))
    properties.set_filter(32015, h5py.h5z.FLAG_OPTIONAL, ())
    space = h5py.h5s.create_simple((4,))
    h5py.h5d.create(file.id, b"x", h5py.h5t.NATIVE_INT32, space, properties)


def bomb(file) -> None:
    import zlib

    data = file.create_dataset("x", (1024,), "u1", chunks=(1024,), compression="gzip")
    data.id.write_direct_chunk((0,), zlib.compress(b"\0" * 3 * 10**8))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda f: f.__setitem__("x", h5py.ExternalLink("y.h5", "/")), "the link '/x' to another"),
        (external_data, "dataset '/x', whose data is in other files"),
        (virtual, "dataset '/x', whose data is in other files"),
        (own_loop, "the group '/a/b/c', which contains itself"),
        (deep, "objects or 64 levels"),
        (huge, "claims 8796093022208 bytes but takes 0 of the file's"),
        (huge_chunks, "in chunks of 536870912 bytes|which claims"),
        (plugin, "compressed by filter 32015, which needs a plug-in"),
        (bomb, "a chunk of which unfolds to more than its 1024 bytes"),
    ],
)
def test_what_leads_elsewhere_or_lies_is_refused(tmp_path, make, words) -> None:
    path = tmp_path / "x"
    with h5py.File(path, "w") as file:
        make(file)
    with pytest.raises(FormatError, match=words) as caught:
        check_hdf5(path)
    assert "\n" not in str(caught.value)


def test_too_many_objects_are_refused(tmp_path, monkeypatch) -> None:
    good(tmp_path / "x")
    monkeypatch.setattr(hdf5_check, "_MOST_OBJECTS", 5)
    with pytest.raises(FormatError, match="has more than 5 objects"):
        check_hdf5(tmp_path / "x")


def test_large_attributes_are_refused(tmp_path, monkeypatch) -> None:
    with h5py.File(tmp_path / "x", "w") as file:
        file.attrs["a"] = np.zeros(8000)
    check_hdf5(tmp_path / "x")

    class Lying:
        shape = (10**6,)

        def get_type(self):
            return h5py.h5t.NATIVE_INT64

    with pytest.raises(FormatError, match="the attribute '/@a', which claims 8000000 bytes"):
        hdf5_check._check_size(Lying(), "/@a", 1000)


def test_truncations_are_refused(tmp_path) -> None:
    path, cut = tmp_path / "x", tmp_path / "cut"
    good(path)
    data = path.read_bytes()
    for size in range(8, len(data), len(data) // 20):
        cut.write_bytes(data[:size])
        with pytest.raises(FormatError, match="is a damaged HDF5 file"):
            check_hdf5(cut)


def test_a_lying_length_takes_no_memory(tmp_path) -> None:
    path = tmp_path / "x"
    with h5py.File(path, "w") as file:
        file["s"] = np.array(["a", "bcd"], dtype=h5py.string_dtype())
    data = bytearray(path.read_bytes())
    with h5py.File(path, "r") as file:
        place = file["s"].id.get_offset()
    data[place : place + 4] = b"\xff\xff\xff\x7f"
    path.write_bytes(data)
    with pytest.raises(FormatError, match="is a damaged HDF5 file"), open_hdf5(path):
        pass


def test_a_walk_without_end_is_ended(tmp_path, monkeypatch) -> None:
    good(tmp_path / "x.hdf5")
    monkeypatch.setattr(hdf5, "_PATIENCE", 0)
    words = r"x\.hdf5 takes more than 0 seconds to walk through, as damaged ones do"
    with pytest.raises(FormatError, match=words), open_hdf5(tmp_path / "x.hdf5"):
        pass

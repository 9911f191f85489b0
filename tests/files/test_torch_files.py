"""Files of torch.save, read as torch reads them and refused where they lie."""

import io
import os
import pickle
import struct
import tarfile
import zipfile

import numpy as np
import pytest
import torch

from mirror_analysis.errors import FormatError, MissingFileError
from mirror_analysis.files.archives import Archive
from mirror_analysis.files.inert import Named
from mirror_analysis.files.torch_files import read_torch

DTYPES = [
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32),
    *(torch.int16, torch.int8, torch.uint8, torch.bool, torch.complex64, torch.float8_e4m3fn),
]


def saved(value, *, zipped: bool = True) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


def raw(tensor: torch.Tensor) -> bytes:
    return tensor.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes()


def same(one, two) -> bool:
    if isinstance(two, torch.Tensor):
        bits = one.dtype == two.dtype and one.shape == two.shape and one.stride() == two.stride()
        return bits and raw(one) == raw(two)
    if isinstance(two, dict):
        return list(one) == list(two) and all(same(one[key], two[key]) for key in two)
    if isinstance(two, list | tuple):
        return len(one) == len(two) and all(map(same, one, two))
    return one == two


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_tensors_of_every_type_are_as_torch_reads_them(dtype, zipped) -> None:
    tensor = torch.arange(12).reshape(3, 4).to(dtype)
    zipped = zipped or dtype == torch.float8_e4m3fn  # which the old form has no word for
    data = saved({"a": tensor, "part": tensor[1:, ::2]}, zipped=zipped)
    assert same(read_torch(data), torch.load(io.BytesIO(data), weights_only=True))


@pytest.mark.parametrize("zipped", [True, False])
def test_state_dicts_containers_and_parameters_are_read(zipped, tmp_path) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    data = saved({"model": model.state_dict(), "step": 7, "shape": torch.Size([2])}, zipped=zipped)
    path = tmp_path / "x.pth"
    path.write_bytes(data)
    read = read_torch(path)
    assert same(read["model"], model.state_dict()) and (read["step"], read["shape"]) == (7, (2,))
    assert same(read_torch(saved(torch.nn.Parameter(torch.ones(2)), zipped=zipped)), torch.ones(2))
    assert same(read_torch(saved(torch.ones(2), zipped=zipped)), torch.ones(2))
    assert read_torch(saved([torch.float32], zipped=zipped)) == [Named("torch.float32")]
    assert same(read_torch(saved(torch.empty(0, 3), zipped=zipped)), torch.empty(0, 3))


def test_numpy_in_a_checkpoint_is_read() -> None:
    read = read_torch(saved({"stats": np.arange(3.0), "n": np.float64(2)}))
    assert read["stats"].tolist() == [0, 1, 2] and read["n"] == 2


@pytest.mark.parametrize("zipped", [True, False])
def test_shared_memory_stays_shared_and_can_be_written(zipped) -> None:
    weight = torch.zeros(2, 2)
    read = read_torch(saved({"a": weight, "b": weight.T}, zipped=zipped))
    read["a"][0, 1] = 5.0
    assert read["b"][1, 0] == 5.0


# -- what is refused --------------------------------------------------------------------------


class Runs:
    def __reduce__(self):
        return (os.mkdir, ("ran",))


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    "value", [Runs(), {"a": Runs()}, torch.nn.Linear(1, 1)], ids=["bare", "inside", "module"]
)
def test_nothing_is_run(zipped, value, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FormatError, match="which is not on the list of plain data"):
        read_torch(saved(value, zipped=zipped))
    assert list(tmp_path.iterdir()) == []


def test_code_in_a_nested_storage_is_not_run(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)

    class Storage:
        def __reduce__(self):
            return (torch.storage._load_from_bytes, (saved(Runs(), zipped=False),))

    with pytest.raises(FormatError, match="which is not on the list of plain data"):
        read_torch(saved(Storage()))
    assert list(tmp_path.iterdir()) == []


def repacked(data: bytes, change) -> bytes:
    """The same archive with its members changed: name -> bytes."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def tensor_pickle(
    *, count: int = 4, offset: object = 0, shape: object = (4,), strides: object = (1,),
    key: object = "0", word: str = "storage", extra: tuple = (),
) -> bytes:  # fmt: skip
    """A data.pkl of one tensor, whatever it claims."""

    class Id:
        pass

    class Tensor:
        def __reduce__(self):
            return torch._utils._rebuild_tensor_v2, (Id(), offset, shape, strides, False, None)

    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            if isinstance(value, Id):
                return (word, torch.FloatStorage, key, "cpu", count, *extra)
            return None

    buffer = io.BytesIO()
    Pickler(buffer, protocol=2).dump(Tensor())
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("claim", "words"),
    [
        ({"count": 2**40}, "a storage of 4398046511104 bytes where 16 are there"),
        ({"count": 3}, "a storage of 12 bytes where 16 are there"),
        ({"count": -1}, "a storage of -1 numbers"),
        ({"count": 2**62}, "a storage of 4611686018427387904 numbers"),
        ({"shape": (5,)}, r"a tensor \(5,\) that reaches number 4 of a storage of 4"),
        ({"offset": 1}, "reaches number 4 of a storage of 4"),
        ({"strides": (2,)}, "reaches number 6 of a storage of 4"),
        ({"shape": (2**40,), "strides": (0,)}, "reaches number 0 of a storage of 4"),
        ({"shape": (2**21,), "strides": (0,)}, "reaches number 0 of a storage of 4"),
        ({"shape": (2**21, 2**21), "strides": (0, 0)}, "a tensor of the shape"),
        ({"shape": (0, 2**50), "strides": (1, 1)}, "a tensor of the shape"),
        ({"shape": (-1,)}, "a tensor of the shape or steps"),
        ({"strides": (-1,)}, "a tensor of the shape or steps"),
        ({"offset": -1}, "a tensor of the shape or steps"),
        ({"offset": 1.5}, "a tensor of the shape or steps"),
        ({"shape": (2**70,)}, "a tensor of the shape or steps"),
        ({"shape": (1,) * 40, "strides": (1,) * 40}, "a tensor of no possible shape"),
        ({"shape": "4"}, "a tensor of no possible shape"),
        ({"shape": (2, 2)}, "more sides than steps"),
        ({"key": "7"}, "a storage '7' that is not there"),
        ({"key": "../0"}, r"a storage '\.\./0' that is not there"),
        ({"key": 0}, "a reference to something other than a storage"),
        ({"word": "module"}, "a reference to something other than a storage"),
        ({"extra": (1, 2)}, "a reference to something other than a storage"),
    ],
)
def test_a_lying_tensor_is_refused(claim, words) -> None:
    good = saved(torch.arange(4.0))

    def change(members) -> None:
        members["archive/data.pkl"] = tensor_pickle(**claim)

    assert same(
        read_torch(repacked(good, lambda m: m.update({"archive/data.pkl": tensor_pickle()}))),
        torch.arange(4.0),
    )
    with pytest.raises(FormatError, match=words):
        read_torch(repacked(good, change))


def test_a_broadcast_tensor_is_read() -> None:
    tensor = torch.ones(1).expand(1000, 1000)
    assert same(read_torch(saved(tensor)), tensor)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: m.pop("archive/data/0"), "a storage '0' that is not there"),
        (lambda m: m.pop("archive/data.pkl"), r"a zip without one data\.pkl"),
        (lambda m: m.update({"other/data.pkl": b""}), r"a zip without one data\.pkl"),
        (lambda m: m.update({"archive/constants.pkl": b""}), "a TorchScript program"),
        (lambda m: m.update({"archive/byteorder": b"middle"}), "names the byte order 'middle'"),
        (lambda m: m.update({"archive/byteorder": b"x" * 99}), "99 bytes; needed at most 16"),
        (lambda m: m.update({"archive/data/0": b""}), "16 bytes where 0 are there"),
    ],
)
def test_a_damaged_archive_is_refused(change, words) -> None:
    with pytest.raises(FormatError, match=words):
        read_torch(repacked(saved(torch.arange(4.0)), change))


def test_the_byte_order_of_the_file_is_obeyed() -> None:
    def change(members) -> None:
        members["archive/byteorder"] = b"big"
        members["archive/data/0"] = struct.pack(">4f", 0, 1, 2, 3)

    assert read_torch(repacked(saved(torch.arange(4.0)), change)).tolist() == [0, 1, 2, 3]


def test_truth_values_other_than_two_are_refused() -> None:
    data = repacked(saved(torch.tensor([True])), lambda m: m.update({"archive/data/0": b"\x02"}))
    with pytest.raises(FormatError, match="truth values other than 0 and 1"):
        read_torch(data)


def legacy(
    *, magic: int = 0x1950A86A20F9469CFC6C, protocol: int = 1001, keys: object = ("0",),
    tail: bytes = struct.pack("<q4f", 4, 0, 1, 2, 3), **claim: object,
) -> bytes:  # fmt: skip
    heads = [magic, protocol, {"little_endian": True}]
    parts = [pickle.dumps(head, 2) for head in heads] + [
        tensor_pickle(**{"extra": (None,), **claim}),
        pickle.dumps(list(keys) if isinstance(keys, tuple) else keys, 2),
    ]
    return b"".join(parts) + tail


def test_the_old_form_is_read() -> None:
    assert read_torch(legacy()).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("claim", "words"),
    [
        ({"magic": 7}, r"does not start as files of torch\.save do"),
        ({"protocol": 1002}, "a protocol other than 1001"),
        ({"count": 2**40}, "storages of 4398046511104 bytes in a file of"),
        ({"shape": (5,)}, "reaches number 4 of a storage of 4"),
        ({"keys": ()}, "its list of storages is not that of its tensors"),
        ({"keys": ("0", "1")}, "its list of storages is not that of its tensors"),
        ({"keys": 5}, "its list of storages is not that of its tensors"),
        ({"tail": b""}, r"a storage at byte \d+ that is cut"),
        ({"tail": struct.pack("<q4f", 5, 0, 1, 2, 3)}, "that is cut, or 5 numbers long"),
        ({"extra": (("1", 0, 2),)}, "a storage that is a part of another"),
    ],
)
def test_a_lying_old_file_is_refused(claim, words) -> None:
    with pytest.raises(FormatError, match=words):
        read_torch(legacy(**claim))


def test_storages_alone_are_tensors_of_one_size() -> None:
    class Id:
        def __init__(self, count: int) -> None:
            self.count = count

    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            if isinstance(value, Id):
                return ("storage", torch.FloatStorage, "0", "cpu", value.count, None)
            return None

    start = b"".join(pickle.dumps(head, 2) for head in (0x1950A86A20F9469CFC6C, 1001, {}))
    buffer = io.BytesIO()
    Pickler(buffer, protocol=2).dump(Id(2))
    tail = pickle.dumps(["0"], 2) + struct.pack("<q2f", 2, 0.5, 1.5)
    assert read_torch(start + buffer.getvalue() + tail).tolist() == [0.5, 1.5]
    buffer = io.BytesIO()
    Pickler(buffer, protocol=2).dump([Id(4), Id(3)])
    data = start + buffer.getvalue()
    with pytest.raises(FormatError, match="storage '0' twice with two sizes"):
        read_torch(data + pickle.dumps(["0"], 2) + b"\0" * 24)
    zipped = repacked(
        saved(torch.arange(4.0)), lambda m: m.update({"archive/data.pkl": buffer.getvalue()})
    )
    with pytest.raises(FormatError, match="storage '0' twice with two sizes"):
        read_torch(zipped)


def test_other_files_are_named(tmp_path) -> None:
    with pytest.raises(MissingFileError, match=r"is not there; needed a file of torch\.save"):
        read_torch(tmp_path / "none.pth")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("storages"))
    with pytest.raises(FormatError, match=r"is a tar as torch before 0\.1\.10 wrote it"):
        read_torch(buffer.getvalue())
    with pytest.raises(FormatError, match="is not a pickle of plain data"):
        read_torch(b"hello")
    storage = saved(torch.float32)
    with pytest.raises(FormatError, match="a class in the place of a value"):
        read_torch(storage)


@pytest.mark.parametrize("zipped", [True, False])
def test_every_truncation_is_refused(zipped) -> None:
    data = saved({"a": torch.arange(4.0)}, zipped=zipped)
    for size in range(0, len(data), 1 if not zipped else 13):
        with pytest.raises(FormatError):
            read_torch(data[:size])


@pytest.mark.real_weights
def test_real_policies_are_as_torch_reads_them(shared) -> None:
    files = sorted((shared / "weights" / "sb3").glob("*Hopper*.zip"))
    assert len(files) == 6
    for path in files:
        with Archive(path) as archive:
            for name in [n for n in archive.names if n.endswith(".pth")]:
                data = archive.read(name)
                read = torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
                assert same(read_torch(data), read), (path, name)

"""A file is what its bytes are, whatever its name."""

import io
import json
import pickle
import struct
import tarfile
import warnings
import zipfile

import h5py
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import safetensors.torch
import torch
from onnx import TensorProto, helper
from PIL import Image

from mirror_analysis.errors import MissingFileError
from mirror_analysis.files.kinds import kind_of
from mirror_analysis.files.tfrecords import masked


def zipped(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, b"x")
    return buffer.getvalue()


def to(save, *arguments, **options) -> bytes:
    buffer = io.BytesIO()
    save(*arguments, buffer, **options)
    return buffer.getvalue()


def script() -> bytes:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return to(torch.jit.save, torch.jit.script(torch.nn.Linear(1, 1)))


def tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("x"))
    return buffer.getvalue()


def hdf5(**options) -> bytes:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", **options) as file:
        file["x"] = 1
    return buffer.getvalue()


def model() -> bytes:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "g", [value], [])
    return helper.make_model(graph).SerializeToString()


def record() -> bytes:
    length = struct.pack("<Q", 3)
    return length + struct.pack("<I", masked(length)) + b"abc" + struct.pack("<I", masked(b"abc"))


def picture(kind: str) -> bytes:
    return to(lambda b: Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(b, kind))


FILES = {
    "torch": lambda: to(torch.save, {"a": torch.ones(1)}),
    "torch-legacy": lambda: to(
        torch.save, {"a": torch.ones(1)}, _use_new_zipfile_serialization=False
    ),
    "torchscript": script,
    "exported": lambda: to(
        torch.export.save, torch.export.export(torch.nn.Linear(1, 1), (torch.ones(1, 1),))
    ),
    "sb3": lambda: zipped("data", "policy.pth", "pytorch_variables.pth"),
    "npz": lambda: to(lambda b: np.savez(b, a=np.ones(1))),
    "npy": lambda: to(lambda b: np.save(b, np.ones(1))),
    "zip": lambda: zipped("a", "b.npy"),
    "zip broken": lambda: b"PK\x03\x04nothing",
    "tar": tar,
    "safetensors": lambda: safetensors.torch.save({"a": torch.ones(1)}),
    "hdf5": hdf5,
    "hdf5 late": lambda: hdf5(userblock_size=1024),
    "onnx": model,
    "tflite": lambda: b"\x1c\0\0\0TFL3" + b"\0" * 50,
    "parquet": lambda: to(lambda b: pyarrow.parquet.write_table(pyarrow.table({"a": [1]}), b)),
    "tfrecord": record,
    "json": lambda: json.dumps({"a": "é" * 5000}, ensure_ascii=False).encode(),
    "json list": lambda: b"\xef\xbb\xbf [1]",
    "picture png": lambda: picture("PNG"),
    "picture jpeg": lambda: picture("JPEG"),
    "picture bmp": lambda: picture("BMP"),
    "picture gif": lambda: picture("GIF"),
    "picture webp": lambda: picture("WEBP"),
    "video mp4": lambda: b"\0\0\0\x20ftypisom" + b"\0" * 20,
    "video avi": lambda: b"RIFF\x10\0\0\0AVI LIST",
    "video mkv": lambda: b"\x1aE\xdf\xa3" + b"\0" * 20,
    "video ts": lambda: (b"G" + b"\0" * 187) * 5,
    "unknown wav": lambda: b"RIFF\x10\0\0\0WAVEfmt ",
    "unknown heic": lambda: b"\0\0\0\x20ftypheic" + b"\0" * 20,
    "compressed": lambda: b"\x1f\x8b\x08" + b"\0" * 20,
    "git-lfs": lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
    "html": lambda: b"\n<!DOCTYPE html><html>",
    "text": lambda: b"a: 1\nb: 2\n",
    "empty": lambda: b"",
    "unknown": lambda: bytes(range(256)),
    "unknown cut": lambda: b"\x08\x07\x3a\x7f",
    "unknown dot": lambda: b"(\x01\x02.",
} | {f"pickle {p}": lambda p=p: pickle.dumps({"a": [1.5, "x"]}, p) for p in range(6)}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", FILES)
def test_files_are_known_by_content(tmp_path, name) -> None:
    path = tmp_path / "lies.png"
    path.write_bytes(FILES[name]())
    assert kind_of(path) == name.partition(" ")[0]


def test_folders_and_nothing(tmp_path) -> None:
    assert kind_of(tmp_path) == "folder"
    with pytest.raises(MissingFileError, match="is not there; needed a file"):
        kind_of(tmp_path / "none")


def test_cut_files_are_named_without_a_fault(tmp_path) -> None:
    path = tmp_path / "x"
    for name in ("onnx", "torch", "pickle 0", "pickle 4", "hdf5", "tfrecord", "json"):
        data = FILES[name]()
        for size in range(1, min(len(data), 300), 7):
            path.write_bytes(data[:size])
            assert isinstance(kind_of(path), str)


@pytest.mark.real_weights
def test_real_files_are_known(shared) -> None:
    kinds = {p.name: kind_of(p) for p in shared.glob("*/*/*") if p.is_file()}
    kinds |= {p.name: kind_of(p) for p in (shared / "episodes").iterdir()}
    assert kinds["door-v0.pickle"] == "pickle" and kinds["g1_motion.pt"] == "torchscript"
    assert kinds["go1_policy.onnx"] == "onnx" and kinds["cat.bmp"] == "picture"
    assert kinds["exercise_human.avi"] == "video" and kinds["tqc_Hopper-v3.zip"] == "sb3"
    assert kinds["mobilenet_v2_1.0_224_quant.tflite"] == "tflite"
    assert kinds["bridge_dataset-train.tfrecord-00000-of-00001"] == "tfrecord"

"""What is damaged: a sound file or folder of every format, and who reads it."""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from hostile.sound_episodes import EPISODES, picture
from hostile.sound_models import MODELS

Maker = Callable[[Path], Path]


@dataclass(frozen=True)
class Format:
    """One row of the table.

    Attributes:
        entry: how it is read: "model", "episodes", or "file:" and a function of
            `mirror_analysis.files`.
        make: writes it into an empty folder and gives the path to read.
        slow: whether reading takes a process of its own, tenths of a second each.
    """

    entry: str
    make: Maker
    slow: bool = False


def _file(name: str, content: Callable[[], bytes]) -> Maker:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(content())
        return folder / name

    return make


def _alone(table: dict[str, Maker], name: str, pattern: str) -> Maker:
    """One file out of a sound folder, without the rest."""

    def make(folder: Path) -> Path:
        inner = folder / "whole"
        inner.mkdir()
        table[name](inner)
        found = sorted(inner.rglob(pattern))[0]
        content = found.read_bytes()
        for path in sorted(inner.rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()
        inner.rmdir()
        (folder / found.name).write_bytes(content)
        return folder / found.name

    return make


def _npz() -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, a=np.eye(5), b=np.arange(7), c=np.array(["x", "yy"]))
    return stream.getvalue()


def _pickle(protocol: int) -> Callable[[], bytes]:
    value = {
        "arrays": [np.eye(3), np.arange(5).astype("<M8[s]"), np.float32(3), np.array(["x"])],
        "mixed": (1, 2.5, "text", b"bytes", None, True, {3, 4}, frozenset({5}), 2**70, 1j),
        "named": np.zeros(2, dtype=[("x", "<i4"), ("y", "<f8")]),
        "objects": np.array([{"a": 1}, [2]], dtype=object),
        "random": np.random.RandomState(0).get_state(),
    }
    return lambda: pickle.dumps(value, protocol)


def _json() -> bytes:
    return json.dumps({"a": [1, 2.5, None, {"b": "c" * 30}], "d": {"e": [[[]]]}}).encode()


_PICTURES = ("PNG", "JPEG", "GIF", "WEBP", "BMP")
_SLOW_MODELS = ("onnx_beside", "onnx_policy", "tflite")

FORMATS: dict[str, Format] = {
    **{f"pickle {p}": Format("file:read_pickle", _file("a.pkl", _pickle(p))) for p in (0, 2, 4, 5)},
    **{
        f"picture {kind}": Format(
            "file:read_picture", _file("a.png", lambda kind=kind: picture(0, kind, 24))
        )
        for kind in _PICTURES
    },
    "json": Format("file:read_json", _file("a.json", _json)),
    "npz": Format("file:read_npz", _file("a.npz", _npz)),
    "tfrecord": Format("file:records", _alone(EPISODES, "rlds", "*")),
    "onnx": Format("file:read_onnx", _alone(MODELS, "onnx_policy", "*.onnx")),
    "safetensors": Format("file:read_safetensors", _alone(MODELS, "timm", "*.safetensors")),
    "torch": Format("file:read_torch", _alone(MODELS, "robomimic", "*.pth")),
    "torch legacy": Format("file:read_torch", _alone(MODELS, "robomimic_legacy", "*.pth")),
    "kinds": Format("file:kind_of", _alone(MODELS, "sb3", "*.zip")),
    **{f"model {n}": Format("model", m, n in _SLOW_MODELS) for n, m in MODELS.items()},
    **{f"episodes {n}": Format("episodes", m, n == "robomimic") for n, m in EPISODES.items()},
}

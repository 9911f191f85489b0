"""Zips and statistics in the format of Stable-Baselines3, made of drawn weights."""

import base64
import io
import json
import pickle
import sys
import types
import zipfile
from pathlib import Path

import numpy as np
import torch
from drawn import drawn

from mirror_analysis.episodes.episode import Episode

REFERENCE = json.loads((Path(__file__).parent / "models" / "sb3" / "sb3_agents.json").read_text())
CASES = REFERENCE["cases"]
ROWS = 4


def tensors(case: str) -> dict[str, torch.Tensor]:
    """The weights of a case, drawn as the reference drew them."""
    return {
        name: torch.from_numpy(drawn(source, tuple(shape))).reshape(shape)
        for name, (source, shape) in CASES[case]["tensors"].items()
    }


def saved(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def blob(value: object) -> str:
    return base64.b64encode(pickle.dumps(value)).decode()


def write_agent(path: Path, case: str, *, data=None, weights=None) -> Path:
    """Writes the zip of a case.

    Args:
        path: of the zip.
        case: one of CASES.
        data: settings that differ from the case's own.
        weights: name -> tensor that differs; None takes one away.
    """
    settings = json.loads(json.dumps(CASES[case]["data"])) | (data or {})
    for part in ("policy_class", "observation_space", "action_space"):
        settings[part] = {**settings[part], ":serialized:": blob(part)}
    held = tensors(case) | (weights or {})
    contents = {
        "data": json.dumps(settings).encode(),
        "policy.pth": saved({k: v for k, v in held.items() if v is not None}),
        "_stable_baselines3_version": CASES[case]["version"].encode(),
    }
    with zipfile.ZipFile(path, "w") as archive:
        for member in CASES[case]["members"]:
            archive.writestr(member, contents.get(member, saved({"state": {}})))
    return path


def foreign(monkeypatch, kind: str, **fields: object) -> object:
    """An object whose class lies in a package that is not installed."""
    module, _, name = kind.rpartition(".")
    parts = module.split(".")
    for i in range(1, len(parts) + 1):
        parent = ".".join(parts[:i])
        if parent not in sys.modules:
            monkeypatch.setitem(sys.modules, parent, types.ModuleType(parent))
    held = sys.modules[module]
    made = getattr(held, name, None)
    if made is None:
        made = type(name, (), {"__module__": module})
        monkeypatch.setattr(held, name, made, raising=False)
    value = made.__new__(made)  # the class itself may be there, and want arguments
    value.__dict__.update(fields)
    return value


COMMON = "stable_baselines3.common."


def statistics(monkeypatch, moments, **fields: object) -> bytes:
    """A pickle of VecNormalize.

    Args:
        monkeypatch: takes the classes away again.
        moments: (mean, variance), or key -> the two.
        **fields: other attributes.
    """

    def running(pair):
        return foreign(
            monkeypatch, f"{COMMON}running_mean_std.RunningMeanStd", mean=pair[0], var=pair[1],
            count=7.0,
        )  # fmt: skip

    many = isinstance(moments, dict)
    rms = {key: running(pair) for key, pair in moments.items()} if many else running(moments)
    kept = {"obs_rms": rms, "norm_obs": True, "epsilon": 1e-8, "clip_obs": 10.0, **fields}
    space = foreign(monkeypatch, "gymnasium.spaces.box.Box")
    value = foreign(
        monkeypatch, f"{COMMON}vec_env.vec_normalize.VecNormalize", observation_space=space, **kept
    )
    return pickle.dumps(value)


def observed(model, *, rows: int = ROWS) -> Episode:
    """The episode of observations that the reference saw."""
    pictures, vectors = {}, {}
    for wire in model.wires:
        seen, kind = wire.seen, wire.need.name.partition(":")
        if wire.stack:
            shape = (ROWS, *seen.shape[1:], 1 if wire.grey else 3)
            if seen.key:
                shape = (ROWS, *seen.shape[1:], 3)
            values = drawn(f"observation {seen.key}", shape) * np.sqrt(np.prod(shape[1:]))
            frames = (np.abs(values) * 97 % 256).astype(np.uint8)
            pictures[kind[2] or "only"] = np.repeat(frames, 3, -1) if wire.grey else frames
        elif seen.choices:
            vectors[kind[2] or "states"] = (np.arange(ROWS) % seen.choices)[:, None]
        else:
            values = drawn(f"observation {seen.key}", (ROWS, *seen.shape))
            vectors[kind[2] or "states"] = values[:, : wire.need.width]
    vectors = {name: np.asarray(v, dtype=np.float32)[:rows] for name, v in vectors.items()}
    return Episode.from_frames(
        {name: frames[:rows] for name, frames in pictures.items()},
        id="observed",
        task="replay",
        instruction="replay",
        success=True,
        states=vectors.pop("states", np.zeros((rows, 0), np.float32)),
        actions=np.zeros((rows, 1), np.float32),
        timestamps=np.arange(rows) / 10,
        steps=np.arange(rows),
        length=rows,
        extras=vectors,
    )

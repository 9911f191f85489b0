"""What extraction costs beside the forward pass, and the store beside its bytes.

    python -m benchmarks.extraction

Times are the least of several rounds in which both sides take turns. `models` sets a whole
`extract` of every layer (pictures decoded, prepared, run, pooled, labelled) beside a loop that
prepares and runs the same batches and keeps nothing, by the clock and in processor seconds; `hooks`
is recording alone, in processor seconds; the store is timed by the clock. The floor of the store is
the same number of bytes written to one file with one fsync, or read from it.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from mirror_analysis.episodes import Episodes
from mirror_analysis.extraction import _batches, _Loaded, extract
from mirror_analysis.files.safetensors import write_safetensors
from mirror_analysis.models import load_model
from mirror_analysis.models.model import LayerInfo, Model
from mirror_analysis.models.recording.hooks import record
from mirror_analysis.models.recording.pooling import Pooling
from mirror_analysis.store import FeatureStore, StackKey
from mirror_analysis.streams import resolve
from mirror_analysis.testing import made_up
from mirror_analysis.torchvision_shim import ensure_torchvision

BLOCKS, WIDTH, TOKENS = 12, 384, 197


def hooks(rounds: int) -> dict[str, float]:
    """A 12-block transformer encoder of 384 channels, 2 episodes of 4 frames of 197 tokens."""
    episodes, frames = 2, 4
    block = nn.TransformerEncoderLayer(WIDTH, 6, 4 * WIDTH, batch_first=True, norm_first=True)
    network = nn.TransformerEncoder(block, BLOCKS, enable_nested_tensor=False).eval()
    x = torch.randn(episodes * frames, TOKENS, WIDTH)
    names = [f"block{i}" for i in range(BLOCKS)]
    taps = dict(zip(names, network.layers, strict=True))
    layers = [LayerInfo(name, WIDTH, "episode*time token channel") for name in names]

    def recorded() -> None:
        with record(taps, layers, pooling=Pooling(), episodes=episodes, time=frames) as recording:
            network(x)
        assert len(recording.features()) == BLOCKS

    def plain() -> None:
        network(x)

    # torch leaves its fused encoder kernel for layers with any hook, so that cost is told apart.
    def hooked() -> None:
        handles = [layer.register_forward_hook(lambda *call: None) for layer in network.layers]
        network(x)
        for handle in handles:
            handle.remove()

    with torch.inference_mode():
        plain_s, hooked_s, recorded_s = _alternate(
            plain, hooked, recorded, rounds=rounds, clock=time.process_time
        )
    return {
        "plain_s": plain_s,
        "empty_hooks_s": hooked_s,
        "recorded_s": recorded_s,
        "recorded_to_plain": recorded_s / plain_s,
        "recorded_to_empty_hooks": recorded_s / hooked_s,
    }


def models(rounds: int) -> dict[str, dict[str, float]]:
    """Extraction of every layer beside the bare forward pass, for models of several sizes."""
    found = {}
    for name, (model, pixels, count, frames) in _models().items():
        episodes = made_up(model.needs, count=count, pixels=pixels, frames=frames)

        def bare(model: Model = model, episodes: Episodes = episodes) -> None:
            wires = resolve(model.name, model.needs, episodes.streams)
            with torch.inference_mode():
                # The same batches that `extract` makes.
                times = [len(episode.steps) for episode in episodes]
                for batch in _batches(times, None, model.frames_at_once):
                    model.forward_batch([_Loaded.of(episodes[i], wires) for i in batch])

        def whole(model: Model = model, episodes: Episodes = episodes) -> None:
            extract(model, episodes)

        (bare_s, bare_cpu), (whole_s, whole_cpu) = _both(bare, whole, rounds=rounds)
        found[name] = {
            "layers": len(model.layers()),
            "frames": len(episodes) * frames,
            "bare_s": bare_s,
            "extract_s": whole_s,
            "extract_to_bare": whole_s / bare_s,
            "extract_to_bare_processor": whole_cpu / bare_cpu,
        }
    return found


def _models() -> dict[str, tuple[Model, tuple[int, int], int, int]]:
    """Name -> model, size of the pictures, episodes, frames of an episode."""
    ensure_torchvision()
    import timm

    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        _vit(Path(folder) / "vit")
        vit = load_model(Path(folder) / "vit")
        network = timm.create_model("resnet50")
        config = {"architecture": "resnet50", "num_classes": 1000}
        (Path(folder) / "resnet").mkdir()
        (Path(folder) / "resnet" / "config.json").write_text(
            json.dumps({**config, "pretrained_cfg": network.pretrained_cfg}, default=str)
        )
        write_safetensors(Path(folder) / "resnet" / "model.safetensors", dict(network.state_dict()))
        resnet = load_model(Path(folder) / "resnet")
    return {
        "ViT-B/16, 224 px": (vit, (224, 224), 4, 12),
        "ResNet-50, 224 px": (resnet, (224, 224), 8, 16),
        "reference observation, 64 px": (load_model("reference-observation-s0"), (64, 64), 96, 16),
        "reference execution, 64 px": (load_model("reference-execution-s0"), (64, 64), 96, 16),
    }


def _vit(folder: Path) -> None:
    from transformers import ViTConfig, ViTModel

    config, network = ViTConfig(), ViTModel(ViTConfig())
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config.to_dict(), default=str))
    write_safetensors(folder / "model.safetensors", dict(network.state_dict()))


def store(rows: int, layers: int, width: int, batch: int, rounds: int) -> dict[str, float]:
    """Features of `rows` episodes and `layers` layers, a shard per batch."""
    key = StackKey("benchmark", "0" * 64, "mean", "0" * 64)
    values = np.random.default_rng(0).standard_normal((layers, rows, width)).astype(np.float32)
    names = [f"layer{i}" for i in range(layers)]
    ids = [(f"episode-{i:06d}", i) for i in range(rows)]
    data = values.tobytes()
    with tempfile.TemporaryDirectory() as folder:
        turns = iter(range(2 * rounds + 2))
        floor_file = Path(folder) / "floor"

        def write() -> None:
            made = FeatureStore(Path(folder) / f"store{next(turns)}")
            for start in range(0, rows, batch):
                part = slice(start, start + batch)
                stacks = {name: values[k, part] for k, name in enumerate(names)}
                made.write(key, ids[part], stacks)

        def write_bytes() -> None:
            with floor_file.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())

        floor_write, write_s = _alternate(
            write_bytes, write, rounds=rounds, clock=time.perf_counter
        )
        held = FeatureStore(Path(folder) / "store0")

        def read() -> None:
            assert held.read(key, ids, names).there[names[-1]].all()

        def read_bytes() -> None:
            assert len(floor_file.read_bytes()) == len(data)

        floor_read, read_s = _alternate(read_bytes, read, rounds=rounds, clock=time.perf_counter)
    return {
        "megabytes": len(data) / 1e6,
        "shards": -(-rows // batch),
        "write_s": write_s,
        "write_floor_s": floor_write,
        "write_ratio": write_s / floor_write,
        "read_s": read_s,
        "read_floor_s": floor_read,
        "read_ratio": read_s / floor_read,
    }


def _alternate(
    *calls: Callable[[], None], rounds: int, clock: Callable[[], float]
) -> tuple[float, ...]:
    """Least time of each, taking turns so that a busy machine slows all alike."""
    times: list[list[float]] = [[] for _ in calls]
    for warm in (True, *(False,) * rounds):
        for call, kept in zip(calls, times, strict=True):
            start = clock()
            call()
            if not warm:
                kept.append(clock() - start)
    return tuple(min(kept) for kept in times)


def _both(*calls: Callable[[], None], rounds: int) -> list[tuple[float, float]]:
    """Least seconds by the clock and least processor seconds of each, taking turns."""

    def now() -> np.ndarray:
        return np.array([time.perf_counter(), time.process_time()])

    times: list[list[np.ndarray]] = [[] for _ in calls]
    for warm in (True, *(False,) * rounds):
        for call, kept in zip(calls, times, strict=True):
            start = now()
            call()
            if not warm:
                kept.append(now() - start)
    return [tuple(np.min(kept, axis=0).tolist()) for kept in times]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--layers", type=int, default=14)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--batch", type=int, default=16)
    a = parser.parse_args()
    torch.set_num_threads(1)
    found = {
        "models": models(a.rounds),
        "hooks": hooks(a.rounds),
        "store": store(a.rows, a.layers, a.width, a.batch, a.rounds),
    }
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()

"""Policy folders as LeRobot writes them, with drawn weights, and episodes to run them over."""

import functools
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from drawn import drawn

from mirror_analysis.files.safetensors import write_safetensors
from mirror_analysis.models.checkpoint import Checkpoint, Options
from mirror_analysis.models.lerobot import act, diffusion, load, vqbet
from mirror_analysis.models.lerobot.folder import require

HERE = Path(__file__).parent
PREFIX = {"act": "model", "diffusion": "diffusion", "vqbet": "vqbet"}


def feature(kind, *shape):
    return {"type": kind, "shape": list(shape)}


# Fast: no pictures.
FEELING = {
    "dim_model": 16, "n_heads": 2, "dim_feedforward": 24, "n_encoder_layers": 1, "latent_dim": 4,
    "chunk_size": 5, "n_action_steps": 3,
    "input_features": {
        "observation.state": feature("STATE", 3),
        "observation.environment_state": feature("ENV", 5),
    },
    "output_features": {"action": feature("ACTION", 2)},
    "normalization_mapping": {"STATE": "MEAN_STD", "ACTION": "MIN_MAX"},
}  # fmt: skip
DENOISING = {
    **{key: FEELING[key] for key in ("input_features", "output_features", "normalization_mapping")},
    "down_dims": [8, 16], "horizon": 8, "n_action_steps": 3, "n_groups": 4, "kernel_size": 3,
    "diffusion_step_embed_dim": 8, "num_train_timesteps": 5,
}  # fmt: skip


@functools.cache
def reference(kind):
    """What the original policies gave; made by scripts/fixtures/lerobot_policies.py."""
    return json.loads((HERE / f"{kind}.json").read_text(encoding="utf-8"))


@functools.lru_cache(maxsize=400)
def weight(name, shape):
    values = drawn(name, shape)
    return values + 1 if name.endswith("weight") and len(shape) == 1 else values


def stream(key, shape, rows):
    if len(shape) == 3:
        g = np.random.default_rng(len(key))
        return g.integers(0, 256, (rows, *shape[1:], 3), dtype=np.uint8)
    return 3 * drawn(f"stream {key}", (rows, *shape))


def statistics(key, shape):
    shape = (shape[0], 1, 1) if len(shape) == 3 else shape
    low = drawn(f"{key} low", shape)
    high = low + drawn(f"{key} std", shape)
    names = {"mean": low, "std": drawn(f"{key} std", shape), "min": low, "max": high}
    return names | {"q01": low, "q99": high, "q10": low, "q90": high}


def all_statistics(config):
    features = config["input_features"] | config["output_features"]
    return {
        f"{key}.{name}": torch.from_numpy(values)
        for key, entry in features.items()
        for name, values in statistics(key, tuple(entry["shape"])).items()
    }


def tensors(path, kind):
    """The tensors the folder's config asks for, under LeRobot's names."""
    if not (path / "model.safetensors").exists():
        (path / "model.safetensors").touch()
    folder = require(Checkpoint(path))
    with torch.device("meta"):
        if kind == "act":
            network = act.ACT(folder.hyperparameters(act.Config), folder)
        elif kind == "diffusion":
            config = folder.hyperparameters(diffusion.Config)
            network = diffusion.Diffusion(config, folder, config.schedule(1))
        else:
            network = vqbet.VQBeT(folder.hyperparameters(vqbet.Config), folder, likeliest=False)
    names = {f"{PREFIX[kind]}.{name}": t.shape for name, t in network.state_dict().items()}
    return {name: drawn_tensor(name, tuple(shape)) for name, shape in names.items()}


def drawn_tensor(name, shape):
    if name.endswith("pos_grid"):
        side = {1: (1, 1), 2: (1, 2), 4: (2, 2), 6: (2, 3)}[shape[0]]
        y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in side), indexing="ij")
        return torch.from_numpy(np.stack([x.ravel(), y.ravel()], 1).astype(np.float32))
    if name.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.int64)
    return torch.from_numpy(weight(name, shape))


def write_processors(path, config, *, statistics=None, steps=()):
    """The two files in the new style, with the tensors beside them."""
    state = all_statistics(config) if statistics is None else statistics
    features = config["input_features"] | config["output_features"]
    settings = {"eps": 1e-8, "features": features, "norm_map": config["normalization_mapping"]}
    for name, kind, before in (
        ("policy_preprocessor", "normalizer_processor", 3),
        ("policy_postprocessor", "unnormalizer_processor", 0),
    ):
        file = f"{name}_step_{before}_{kind}.safetensors"
        step = {"registry_name": kind, "config": settings, "state_file": file}
        others = [
            {"registry_name": "rename_observations_processor", "config": {"rename_map": {}}},
            {"registry_name": "to_batch_processor", "config": {}},
            {"registry_name": "device_processor", "config": {"device": "cpu"}},
            *steps,
        ]
        listed = [*others, step] if before else [step, others[2]]
        text = json.dumps({"name": name, "steps": listed})
        (path / f"{name}.json").write_text(text, encoding="utf-8")
        write_safetensors(path / file, state, {"format": "pt"})


def write_folder(path, kind, config, *, processors=True, more=None, less=()):
    """A policy folder; `more` tensors besides its own, some `less`."""
    path.mkdir(parents=True, exist_ok=True)
    full = {"type": kind} | config
    (path / "config.json").write_text(json.dumps(full), encoding="utf-8")
    weights = {n: t for n, t in tensors(path, kind).items() if n not in less} | (more or {})
    write_safetensors(path / "model.safetensors", weights, {"format": "pt"})
    if processors:
        write_processors(path, config)
    return path


@dataclass
class Seen:
    """An episode of drawn streams."""

    id: str
    streams: dict

    instruction = ""

    @property
    def length(self):
        return len(self.steps)

    @property
    def steps(self):
        return np.arange(len(next(iter(self.streams.values()))), dtype=np.int64)

    @property
    def timestamps(self):
        return self.steps / 10

    def stream(self, name):
        return self.streams[name]

    def frames(self, part):
        return Seen(self.id, {name: values[part] for name, values in self.streams.items()})


def episodes(model, *, count=2, time=4):
    """Episodes of the streams a policy reads."""
    folder = model.folder
    streams = {
        name: stream(key, folder.inputs[key].shape, count * time)
        for key, name in folder.streams.items()
    }
    whole = Seen("", streams)
    found = [whole.frames(slice(e * time, (e + 1) * time)) for e in range(count)]
    return [Seen(f"episode {e}", one.streams) for e, one in enumerate(found)]


def loaded(path, **options):
    calls = options.pop("calls", "last")
    return load(Checkpoint(path), name="policy", options=Options(calls, values=options))


@dataclass(frozen=True)
class Kit:
    """What the tests of this folder share."""

    FEELING = FEELING
    DENOISING = DENOISING
    all_statistics = staticmethod(all_statistics)
    drawn_tensor = staticmethod(drawn_tensor)
    episodes = staticmethod(episodes)
    feature = staticmethod(feature)
    loaded = staticmethod(loaded)
    reference = staticmethod(reference)
    statistics = staticmethod(statistics)
    stream = staticmethod(stream)
    tensors = staticmethod(tensors)
    write_folder = staticmethod(write_folder)
    write_processors = staticmethod(write_processors)


@pytest.fixture(scope="session")
def kit():
    """Policy folders, episodes and what the original policies gave."""
    return Kit()

"""Small checkpoints of every format, all in order: what the damaged ones are made of."""

import itertools
import json
import pickle
import warnings
from collections import OrderedDict
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from drawn import drawn
from graph_files import (
    Blocks,
    Recurrent,
    scripted,
    write_onnx_policy,
    write_onnx_watcher,
    write_tflite_watcher,
)
from sb3_zips import foreign, statistics, write_agent
from tiny_transformers import SIDE, saved

from mirror_analysis.files.safetensors import write_safetensors

SIZES = (5, 8, 7, 3)
FEATURES = {
    "input_features": {
        "observation.state": {"type": "STATE", "shape": [3]},
        "observation.environment_state": {"type": "ENV", "shape": [5]},
    },
    "output_features": {"action": {"type": "ACTION", "shape": [2]}},
    "normalization_mapping": {"STATE": "MEAN_STD", "ENV": "IDENTITY", "ACTION": "MIN_MAX"},
}
ACT = {
    "type": "act", "dim_model": 16, "n_heads": 2, "dim_feedforward": 24, "n_encoder_layers": 1,
    "latent_dim": 4, "chunk_size": 5, "n_action_steps": 3, **FEATURES,
}  # fmt: skip
DENOISING = {
    "type": "diffusion", "down_dims": [8, 16], "horizon": 8, "n_action_steps": 3, "n_groups": 4,
    "kernel_size": 3, "diffusion_step_embed_dim": 8, "num_train_timesteps": 5, **FEATURES,
}  # fmt: skip
ROBOMIMIC = Path(__file__).parents[1] / "models" / "robomimic" / "robomimic.json"


def sb3(folder):
    """A2C with the statistics of its training and its config beside it."""
    with pytest.MonkeyPatch.context() as patch:
        moments = (np.zeros(5), np.ones(5))
        (folder / "vecnormalize.pkl").write_bytes(statistics(patch, moments))
    (folder / "config.yml").write_text("!!python/object/apply:collections.OrderedDict\n- - - n\n")
    return write_agent(folder / "agent.zip", "trpo")


def sb3_folder(folder):
    """The same, given as a folder."""
    return sb3(folder).parent


def cs285(folder):
    """The expert as nested dictionaries of arrays."""

    def layer(i):
        w = drawn(f"w{i}", (SIZES[i + 1], SIZES[i])).T.astype(float)
        return {"AffineLayer": {"W": w, "b": drawn(f"b{i}", (1, SIZES[i + 1])).astype(float)}}

    mean = drawn("mean", (1, 5)).astype(float)
    policy = {
        "obsnorm": {"Standardizer": {"mean_1_D": mean, "meansq_1_D": mean**2 + 1.0}},
        "logstdevs_1_Da": np.zeros((1, 3)),
        "hidden": {"FeedforwardNet": {"layer_0": layer(0), "layer_2": layer(1)}},
        "out": layer(2),
    }
    path = folder / "expert.pkl"
    path.write_bytes(pickle.dumps({"GaussianPolicy": policy, "nonlin_type": "tanh"}, protocol=2))
    return path


def mjrl(folder):
    """An MLP of mjrl, with tensors of torch in the pickle."""
    torch.manual_seed(0)
    layers = [torch.nn.Linear(a, b) for a, b in itertools.pairwise(SIZES)]
    fields = {name: torch.ones(5) for name in ("in_shift", "in_scale")}
    fields |= {name: torch.ones(3) for name in ("out_shift", "out_scale")}
    fields |= {
        "_modules": {"fc_layers": torch.nn.ModuleList(layers)},
        "nonlinearity": torch.tanh,
        "layer_sizes": SIZES,
    }
    with pytest.MonkeyPatch.context() as patch:
        network = foreign(patch, "mjrl.utils.fc_network.FCNetwork", **fields)
        policy = foreign(patch, "mjrl.policies.gaussian_mlp.MLP", n=5, m=3, model=network)
        (folder / "policy.pickle").write_bytes(pickle.dumps(policy, protocol=2))
    return folder / "policy.pickle"


def onnx_policy(folder):
    write_onnx_policy(folder / "policy.onnx")
    return folder / "policy.onnx"


def onnx_beside(folder):
    """A network whose weights lie in a file beside it."""
    write_onnx_watcher(folder / "inner.onnx")
    model = onnx.load(str(folder / "inner.onnx"))
    (folder / "inner.onnx").unlink()
    path = folder / "watcher.onnx"
    onnx.save_model(
        model, str(path), save_as_external_data=True, location="weights.bin", size_threshold=0
    )
    return path


def torchscript(folder):
    scripted(Recurrent(), folder / "policy.pt")
    return folder / "policy.pt"


def exported(folder):
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(
            Blocks().eval(), (torch.rand(2, 4),), dynamic_shapes=({0: torch.export.Dim("batch")},)
        )
        torch.export.save(program, str(folder / "policy.pt2"))
    return folder / "policy.pt2"


def tflite(folder):
    write_tflite_watcher(folder / "watcher.tflite")
    return folder / "watcher.tflite"


def transformers(folder):
    return saved("ViTModel", folder)


def transformers_bin(folder):
    """The same with its weights in a file of torch."""
    from safetensors.torch import load_file

    saved("ViTModel", folder)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    return folder


def transformers_shards(folder):
    """The same in two files and an index."""
    from safetensors.torch import load_file

    saved("ViTModel", folder)
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names, places = sorted(tensors), {}
    for part in range(2):
        held = {name: tensors[name] for name in names[part::2]}
        file = f"model-0000{part + 1}-of-00002.safetensors"
        write_safetensors(folder / file, held, {"format": "pt"})
        places |= dict.fromkeys(held, file)
    index = {"metadata": {"total_size": 1}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def sentences(folder):
    """A sentence encoder in the folders of sentence-transformers."""
    from tokenizers import BertWordPieceTokenizer

    from mirror_analysis.models.transformers.files import quiet
    from mirror_analysis.torchvision_shim import ensure_torchvision

    ensure_torchvision()
    from transformers import BertConfig, BertModel

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "push", "cup"]
    sizes = {"vocab_size": 7, "hidden_size": 16, "num_hidden_layers": 2, "intermediate_size": 24}
    torch.manual_seed(0)
    with quiet():
        BertModel(BertConfig(**sizes, num_attention_heads=2)).save_pretrained(folder)
    vocabulary = {word: i for i, word in enumerate(words)}
    BertWordPieceTokenizer(vocab=vocabulary).save(str(folder / "tokenizer.json"))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 6}))
    steps = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate([("", "Transformer"), ("1_Pooling", "Pooling")])
    ]
    (folder / "modules.json").write_text(json.dumps(steps))
    (folder / "1_Pooling").mkdir()
    said = {"word_embedding_dimension": 16, "pooling_mode_mean_tokens": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(said))
    return folder


def timm(folder):
    from mirror_analysis.torchvision_shim import ensure_torchvision

    ensure_torchvision()
    import timm as package

    arguments = {"img_size": SIDE, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}
    name = "vit_tiny_patch16_224"
    torch.manual_seed(0)
    module = package.create_model(name, pretrained=False, num_classes=5, **arguments)
    write_safetensors(folder / "model.safetensors", dict(module.state_dict()), {"format": "pt"})
    inner = {"input_size": [3, SIDE, SIDE], "mean": [0.5] * 3, "std": [0.25] * 3}
    inner |= {"fixed_input_size": True}
    said = {"architecture": name, "num_classes": 5, "num_features": 32, "pretrained_cfg": inner}
    (folder / "config.json").write_text(json.dumps(said | {"model_args": arguments}))
    return folder


def lerobot(folder, config=ACT, prefix="model"):
    """ACT in the new style, its statistics in files beside the weights."""
    from mirror_analysis.models.checkpoint import Checkpoint
    from mirror_analysis.models.lerobot import act, diffusion
    from mirror_analysis.models.lerobot.folder import require

    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").touch()
    held = require(Checkpoint(folder))
    with torch.device("meta"):
        if config is ACT:
            network = act.ACT(held.hyperparameters(act.Config), held)
        else:
            sizes = held.hyperparameters(diffusion.Config)
            network = diffusion.Diffusion(sizes, held, sizes.schedule(1))
    weights = {
        f"{prefix}.{name}": torch.from_numpy(drawn(name, tuple(tensor.shape)))
        for name, tensor in network.state_dict().items()
    }
    write_safetensors(folder / "model.safetensors", weights, {"format": "pt"})
    features = FEATURES["input_features"] | FEATURES["output_features"]
    state = {
        f"{key}.{name}": torch.full(entry["shape"], float(value))
        for key, entry in features.items()
        for name, value in {"mean": 0, "std": 1, "min": -1, "max": 1}.items()
    }
    settings = {"features": features, "norm_map": FEATURES["normalization_mapping"]}
    for name, kind in (("pre", "normalizer_processor"), ("post", "unnormalizer_processor")):
        step = {"registry_name": kind, "config": settings, "state_file": f"{name}.safetensors"}
        said = {"name": f"policy_{name}processor", "steps": [step]}
        (folder / f"policy_{name}processor.json").write_text(json.dumps(said))
        write_safetensors(folder / f"{name}.safetensors", state, {"format": "pt"})
    return folder


def lerobot_diffusion(folder):
    return lerobot(folder, DENOISING, "diffusion")


def open_clip(folder):
    """The folder that open_clip writes: both halves of a CLIP."""
    from mirror_analysis.torchvision_shim import ensure_torchvision

    ensure_torchvision()
    import open_clip as package

    vision = {"image_size": SIDE, "patch_size": 8, "width": 32, "head_width": 16, "layers": 2}
    text = {"context_length": 6, "vocab_size": 20, "width": 16, "heads": 2, "layers": 1}
    sizes = {"embed_dim": 12, "vision_cfg": vision, "text_cfg": text, "quick_gelu": False}
    torch.manual_seed(0)
    whole = package.CLIP(**json.loads(json.dumps(sizes)))
    weights = {name: tensor.contiguous() for name, tensor in whole.state_dict().items()}
    write_safetensors(folder / "open_clip_model.safetensors", weights, {"format": "pt"})
    said = {"model_cfg": sizes, "preprocess_cfg": {}}
    (folder / "open_clip_config.json").write_text(json.dumps(said))
    return folder


def viclip(folder):
    from mirror_analysis.models.images.viclip_network import ViclipSize, ViclipVision

    torch.manual_seed(0)
    network = ViclipVision(ViclipSize(width=64, depth=2, patch=8, grid=4, frames=4, out=12))
    state = {f"vision_encoder.{name}": t for name, t in network.state_dict().items()}
    torch.save({"model": state}, folder / "ViCLIP.pth")
    return folder / "ViCLIP.pth"


def robomimic(folder, *, zipped=True):
    """Behaviour cloning from vectors, with the statistics of its observations."""
    from mirror_analysis.models.robomimic.config import read_settings
    from mirror_analysis.models.robomimic.networks import Policy

    case = json.loads(ROBOMIMIC.read_text(encoding="utf-8"))["cases"]["plain, normalised"]
    shapes = OrderedDict((key, list(shape)) for key, shape in case["shapes"].items())
    found = {
        "config": json.dumps(case["config"]),
        "algo_name": "bc",
        "env_metadata": {"env_name": "Lift", "type": 1, "env_kwargs": {}},
        "shape_metadata": {"ac_dim": 2, "all_shapes": shapes, "all_obs_keys": list(shapes)},
    }
    torch.manual_seed(0)
    network = Policy(read_settings(found, folder), likeliest=True)
    found["model"] = OrderedDict(
        (f"policy.{name}", tensor) for name, tensor in network.state_dict().items()
    )
    found["obs_normalization_stats"] = {
        key: {part: np.ones((1, *shape)).tolist() for part in ("mean", "std")}
        for key, shape in shapes.items()
    }
    torch.save(found, folder / "model.pth", _use_new_zipfile_serialization=zipped)
    return folder / "model.pth"


def robomimic_legacy(folder):
    """The same in the form torch wrote before 1.6."""
    return robomimic(folder, zipped=False)


def reference(folder):
    """A model of this project's own."""
    from mirror_analysis.models.reference.family import ReferenceExecution, save
    from mirror_analysis.models.reference.networks import ExecutionNetwork

    torch.manual_seed(0)
    model = ReferenceExecution(ExecutionNetwork().eval(), name="actor", camera="B")
    save(model, folder / "actor.safetensors", provenance={})
    return folder / "actor.safetensors"


MODELS = {
    make.__name__: make
    for make in (cs285, exported, lerobot, lerobot_diffusion, mjrl, onnx_beside, onnx_policy,
                 open_clip, reference, robomimic, robomimic_legacy, sb3, sb3_folder, sentences,
                 tflite, timm, torchscript, transformers, transformers_bin, transformers_shards,
                 viclip)
}  # fmt: skip

"""Loaded models of several families with random weights, small enough to be trained in tests."""

import json
import pickle
from pathlib import Path

import numpy as np
import torch
from drawn import drawn
from sb3_zips import write_agent
from tiny_transformers import SIDE, saved

from mirror_analysis.models import load_model
from mirror_analysis.models.model import Model
from mirror_analysis.models.reference.family import ReferenceExecution, ReferenceObservation
from mirror_analysis.models.reference.networks import ExecutionNetwork, ObservationNetwork
from mirror_analysis.torchvision_shim import ensure_torchvision

STATES, ACTIONS = 5, 3  # of the perceptron
_VIT = {"img_size": SIDE, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}


def perceptron(folder: Path) -> Model:
    """An expert of cs285, two layers."""
    sizes = (STATES, 16, ACTIONS)
    layers = [
        {"AffineLayer": {"W": drawn(f"w{i}", sizes[i : i + 2]).astype(float),
                         "b": drawn(f"b{i}", (1, sizes[i + 1])).astype(float)}}
        for i in range(2)
    ]  # fmt: skip
    moments = {"mean_1_D": np.zeros((1, STATES)), "meansq_1_D": np.ones((1, STATES)), "count": 9}
    policy = {
        "obsnorm": {"Standardizer": moments}, "logstdevs_1_Da": np.zeros((1, ACTIONS)),
        "hidden": {"FeedforwardNet": {"layer_0": layers[0]}}, "out": layers[1],
    }  # fmt: skip
    path = folder / "policy.pkl"
    path.write_bytes(pickle.dumps({"GaussianPolicy": policy, "nonlin_type": "tanh"}, protocol=2))
    return load_model(path)


def _timm(folder: Path, architecture: str, **arguments: object) -> Model:
    ensure_torchvision()
    import timm
    from safetensors.torch import save_file

    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = timm.create_model(architecture, pretrained=False, num_classes=5, **arguments)
    weights = {name: tensor.contiguous() for name, tensor in made.state_dict().items()}
    save_file(weights, folder / "model.safetensors")
    inner = {"input_size": [3, SIDE, SIDE], "crop_pct": 0.9, "mean": [0.5] * 3, "std": [0.25] * 3,
             "fixed_input_size": "img_size" in arguments}  # fmt: skip
    said = {"architecture": architecture, "num_classes": 5, "num_features": 8,
            "pretrained_cfg": inner, "model_args": arguments}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(said))
    return load_model(folder)


def _reference(role: str) -> Model:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if role == "execution":
            return ReferenceExecution(ExecutionNetwork().eval(), name="e", camera="B")
        network = ObservationNetwork(3).eval()
    return ReferenceObservation(network, name="u", camera="A", instructions=["a", "b", "c"])


MAKERS = {
    "agent": lambda folder: load_model(write_agent(folder / "agent.zip", "ppo")),
    "clips": lambda folder: load_model(saved("VideoMAEModel", folder)),
    "perceptron": perceptron,
    "pictures": lambda folder: load_model(saved("Dinov2WithRegistersModel", folder)),
    "reference-execution": lambda folder: _reference("execution"),
    "reference-observation": lambda folder: _reference("observation"),
    "stacked-pictures": lambda folder: load_model(write_agent(folder / "a.zip", "dqn-pictures")),
    "timm": lambda folder: _timm(folder, "vit_tiny_patch16_224", **_VIT),
    "timm-convolutions": lambda folder: _timm(folder, "resnet10t"),
    "windows": lambda folder: load_model(saved("SwinModel", folder)),
}

"""The tensors of a LeRobot policy, checked against the network before memory is given to them."""

from __future__ import annotations

import re
from collections.abc import Callable

import torch
from torch import Tensor

from mirror_analysis.files.safetensors import read_header, read_safetensors
from mirror_analysis.models.lerobot.folder import WEIGHTS, PolicyFolder
from mirror_analysis.models.lerobot.network import Network
from mirror_analysis.models.lerobot.statistics import is_statistic, split
from mirror_analysis.models.weights.fitting import compare_shapes


def read_network(
    folder: PolicyFolder, build: Callable[[], Network], *, prefix: str, unused: re.Pattern[str]
) -> tuple[Network, dict[str, Tensor]]:
    """A network with the weights of a policy folder, and what else lies among them.

    Args:
        folder: where they lie.
        build: a network of the right architecture.
        prefix: what the names of all weights begin with, up to a dot.
        unused: names, without the prefix, of tensors that only training takes.

    Returns:
        The network in evaluation mode; the normalisation statistics of the old style.

    Raises:
        FormatError: if the file is damaged or of another architecture.
    """
    path = folder.checkpoint.file(WEIGHTS)
    # Names and shapes say whether they fit, before anything is as large as a config may claim.
    with torch.device("meta"):
        network = build()
    needed = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    header, _ = read_header(path)
    names = {name: _plain(name, prefix) for name in header if not is_statistic(name)}
    there = {plain: tuple(header[name][1]) for name, plain in names.items()}
    compare_shapes(needed, there, path=path, unused=unused)
    weights, statistics = split(read_safetensors(path)[0])
    tensors = {names[name]: tensor for name, tensor in weights.items() if names[name] in needed}
    floats = {
        name: tensor.to(torch.float32) if tensor.is_floating_point() else tensor
        for name, tensor in tensors.items()
    }
    network.load_state_dict(floats, assign=True)
    return network.eval().requires_grad_(False), statistics


def _plain(name: str, prefix: str) -> str:
    """Without what policies and compilers put around a network."""
    return name.replace("._orig_mod", "").removeprefix(f"{prefix}.")

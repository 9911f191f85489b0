"""Public checkpoints, fetched from where they are published: data files only, digests checked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mirror_analysis import catalog
from mirror_analysis.definitions import PublicCheckpoint
from mirror_analysis.hub.checking import online_faults
from mirror_analysis.hub.downloads import download, installed
from mirror_analysis.hub.snapshots import fetch, fetch_checked

__all__ = ["checkpoint_file", "fetch", "online_faults"]

_FOLDERS = frozenset({"lerobot", "openvla", "transformers", "transformers-text"})
_SINGLE = frozenset(
    {"arp", "exported", "onnx", "perceptron", "robomimic", "sb3", "tflite", "torchscript"}
)


def checkpoint_file(
    name: str,
    include: Sequence[Path] = (),
    *,
    folder: Path | None = None,
    endpoint: str | None = None,
) -> Path:
    """Where the weights of a checkpoint of the catalogue lie, fetched first where they have to be.

    Args:
        name: of the checkpoint.
        include: folders with definitions of your own.
        folder: where fetched files are kept; beside the hub's cache when None.
        endpoint: address of the hub; what HF_ENDPOINT says when None.

    Returns:
        A file, or a folder for the families that are read as one.

    Raises:
        UnknownNameError: if there is no such checkpoint.
        MissingFileError: if the weights are not there, or cannot be fetched.
        MissingDependencyError: if the package that ships them is not installed.
        ChecksumError: if their bytes are not the ones recorded.
    """
    made = catalog.definition("checkpoints", name, include)
    if not isinstance(made, PublicCheckpoint):
        return catalog.weights(name, include)
    if made.hub is not None:
        place = fetch_checked(made.hub, made.revision, made.files, folder=folder, endpoint=endpoint)
        if made.family not in _SINGLE or not made.files:
            return place
        return place / made.files[0].path
    first = installed(made) if made.package is not None else download(made, folder)
    return first.parent if made.family in _FOLDERS else first

"""Models that were trained further: their weights, and which checkpoint they began from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec
import torch
from torch import Tensor

from mirror_analysis.catalog import names
from mirror_analysis.errors import ChecksumError, DefinitionError, FormatError
from mirror_analysis.files.places import shown
from mirror_analysis.files.safetensors import read_header, read_safetensors, write_safetensors
from mirror_analysis.models.checkpoint import Checkpoint, Options
from mirror_analysis.models.model import Model
from mirror_analysis.models.weights.fitting import compare_shapes

SUMMARY = "safetensors files of `save_trained`: any loaded model after further training"
OPTIONS: Mapping[str, str] = {
    "source": "the checkpoint it began from (what the file says, if it is of the catalogue)",
}
FORMAT = "mirror-analysis trained 1"
_MODEL, _HEAD = "model/", "head/"


class Origin(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a model was before it was trained further.

    Attributes:
        source: what it was loaded from, as `load_model` takes it.
        weights: sha256 of its weights then.
        family: the family it was read as; None for by content.
        calls: its rule for repeated calls.
        options: further settings of the family.
    """

    source: str
    weights: str
    family: str | None = None
    calls: str = "last"
    options: dict[str, str] = {}


def save_trained(
    model: Model,
    path: Path,
    *,
    origin: Origin,
    head: torch.nn.Module | None = None,
    provenance: Mapping[str, str] | None = None,
) -> str:
    """Writes the weights of a model that was trained further, as one safetensors file.

    The network itself is not written: `load_model` of the file loads the source and puts the
    weights in the place of its own.

    Args:
        model: what was trained.
        path: such as "observation.safetensors".
        origin: what it was before.
        head: what was trained along with it, kept beside it.
        provenance: how it was made, kept in the file's header.

    Returns:
        The sha256 of the file.

    Example:
        >>> model = load_model("dinov2-base")
        >>> origin = Origin("dinov2-base", model.weights_sha256)
        >>> train_jointly(LoadedLearner(model, ...), ...)
        >>> save_trained(model, Path("tuned.safetensors"), origin=origin)
        >>> model = load_model("tuned.safetensors")
    """
    told = msgspec.json.encode(origin).decode()
    header = {**(provenance or {}), "format": FORMAT, "role": model.role, "origin": told}
    tensors = {_MODEL + name: tensor for name, tensor in model.module.state_dict().items()}
    if head is not None:
        tensors |= {_HEAD + name: tensor for name, tensor in head.state_dict().items()}
    return write_safetensors(path, tensors, header)


def head_weights(path: Path) -> dict[str, Tensor]:
    """What was trained along with a model, for `load_state_dict` of the same head.

    Raises:
        FormatError: if the file is none of `save_trained`.
    """
    tensors, header = read_safetensors(path)
    _require(path, header)
    return {n.removeprefix(_HEAD): t for n, t in tensors.items() if n.startswith(_HEAD)}


def recognise(checkpoint: Checkpoint) -> str | None:
    """What it is, if it is a file of `save_trained`."""
    if checkpoint.kind != "safetensors":
        return None
    header = read_header(checkpoint.path)[1]
    if header.get("format") != FORMAT:
        return None
    return f"model trained from {shown(_origin(checkpoint.path, header).source)}"


def load(checkpoint: Checkpoint, *, name: str, options: Options) -> Model:
    """Loads the checkpoint a model began from, and gives it the weights of the file.

    A file is not believed where it says that something else is to be read or run: what is not of
    the catalogue has to be named by the option source.

    Args:
        checkpoint: the file.
        name: what to call the model.
        options: "source"; the rule for repeated calls is that of the file.

    Raises:
        DefinitionError: if the source has to be named.
        ChecksumError: if the source has other weights than those it began from.
        FormatError: if the weights are another network's, or the file is damaged.
    """
    from mirror_analysis.models import load_model

    path = checkpoint.path
    tensors, header = read_safetensors(path)
    _require(path, header)
    origin = _origin(path, header)
    source = options.text("source", origin.source)
    if "source" not in options.values and source not in names("checkpoints"):
        raise DefinitionError(
            f"{path} began from {shown(source)}, which is not of the catalogue; say where that is"
            " with the option source"
        )
    model = load_model(source, family=origin.family, calls=origin.calls, options=origin.options)
    if model.weights_sha256 != origin.weights:
        raise ChecksumError(
            f"{path} began from weights with the sha256 {shown(origin.weights)} but {source} has"
            f" {model.weights_sha256}; give the checkpoint it began from"
        )
    weights = {n.removeprefix(_MODEL): t for n, t in tensors.items() if n.startswith(_MODEL)}
    needed = {n: tuple(t.shape) for n, t in model.module.state_dict().items()}
    compare_shapes(needed, {n: tuple(t.shape) for n, t in weights.items()}, path=path)
    model.module.load_state_dict(weights)
    model.name = name
    model.facts = {**model.facts, "trained from": source}
    return model


def _origin(path: Path, header: Mapping[str, str]) -> Origin:
    try:
        return msgspec.json.decode(header.get("origin", ""), type=Origin)
    except msgspec.MsgspecError as error:
        raise FormatError(
            f"{path} does not say what it was trained from ({error}); copy it anew"
        ) from None


def _require(path: Path, header: Mapping[str, str]) -> None:
    if header.get("format") != FORMAT:
        raise FormatError(
            f"{path} has the format '{header.get('format', '')}'; needed '{FORMAT}', which"
            " save_trained writes"
        )

"""Reads a folder that transformers wrote, without letting it run or reach for anything."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from mirror_analysis.errors import FormatError, MissingDependencyError, MissingFileError
from mirror_analysis.files.safetensors import read_safetensors
from mirror_analysis.files.torch_files import read_torch
from mirror_analysis.models.checkpoint import Checkpoint
from mirror_analysis.torchvision_shim import ensure_torchvision

# Keys of a config that would fetch code, choose kernels or change the weights as they are read.
_SILENCED = ("auto_map", "attn_implementation", "dtype", "experts_implementation", "torch_dtype",
             "_attn_implementation", "_attn_implementation_internal", "_experts_implementation",
             "_name_or_path", "name_or_path", "use_kernels")  # fmt: skip
_LAYERS = 1024  # layers of one kind
_SIDE, _POSITIONS = 1 << 14, 1 << 16  # pixels of a picture, tokens of a clip
_SILENT = 50  # the level of messages above which transformers logs nothing
_SPARE = 50_000_000  # numbers a network may have beside those in its file


def require_transformers(needed_for: str) -> None:
    """Makes sure that transformers can be imported.

    Raises:
        MissingDependencyError: if it is not installed.
    """
    if find_spec("transformers") is None:
        raise MissingDependencyError("transformers", needed_for, "install mirror-analysis[hf]")
    ensure_torchvision()


def read_weights(checkpoint: Checkpoint) -> tuple[dict[str, Tensor], str]:
    """The tensors of a checkpoint in float32, and what is said of them.

    Args:
        checkpoint: a folder with `model.safetensors` or `pytorch_model.bin`, or with the index of
            several such files.

    Returns:
        Name -> tensor; where they are from and how they were stored, in words.

    Raises:
        MissingFileError: if there is none of these, or a file of the index is not there.
        FormatError: if one is damaged or holds something else.
    """
    for name in ("model.safetensors", "pytorch_model.bin"):
        if checkpoint.has(name):
            return _as_float(_tensors(checkpoint, name), name)
        index = f"{name}.index.json"
        if checkpoint.has(index):
            return _as_float(_sharded(checkpoint, index), f"the files of {index}")
    raise MissingFileError(
        f"{checkpoint.path} has no weights; needed model.safetensors, pytorch_model.bin or the"
        " index of several such files"
    )


def _sharded(checkpoint: Checkpoint, index: str) -> dict[str, Tensor]:
    places = checkpoint.json(index).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(v, str) for v in places.values()):
        raise FormatError(
            f"{index} of {checkpoint.path} has no weight_map of tensor names to files; copy it anew"
        )
    found: dict[str, Tensor] = {}
    for name in sorted(set(places.values())):
        found |= _tensors(checkpoint, name)
    if missing := sorted(set(places) - set(found)):
        raise FormatError(
            f"{index} of {checkpoint.path} names {missing[0]}, which {places[missing[0]]} does not"
            " hold; copy the files anew, all of one version"
        )
    return found


def _tensors(checkpoint: Checkpoint, name: str) -> dict[str, Tensor]:
    path = checkpoint.file(name)
    if name.endswith(".safetensors"):
        return read_safetensors(path)[0]
    found = read_torch(path)
    if not isinstance(found, dict) or not all(isinstance(v, Tensor) for v in found.values()):
        raise FormatError(f"{path} holds no dictionary of tensors; save the state dict alone")
    return {str(key): value for key, value in found.items()}


def _as_float(tensors: dict[str, Tensor], source: str) -> tuple[dict[str, Tensor], str]:
    kinds = {str(t.dtype).removeprefix("torch.") for t in tensors.values() if t.is_floating_point()}
    stored = " and ".join(sorted(kinds)) or "no floating-point numbers"
    wide = {name: t.float() if t.is_floating_point() else t for name, t in tensors.items()}
    run = "" if kinds == {"float32"} else ", run in float32"
    return wide, f"{source}, stored in {stored}{run}"


def read_config(checkpoint: Checkpoint) -> dict[str, Any]:
    """`config.json` without what would run code or change the weights, within bounds.

    Raises:
        MissingFileError: if there is none.
        FormatError: if it is no config of a model, is quantised, or out of bounds.
    """
    config = checkpoint.json("config.json")
    if not isinstance(config.get("model_type"), str):
        raise FormatError(f"config.json of {checkpoint.path} has no model_type; copy it anew")
    if config.get("quantization_config"):
        raise FormatError(
            f"{checkpoint.path} holds quantised weights; give the checkpoint before quantisation"
        )
    cleaned = _cleaned(config)
    _check_bounds(cleaned, str(checkpoint.path))
    return cleaned


def _cleaned(config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _cleaned(value) if isinstance(value, dict) else value
        for key, value in config.items()
        if key not in _SILENCED
    }


def _check_bounds(config: Mapping[str, Any], path: str) -> None:
    for key, value in config.items():
        if isinstance(value, dict):
            _check_bounds(value, path)
        counts = value if isinstance(value, list) else [value]
        if ("layers" in key or "depth" in key or "blocks" in key) and any(
            isinstance(count, int) and count > _LAYERS for count in counts
        ):
            raise FormatError(
                f"config.json of {path} says {key} {value}; needed at most {_LAYERS} layers"
            )
    side, patch = (_largest(config.get(key)) for key in ("image_size", "patch_size"))
    side = max(side, _largest(config.get("crop_size")))
    frames = max(_largest(config.get("num_frames")), _largest(config.get("frames_per_clip")), 1)
    if side > _SIDE or (side // max(patch, 4)) ** 2 * frames > _POSITIONS:
        raise FormatError(
            f"config.json of {path} says pictures of {side} pixels in {frames} frames with patches"
            f" of {patch}; that is more than can be run"
        )


def _largest(value: Any) -> int:
    values = value if isinstance(value, list) else [value]
    return max((number for number in values if isinstance(number, int)), default=0)


def built(cls: Any, config: Any, tensors: Mapping[str, Tensor], *, path: str) -> tuple[Any, str]:
    """A network of transformers with the tensors of a checkpoint in it.

    Args:
        cls: its class.
        config: its config.
        tensors: name -> tensor; transformers translates names of older versions.
        path: of the checkpoint, for the words of errors.

    Returns:
        The network in evaluation mode; what the checkpoint holds beside it, in words.

    Raises:
        FormatError: if weights are missing or of another shape, or the config is out of reach.
    """
    try:
        with torch.device("meta"), quiet():
            size = sum(p.numel() for p in cls(config).parameters())
    except Exception as error:  # constructors raise whatever the numbers of a config lead to
        raise FormatError(_unbuildable(cls, path, error)) from None
    there = sum(t.numel() for t in tensors.values())
    if size > 2 * there + _SPARE:
        raise FormatError(
            f"config.json of {path} describes a network of {size} numbers but its files hold"
            f" {there}; copy them anew, all of one version"
        )
    module, info = _filled(cls, config, tensors, path)
    missing = sorted(info["missing_keys"])
    without = ""
    if missing and all("pooler." in name for name in missing) and _has_pooler(cls):
        # Many encoders were published without the pooler that their class would add.
        module, info = _filled(cls, config, tensors, path, add_pooling_layer=False)
        missing, without = sorted(info["missing_keys"]), "no pooler"
    wrong = sorted(info["mismatched_keys"], key=str)
    if missing:
        raise FormatError(
            f"{path} lacks {len(missing)} weights of {cls.__name__}, such as {missing[0]}; give the"
            " whole checkpoint, of the class that its config.json names"
        )
    if wrong:
        name, given, needed = wrong[0]
        raise FormatError(
            f"{path} has {name} of shape {tuple(given)} but its config.json says {tuple(needed)};"
            " copy them anew, all of one version"
        )
    return module.eval(), "; ".join(filter(None, (without, _left_out(info["unexpected_keys"]))))


def _filled(
    cls: Any, config: Any, tensors: Mapping[str, Tensor], path: str, **made_with: Any
) -> tuple[Any, Mapping[str, Any]]:
    try:
        with quiet():
            module, info = cls.from_pretrained(
                None,
                config=config,
                state_dict=dict(tensors),
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                dtype=torch.float32,
                local_files_only=True,
                **made_with,
            )
    except Exception as error:
        raise FormatError(_unbuildable(cls, path, error)) from None
    if info.get("error_msgs"):
        raise FormatError(_unbuildable(cls, path, ValueError(info["error_msgs"][0])))
    return module, info


def _unbuildable(cls: Any, path: str, error: Exception) -> str:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200].rstrip(".")
    return (
        f"no {cls.__name__} can be made of {path} ({reason}); copy its files anew, or use the"
        " version of transformers its config.json names"
    )


def _has_pooler(cls: Any) -> bool:
    return "add_pooling_layer" in cls.__init__.__code__.co_varnames


def made_config(cls: Any, config: Mapping[str, Any], checkpoint: Checkpoint) -> Any:
    """The config object of what `config.json` says.

    Raises:
        FormatError: if its class refuses it.
    """
    try:
        with quiet():
            return cls.from_dict(dict(config))
    except Exception as error:  # the validators of configs raise classes of their own
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise FormatError(
            f"config.json of {checkpoint.path} is no config of {config['model_type']} ({reason});"
            " copy it anew"
        ) from None


def _left_out(names: Any) -> str:
    parts: dict[str, int] = {}
    for name in sorted(names):
        part = name.partition(".")[0]
        parts[part] = parts.get(part, 0) + 1
    return ", ".join(f"{part} ({count} tensors)" if count > 1 else part
                     for part, count in parts.items())  # fmt: skip


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps the reports and progress bars of transformers off the terminal."""
    from transformers.utils import logging

    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(_SILENT)
    show: Any = logging
    show.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bars:
            show.enable_progress_bar()


def licence(checkpoint: Checkpoint) -> str:
    """The licence that the head of a model card names; "" where it names none."""
    if not checkpoint.has("README.md"):
        return ""
    with checkpoint.file("README.md").open("rb") as file:
        lines = file.read(1 << 16).decode("utf-8", "replace").splitlines()
    if not lines or lines[0].strip() != "---":
        return ""
    head = lines[1:]
    for line in head:
        key, colon, value = line.partition(":")
        if line.strip() == "---":
            break
        if key.strip() in ("license", "license_name") and colon and value.strip() != "other":
            return value.strip().strip("\"'")
    return ""

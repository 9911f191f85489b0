"""What the files of timm say of a network and its pictures, within bounds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from mirror_analysis.errors import FormatError
from mirror_analysis.models.images.transforms import Transforms
from mirror_analysis.models.preparation import IMAGENET_MEAN, IMAGENET_STD

_FIELDS = (
    *("architecture", "classifier", "crop_mode", "crop_pct", "first_conv", "fixed_input_size"),
    *("input_size", "interpolation", "license", "mean", "num_classes", "pool_size", "std"),
)
# Arguments of timm's factory and constructors that fetch, read files, or give no whole network.
_REFUSED = {
    *("cache_dir", "checkpoint_path", "device", "dtype", "exportable", "features_only"),
    *("kwargs_filter", "model_name", "no_jit", "out_indices", "pretrained", "pretrained_cfg"),
    *("pretrained_cfg_overlay", "pretrained_filter_fn", "pretrained_model_args"),
    *("pretrained_strict", "scriptable", "weights"),
}
_FILTERS = ("bicubic", "bilinear", "box", "hamming", "lanczos", "nearest")
_SIDE = 4096  # pixels
_LARGEST = 1 << 16  # of any number a constructor is given
_DEEPEST = 1024  # of those that count layers
_CROP = 0.875


def described(
    config: Mapping[str, Any], *, where: str
) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Architecture, settings and constructor's arguments out of a `config.json` of timm.

    Args:
        config: of today's form, or the flat one of before.
        where: the file, for the words of errors.

    Returns:
        Name of the architecture without a tag; those fields of `pretrained_cfg` that decide how
        the network is made and fed; further arguments.

    Raises:
        FormatError: if one of them is not what it should be, or out of bounds.
    """
    architecture = config.get("architecture")
    inner = config.get("pretrained_cfg", config)
    if not isinstance(architecture, str) or not isinstance(inner, Mapping):
        raise FormatError(
            f"{where} has no architecture and pretrained_cfg; needed what timm writes, so copy it"
            " anew"
        )
    settings = {key: inner[key] for key in _FIELDS if inner.get(key) is not None}
    if isinstance(config.get("num_classes"), int):
        settings["num_classes"] = config["num_classes"]
    settings["architecture"] = architecture.partition(".")[0]
    given = config.get("model_args") or {}
    if not isinstance(given, Mapping):
        raise FormatError(f"{where} has model_args that are no object; copy it anew")
    arguments = arguments_of(given, where=where)
    if arguments.get("dynamic_img_size") or arguments.get("strict_img_size") is False:
        settings["fixed_input_size"] = False
    if settings.get("fixed_input_size") and (size := arguments.get("img_size")) is not None:
        both = size if isinstance(size, list | tuple) else [size, size]
        settings["input_size"] = [3, *both]
    sizes = tuple(_sizes(settings.get("input_size", (3, 224, 224)), where))
    settings["input_size"] = sizes
    if sizes[0] != 3 or arguments.get("in_chans", 3) != 3:
        raise FormatError(
            f"{where} says pictures have {arguments.get('in_chans', sizes[0])} channels; needed"
            " the 3 of colour, so give a network of colour pictures"
        )
    classes = settings.get("num_classes", 0)
    if not isinstance(classes, int) or not -1 <= classes <= _LARGEST:
        raise FormatError(f"{where} says num_classes {classes!r}; needed 0 to {_LARGEST}")
    return settings["architecture"], settings, arguments


def arguments_of(given: Mapping[str, Any], *, where: str = "model_args") -> dict[str, Any]:
    """Arguments of a constructor, without those that would fetch or read anything.

    Raises:
        FormatError: if one is refused, or a number in it out of bounds.
    """
    for key, value in given.items():
        if key in _REFUSED or key.startswith("pretrained"):
            raise FormatError(
                f"{where} gives {key} to the network, which is not done here; take it out"
            )
        deep = any(word in key for word in ("depth", "layers", "blocks", "repeat"))
        _check_bounds(key, value, _DEEPEST if deep else _LARGEST, where)
    return dict(given)


def prepared(settings: Mapping[str, Any], *, where: str) -> Transforms:
    """How a network of timm wants its pictures, equal to timm's transform for evaluation.

    Args:
        settings: fields of `pretrained_cfg`: input_size, crop_pct, crop_mode, interpolation,
            mean, std; timm's defaults where they are silent.
        where: the file, for the words of errors.

    Raises:
        FormatError: if one of them is not what it should be.

    Example:
        >>> prepared({"input_size": (3, 224, 224), "crop_pct": 0.9}, where="").shortest
        248
    """
    sides = _sizes(settings.get("input_size", (3, 224, 224)), where)
    crop = (sides[1], sides[2])
    share = settings.get("crop_pct") or _CROP
    mode = settings.get("crop_mode") or "center"
    filter_ = settings.get("interpolation") or "bicubic"
    if not isinstance(share, int | float) or not 0.1 <= share <= 1.0:
        raise FormatError(f"{where} says crop_pct {share!r}; needed a number from 0.1 to 1")
    if filter_ not in _FILTERS:
        raise FormatError(
            f"{where} says interpolation {filter_!r}; needed one of {', '.join(_FILTERS)}"
        )
    mean = three_numbers(settings.get("mean") or IMAGENET_MEAN, "mean", where)
    std = three_numbers(settings.get("std") or IMAGENET_STD, "std", where)
    if 0.0 in std:
        raise FormatError(f"{where} says std 0; needed numbers to divide by")
    height, width = (math.floor(side / share) for side in crop)
    common: dict[str, Any] = {"crop": crop, "filter": filter_, "mean": mean, "std": std}
    if mode == "squash":
        return Transforms(size=(height, width), **common)
    if mode == "border":
        fill = (round(255 * mean[0]), round(255 * mean[1]), round(255 * mean[2]))
        return Transforms(within=(height, width), fill=fill, **common)
    if mode != "center":
        raise FormatError(f"{where} says crop_mode {mode!r}; needed center, squash or border")
    if height == width:
        return Transforms(shortest=height, **common)
    return Transforms(cover=(height, width), **common)


def three_numbers(value: Any, key: str, where: str) -> tuple[float, float, float]:
    """Numbers for red, green and blue.

    Raises:
        FormatError: if they are not three finite ones.
    """
    numbers = isinstance(value, list | tuple) and len(value) == 3
    if not numbers or not all(isinstance(n, int | float) and math.isfinite(n) for n in value):
        raise FormatError(f"{where} says {key} {value!r}; needed three numbers")
    return (float(value[0]), float(value[1]), float(value[2]))


def _check_bounds(key: str, value: Any, most: int, where: str) -> None:
    if isinstance(value, list | tuple | Mapping):
        if len(value) > _DEEPEST:
            raise FormatError(f"{where} gives {key} {len(value)} values; needed {_DEEPEST} or less")
        for each in value.values() if isinstance(value, Mapping) else value:
            _check_bounds(key, each, most, where)
    elif isinstance(value, int | float) and not abs(value) <= most:
        raise FormatError(f"{where} gives {key} {value}; needed {most} or less")


def _sizes(value: Any, where: str) -> tuple[int, int, int]:
    whole = isinstance(value, list | tuple) and len(value) == 3
    if not whole or not all(type(n) is int and 1 <= n <= _SIDE for n in value):
        raise FormatError(
            f"{where} says input_size {value!r}; needed channels, height and width from 1 to"
            f" {_SIDE}"
        )
    return (value[0], value[1], value[2])

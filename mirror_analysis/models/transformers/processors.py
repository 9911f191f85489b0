"""Reads the files in which transformers says how pictures are prepared."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mirror_analysis.errors import FormatError

if TYPE_CHECKING:
    from mirror_analysis.models.preparation import Preparation

# As PIL numbers its filters.
_FILTERS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}
_FAR = 1 << 14  # pixels; no picture is prepared to more
_UNDONE = ("do_flip_channel_order", "do_image_splitting", "do_pad", "include_top")
_EARLY = ("DINOv3ViTImageProcessor", "DINOv3ViTImageProcessorFast")


def read_processor(config: Mapping[str, Any], defaults: Preparation) -> dict[str, Any]:
    """The fields of a `Preparation` that a processor's file decides.

    Args:
        config: what the file says; files of the years before `image_processor_type` count too.
        defaults: what the family does where the file is silent.

    Returns:
        Field -> value.

    Raises:
        FormatError: if it says something that cannot be done, or is out of range.
    """
    kind = str(
        config.get("video_processor_type")
        or config.get("image_processor_type")
        or config.get("feature_extractor_type")
        or ""
    )
    for key in _UNDONE:
        if config.get(key):
            raise FormatError(
                f"the picture processor {kind} asks for {key}, which cannot be done here; use"
                " another checkpoint, or one of these networks as module:factory"
            )
    found: dict[str, Any] = {}
    if "video_processor_type" in config or kind.endswith("Fast"):
        found["engine"] = "torch"
    if kind in _EARLY:
        found |= {"engine": "torch", "early": True}
    found |= _sizes(config, kind, defaults)
    if "resample" in config and config["resample"] is not None:
        number = config["resample"]
        if not isinstance(number, int) or number not in _FILTERS:
            raise FormatError(
                f"the picture processor says resample {number!r}; needed 0 to 5, as PIL numbers"
                " its filters"
            )
        found["filter"] = _FILTERS[number]
    found |= _numbers(config, defaults)
    return found


def _sizes(config: Mapping[str, Any], kind: str, defaults: Preparation) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if config.get("do_resize") is False:
        found |= {"shortest": None, "size": None}
    elif config.get("size") is not None:
        found |= _size(config["size"], square=defaults.size is not None)
    crop = config.get("crop_size")
    if config.get("do_center_crop") is False:
        found["crop"] = None
    elif crop is not None and (defaults.crop is not None or config.get("do_center_crop")):
        found["crop"] = _both(crop)
    elif config.get("do_center_crop") and defaults.crop is None:
        size = found.get("size", defaults.size) or (found.get("shortest", defaults.shortest),) * 2
        found["crop"] = _both(list(size))
    if kind == "VJEPA2VideoProcessor":
        # This one takes no size: it goes by the crop, whatever the file says.
        side = (found.get("crop") or defaults.crop or (256, 256))[0]
        found |= {"shortest": int(side * 256 / 224), "size": None}
    shortest = found.get("shortest", defaults.shortest)
    if "ConvNext" in kind and shortest is not None:
        # Small pictures are cut from somewhat larger ones, others are squeezed to a square.
        share = config.get("crop_pct") or 224 / 256
        small = shortest < 384
        found["shortest"] = int(shortest / share) if small else None
        found["size"] = None if small else (shortest, shortest)
        found["crop"] = (shortest, shortest) if small else None
    return found


def _size(value: Any, *, square: bool) -> dict[str, Any]:
    if isinstance(value, Mapping):
        edges = {key: number for key, number in value.items() if number is not None}
        if set(edges) == {"shortest_edge"}:
            return {"shortest": _pixels(edges["shortest_edge"]), "size": None}
        if set(edges) != {"height", "width"}:
            raise FormatError(
                f"the picture processor says size {dict(value)}; needed a shortest_edge, or height"
                " and width"
            )
        return {"size": _both(value), "shortest": None}
    if isinstance(value, int) and not square:
        return {"shortest": _pixels(value), "size": None}
    return {"size": _both(value), "shortest": None}


def _both(value: Any) -> tuple[int, int]:
    """Height and width out of any of the ways to write them."""
    if isinstance(value, Mapping):
        edges = (value.get("height", value.get("shortest_edge")),
                 value.get("width", value.get("shortest_edge")))  # fmt: skip
    elif isinstance(value, list | tuple) and len(value) == 2:
        edges = (value[0], value[1])
    else:
        edges = (value, value)
    return _pixels(edges[0]), _pixels(edges[1])


def _pixels(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= _FAR:
        raise FormatError(
            f"the picture processor says {value!r} pixels; needed a whole number from 1 to {_FAR}"
        )
    return value


def _numbers(config: Mapping[str, Any], defaults: Preparation) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if config.get("do_rescale") is False:
        found |= {"scale": 1.0, "offset": 0.0}
    elif "rescale_factor" in config:
        found["scale"] = _finite("rescale_factor", config["rescale_factor"])
    for key in ("offset", "rescale_offset"):
        if key in config and config.get("do_rescale") is not False:
            found["offset"] = -1.0 if config[key] else 0.0
    if config.get("do_normalize") is False:
        found |= {"mean": (0.0,) * 3, "std": (1.0,) * 3}
        return found
    for field, key in {"mean": "image_mean", "std": "image_std"}.items():
        value = config.get(key)
        if value is None:
            continue
        three = [value] * 3 if isinstance(value, int | float) else value
        if not isinstance(three, list | tuple) or len(three) != 3:
            raise FormatError(
                f"the picture processor says {key} {value!r}; needed one number for each of red,"
                " green and blue"
            )
        found[field] = tuple(_finite(key, number) for number in three)
    if 0.0 in found.get("std", ()):
        raise FormatError("the picture processor says image_std 0; needed numbers to divide by")
    return found


def _finite(key: str, value: Any) -> float:
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise FormatError(f"the picture processor says {key} {value!r}; needed a number")
    return float(value)

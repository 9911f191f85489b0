"""What the files of open_clip, or open_clip itself, say of a network and its pictures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from mirror_analysis.errors import FormatError, UnknownNameError
from mirror_analysis.models.images.timm_settings import arguments_of, three_numbers
from mirror_analysis.models.images.transforms import Transforms
from mirror_analysis.models.preparation import CLIP_MEAN, CLIP_STD

_KEYS = ("mean", "std", "interpolation", "resize_mode", "fill_color")
_SIDE = 4096  # pixels


def vision_settings(model: Any, *, where: str) -> tuple[int, dict[str, Any], bool]:
    """Channels of the embedding, `vision_cfg`, and whether QuickGELU is used.

    Args:
        model: `model_cfg` of a file, or a config of open_clip.
        where: the file, for the words of errors.

    Raises:
        FormatError: if it is no such thing, or a number in it out of bounds.
    """
    vision = model.get("vision_cfg") if isinstance(model, Mapping) else None
    channels = model.get("embed_dim") if isinstance(model, Mapping) else None
    if not isinstance(vision, Mapping) or type(channels) is not int or not 1 <= channels <= 65536:
        raise FormatError(
            f"{where} has no model_cfg with embed_dim and vision_cfg; needed what open_clip writes,"
            " so copy it anew"
        )
    kept = {key: value for key, value in vision.items() if key != "timm_model_pretrained"}
    arguments = arguments_of(kept, where=where)
    sides = kept.get("image_size", 224)
    for side in sides if isinstance(sides, list | tuple) else [sides]:
        if type(side) is not int or not 1 <= side <= _SIDE:
            raise FormatError(f"{where} says image_size {sides!r}; needed pixels from 1 to {_SIDE}")
    return channels, arguments, bool(model.get("quick_gelu", False))


def prepared(said: Mapping[str, Any], size: tuple[int, int], *, where: str) -> Transforms:
    """How a network of open_clip wants its pictures, equal to open_clip's transform.

    Args:
        said: `preprocess_cfg`; open_clip's defaults where it is silent.
        size: (height, width) of the network's pictures.
        where: the file, for the words of errors.

    Raises:
        FormatError: if something in it is not what it should be.
    """
    filter_ = said.get("interpolation") or "bicubic"
    mode = said.get("resize_mode") or "shortest"
    if filter_ not in ("bicubic", "bilinear", "random"):
        raise FormatError(f"{where} says interpolation {filter_!r}; needed bicubic or bilinear")
    mean = three_numbers(said.get("mean") or CLIP_MEAN, "mean", where)
    std = three_numbers(said.get("std") or CLIP_STD, "std", where)
    if 0.0 in std:
        raise FormatError(f"{where} says std 0; needed numbers to divide by")
    common: dict[str, Any] = {
        "filter": "bilinear" if filter_ == "bilinear" else "bicubic",
        "mean": mean,
        "std": std,
    }
    if mode == "squash":
        return Transforms(size=size, **common)
    if mode == "longest":
        fill = said.get("fill_color") or 0
        if type(fill) is not int or not 0 <= fill <= 255:
            raise FormatError(f"{where} says fill_color {fill!r}; needed 0 to 255")
        return Transforms(within=size, crop=size, fill=(fill,) * 3, **common)
    if mode != "shortest":
        raise FormatError(f"{where} says resize_mode {mode!r}; needed shortest, longest or squash")
    if size[0] == size[1]:
        return Transforms(shortest=size[0], crop=size, **common)
    # Pictures that are not square are always resized bicubically there, whatever is said.
    return Transforms(cover=size, crop=size, **{**common, "filter": "bicubic"})


def published_preparation(
    architecture: str, tag: str
) -> tuple[Mapping[str, Any], str, bool | None]:
    """What open_clip knows of the preparation for an architecture's published weights.

    Args:
        architecture: a name of open_clip.
        tag: of the weights; "" for what all the published ones of that architecture agree on.

    Returns:
        A `preprocess_cfg`; in words, where it is from; whether the weights of the tag were trained
        with QuickGELU, None without a tag.

    Raises:
        UnknownNameError: if there are no weights of that tag.
    """
    import open_clip

    tags = open_clip.list_pretrained_tags_by_model(architecture)
    if tag:
        if tag not in tags:
            raise UnknownNameError(f"tag of {architecture}", tag, tags)
        config = open_clip.get_pretrained_cfg(architecture, tag)
        said = {key: config[key] for key in _KEYS if config.get(key) is not None}
        return said, f"as open_clip has it for {tag}", bool(config.get("quick_gelu"))
    found = [
        {key: config[key] for key in _KEYS if config.get(key) is not None}
        for config in (open_clip.get_pretrained_cfg(architecture, each) for each in tags)
    ]
    if found and all(each == found[0] for each in found):
        return found[0], f"as open_clip has it for all published weights of {architecture}", None
    if found:
        return {}, "as CLIP's; published weights differ, so give the option tag", None
    return {}, "as CLIP's, since nothing says it", None


def fitting_architectures(tensors: Mapping[str, Tensor]) -> list[str]:
    """Names of open_clip's transformers for pictures whose shapes weights have.

    Args:
        tensors: of the half that watches.

    Example:
        >>> fitting_architectures(weights)
        ['ViT-B-32', 'ViT-B-32-quickgelu']
    """
    import open_clip

    needed = {"conv1.weight": 4, "positional_embedding": 2, "proj": 2}
    if any(name not in tensors or tensors[name].ndim != axes for name, axes in needed.items()):
        return []
    width, _, patch, _ = tensors["conv1.weight"].shape
    places = tensors["positional_embedding"].shape[0]
    blocks = {name.split(".")[2] for name in tensors if name.startswith("transformer.resblocks.")}
    has = (width, patch, places, len(blocks), tensors["proj"].shape[1])
    found = []
    for name in open_clip.list_models():
        config = open_clip.get_model_config(name)
        vision = config["vision_cfg"]
        side, tile = vision.get("image_size", 224), vision.get("patch_size", 16)
        if not isinstance(side, int) or not isinstance(tile, int):
            continue
        sizes = (vision.get("width", 768), tile, (side // tile) ** 2 + 1, vision.get("layers", 12))
        if (*sizes, config["embed_dim"]) == has:
            found.append(name)
    return found

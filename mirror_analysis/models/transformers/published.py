"""How the published processors of transformers prepare pictures, where files do not say."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from mirror_analysis.models.checkpoint import Checkpoint
from mirror_analysis.models.preparation import CLIP_MEAN, CLIP_STD, Preparation

_HALF = (0.5, 0.5, 0.5)
_PLAIN = Preparation(shortest=224, crop=(224, 224))
_CLIP = Preparation(shortest=224, crop=(224, 224), filter="bicubic", mean=CLIP_MEAN, std=CLIP_STD)
_SQUARE = Preparation(size=(224, 224), mean=_HALF, std=_HALF)
_SIGLIP = Preparation(size=(224, 224), filter="bicubic", mean=_HALF, std=_HALF)
_VIDEO = Preparation(shortest=224, crop=(224, 224), mean=_HALF, std=_HALF)
_VIVIT = Preparation(
    shortest=256, crop=(224, 224), scale=1 / 127.5, offset=-1.0, mean=_HALF, std=_HALF
)
_DINOV2 = Preparation(shortest=256, crop=(224, 224), filter="bicubic")
_DINOV3 = Preparation(size=(224, 224), engine="torch", early=True)
_VJEPA = Preparation(shortest=292, crop=(256, 256), engine="torch")
_DEIT = Preparation(size=(256, 256), crop=(224, 224), filter="bicubic")
_BEIT = Preparation(size=(256, 256), crop=(224, 224), filter="bicubic", mean=_HALF, std=_HALF)

# What a processor does where its file is silent.
PROCESSORS: Mapping[str, Preparation] = {
    "BeitImageProcessor": _BEIT,
    "BitImageProcessor": _CLIP,
    "CLIPImageProcessor": _CLIP,
    "ConvNextImageProcessor": Preparation(shortest=384),
    "DINOv3ViTImageProcessor": _DINOV3,
    "DeiTImageProcessor": _DEIT,
    "PvtImageProcessor": Preparation(size=(224, 224)),
    "SiglipImageProcessor": _SIGLIP,
    "TimesformerVideoProcessor": _PLAIN,
    "VJEPA2VideoProcessor": _VJEPA,
    "ViTImageProcessor": _SQUARE,
    "VideoMAEImageProcessor": _VIDEO,
    "VideoMAEVideoProcessor": _VIDEO,
    "VivitImageProcessor": _VIVIT,
    "VivitVideoProcessor": _VIVIT,
}
# What the best-known checkpoints of a model type were trained with; for those without a file.
MODEL_TYPES: Mapping[str, Preparation] = {
    "clip": _CLIP,
    "clip_vision_model": _CLIP,
    "deit": _DEIT,
    "dinov2": _DINOV2,
    "dinov2_with_registers": _DINOV2,
    "dinov3_convnext": _DINOV3,
    "dinov3_vit": _DINOV3,
    "ijepa": Preparation(size=(224, 224)),
    "siglip": _SIGLIP,
    "siglip_vision_model": _SIGLIP,
    "timesformer": _PLAIN,
    "videomae": Preparation(shortest=224, crop=(224, 224)),
    "vit": _SQUARE,
    "vivit": _VIVIT,
    "vjepa2": _VJEPA,
    "xclip": _PLAIN,
}


def published_preparation(
    checkpoint: Checkpoint, model_type: str, *, pixels: int | None, engine: str = ""
) -> tuple[Preparation, str]:
    """How a checkpoint wants its pictures prepared, and what says so.

    Args:
        checkpoint: a folder; its `video_preprocessor_config.json`, `preprocessor_config.json` or
            `processor_config.json` counts, in this order.
        model_type: of its `config.json`.
        pixels: side of the pictures its network was made for, for where no file says it.
        engine: "pil" or "torch" to resize with that, whatever the file says.

    Returns:
        The preparation; in words, where it is from.

    Raises:
        FormatError: if a file says something that cannot be done.
    """
    name, config = _said(checkpoint)
    if config:
        kind = _kind(config)
        known = PROCESSORS.get(kind)
        defaults = known if known is not None else MODEL_TYPES.get(model_type, _PLAIN)
        prepare = Preparation.from_processor(config, defaults=defaults)
        source = f"{name} ({kind or 'of no named kind'})"
    else:
        prepare = _to_side(MODEL_TYPES.get(model_type, _PLAIN), pixels)
        known_type = model_type in MODEL_TYPES
        source = (
            f"no file says it; as usual for {model_type}"
            if known_type
            else "no file says it; resized, cropped and normalised as for ImageNet"
        )
    if engine in ("pil", "torch") and not prepare.early:
        prepare = _replace(prepare, engine=engine)
    return prepare, source


def _said(checkpoint: Checkpoint) -> tuple[str, Mapping[str, Any]]:
    for name in ("video_preprocessor_config.json", "preprocessor_config.json"):
        if checkpoint.has(name):
            config = checkpoint.json(name)
            if name.startswith("video"):
                config = {"video_processor_type": "", **config}
            return name, config
    if checkpoint.has("processor_config.json"):
        both = checkpoint.json("processor_config.json")
        for part in ("video_processor", "image_processor"):
            if isinstance(both.get(part), dict):
                return "processor_config.json", both[part]
    return "", {}


def _kind(config: Mapping[str, Any]) -> str:
    """The processor's class without what only tells versions apart."""
    for key in ("video_processor_type", "image_processor_type", "feature_extractor_type"):
        if kind := str(config.get(key) or ""):
            kind = kind.replace("FeatureExtractor", "ImageProcessor")
            return re.sub(r"(Fast|Pil)$", "", kind)
    return ""


def _to_side(prepare: Preparation, pixels: int | None) -> Preparation:
    """The same proportions for pictures of another size."""
    if pixels is None or prepare.pixels in (None, (pixels, pixels)):
        return prepare
    before = prepare.pixels[0]
    return _replace(
        prepare,
        shortest=None if prepare.shortest is None else int(prepare.shortest * pixels / before),
        size=None if prepare.size is None else (int(prepare.size[0] * pixels / before),) * 2,
        crop=None if prepare.crop is None else (pixels, pixels),
    )


def _replace(prepare: Preparation, **changes: Any) -> Preparation:
    from dataclasses import replace

    return replace(prepare, **changes)

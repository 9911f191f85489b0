"""Networks of transformers that watch: encoders of pictures and of clips."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from mirror_analysis.errors import DefinitionError, FormatError, MirrorError
from mirror_analysis.models.checkpoint import Checkpoint, Options
from mirror_analysis.models.structure.discovery import Structure, discover
from mirror_analysis.models.transformers.files import (
    built,
    licence,
    made_config,
    quiet,
    read_config,
    read_weights,
    require_transformers,
)
from mirror_analysis.models.transformers.published import published_preparation
from mirror_analysis.models.watching import Layout, Watching

SUMMARY = "encoders of pictures and clips in a folder that transformers wrote"
OPTIONS: Mapping[str, str] = {
    "frames": "frames read of an episode, evenly spaced (what the config says for clips, else all)",
    "resize": "'pil' or 'torch', whatever the preprocessor file says (what it says)",
}


@dataclass(frozen=True)
class _Clips:
    """How an encoder of clips wants them.

    Attributes:
        frames: the key of its config that says how many.
        fixed: whether it takes no other number of frames.
    """

    frames: str
    fixed: bool = True


_CLIPS = {
    "timesformer": _Clips("num_frames"),
    "videomae": _Clips("num_frames"),
    "vivit": _Clips("num_frames"),
    "vjepa2": _Clips("frames_per_clip", fixed=False),
    "xclip": _Clips("num_frames"),
}
# Two towers: the config of the one that watches, and the class that is loaded alone.
_TOWERS = {
    "clip": "CLIPVisionModelWithProjection",
    "siglip": "SiglipVisionModel",
}
_PICTURES = {
    "beit", "bit", "clip_vision_model", "convnext", "convnextv2", "cvt", "data2vec-vision", "deit",
    "dinov2", "dinov2_with_registers", "dinov3_convnext", "dinov3_vit", "focalnet", "hiera",
    "ijepa", "levit", "poolformer", "pvt", "pvt_v2", "regnet", "resnet", "siglip_vision_model",
    "swiftformer", "swin", "swinv2", "vit", "vit_msn",
}  # fmt: skip
# Encoders that watch, but not so that features could be compared, with the reason.
_REFUSED = {
    "siglip2": "takes pictures cut into patches of varying number; give a SigLIP 2 checkpoint of"
    " fixed resolution, whose model_type is siglip",
    "siglip2_vision_model": "takes pictures cut into patches of varying number; give a SigLIP 2"
    " checkpoint of fixed resolution, whose model_type is siglip",
    "vit_mae": "hides a random part of every picture; give the checkpoint converted to ViT",
}


def recognise(checkpoint: Checkpoint) -> str | None:
    """What it is, if it is a folder of transformers whose model reads pictures."""
    try:
        config = checkpoint.config
    except FormatError:
        return None
    kind = config.get("model_type")
    if not isinstance(kind, str):
        return None
    known = {*_CLIPS, *_TOWERS, *_PICTURES, *_REFUSED}
    if kind not in known and not ("num_channels" in config and _looks_at_pictures(config)):
        return None
    what = (config.get("architectures") or [kind])[0]
    inner = config.get("vision_config")
    inner = inner if isinstance(inner, dict) else config
    layers = inner.get("num_hidden_layers")
    return f"{what} of transformers ({kind}" + (f", {layers} blocks)" if layers else ")")


def _looks_at_pictures(config: Mapping[str, Any]) -> bool:
    return any(key in config for key in ("image_size", "patch_size", "hidden_sizes", "depths"))


def load(checkpoint: Checkpoint, *, name: str, options: Options) -> Watching:
    """Reads an encoder of pictures or clips.

    Args:
        checkpoint: the folder, with `config.json`, weights and as a rule a preprocessor's file.
        name: what to call it.
        options: "frames" and "resize"; trusted where the folder's own code may run.

    Raises:
        FormatError: if it is damaged, of a type that is not read, or brings code of its own.
        MissingFileError: if a file is not there.
        MissingDependencyError: if transformers is not installed.
        DefinitionError: if it cannot take so many frames.
        UnknownNameError: if "resize" is neither "pil" nor "torch".
    """
    require_transformers(f"reading {checkpoint.path}")
    raw = checkpoint.json("config.json")
    config = read_config(checkpoint)
    kind = config["model_type"]
    if kind in _REFUSED:
        raise FormatError(f"{checkpoint.path} is of the type {kind}, which {_REFUSED[kind]}")
    tensors, source = ({}, "") if _is_foreign(kind) else read_weights(checkpoint)
    module, told = _network(checkpoint, config, tensors, options)
    pixels = _side(module.config)
    prepare, prepared_by = published_preparation(
        checkpoint, kind, pixels=pixels,
        engine=options.choice("resize", "", ["", "pil", "torch"]),
    )  # fmt: skip
    clip, layout = _frames(kind, module.config, options)
    side = prepare.pixels or ((pixels,) * 2 if pixels else (224, 224))
    call = _call(module, kind, resized=pixels is not None and side != (pixels, pixels))

    def run(network: nn.Module, episodes: int, time: int) -> object:
        batch = (episodes * time,) if layout == "picture" else (episodes, clip)
        where = next(network.parameters()).device
        return call(network, torch.zeros(*batch, 3, *side, device=where))

    structure = _discovered(checkpoint, module, run, options, clip if layout != "picture" else 0)
    facts = {
        "family": "transformers",
        "architecture": type(module).__name__,
        "weights": source or f"{checkpoint.path}, by its own code",
        "preparation": prepared_by,
        "left out": told,
        "own code": "run, as trusted" if _is_foreign(kind) else _code(raw),
        "licence": licence(checkpoint),
    }
    return Watching(
        module,
        name=name,
        prepare=prepare,
        call=call,
        structure=structure,
        rebuild=_rebuild(module, structure),
        layout=layout,
        clip=clip,
        facts={key: value for key, value in facts.items() if value},
    )


def _is_foreign(kind: str) -> bool:
    """Whether transformers itself has no model of that type."""
    from transformers import CONFIG_MAPPING

    return kind not in CONFIG_MAPPING


def _network(
    checkpoint: Checkpoint,
    config: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    options: Options,
) -> tuple[Any, str]:
    from transformers import CONFIG_MAPPING

    kind = config["model_type"]
    if _is_foreign(kind):
        return _foreign(checkpoint, kind, options), ""
    made: Any = made_config(CONFIG_MAPPING[kind], config, checkpoint)
    made = made.vision_config if kind in _TOWERS else made
    return built(_class(kind, made, config, checkpoint), made, tensors, path=str(checkpoint.path))


def _class(kind: str, made: Any, config: Mapping[str, Any], checkpoint: Checkpoint) -> Any:
    """The class to load: with its head where it recognises something, else the encoder alone."""
    import transformers
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING,
        MODEL_FOR_VIDEO_CLASSIFICATION_MAPPING,
        MODEL_MAPPING,
    )

    if kind in _TOWERS:
        return getattr(transformers, _TOWERS[kind])
    named = config.get("architectures") or []
    tables: tuple[Any, ...] = (
        MODEL_FOR_VIDEO_CLASSIFICATION_MAPPING,
        MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING,
    )
    for table in tables:
        classes = table.get(type(made), ())
        for headed in classes if isinstance(classes, tuple) else (classes,):
            if headed.__name__ in named:
                return headed
    cls: Any = MODEL_MAPPING.get(type(made), None)
    cls = cls[0] if isinstance(cls, tuple) else cls
    reads = cls is not None and str(cls.main_input_name).startswith("pixel_values")
    if not reads and kind != "xclip":
        raise FormatError(
            f"{checkpoint.path} is of the type {kind}, whose model reads no pictures; give an"
            " encoder of pictures or clips"
        )
    return cls


def _foreign(checkpoint: Checkpoint, kind: str, options: Options) -> Any:
    raw = checkpoint.json("config.json")
    if "auto_map" not in raw:
        raise FormatError(
            f"{checkpoint.path} is of the type {kind}, which this version of transformers does not"
            " know; install the version its config.json names"
        )
    if not options.trusted:
        raise FormatError(
            f"{checkpoint.path} brings code of its own ({raw['auto_map']}), which is not run; look"
            " at it, and name the checkpoint with --trust if it may"
        )
    from transformers import AutoModel

    with quiet():
        module = AutoModel.from_pretrained(
            str(checkpoint.path), trust_remote_code=True, local_files_only=True,
            dtype=torch.float32,
        )  # fmt: skip
    return module.eval()


def _code(raw: Mapping[str, Any]) -> str:
    return "not run; the package's own of the same type is used" if "auto_map" in raw else ""


def _side(config: Any) -> int | None:
    """Pixels a side of the pictures the network was made for, where it says so."""
    config = getattr(config, "vision_config", config)
    for key in ("image_size", "crop_size"):
        side = getattr(config, key, None)
        side = side[0] if isinstance(side, list | tuple) and side else side
        if isinstance(side, int):
            return side
    return None


def _frames(kind: str, config: Any, options: Options) -> tuple[int, Layout]:
    """Frames of a clip, 0 for every frame on its own, and how the network takes them."""
    how = _CLIPS.get(kind)
    if how is None:
        return (options.count("frames", 1) if "frames" in options.values else 0), "picture"
    own = int(getattr(getattr(config, "vision_config", config), how.frames))
    asked = options.count("frames", own)
    tube = int(getattr(config, "tubelet_size", 1)) if not how.fixed else 1
    if (how.fixed and asked != own) or asked % tube:
        raise DefinitionError(
            f"option frames is {asked} but this {kind} takes "
            + (f"clips of {own} frames; leave the option out" if how.fixed
               else f"multiples of {tube} frames; give one of these")
        )  # fmt: skip
    return asked, "time channel"


def _call(module: Any, kind: str, *, resized: bool) -> Callable[[nn.Module, Tensor], object]:
    """How the network is run on prepared pictures or clips."""
    if kind == "xclip":
        return lambda network, x: network.get_video_features(pixel_values=x)  # type: ignore[operator]
    takes = inspect.signature(module.forward).parameters
    given: dict[str, Any] = {"skip_predictor": True} if "skip_predictor" in takes else {}
    if resized and "interpolate_pos_encoding" in takes:
        given["interpolate_pos_encoding"] = True
    name = str(module.main_input_name)
    return lambda network, x: network(**{name: x}, **given)


def _discovered(
    checkpoint: Checkpoint,
    module: nn.Module,
    run: Callable[[nn.Module, int, int], object],
    options: Options,
    clip: int,
) -> Structure:
    def of(network: nn.Module) -> Structure:
        # Whole clips are dear, so as few as will do.
        return discover(
            network, partial(run, network), calls=options.calls, prefix=prefix_tokens(module),
            episodes=1, clip=clip,
        )  # fmt: skip

    try:
        # Shapes are all that is asked, so a shadow without numbers will do, at no cost.
        with torch.device("meta"), quiet():
            shadow = _fresh(module)
        return of(shadow).moved(shadow, module)
    except Exception:  # whatever cannot be done without numbers is done with them
        pass
    try:
        return of(module)
    except MirrorError:
        raise
    except Exception as error:  # a network raises whatever the numbers of its config lead to
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise FormatError(
            f"{checkpoint.path} does not run on the pictures its preprocessor gives ({reason});"
            " copy its files anew, all of one version"
        ) from None


def prefix_tokens(module: nn.Module) -> int:
    """Leading tokens that stand for no place: class, distillation and register tokens."""
    count = 0
    for name, parameter in module.named_parameters():
        last = name.rpartition(".")[2]
        if last in ("cls_token", "class_embedding", "class_token", "distillation_token"):
            count += 1
        elif last in ("register_tokens", "reg_token"):
            count += parameter.shape[-2]
    return count


def _rebuild(module: Any, structure: Structure) -> Callable[[], tuple[nn.Module, Structure]]:
    def rebuild() -> tuple[nn.Module, Structure]:
        with quiet():
            twin = _fresh(module)
        return twin, structure.moved(module, twin)

    return rebuild


def _fresh(module: Any) -> Any:
    """The same architecture as it is before training."""
    without = {"add_pooling_layer": False} if getattr(module, "pooler", module) is None else {}
    return type(module)._from_config(module.config, dtype=torch.float32, **without).eval()

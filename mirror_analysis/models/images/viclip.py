"""Checkpoints of ViCLIP, B and L: the half that watches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from mirror_analysis.errors import FormatError, MissingFileError
from mirror_analysis.models.checkpoint import Checkpoint, Options
from mirror_analysis.models.images.transforms import Sampling, Transforms
from mirror_analysis.models.images.viclip_network import ViclipSize, ViclipVision, fitted_times
from mirror_analysis.models.model import LayerInfo
from mirror_analysis.models.preparation import IMAGENET_MEAN, IMAGENET_STD
from mirror_analysis.models.structure.discovery import Structure, discover
from mirror_analysis.models.transformers.files import licence
from mirror_analysis.models.watching import Watching
from mirror_analysis.models.weights.state_dicts import (
    StateDict,
    check_fit,
    mentions,
    on_paper,
    put_into,
    read_state_dict,
    unwrapped,
)

SUMMARY = "ViCLIP (B and L), video and words: the half that watches"
OPTIONS: Mapping[str, str] = {
    "frames": "frames of a clip; positions in time are fitted (as trained, 8)",
    "sampling": "stride: the first frames of every (length // frames)-th, as published; even:"
    " evenly spaced, first and last among them (stride)",
}
_HALF = "vision_encoder."
_TELLING = (f"{_HALF}temporal_positional_embedding", f"{_HALF}conv1.weight")
_TIMES = "temporal_positional_embedding"
_SIDE = 4096  # pixels
_SIZES = {(768, 12): "ViCLIP-B", (1024, 24): "ViCLIP-L"}


def recognise(checkpoint: Checkpoint) -> str | None:
    """What it is, if it is a file with ViCLIP's weights, or a folder that has one."""
    path = _weights(checkpoint)
    return "ViCLIP, its half that watches" if path and mentions(path, _TELLING) else None


def load(checkpoint: Checkpoint, *, name: str, options: Options) -> Watching:
    """Reads ViCLIP.

    Its frames are resized to the trained size whatever their proportions, without antialiasing,
    as the published code does with OpenCV. Nothing is masked. The half for words is left out.

    Args:
        checkpoint: a file of `torch.save` ({"model": weights}) or safetensors, or a folder with
            one.
        name: what to call it.
        options: those of OPTIONS.

    Raises:
        FormatError: if it is damaged or no ViCLIP.
        MissingFileError: if a folder has no weights.
        DefinitionError: if the number of frames is none.
        UnknownNameError: if the sampling is neither.
    """
    path = _weights(checkpoint)
    if path is None:
        raise MissingFileError(
            f"{checkpoint.path} has no weights; needed a file of torch.save or safetensors, so"
            " fetch the whole checkpoint"
        )
    whole = read_state_dict(path)
    whole = unwrapped(whole, [name for name in _TELLING if mentions(path, [name])])
    size, state = _watching_half(whole)
    frames = options.count("frames", size.frames)
    if frames > 1:
        state.tensors[_TIMES] = fitted_times(state.tensors[_TIMES], frames)
        size = replace(size, frames=frames)
    what = f"a ViCLIP of {size.depth} blocks"
    check_fit(state, on_paper(lambda: _built(size), what).state_dict(), what)
    module = _built(size)
    put_into(module, state, what)
    pixels = size.grid * size.patch
    sampling: Sampling = (
        "stride" if options.choice("sampling", "stride", ["stride", "even"]) == "stride" else "even"
    )
    prepare = Transforms(
        size=(pixels, pixels),
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        antialias=False,
        frames=frames,
        sampling=sampling,
    )

    def run(episodes: int, time: int) -> object:
        g = torch.Generator().manual_seed(0)
        return module(torch.rand((episodes, 3, frames, pixels, pixels), generator=g))

    found = discover(module, run, calls=options.calls, prefix=1, episodes=1)
    last = LayerInfo("embedding", size.out, "episode channel", "projection")
    structure = Structure((*found.layers, last), {**found.taps, last.name: module.embedding})

    def rebuild() -> tuple[nn.Module, Structure]:
        twin = _built(size)
        return twin, structure.moved(module, twin)

    said = licence(checkpoint)
    known = _SIZES.get((size.width, size.depth), "ViCLIP of another size")
    return Watching(
        module,
        name=name,
        prepare=prepare,
        call=_call,
        structure=structure,
        rebuild=rebuild,
        layout="channel time",
        facts={
            "family": "viclip",
            "architecture": f"{known}/{size.patch}, {size.depth} blocks of {size.width} channels",
            "weights": state.told,
            "left out": _left_out(whole),
            **({"licence": said} if said else {}),
        },
    )


def _call(module: nn.Module, clips: Tensor) -> object:
    return module(clips)


def _built(size: ViclipSize) -> ViclipVision:
    return ViclipVision(size).eval()


def _weights(checkpoint: Checkpoint) -> Path | None:
    if checkpoint.kind != "folder":
        return checkpoint.path
    usual = [name for name in ("model.safetensors", "pytorch_model.bin") if checkpoint.has(name)]
    others = sorted(p.name for p in checkpoint.path.iterdir() if p.suffix in (".pth", ".pt"))
    return checkpoint.file([*usual, *others][0]) if usual or others else None


def _watching_half(whole: StateDict) -> tuple[ViclipSize, StateDict]:
    half = {name.removeprefix(_HALF): tensor for name, tensor in whole.tensors.items()
            if name.startswith(_HALF)}  # fmt: skip
    size = ViclipSize.of(half)
    if size is None or size.grid * size.patch > _SIDE:
        raise FormatError(
            f"{whole.source} holds no ViCLIP; needed {_HALF}conv1.weight and the other weights of"
            " a published checkpoint"
        )
    return size, replace(whole, tensors=half)


def _left_out(whole: StateDict) -> str:
    rest = [name for name in whole.tensors if not name.startswith(_HALF)]
    words = sum(name.startswith("text_encoder.") for name in rest)
    said = [f"the half for words ({words} tensors)"] if words else []
    other = sorted(name for name in rest if not name.startswith("text_encoder."))
    return ", ".join([*said, *other[:4]]) or "nothing"

"""Networks of open_clip that watch single pictures: the half of CLIP that is not for words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any, final

from torch import Tensor, nn

from mirror_analysis.errors import (
    DefinitionError,
    FormatError,
    MissingDependencyError,
    MissingFileError,
    UnknownNameError,
)
from mirror_analysis.models.checkpoint import Checkpoint, Options
from mirror_analysis.models.images.open_clip_settings import (
    fitting_architectures,
    prepared,
    published_preparation,
    vision_settings,
)
from mirror_analysis.models.images.timm import (
    known_network,
    leading,
    picture_layers,
    quiet_timm,
)
from mirror_analysis.models.model import LayerInfo
from mirror_analysis.models.structure.discovery import Structure
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
from mirror_analysis.torchvision_shim import ensure_torchvision

SUMMARY = "CLIP models of open_clip: the half that watches"
OPTIONS: Mapping[str, str] = {
    "architecture": "open_clip's name of the network, for a file of bare weights (none)",
    "tag": "open_clip's name of the published weights, which says how pictures are prepared (none)",
    "quick_gelu": "yes or no: whether the weights were trained with QuickGELU, as OpenAI's were"
    " (what the files, the tag or the architecture say)",
    "frames": "frames read of an episode, evenly spaced (all)",
}
_CONFIG = "open_clip_config.json"
_OWN = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors",
        "open_clip_pytorch_model.bin")  # fmt: skip
_USUAL = ("model.safetensors", "pytorch_model.bin")
_HALF = "visual."
_TELLING = ("logit_scale", f"{_HALF}conv1.weight")
# OpenAI's own files alone hold these beside the weights.
_OPENAI = ("context_length", "input_resolution", "vocab_size")


@final
@dataclass(frozen=True, eq=False)
class _Found:
    """The half that watches as its files describe it.

    Attributes:
        architecture: open_clip's name, or what it is.
        channels: of the embedding.
        vision: open_clip's `vision_cfg`.
        quick: whether it uses QuickGELU.
        quick_by: what says so.
        state: its weights.
        left: tensors that belong to the other half.
        prepare: how pictures are prepared, their size left open.
        prepared_by: what says so.
    """

    architecture: str
    channels: int
    vision: Mapping[str, Any]
    quick: bool
    quick_by: str
    state: StateDict
    left: int
    prepare: Mapping[str, Any]
    prepared_by: str

    def build(self) -> _Tower:
        """The half with the weights its constructor draws."""
        from open_clip.model import _build_vision_tower

        with quiet_timm():
            return _Tower(_build_vision_tower(self.channels, dict(self.vision), self.quick)).eval()


@final
class _Tower(nn.Module):
    """The half that watches, its output as a layer."""

    def __init__(self, visual: Any) -> None:
        super().__init__()
        self.visual = visual
        self.embedding = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """[picture, channel]; a half that gives tokens too gives them second."""
        output = self.visual(x)
        pooled: Tensor = self.embedding(output[0] if isinstance(output, tuple) else output)
        return pooled


def recognise(checkpoint: Checkpoint) -> str | None:
    """What it is, if it is a folder that open_clip wrote, or weights under its names."""
    if checkpoint.kind != "folder":
        clip = mentions(checkpoint.path, _TELLING)
        return "CLIP under open_clip's names, its weights alone" if clip else None
    try:
        if not checkpoint.has(_CONFIG) or _weights(checkpoint) is None:
            return None
        model = checkpoint.json(_CONFIG).get("model_cfg")
    except FormatError:
        return None
    vision = model.get("vision_cfg") if isinstance(model, dict) else None
    if not isinstance(vision, dict):
        return None
    network = vision.get("timm_model_name")
    layers = f"{network} of timm" if network else f"{vision.get('layers')} blocks"
    return f"CLIP of open_clip, {layers}"


def load(checkpoint: Checkpoint, *, name: str, options: Options) -> Watching:
    """Reads the half of a CLIP model that watches.

    Nothing is fetched, and the half for words is not made.

    Args:
        checkpoint: a folder with `open_clip_config.json` and its weights, or a file of weights.
        name: what to call it.
        options: those of OPTIONS.

    Raises:
        FormatError: if the files are damaged, or the weights those of another network.
        MissingFileError: if a file is not there.
        MissingDependencyError: if open_clip is not installed.
        DefinitionError: if nothing says which network bare weights belong to.
        UnknownNameError: if open_clip has no such architecture or tag.
    """
    if find_spec("open_clip") is None:
        raise MissingDependencyError(
            "open_clip", f"reading {checkpoint.path}", "install mirror-analysis[vision]"
        )
    ensure_torchvision()
    found = _folder(checkpoint) if checkpoint.kind == "folder" else _file(checkpoint, options)
    if "quick_gelu" in options.values:
        quick = options.choice("quick_gelu", "", ["yes", "no"]) == "yes"
        found = replace(found, quick=quick, quick_by="the option quick_gelu")
    what = f"{found.architecture} of open_clip"
    check_fit(found.state, on_paper(found.build, what).visual.state_dict(), what)
    module = found.build()
    put_into(module.visual, found.state, what)
    size = module.visual.image_size
    height, width = (size, size) if isinstance(size, int) else size
    prepare = prepared(found.prepare, (height, width), where=str(checkpoint.path))

    def call(network: nn.Module, x: Tensor) -> object:
        return network(x)

    structure = picture_layers(
        module, call, (height, width), options, prefix=_leading(module.visual),
        where=str(checkpoint.path),
    )  # fmt: skip
    if isinstance(getattr(module.visual, "proj", None), nn.Parameter):
        # Nothing is called for the projection, so its outcome is a layer of our own.
        last = LayerInfo("embedding", found.channels, "episode*time channel", "projection")
        structure = Structure(
            (*structure.layers, last), {**structure.taps, last.name: module.embedding}
        )

    bare = replace(found, state=replace(found.state, tensors={}))  # a twin needs no weights

    def rebuild() -> tuple[nn.Module, Structure]:
        twin = bare.build()
        return twin, structure.moved(module, twin)

    return Watching(
        module,
        name=name,
        prepare=prepare,
        call=call,
        structure=structure,
        rebuild=rebuild,
        clip=options.count("frames", 1) if "frames" in options.values else 0,
        facts={**_facts(found), **({"licence": said} if (said := licence(checkpoint)) else {})},
        settings={"activation": "QuickGELU" if found.quick else "as the architecture has it"},
    )


def _facts(found: _Found) -> dict[str, str]:
    gelu = "QuickGELU" if found.quick else "no QuickGELU"
    return {
        "family": "open_clip",
        "architecture": found.architecture,
        "weights": found.state.told,
        "activation": f"{gelu}, by {found.quick_by}",
        "preparation": found.prepared_by,
        "left out": f"the half for words ({found.left} tensors)" if found.left else "nothing",
    }


def _leading(visual: Any) -> int:
    if hasattr(visual, "trunk"):
        return leading(visual.trunk)
    return 1 if hasattr(visual, "class_embedding") else 0


def _folder(checkpoint: Checkpoint) -> _Found:
    config = checkpoint.json(_CONFIG)
    where = f"{_CONFIG} of {checkpoint.path}"
    channels, vision, quick = vision_settings(config.get("model_cfg"), where=where)
    _require_known(vision, where)
    file = _weights(checkpoint)
    if file is None:
        raise MissingFileError(
            f"{checkpoint.path} has no weights of open_clip; needed one of {', '.join(_OWN)}, so"
            " fetch the whole checkpoint"
        )
    state, left = _half(read_state_dict(checkpoint.file(file)))
    return _Found(
        str(vision.get("timm_model_name") or "CLIP's picture half"),
        channels,
        vision,
        quick,
        _CONFIG,
        state,
        left,
        config.get("preprocess_cfg") or {},
        _CONFIG,
    )


def _file(checkpoint: Checkpoint, options: Options) -> _Found:
    import open_clip

    whole = read_state_dict(checkpoint.path)
    openai = set(_OPENAI) <= set(whole.tensors)
    architecture = options.text("architecture").replace("/", "-")
    if not architecture:
        fitting = fitting_architectures(_half(whole)[0].tensors)
        raise DefinitionError(
            f"{checkpoint.path} holds weights alone; say which network of open_clip they are for"
            f" with the option architecture (their shapes fit {', '.join(fitting) or 'none known'})"
        )
    config = open_clip.get_model_config(architecture) if ":" not in architecture else None
    if config is None:
        raise UnknownNameError("network of open_clip", architecture, open_clip.list_models())
    where = f"open_clip's {architecture}"
    channels, vision, quick = vision_settings(config, where=where)
    quick_by = "the architecture's name; weights of OpenAI need the option quick_gelu=yes"
    if openai:
        quick, quick_by = True, "the weights, which are OpenAI's own"
    tag = options.text("tag")
    prepare, prepared_by, published = published_preparation(architecture, tag)
    if tag and published is not None:
        quick, quick_by = published, f"the tag {tag}"
    state, left = _half(whole)
    return _Found(
        architecture, channels, vision, quick, quick_by,
        state, left, prepare, prepared_by,
    )  # fmt: skip


def _weights(checkpoint: Checkpoint) -> str | None:
    """The file of weights; under the usual names they may be those of transformers instead."""
    usual = () if "model_type" in checkpoint.config else _USUAL
    return next((name for name in (*_OWN, *usual) if checkpoint.has(name)), None)


def _require_known(vision: Mapping[str, Any], where: str) -> None:
    network = vision.get("timm_model_name")
    if network is not None and not (isinstance(network, str) and known_network(network)):
        raise FormatError(
            f"{where} names the network '{network}', which this version of timm does not have;"
            " install the version it was saved with"
        )


def _half(whole: StateDict) -> tuple[StateDict, int]:
    """The weights of the half that watches, and how many others there are."""
    probe = unwrapped(whole, [f"{_HALF}{name}" for name in _first_names(whole)])
    half = {name.removeprefix(_HALF): tensor for name, tensor in probe.tensors.items()
            if name.startswith(_HALF)}  # fmt: skip
    if not half:
        return probe, 0
    rest = [name for name in probe.tensors if not name.startswith(_HALF) and name not in _OPENAI]
    return replace(probe, tensors=half), len(rest)


def _first_names(whole: StateDict) -> list[str]:
    return [name.partition(_HALF)[2] for name in whole.tensors if _HALF in name]

"""Networks of timm that watch single pictures: its folders of the hub, and bare weights."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from difflib import get_close_matches
from importlib.util import find_spec
from typing import Any, final

import torch
from torch import Tensor, nn

from mirror_analysis.errors import (
    DefinitionError,
    FormatError,
    MirrorError,
    MissingDependencyError,
    MissingFileError,
    UnknownNameError,
)
from mirror_analysis.models.checkpoint import Checkpoint, Options
from mirror_analysis.models.images.efficientnet_lite import as_timm, is_lite
from mirror_analysis.models.images.timm_settings import arguments_of, described, prepared
from mirror_analysis.models.images.transforms import Transforms
from mirror_analysis.models.structure.discovery import Structure, discover
from mirror_analysis.models.transformers.files import licence
from mirror_analysis.models.watching import Watching
from mirror_analysis.models.weights.state_dicts import (
    StateDict,
    check_fit,
    on_paper,
    put_into,
    read_state_dict,
    told,
    unwrapped,
)
from mirror_analysis.torchvision_shim import ensure_torchvision

SUMMARY = "networks of timm: folders of the hub, bare weights, EfficientNet-Lite"
OPTIONS: Mapping[str, str] = {
    "architecture": "timm's name of the network, for a file of bare weights (none)",
    "frames": "frames read of an episode, evenly spaced (all)",
}
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")


@final
@dataclass(frozen=True, eq=False)
class _Found:
    """A network of timm as its files describe it.

    Attributes:
        architecture: timm's name, without a tag.
        settings: the fields of timm's `pretrained_cfg` that matter.
        arguments: further arguments of its constructor.
        state: its weights, under timm's names or older ones.
        prepare: how pictures are prepared.
        licence: where stated.
    """

    architecture: str
    settings: Mapping[str, Any]
    arguments: Mapping[str, Any]
    state: StateDict
    prepare: Transforms
    licence: str

    def build(self) -> Any:
        """The network with the weights its constructor draws."""
        import timm

        with quiet_timm():
            return timm.create_model(
                self.architecture,
                pretrained=False,
                pretrained_cfg=dict(self.settings),
                **self.arguments,
            ).eval()


def require_timm(needed_for: str) -> None:
    """Makes sure that timm can be imported.

    Raises:
        MissingDependencyError: if it is not installed.
    """
    if find_spec("timm") is None:
        raise MissingDependencyError("timm", needed_for, "install mirror-analysis[vision]")
    ensure_torchvision()


def recognise(checkpoint: Checkpoint) -> str | None:
    """What it is, if it is a folder of timm's, or EfficientNet-Lite's weights."""
    if checkpoint.kind != "folder":
        return "EfficientNet-Lite, its weights alone" if is_lite(checkpoint.path) else None
    try:
        config = checkpoint.config
    except FormatError:
        return None
    architecture = config.get("architecture")
    telling = {"pretrained_cfg", "num_features", "pool_size", "first_conv"} & set(config)
    if not isinstance(architecture, str) or not telling:
        return None
    if config.get("model_type") not in (None, "timm_wrapper"):
        return None
    return f"{architecture} of timm"


def load(checkpoint: Checkpoint, *, name: str, options: Options) -> Watching:
    """Reads a network of timm.

    Nothing is fetched. The weights are compared with the network, name by name and shape by shape,
    before there is memory for it.

    Args:
        checkpoint: a folder with `config.json` and `model.safetensors` or `pytorch_model.bin`; or
            a file of weights alone.
        name: what to call it.
        options: those of OPTIONS.

    Raises:
        FormatError: if the weights are damaged or another network's, or the network is not one
            of timm's for pictures.
        MissingFileError: if a file is not there.
        MissingDependencyError: if timm is not installed.
        DefinitionError: if nothing says which network bare weights belong to, or timm has none of
            that name.
        UnknownNameError: if timm has that network, but no weights of that tag.

    Example:
        >>> load(Checkpoint(path), name="lite0", options=Options()).layers()[0].name
        'conv_stem'
    """
    require_timm(f"reading {checkpoint.path}")
    found = _folder(checkpoint) if checkpoint.kind == "folder" else _file(checkpoint, options)
    found = _fitted(found)
    module = found.build()
    put_into(module, found.state, f"{found.architecture} of timm")
    side = found.prepare.pixels or (224, 224)

    def call(network: nn.Module, x: Tensor) -> object:
        return network(x)

    structure = picture_layers(
        module, call, side, options, prefix=leading(module), where=str(checkpoint.path)
    )

    bare = replace(found, state=replace(found.state, tensors={}))  # a twin needs no weights

    def rebuild() -> tuple[nn.Module, Structure]:
        twin = bare.build()
        return twin, structure.moved(module, twin)

    facts = {
        "family": "timm",
        "architecture": found.architecture,
        "weights": found.state.told,
        "licence": found.licence,
    }
    return Watching(
        module,
        name=name,
        prepare=found.prepare,
        call=call,
        structure=structure,
        rebuild=rebuild,
        clip=options.count("frames", 1) if "frames" in options.values else 0,
        facts={key: value for key, value in facts.items() if value},
    )


def picture_layers(
    module: nn.Module,
    call: Callable[[nn.Module, Tensor], object],
    side: tuple[int, int],
    options: Options,
    *,
    prefix: int,
    where: str,
) -> Structure:
    """The layers of a network of single pictures.

    Args:
        module: the network.
        call: runs it on pictures.
        side: (height, width) of its pictures.
        options: the rule for repeated calls.
        prefix: leading tokens that stand for no place.
        where: its file, for the words of errors.

    Raises:
        FormatError: if it does not run on such pictures.
    """

    def run(episodes: int, time: int) -> object:
        g = torch.Generator().manual_seed(0)
        return call(module, torch.rand((episodes * time, 3, *side), generator=g))

    try:
        return discover(module, run, calls=options.calls, prefix=prefix, episodes=1)
    except MirrorError:
        raise
    except Exception as error:  # a network raises whatever the numbers of its config lead to
        raise FormatError(
            f"{where} does not run on pictures of {side[0]} x {side[1]} pixels ({told(error)});"
            " copy its files anew, all of one version"
        ) from None


def leading(module: nn.Module) -> int:
    """Leading tokens of a network of timm that stand for no place: class token and registers."""
    count = getattr(module, "num_prefix_tokens", 0)
    return count if isinstance(count, int) else 0


def known_network(name: str) -> bool:
    """Whether timm has a network of that name; a name that leads elsewhere is none."""
    import timm

    return ":" not in name and timm.is_model(name)


@contextmanager
def quiet_timm() -> Iterator[None]:
    """Keeps what timm says of a network without fetched weights off the terminal."""
    import logging

    logger = logging.getLogger("timm")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _folder(checkpoint: Checkpoint) -> _Found:
    where = f"config.json of {checkpoint.path}"
    architecture, settings, arguments = described(checkpoint.json("config.json"), where=where)
    if not known_network(architecture):
        raise FormatError(
            f"{where} names the architecture '{architecture}', which this version of timm does not"
            " have; install the version it was saved with"
        )
    file = next((name for name in _WEIGHTS if checkpoint.has(name)), None)
    if file is None:
        raise MissingFileError(
            f"{checkpoint.path} has no weights; needed {' or '.join(_WEIGHTS)}, so fetch the whole"
            " checkpoint"
        )
    state = read_state_dict(checkpoint.file(file))
    prepare = prepared(settings, where=where)
    said = str(settings.get("license") or "") or licence(checkpoint)
    return _Found(architecture, settings, arguments, state, prepare, said)


def _file(checkpoint: Checkpoint, options: Options) -> _Found:
    import timm

    first = ("state_dict_ema", "model_ema")
    state = read_state_dict(checkpoint.path, first=first)
    prepare = None
    given = options.text("architecture")
    if not given and is_lite(checkpoint.path):
        given, state, prepare = as_timm(unwrapped(state, ["_conv_stem.weight"]))
    if not given:
        raise DefinitionError(
            f"{checkpoint.path} holds weights alone; say which network of timm they are for with"
            " the option architecture, such as architecture=resnet50"
        )
    architecture, _, tag = given.partition(".")
    if not known_network(architecture):
        near = ", ".join(get_close_matches(architecture, timm.list_models(), n=3)) or "none like it"
        raise DefinitionError(
            f"timm has no network '{architecture}' ({near}); timm.list_models() lists them all"
        )
    tags = timm.list_pretrained(f"{architecture}.*")
    if tag and given not in tags:
        raise UnknownNameError("network of timm", given, tags)
    published = timm.get_pretrained_cfg(given)
    settings: Mapping[str, Any] = {"architecture": architecture}
    if published is not None:
        settings = described(vars(published), where=f"timm's {given}")[1]
    prepare = prepare or prepared(settings, where=f"timm's {given}")
    return _Found(architecture, settings, {}, state, prepare, "")


def _fitted(found: _Found) -> _Found:
    """With the weights under the network's names, and the classes that the weights have."""
    what = f"{found.architecture} of timm"
    network = on_paper(found.build, what)
    expected = network.state_dict()
    state = unwrapped(found.state, expected)
    if set(state.tensors) != set(expected):
        state = _renamed(network, state, what)
    heads = _classifiers(network)
    fits = {n: t for n, t in state.tensors.items() if n in expected}
    wrong = {n for n in expected if n not in fits or fits[n].shape != expected[n].shape}
    if wrong and all(any(name.startswith(f"{head}.") for head in heads) for name in wrong):
        rows = {fits[n].shape[0] for n in wrong if n in fits and fits[n].ndim}
        if len(rows) <= 1:
            classes = rows.pop() if rows else 0
            said = f"with {classes} classes" if classes else "without a classifier"
            found = replace(found, arguments=arguments_of({**found.arguments,
                                                           "num_classes": classes}))  # fmt: skip
            state = replace(state, told=f"{state.told}, {said}")
            expected = on_paper(found.build, what).state_dict()
    check_fit(state, expected, what)
    return replace(found, state=state)


def _classifiers(network: Any) -> tuple[str, ...]:
    """Paths of what gives the logits."""
    found = network.get_classifier() if hasattr(network, "get_classifier") else ()
    heads = found if isinstance(found, list | tuple) else (found,)
    return tuple(path for path, module in network.named_modules()
                 if any(module is head for head in heads))  # fmt: skip


def _renamed(network: Any, state: StateDict, what: str) -> StateDict:
    """Weights of older versions, renamed by timm's own rule for the architecture."""
    rule = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    if rule is None:
        return state
    try:
        tensors = rule(dict(state.tensors), network)
    except Exception as error:  # rules meet names and shapes they were not written for
        raise FormatError(
            f"{state.source} does not fit {what} ({told(error)}); give the weights of that network"
        ) from None
    if set(tensors) == set(state.tensors):
        return state
    return replace(state, tensors=dict(tensors), told=f"{state.told}, renamed as timm does")

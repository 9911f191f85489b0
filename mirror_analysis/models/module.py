"""Networks of your own: a function that gives one, and weights to put into it."""

from __future__ import annotations

import hashlib
import importlib
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn

from mirror_analysis.errors import (
    DefinitionError,
    FormatError,
    HookError,
    MirrorError,
    UnknownNameError,
)
from mirror_analysis.models.acting import VectorPolicy
from mirror_analysis.models.checkpoint import Checkpoint, Options
from mirror_analysis.models.model import Input, Model
from mirror_analysis.models.preparation import IMAGENET_MEAN, IMAGENET_STD, Preparation
from mirror_analysis.models.recording.hooks import unwrap
from mirror_analysis.models.structure.discovery import Structure, discover, first_output
from mirror_analysis.models.watching import Layout, Watching
from mirror_analysis.models.weights.redrawing import redrawn
from mirror_analysis.models.weights.state_dicts import put_into, read_state_dict, unwrapped

SUMMARY = "a network of your own: package.module:factory, and a file of weights for it"
OPTIONS: Mapping[str, str] = {
    "weights": "a file of weights, safetensors or torch, put into the network (what it comes with)",
    "role": "observation or execution (observation)",
    "size": "pixels a side of the pictures it watches, or HEIGHT,WIDTH (224)",
    "resize": "crop: the shorter side, then cut from the centre; stretch: both sides (crop)",
    "mean": "three numbers that are subtracted from colours of 0 to 1 (ImageNet's)",
    "std": "three numbers they are divided by after that (ImageNet's)",
    "layout": "what it takes: picture, 'time channel' or 'channel time' for clips (picture)",
    "clip": "frames of a clip, evenly spaced (every frame; 8 for layouts of clips)",
    "prefix": "leading tokens that stand for no place (0)",
    "width": "numbers in the vector that an execution network reads (must be given)",
    "input": "stream of that vector, states or array:NAME (states)",
}
_LAYOUTS: Mapping[str, Layout] = {
    "picture": "picture",
    "time channel": "time channel",
    "channel time": "channel time",
}


def recognise(checkpoint: Checkpoint) -> str | None:
    """None: no file says which function made it."""
    return None


def load(checkpoint: Checkpoint, *, name: str, options: Options) -> Model:
    """Refuses: a file of weights does not say which network they are for.

    Raises:
        DefinitionError: always, with the way to load it.
    """
    raise DefinitionError(
        f"{checkpoint.path} does not say which network it is for; give package.module:factory in"
        " its place, and the file as the option weights"
    )


def from_factory(source: str, *, options: Options) -> Model:
    """A model out of a function of yours.

    The function's module is imported and the function called, without arguments: naming it is the
    trust. A module in the folder you are in is found, too. It gives a `torch.nn.Module` on the
    CPU, wrapped by `torch.compile` or in `DataParallel` or not; or a finished `Model`, which is
    returned as it is. A file of weights is read as data, never run.

    For an untrained twin the function is called again with another seed; weights that it gives
    the same both times, such as those of a trained trunk, are drawn anew from a normal
    distribution of their mean and variance.

    Args:
        source: "package.module:factory".
        options: those of OPTIONS.

    Raises:
        DefinitionError: if there is no such function, it fails, or gives something else; or the
            options do not fit.
        UnknownNameError: if there is no such option, or a value of one.
        MissingFileError: if there is no such file of weights.
        FormatError: if the weights are another network's, or the network does not run.
        HookError: if no layer of it gives anything that has episodes.

    Example:
        >>> from_factory("torchvision.models:resnet18", options=Options()).layers()[0].name
        'conv1'
    """
    for option in options.values:
        if option not in OPTIONS:
            raise UnknownNameError("option of module", option, OPTIONS)
    factory = _factory(source)
    made = _called(source, factory)
    if isinstance(made, Model):
        if options.values:
            raise DefinitionError(
                f"{source} gives a finished model, but option {next(iter(options.values))} is"
                " given; leave the options out, or give a torch.nn.Module"
            )
        return made
    module = unwrap(made).eval()
    given = {key: _digest(tensor) for key, tensor in module.named_parameters()}
    facts = {"family": "module", "architecture": f"{type(module).__name__} of {source}"}
    if path := options.text("weights"):
        state = unwrapped(read_state_dict(Path(path)), module.state_dict())
        put_into(module, state, f"the network of {source}")
        facts["weights"] = state.told

    def fresh() -> nn.Module:
        # Drawn first: the function may set a seed of its own.
        seed = int(torch.randint(2**31, ()))
        return _redrawn_where_given(unwrap(_called(source, factory)).eval(), given, seed)

    name = source.replace(":", ".")
    if options.choice("role", "observation", ["observation", "execution"]) == "execution":
        return _acting(module, fresh, name, source, options, facts)
    return _watching(module, fresh, name, source, options, facts)


def _factory(source: str) -> Callable[[], object]:
    place, _, attribute = source.partition(":")
    try:
        with _here():
            found = getattr(importlib.import_module(place), attribute, None)
    except ModuleNotFoundError as error:
        raise DefinitionError(
            f"{source} cannot be imported ({error}); give package.module:factory with a module"
            " that Python finds, or run where it lies"
        ) from None
    except Exception as error:  # a module of the user's may raise anything
        raise DefinitionError(f"importing {place} failed: {_said(error)}; mend it") from error
    if not callable(found):
        known = [n for n, v in vars(sys.modules[place]).items() if callable(v) and n[0] != "_"]
        raise UnknownNameError(f"function of {place}", attribute, known)
    factory: Callable[[], object] = found
    return factory


@contextmanager
def _here() -> Iterator[None]:
    """Lets modules of the current folder be found, as `python` itself does."""
    place = str(Path.cwd())
    sys.path.insert(0, place)
    try:
        yield
    finally:
        if place in sys.path:
            sys.path.remove(place)


def _called(source: str, factory: Callable[[], object]) -> Any:
    try:
        made = factory()
    except MirrorError:
        raise
    except Exception as error:  # a function of the user's may raise anything
        raise DefinitionError(
            f"{source}() failed: {_said(error)}; it has to work without arguments"
        ) from error
    if not isinstance(made, nn.Module | Model):
        raise DefinitionError(
            f"{source}() gave {type(made).__name__}; needed a torch.nn.Module or a Model"
        )
    return made


def _said(error: Exception) -> str:
    first = (str(error).strip().splitlines() or [""])[0][:200].rstrip(".")
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def _redrawn_where_given(module: nn.Module, given: Mapping[str, str], seed: int) -> nn.Module:
    """Weights that came out the same twice were not drawn but read from somewhere."""
    same = {name: p for name, p in module.named_parameters() if given.get(name) == _digest(p)}
    with torch.no_grad():
        for name, tensor in redrawn(same, seed).items():
            same[name].copy_(tensor)
    return module


def _digest(tensor: Tensor) -> str:
    flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return hashlib.sha256(str(tuple(tensor.shape)).encode() + flat.numpy().tobytes()).hexdigest()


def _watching(
    module: nn.Module,
    fresh: Callable[[], nn.Module],
    name: str,
    source: str,
    options: Options,
    facts: Mapping[str, str],
) -> Watching:
    prepare = _preparation(options)
    layout = _LAYOUTS[options.choice("layout", "picture", _LAYOUTS)]
    clip = options.count("clip", 8) if layout != "picture" or "clip" in options.values else 0
    height, width = prepare.pixels or (224, 224)

    def call(network: nn.Module, x: Tensor) -> object:
        return network(x)

    def run(episodes: int, time: int) -> object:
        shape: tuple[int, ...] = (episodes * time, 3, height, width)
        if layout == "time channel":
            shape = (episodes, clip, 3, height, width)
        elif layout == "channel time":
            shape = (episodes, 3, clip, height, width)
        return call(module, torch.rand(shape, generator=torch.Generator().manual_seed(0)))

    inner = clip if layout != "picture" else 0
    structure = _discovered(module, run, options, source, clip=inner)

    def rebuild() -> tuple[nn.Module, Structure]:
        twin = fresh()
        return twin, structure.moved(module, twin)

    return Watching(
        module,
        name=name,
        prepare=prepare,
        call=call,
        structure=structure,
        rebuild=rebuild,
        layout=layout,
        clip=clip,
        facts=facts,
    )


def _preparation(options: Options) -> Preparation:
    sides = [int(side) if side.is_integer() else 0 for side in options.numbers("size", (224.0,))]
    if len(sides) not in (1, 2) or not all(1 <= side <= 4096 for side in sides):
        raise DefinitionError(
            f"option size is '{options.text('size')}'; needed pixels from 1 to 4096, one number or"
            " HEIGHT,WIDTH"
        )
    size = (sides[0], sides[-1])
    mean, std = options.numbers("mean", IMAGENET_MEAN), options.numbers("std", IMAGENET_STD)
    for key, value in (("mean", mean), ("std", std)):
        if len(value) != 3 or (key == "std" and 0.0 in value):
            raise DefinitionError(
                f"option {key} is '{options.text(key)}'; needed three numbers with commas between"
                + (", none of them 0" if key == "std" else "")
            )
    how = options.choice("resize", "crop", ["crop", "stretch"])
    if how == "stretch":
        return Preparation(size=size, mean=mean, std=std)
    return Preparation(shortest=max(size), crop=size, mean=mean, std=std)


def _discovered(
    module: nn.Module,
    run: Callable[[int, int], object],
    options: Options,
    source: str,
    *,
    clip: int = 0,
) -> Structure:
    prefix = 0 if options.text("prefix", "0") == "0" else options.count("prefix", 1)
    try:
        return discover(module, run, calls=options.calls, prefix=prefix, episodes=1, clip=clip)
    except HookError:
        raise
    except Exception as error:  # a network of the user's may raise anything
        raise FormatError(
            f"the network of {source} does not run on what it is given: {_said(error)}; see the"
            " options size, layout and clip, or width and input for one that acts"
        ) from error


@final
class _Acting(nn.Module):
    """A network that acts, its action as a layer."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.action = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """[row, state] -> [row, action]."""
        output = first_output(self.network(x))
        if output is None or output.ndim != 2 or len(output) != len(x):
            shape = "no tensor" if output is None else f"the shape {tuple(output.shape)}"
            raise FormatError(
                f"a network that acts gave {shape} for {len(x)} vectors; needed [row, action]"
            )
        action: Tensor = self.action(output)
        return action


def _acting(
    module: nn.Module,
    fresh: Callable[[], nn.Module],
    name: str,
    source: str,
    options: Options,
    facts: Mapping[str, str],
) -> VectorPolicy:
    if "width" not in options.values:
        raise DefinitionError(
            f"{source} gives a network that acts, but not how many numbers it reads; give the"
            " option width"
        )
    width = options.count("width", 1)
    need = Input(options.text("input", "states"), width)
    if need.name.partition(":")[0] not in ("states", "array"):
        raise DefinitionError(
            f"option input is '{need.name}'; needed states or array:NAME, a vector per frame"
        )
    acting = _Acting(module)

    def run(episodes: int, time: int) -> object:
        g = torch.Generator().manual_seed(0)
        return acting(torch.rand((episodes * time, width), generator=g))

    structure = _discovered(module, run, options, source)
    wanted = [info for info in structure.layers if info.axes == "episode*time channel"]
    widths = {info.name: info.width for info in wanted}
    taps: dict[str, nn.Module] = {info.name: structure.taps[info.name] for info in wanted}
    if not (wanted and _gives_the_action(taps[wanted[-1].name], acting, width)):
        with torch.no_grad():
            widths["action"] = acting(torch.zeros(1, width)).shape[1]
        taps["action"] = acting.action

    def rebuild() -> tuple[nn.Module, Mapping[str, nn.Module]]:
        twin = _Acting(fresh()).eval()
        moved = Structure((), taps).moved(acting, twin)
        return twin, moved.taps

    return VectorPolicy(
        acting.eval(),
        name=name,
        need=need,
        taps=taps,
        widths=widths,
        rebuild=rebuild,
        facts=facts,
    )


def _gives_the_action(last: nn.Module, acting: nn.Module, width: int) -> bool:
    """Whether the last layer found is the action already, with nothing after it."""
    seen: list[object] = []
    handle = last.register_forward_hook(lambda module, given, output: seen.append(output))
    try:
        with torch.no_grad():
            action = acting(torch.rand(3, width, generator=torch.Generator().manual_seed(1)))
    finally:
        handle.remove()
    output = first_output(seen[-1]) if seen else None
    return output is not None and output.shape == action.shape and torch.equal(output, action)

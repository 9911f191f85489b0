"""Weights as a dictionary of tensors, out of the many ways to save them, and into a network."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn

from mirror_analysis.errors import FormatError, MirrorError
from mirror_analysis.files.archives import Archive
from mirror_analysis.files.kinds import kind_of
from mirror_analysis.files.safetensors import read_header, read_safetensors
from mirror_analysis.files.torch_files import read_torch

# Where training programs put the weights among what else they save.
_PLACES = ("state_dict", "model_state_dict", "model_state", "model", "module", "net", "network",
           "params", "weights")  # fmt: skip
# What wrapping a network puts before the names of its weights.
_PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.", "timm_model.", "state_dict.")
_KINDS = ("safetensors", "torch", "torch-legacy")
_NAMED = 4  # names an error lists
_PICKLE = 2**26  # bytes of names looked at


@final
@dataclass(frozen=True, eq=False)
class StateDict:
    """Weights as a file holds them.

    Attributes:
        tensors: name -> tensor, floating-point ones as float32.
        source: the file, for the words of errors.
        told: how they were stored and what was unwrapped, for people.
    """

    tensors: dict[str, Tensor]
    source: str
    told: str


def read_state_dict(path: Path, *, first: Sequence[str] = ()) -> StateDict:
    """The weights in a file, whatever else was saved beside them.

    Args:
        path: a safetensors file, or one of `torch.save`, whatever its name.
        first: keys under which the weights are looked for before the usual ones.

    Raises:
        MissingFileError: if there is no such file.
        FormatError: if it is neither, damaged, or holds no dictionary of tensors.

    Example:
        >>> read_state_dict(Path("last.ckpt")).told
        'last.ckpt, stored in float16, run in float32, taken from its state_dict'
    """
    kind = kind_of(path)
    if kind not in _KINDS:
        raise FormatError(
            f"{path} is no file of weights (its bytes: {kind}); needed safetensors, or a state"
            " dict of torch.save"
        )
    if kind == "safetensors":
        tensors, _ = read_safetensors(path)
        return _floats(tensors, path, "")
    value = read_torch(path)
    taken: list[str] = []
    while isinstance(value, Mapping) and not _is_weights(value):
        place = next((p for p in (*first, *_PLACES) if isinstance(value.get(p), Mapping)), None)
        if place is None:
            break
        taken.append(place)
        value = value[place]
    if not isinstance(value, Mapping) or not _is_weights(value):
        keys = ", ".join(str(key)[:40] for key in list(value)[:_NAMED]) if isinstance(
            value, Mapping
        ) else type(value).__name__  # fmt: skip
        raise FormatError(
            f"{path} holds no dictionary of tensors (it holds {keys or 'nothing'}); save the"
            " state dict alone"
        )
    told = f", taken from its {'.'.join(taken)}" if taken else ""
    return _floats({str(key): tensor for key, tensor in value.items()}, path, told)


def unwrapped(state: StateDict, wanted: Collection[str]) -> StateDict:
    """The same weights under the names a network has, where wrapping put words before them.

    Args:
        state: the weights.
        wanted: names of the network.

    Returns:
        Without the words that all names begin with, as far as more names fit than with them.
    """
    best, tensors, taken = state, dict(state.tensors), ""
    names = set(wanted)
    while prefix := next((p for p in _PREFIXES if _all_begin(tensors, p)), None):
        tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
        taken += prefix
        if len(names & set(tensors)) > len(names & set(best.tensors)):
            told = f"{state.told}, without '{taken}' before its names"
            best = replace(state, tensors=tensors, told=told)
    return best


def check_fit(state: StateDict, expected: Mapping[str, Tensor], what: str) -> None:
    """Makes sure that weights are those of a network: every name, no other, every shape.

    Args:
        state: the weights.
        expected: name -> tensor of the network, which may be on the device "meta".
        what: the network, for the words of the error.

    Raises:
        FormatError: if they are not.
    """
    faults = []
    if missing := [name for name in expected if name not in state.tensors]:
        faults.append(f"lacks {_listed(missing)}")
    if extra := [name for name in state.tensors if name not in expected]:
        faults.append(f"has {_listed(extra)} besides")
    shapes = {name: (tuple(state.tensors[name].shape), tuple(tensor.shape))
              for name, tensor in expected.items() if name in state.tensors}  # fmt: skip
    wrong = [f"{name} {given} for {needed}" for name, (given, needed) in shapes.items()
             if given != needed]  # fmt: skip
    if wrong:
        faults.append(f"has other shapes: {_listed(wrong)}")
    if faults:
        raise FormatError(
            f"{state.source} does not fit {what}: it {'; it '.join(faults)}; give the weights of"
            " that network, or say which one it is"
        )


def put_into(module: nn.Module, state: StateDict, what: str) -> None:
    """Puts weights into a network, all of them or none.

    Raises:
        FormatError: if they are not the network's.
    """
    check_fit(state, module.state_dict(), what)
    module.load_state_dict(state.tensors)


def on_paper(build: Callable[[], Any], what: str) -> Any:
    """A network without memory for its weights, to compare weights with.

    Args:
        build: makes it.
        what: it, for the words of the error.

    Raises:
        FormatError: if it cannot be made.
    """
    try:
        with torch.device("meta"):
            return build()
    except MirrorError:
        raise
    except Exception as error:  # constructors raise classes of every kind
        raise FormatError(
            f"no {what} can be made ({told(error)}); copy its files anew, or use the version of"
            " the package they were saved with"
        ) from None


def told(error: Exception) -> str:
    """The first line of an error of a package, for the words of ours."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200].rstrip(".")


def mentions(path: Path, names: Iterable[str]) -> bool:
    """Whether a file of weights holds tensors whose names have all of these in them.

    Only the list of names is looked at; never raises on files of another kind.

    Args:
        path: a file.
        names: parts of names, such as "_conv_stem.weight".
    """
    try:
        kind = kind_of(path)
        if kind == "safetensors":
            held = list(read_header(path)[0])
            return all(any(name in each for each in held) for name in names)
        if kind == "torch":
            with Archive(path) as archive:
                pickles = [name for name in archive.names if name.endswith("data.pkl")]
                text = archive.read(pickles[0], most=_PICKLE) if pickles else b""
        elif kind == "torch-legacy":
            with path.open("rb") as file:
                text = file.read(_PICKLE)
        else:
            return False
    except MirrorError:
        return False
    return all(name.encode() in text for name in names)


def _is_weights(value: Mapping[object, object]) -> bool:
    return bool(value) and all(isinstance(tensor, Tensor) for tensor in value.values())


def _floats(tensors: dict[str, Tensor], path: Path, told: str) -> StateDict:
    kinds = {str(t.dtype).removeprefix("torch.") for t in tensors.values() if t.is_floating_point()}
    stored = " and ".join(sorted(kinds)) or "no floating-point numbers"
    run = "" if kinds == {"float32"} else ", run in float32"
    wide = {name: t.to(torch.float32) if t.is_floating_point() else t
            for name, t in tensors.items()}  # fmt: skip
    return StateDict(wide, str(path), f"{path.name}, stored in {stored}{run}{told}")


def _all_begin(tensors: Mapping[str, Tensor], prefix: str) -> bool:
    return bool(tensors) and all(name.startswith(prefix) for name in tensors)


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")

"""Weights put into a network, once it is known that they belong to it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from mirror_analysis.errors import FormatError
from mirror_analysis.files.places import shown

N = TypeVar("N", bound=nn.Module)
_NOTHING = re.compile(r"(?!)")


def fitted(
    build: Callable[[], N],
    tensors: Mapping[str, Tensor],
    *,
    path: Path,
    unused: re.Pattern[str] = _NOTHING,
) -> N:
    """A network with the weights of a file, in evaluation mode and float32.

    Names and shapes are compared before anything is as large as a configuration may claim.

    Args:
        build: a network of the right architecture, with weights drawn anew.
        tensors: name -> weights.
        path: where they are from, for the words of an error.
        unused: names of tensors that do not count.

    Raises:
        FormatError: if weights are missing, too many, or of another shape.
    """
    require_shapes(build, {n: tuple(t.shape) for n, t in tensors.items()}, path=path, unused=unused)
    with torch.device("meta"):
        network = build()
    network.load_state_dict(
        {
            name: tensors[name].float() if tensors[name].is_floating_point() else tensors[name]
            for name in network.state_dict()
        },
        assign=True,
    )
    return network.eval().requires_grad_(False)


def require_shapes(
    build: Callable[[], nn.Module],
    there: Mapping[str, tuple[int, ...]],
    *,
    path: Path,
    unused: re.Pattern[str] = _NOTHING,
) -> None:
    """Compares the tensors of a file with those of a network; see `fitted`.

    Raises:
        FormatError: if they differ.
    """
    with torch.device("meta"):
        needed = {name: tuple(t.shape) for name, t in build().state_dict().items()}
    compare_shapes(needed, there, path=path, unused=unused)


def compare_shapes(
    needed: Mapping[str, tuple[int, ...]],
    there: Mapping[str, tuple[int, ...]],
    *,
    path: Path,
    unused: re.Pattern[str] = _NOTHING,
) -> None:
    """Compares names and shapes of the tensors a network needs with those a file has.

    Args:
        needed: name -> shape.
        there: name -> shape.
        path: the file, for the words of an error.
        unused: names that may be there and are not needed.

    Raises:
        FormatError: if they differ.
    """
    missing = sorted(needed.keys() - there.keys())
    strange = sorted(n for n in there.keys() - needed.keys() if not unused.fullmatch(n))
    other = sorted(n for n in needed.keys() & there.keys() if needed[n] != there[n])
    if missing:
        fault = f"lacks {_some(missing)}"
    elif strange:
        fault = f"has {_some(strange)} besides what its configuration describes"
    elif other:
        name = other[0]
        fault = f"has {name} of shape {there[name]} where its configuration says {needed[name]}"
    else:
        return
    raise FormatError(
        f"{path} {fault}; needed the weights that belong to its configuration, so fetch it anew"
    )


def _some(names: list[str]) -> str:
    first = ", ".join(shown(name) for name in names[:3])
    return first if len(names) <= 3 else f"{first} and {len(names) - 3} more tensors"

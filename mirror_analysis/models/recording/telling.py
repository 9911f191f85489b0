"""Layers of networks that run over many frames in parts, told of all frames at the end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import torch
from torch import Tensor, nn


@final
class Telling:
    """Collects what layers gave for parts of the rows, and passes it through modules to be hooked.

    Hooks on the layers themselves would see some of the rows, and too many calls. A layer that
    runs several times in a part, as in generating, has its module called as often, with all rows.

    Args:
        modules: layer name -> module that is called with what the layer gave.

    Example:
        >>> telling = Telling({"block0": nn.Identity()})
        >>> for part in torch.zeros(4, 2).split(3):
        ...     telling.begin()
        ...     telling("block0", part)
        >>> telling.end()
    """

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        self.modules = modules
        self._told: dict[str, list[list[Tensor]]] = {name: [] for name in modules}
        self._calls: dict[str, int] = {}

    def begin(self) -> None:
        """Another part of the rows begins."""
        self._calls = dict.fromkeys(self.modules, 0)

    def __call__(self, name: str, x: Tensor) -> None:
        """A layer gave this, [row, ...], for the rows of this part."""
        calls, count = self._told[name], self._calls[name]
        if len(calls) <= count:
            calls.append([])
        calls[count].append(x)
        self._calls[name] = count + 1

    def end(self) -> None:
        """Every row was there."""
        for name, calls in self._told.items():
            for parts in calls:
                self.modules[name](torch.cat(parts))

"""Runtimes that run a stored network, and the modules its layers pass through."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mirror_analysis.errors import DeviceError, HookError
from mirror_analysis.models.graphs.inputs import Port
from mirror_analysis.models.graphs.layers import Site

Memory = Mapping[str, Tensor]
"""What a graph remembers from one moment to the next, for one environment."""
Values = list[list[Tensor]]
"""Site -> what it gave in each of its calls, [row, ...]."""

_ROWS = 32  # of one run of an engine that takes any number


class Engine(ABC):
    """A network in a runtime of its own.

    Attributes:
        sites: the values it gives back.
        batch: rows of one run; 0 for any number.
        remembers: whether a run depends on the ones before.
        digest: sha256 of what decides its values: weights and program.
    """

    sites: Sequence[Site]
    batch: int = 0
    remembers: bool = False
    digest: str

    @abstractmethod
    def run(self, feeds: Mapping[str, Tensor], memory: Memory) -> tuple[Values, Tensor, Memory]:
        """Runs once.

        Args:
            feeds: input -> [row, ...] of real values.
            memory: of the run before; of one environment, so with one row. Empty at the start.

        Returns:
            The values of the sites, what the network gives, and the memory for the next run.
        """

    @abstractmethod
    def with_sites(self, sites: Sequence[Site]) -> Engine:
        """The same network, giving back other values; this one is not to be used any more."""

    @abstractmethod
    def untrained(self, seed: int) -> Engine:
        """The same network with weights drawn anew.

        Raises:
            FormatError: if its weights cannot be told from its program.
        """

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        return torch.device("cpu")

    def to(self, device: torch.device) -> None:
        """Moves it.

        Raises:
            DeviceError: if it cannot run there.
        """
        if device.type != "cpu":
            raise DeviceError(
                f"device '{device}' was asked for but {type(self).__name__} runs on the CPU alone;"
                " ask for 'cpu'"
            )

    def require_precision(self) -> None:
        """Makes sure that no other precision is asked for than the file has.

        Raises:
            DeviceError: if one is.
        """
        if torch.is_autocast_enabled(self.device.type):
            raise DeviceError(
                f"{type(self).__name__} runs in the precision of its file; ask for float32"
            )


class Relay(nn.Module):
    """Runs an engine and passes every layer through a module that can be hooked.

    Args:
        engine: what runs.
        by_frame: whether rows are frames.
    """

    def __init__(self, engine: Engine) -> None:
        super().__init__()
        self.engine = engine
        self.layers = nn.ModuleList(nn.Identity() for _ in engine.sites)

    def forward(
        self, feeds: Mapping[str, Tensor], episodes: int, memories: list[Memory] | None = None
    ) -> Tensor:
        """What the network gives for all rows, [row, ...].

        Args:
            feeds: input -> [row, ...]; the rows of an episode stand together, in time order.
            episodes: that the rows are of, equally many each.
            memories: of every episode, brought up to date here; fresh ones when None.
        """
        self.engine.require_precision()
        total = len(next(iter(feeds.values())))
        if self.engine.remembers:
            values, output = self._stepwise(feeds, total // episodes, memories or [{}] * episodes)
        else:
            values, output = self._in_batches(feeds, total)
        for module, calls in zip(self.layers, values, strict=True):
            for value in calls:
                module(value)
            calls.clear()
        return output

    def _in_batches(self, feeds: Mapping[str, Tensor], total: int) -> tuple[Values, Tensor]:
        size = self.engine.batch or _ROWS
        together = _Together(total)
        for start in range(0, total, size):
            part = {name: x[start : start + size] for name, x in feeds.items()}
            rows = len(next(iter(part.values())))
            if self.engine.batch and rows < size:
                part = {name: _filled(x, size) for name, x in part.items()}
            values, output, _ = self.engine.run(part, {})
            together.add(values, output, start, rows)
        return together.values, together.output

    def _stepwise(
        self, feeds: Mapping[str, Tensor], time: int, memories: list[Memory]
    ) -> tuple[Values, Tensor]:
        together = _Together(len(memories) * time)
        for i in range(len(memories)):
            for row in range(i * time, (i + 1) * time):
                now = {name: x[row : row + 1] for name, x in feeds.items()}
                values, output, memories[i] = self.engine.run(now, memories[i])
                together.add(values, output, row, 1)
        return together.values, together.output


class _Together:
    """The values of several runs in one tensor each, filled as they come."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.values: Values = []
        self.output: Tensor

    def add(self, values: Values, output: Tensor, start: int, rows: int) -> None:
        if start == 0:
            self.values = [[self._room(value) for value in calls] for calls in values]
            self.output = self._room(output)
        for site, (calls, given) in enumerate(zip(self.values, values, strict=True)):
            if len(calls) != len(given):
                raise HookError(
                    f"value {site} ran {len(calls)} times for the first frames and {len(given)}"
                    " times for later ones; needed equally many"
                )
            for whole, part in zip(calls, given, strict=True):
                whole[start : start + rows] = part[:rows]
        self.output[start : start + rows] = output[:rows]

    def _room(self, value: Tensor) -> Tensor:
        if value.ndim == 0:
            raise HookError("a value lost its rows; needed one for each frame")
        return value.new_empty((self.total, *value.shape[1:]))


def said(error: BaseException) -> str:
    """The first telling line of another package's error, short."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = next((s for s in reversed(lines) if "Error" in s or "rror:" in s), (lines or [""])[0])
    return (text or type(error).__name__)[:200]


def quantised(x: Tensor, port: Port) -> NDArray[Any]:
    """Real values as the type an input has."""
    values = x.cpu().numpy()
    if port.scale:
        values = np.round(values / port.scale) + port.zero
    if np.issubdtype(np.dtype(port.dtype), np.integer):
        bounds = np.iinfo(port.dtype)
        values = np.clip(np.round(values), bounds.min, bounds.max)
    return np.ascontiguousarray(values.astype(port.dtype))


def _filled(x: Tensor, size: int) -> Tensor:
    return torch.cat([x, x[-1:].expand(size - len(x), *x.shape[1:])])

"""Stored graphs that run in an engine of their own, as models with layers that can be hooked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mirror_analysis.errors import FormatError, ShapeError
from mirror_analysis.models.checkpoint import Options
from mirror_analysis.models.graphs.engines import Engine, Memory, Relay, Values, said
from mirror_analysis.models.graphs.inputs import Plan, Reading
from mirror_analysis.models.graphs.layers import Site, choose, layer, named
from mirror_analysis.models.model import (
    EpisodeLike,
    ExecutionModel,
    LayerInfo,
    Model,
    ObservationModel,
)

_NUMBERS = 2**27  # float32 values of half a gigabyte


class _Graph(Model):
    """What watching and acting graphs share.

    Attributes:
        frames_at_once: of one forward pass, so that the values of all layers, which an engine gives
            back together, stay below half a gigabyte.
    """

    module: Relay

    def __init__(
        self,
        engine: Engine,
        plan: Plan,
        layers: Sequence[LayerInfo],
        *,
        name: str,
        facts: Mapping[str, str],
        settings: Mapping[str, str],
        frames_at_once: int,
    ) -> None:
        self.name, self.plan, self.frames_at_once = name, plan, frames_at_once
        self.engine, self.module = engine, Relay(engine)
        self.readings = plan.readings
        self.needs = tuple(reading.need for reading in self.readings)
        self.framewise = not engine.remembers and all(
            reading.kind in ("picture", "vector") for reading in self.readings
        )
        self.by_frame = self.readings[0].by_frame
        self._layers = list(layers)
        self.facts = {**facts, **plan.facts}
        self.settings = {
            **settings,
            **{f"input {reading.port.name}": _setting(reading) for reading in self.readings},
        }

    @property
    def weights_sha256(self) -> str:
        """Digest of the program and its weights; what it remembers is no part of them."""
        return self.engine.digest

    @property
    def device(self) -> torch.device:
        """Where the engine runs."""
        return self.engine.device

    def to(self, device: torch.device) -> Model:
        """Moves the engine, and returns the model itself.

        Raises:
            DeviceError: if it cannot run there.
        """
        self.engine.to(device)
        return self

    def layers(self) -> list[LayerInfo]:
        """The layers in forward order."""
        return list(self._layers)

    def taps(self) -> Mapping[str, nn.Module]:
        """Layer name -> the module its values pass through."""
        names = [info.name for info in self._layers]
        return dict(zip(names, self.module.layers, strict=True))

    @torch.inference_mode()
    def forward_batch(self, episodes: Sequence[EpisodeLike]) -> Tensor:
        """What the network gives, [episode, time, ...], or [episode, ...] for clips."""
        feeds = {
            reading.port.name: torch.cat(
                [reading.rows(episode.stream(reading.need.name)) for episode in episodes]
            )
            for reading in self.readings
        }
        output = self.module(feeds, len(episodes))
        if not self.by_frame:
            return output
        return output.unflatten(0, (len(episodes), len(output) // len(episodes)))

    def untrained(self, seed: int) -> Model:
        """The same graph with weights drawn anew; what normalises its input is kept."""
        return type(self)(
            self.engine.untrained(seed),
            self.plan,
            self._layers,
            name=f"{self.name}-untrained{seed}",
            facts=self.facts,
            settings=self.settings,
            frames_at_once=self.frames_at_once,
        )


class WatchingGraph(_Graph, ObservationModel):
    """A stored graph that watches."""


class ActingGraph(_Graph, ExecutionModel):
    """A stored graph that acts.

    It remembers what it needs of every environment on its own: hidden states, and past frames
    where it takes a window of them.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.reset()

    def reset(self) -> None:
        """Forgets hidden states and past frames."""
        self._memories: list[Memory] = []
        self._past: list[Mapping[str, NDArray[Any]]] = []

    @torch.inference_mode()
    def act(self, now: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """The action of this moment, [environment, action].

        Raises:
            ShapeError: if there are more or fewer environments than since the last reset.
        """
        moment = {need.name: np.array(now[need.name]) for need in self.needs}
        count = len(next(iter(moment.values())))
        before = len(next(iter(self._past[-1].values()))) if self._past else count
        if before != count:
            raise ShapeError(
                f"{self.name} was acting in {before} environments and is asked for {count}; reset()"
                " it first"
            )
        longest = max(1, *(reading.frames for reading in self.readings))
        self._past = [*self._past, moment][-longest:]
        self._memories = self._memories or [{} for _ in range(count)]
        feeds = {
            reading.port.name: reading.now(
                [past[reading.need.name] for past in self._past[-max(reading.frames, 1) :]]
            )
            for reading in self.readings
        }
        actions = self.module(feeds, count, self._memories)
        if actions.ndim == 1:
            actions = actions[:, None]  # one number each, as of a choice among a few
        if actions.ndim > 2:
            # Several actions for one moment: those that follow it, or those of the window.
            actions = actions.flatten(2) if actions.ndim > 3 else actions
            actions = actions[:, 0 if self.settings.get("action", "first") == "first" else -1]
        return actions.to(torch.float32).cpu().numpy()


def build(
    engine: Engine,
    plan: Plan,
    *,
    name: str,
    options: Options,
    where: str,
    outputs: Mapping[str, str],
    facts: Mapping[str, str],
    settings: Mapping[str, str] | None = None,
) -> WatchingGraph | ActingGraph:
    """A model from an engine that gives back every value that may be a layer.

    The network is run on made-up input to learn the shapes of its values; those without rows,
    and those equal to the one before, are left out.

    Args:
        engine: with all its sites.
        plan: how it is used.
        name: what to call the model.
        options: those of `graph_inputs.OPTIONS`.
        where: the file, for the words of errors.
        outputs: value -> the network's own name for what it gives.
        facts: what the file says, for people.
        settings: whatever else decides the features.

    Raises:
        FormatError: if the network does not run, or gives no layer.
    """
    most = options.count("layers", 32)
    action = options.choice("action", "first", ("first", "last"))
    found = _layers(engine, plan, outputs, options.calls, most, where)
    engine = engine.with_sites([site for site, _ in found])
    rows = engine.batch or 2
    values = trial(engine, plan.readings, rows, where=where)[0]
    numbers = sum(value.numel() for calls in values for value in calls) // rows
    kind = WatchingGraph if plan.role == "observation" else ActingGraph
    rule = {"layers": f"at most {most}, one where each block ends"}
    if plan.role == "execution":
        rule["action"] = action
    return kind(
        engine,
        plan,
        [info for _, info in found],
        name=name,
        facts={**facts, "weights sha256": engine.digest},
        settings={**(settings or {}), **rule, "calls": options.calls},
        frames_at_once=max(1, _NUMBERS // max(numbers, 1)),
    )


def _layers(
    engine: Engine, plan: Plan, outputs: Mapping[str, str], calls: str, most: int, where: str
) -> list[tuple[Site, LayerInfo]]:
    rows = engine.batch or 2
    by_frame = plan.readings[0].by_frame
    values = trial(engine, plan.readings, rows, where=where)[0]
    fit: list[Site] = []
    kept: list[Tensor] = []
    shown: dict[str, LayerInfo] = {}
    for site, given in zip(engine.sites, values, strict=True):
        if not given or any(_same(x, given[-1]) for x in kept):
            continue
        value = given[-1]
        found = layer(site.value, site, value, rows=rows, by_frame=by_frame, calls="only")
        if found is not None:
            fit.append(site)
            kept.append(value)
            repeated = len(given) > 1
            shown[site.value] = layer(
                site.value, site, value, rows=rows, by_frame=by_frame,
                calls=calls if repeated else "only",
            ) or found  # fmt: skip
    if not fit:
        raise FormatError(
            f"{where} gives no floating-point value with a row for each of {rows} inputs; needed"
            " one at least"
        )
    chosen = choose(fit, most)
    names = named(chosen, outputs)
    return [
        (site, _renamed(shown[site.value], name)) for site, name in zip(chosen, names, strict=True)
    ]


def _same(x: Tensor, y: Tensor) -> bool:
    # Values that are all alike, as of a unit that is never active, say nothing.
    return (
        x.shape == y.shape
        and torch.equal(x, y)
        and x.numel() > 0
        and bool((x != x.flatten()[0]).any())
    )


def _renamed(info: LayerInfo, name: str) -> LayerInfo:
    return msgspec.structs.replace(info, name=name)


@torch.inference_mode()
def trial(
    engine: Engine, readings: Sequence[Reading], rows: int, *, where: str, seed: int = 0
) -> tuple[Values, Tensor, Memory]:
    """Runs an engine on made-up input.

    Raises:
        FormatError: if it does not run.
    """
    generator = torch.Generator().manual_seed(seed)
    feeds = {
        reading.port.name: reading.made_up(rows, generator).to(engine.device)
        for reading in readings
    }
    try:
        return engine.run(feeds, {})
    except (RuntimeError, ValueError, TypeError, IndexError, MemoryError) as error:
        raise FormatError(f"{where} does not run on {rows} rows ({said(error)})") from None


def _setting(reading: Reading) -> str:
    return f"{reading}; {reading.prepare}" if reading.prepare else str(reading)

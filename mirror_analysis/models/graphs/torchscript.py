"""TorchScript programs of both roles, with their hidden state held apart for each episode."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mirror_analysis.errors import DefinitionError, FormatError, MirrorError
from mirror_analysis.files.archives import Archive
from mirror_analysis.files.digests import content_digest
from mirror_analysis.files.torchscript import load_torchscript
from mirror_analysis.models.checkpoint import Checkpoint, Options
from mirror_analysis.models.graphs import inputs as graph_inputs
from mirror_analysis.models.graphs.engines import Engine, Memory, Values, said
from mirror_analysis.models.graphs.inputs import Port, plan
from mirror_analysis.models.graphs.layers import Site
from mirror_analysis.models.graphs.models import ActingGraph, WatchingGraph, build, trial
from mirror_analysis.models.graphs.torchscript_taps import Place, Taps
from mirror_analysis.models.model import weights_digest
from mirror_analysis.models.recording.hooks import first_tensor
from mirror_analysis.models.weights.redrawing import redrawn

SUMMARY = "TorchScript programs (torch.jit.save), hidden states inside them included"
OPTIONS: Mapping[str, str] = graph_inputs.OPTIONS | {
    "shape": "axes of the inputs, batch first, 0 where free: 0,47 or 0,3,96,96;0,14, for a"
    " dictionary image=0,3,96,96;state=0,14 (pictures where the first weights see 3 colours,"
    " else the one width that runs)",
}
_RESETS = ("reset_memory", "reset", "reset_states", "reset_hidden_states")
_CONVOLUTIONS = ("Conv", "BatchNorm", "GroupNorm", "InstanceNorm", "MaxPool", "AvgPool", "Adaptive")
_FAULTS = (RuntimeError, ValueError, TypeError, IndexError, torch.jit.Error)


def recognise(checkpoint: Checkpoint) -> str | None:
    """What it is, if it is a TorchScript file; nothing of it runs."""
    if checkpoint.kind != "torchscript":
        return None
    try:
        with Archive(checkpoint.path) as archive:
            names = [n for n in archive.names if "/code/" in n and n.endswith(".py")]
    except MirrorError:
        return "TorchScript program, damaged"
    own = [n for n in names if "/__torch__/torch/" not in n]
    module = (own or names or ["?"])[0].rpartition("__torch__/")[2].removesuffix(".py")
    return f"TorchScript program of {len(names)} files, {module.replace('/', '.')} first"


def load(checkpoint: Checkpoint, *, name: str, options: Options) -> WatchingGraph | ActingGraph:
    """Loads a TorchScript program.

    Its code is looked through first (see `files.torchscript`): it can compute, but not open
    files. It is run once on made-up input to learn its layers.

    Args:
        checkpoint: the file.
        name: what to call the model.
        options: those of OPTIONS.

    Raises:
        FormatError: if it is damaged or refused, or does not run on its input.
        DefinitionError: if the shape of its input cannot be told, or an option does not fit.

    Example:
        >>> load(Checkpoint(Path("g1_motion.pt")), name="g1", options=Options()).needs[0].width
        47
    """
    where = str(checkpoint.path)
    program = _Program(checkpoint.path, seed=None)
    ports, how = _ports(program, options, where)
    used = plan(ports, options, where=where)
    engine = TorchScriptEngine(program, ports, where=where)
    engine.learn(used.readings)
    parameters = sum(p.numel() for p in program.module.parameters())
    state = ", ".join(".".join(path) for path in engine.state) or "none"
    return build(
        engine,
        used,
        name=name,
        options=options,
        where=where,
        outputs={},
        facts={
            "family": "torchscript",
            "architecture": f"{program.module.original_name}, {parameters} parameters",
            "hidden state": state,
            "input shape": how,
        },
    )


class _Program:
    """A program as its file holds it, with taps, and with new weights for a seed."""

    def __init__(self, path: Path, *, seed: int | None) -> None:
        self.path, self.seed = path, seed
        self.module: Any = load_torchscript(path)
        self.taps = Taps(self.module)
        self.random = False
        for method in _RESETS:
            if self._takes_nothing(method):
                getattr(self.module, method)()
                break
        weights = {tuple(name.split(".")) for name, _ in self.module.named_parameters()}
        named = sorted(self.taps.attributes - weights)
        self.fresh = {path: value for path in named if _can_change(value := self.value(path))}
        if seed is not None:
            self._redraw(seed)

    def value(self, path: tuple[str, ...]) -> Any:
        """An attribute as it is now, copied."""
        return _copy(getattr(self._owner(path), path[-1]))

    def put(self, path: tuple[str, ...], value: Any) -> None:
        """Sets an attribute to a copy of a value."""
        self._owner(path)._c.setattr(path[-1], _copy(value))

    def _owner(self, path: tuple[str, ...]) -> Any:
        module = self.module
        for name in path[:-1]:
            module = getattr(module, name)
        return module

    def _takes_nothing(self, method: str) -> bool:
        if not self.module._c._has_method(method):
            return False
        return len(self.module._c._get_method(method).schema.arguments) == 1

    def _redraw(self, seed: int) -> None:
        parameters = dict(self.module.named_parameters())
        if not any(p.ndim >= 2 for p in parameters.values()):
            raise FormatError(
                f"{self.path} keeps its weights inside its program (it was frozen), so it has no"
                " untrained twin; save it without torch.jit.freeze"
            )
        with torch.no_grad():
            for name, tensor in redrawn(parameters, seed).items():
                parameters[name].copy_(tensor)


class TorchScriptEngine(Engine):
    """A TorchScript program in torch's own interpreter.

    Args:
        program: freshly loaded.
        ports: its inputs, in the order of its arguments; named "argument.key" for a dictionary.
        where: the file, for the words of errors.
    """

    def __init__(self, program: _Program, ports: Sequence[Port], *, where: str) -> None:
        self.program, self.ports, self.where = program, tuple(ports), where
        self.sites: Sequence[Site] = ()
        self.state: tuple[tuple[str, ...], ...] = ()
        weights = f"{content_digest(program.path)} {weights_digest(program.module)} {program.seed}"
        self.digest = hashlib.sha256(weights.encode()).hexdigest()
        self._places: dict[Place, int] | None = None
        self._device = torch.device("cpu")

    def learn(self, readings: Any) -> None:
        """Finds out what it remembers, how many rows it takes, and where its layers are."""
        before = self.program.fresh
        self.state = tuple(before)  # all of it is put back before every run
        self.batch = 1
        first = self._trial(readings, 1)
        changed = [path for path in before if not _equal(self.program.value(path), before[path])]
        self.program.random = not _equal(first, self._trial(readings, 1))
        self.state, self.remembers = tuple(changed), bool(changed)
        if changed:
            return
        try:
            rows = self._trial(readings, 2)
            self.batch = 0 if len(rows) == 2 * len(first) else 1
        except FormatError:
            self.batch = 1

    def run(self, feeds: Mapping[str, Tensor], memory: Memory) -> tuple[Values, Tensor, Memory]:
        """Runs the program once, with the state it is given."""
        for path in self.state:
            self.program.put(path, memory.get(".".join(path), self.program.fresh[path]))
        found: dict[Place, list[Tensor]] = {}

        def take(place: Place, value: Tensor) -> None:
            if self._places is None or place in self._places:
                found.setdefault(place, []).append(value)

        with (
            torch.inference_mode(),
            torch.jit.optimized_execution(False),  # type: ignore[attr-defined]
            torch.random.fork_rng(enabled=self.program.random),
        ):
            if self.program.random:
                torch.manual_seed(0)
            try:
                given = self.program.taps.run(lambda: self._call(feeds), take)
            except _FAULTS as error:
                raise FormatError(f"{self.where} does not run ({said(error)})") from None
        output = first_tensor(given)
        if output is None:
            raise FormatError(
                f"{self.where} gives a {type(given).__name__} without a floating-point tensor of"
                " two or more axes; needed one"
            )
        if self._places is None:
            self._set_places(list(found))
        values = [found.get(place, []) for place in self._places or ()]
        # What the whole program gives stands last, where it is a site.
        values += [[output]] * (len(self.sites) - len(values))
        after = {".".join(path): self.program.value(path) for path in self.state}
        return values, output, after

    def with_sites(self, sites: Sequence[Site]) -> TorchScriptEngine:
        """The same program, giving back other values."""
        by_value = {_value(place): place for place in self._places or {}}
        kept = [by_value[site.value] for site in sites if site.value in by_value]
        self._places = {place: i for i, place in enumerate(kept)}
        self.sites = list(sites)
        return self

    def untrained(self, seed: int) -> TorchScriptEngine:
        """The same program with its parameters of two or more axes drawn anew."""
        twin = TorchScriptEngine(
            _Program(self.program.path, seed=seed), self.ports, where=self.where
        )
        twin.program.random = self.program.random
        twin.state, twin.batch, twin.remembers = self.state, self.batch, self.remembers
        twin.sites, twin._places = list(self.sites), dict(self._places or {})
        twin.to(self._device)
        return twin

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return self._device

    def to(self, device: torch.device) -> None:
        """Moves the program and its state."""
        if device == self._device:
            return
        self._device = device
        self.program.module.to(device)
        self.program.fresh = {k: _copy(v, device) for k, v in self.program.fresh.items()}

    def require_precision(self) -> None:
        """Any precision: torch itself runs it."""

    def _trial(self, readings: Any, rows: int) -> Tensor:
        return trial(self, readings, rows, where=self.where)[1]

    def _call(self, feeds: Mapping[str, Tensor]) -> Any:
        arguments: dict[str, Any] = {}
        for port in self.ports:
            x = feeds[port.name].to(self._device, getattr(torch, port.dtype))
            argument, dot, key = port.name.partition(".")
            if dot:
                arguments.setdefault(argument, {})[key] = x
            else:
                arguments[argument] = x
        return self.program.module(**arguments)

    def _set_places(self, places: list[Place]) -> None:
        self._places = {place: i for i, place in enumerate(places)}
        taps, found = self.program.taps, []
        for place in places:
            call = taps.calls[place[-1]]
            channels = 1 if call.word.startswith(_CONVOLUTIONS) else call.channels
            channels = -1 if call.word.startswith(("Linear", "LayerNorm")) else channels
            found.append(Site(_value(place), taps.scope(place), call.word, channels))
        self.sites = [*found, Site("output", (), "output", output=True)]


def _ports(program: _Program, options: Options, where: str) -> tuple[list[Port], str]:
    """The inputs of a program, and how they were found out."""
    schema = program.module._c._get_method("forward").schema
    wanted = [a for a in schema.arguments[1:] if not a.has_default_value()]
    if options.text("shape"):
        return _asked(options.text("shape"), [(a.name, str(a.type)) for a in wanted], where)
    if len(wanted) != 1 or str(wanted[0].type) != "Tensor":
        listed = ", ".join(f"{a.name}: {a.type}" for a in wanted)
        raise DefinitionError(
            f"{where} takes ({listed}); say the shape of each with option shape, such as"
            " shape=0,3,96,96;0,14 or, for a dictionary, shape=image=0,3,96,96;state=0,14"
        )
    (argument,) = wanted
    weights = [*program.module.parameters(), *program.taps.constants, *program.module.buffers()]
    matrices = [tensor for tensor in weights if tensor.ndim >= 2]
    seen = next((t for t in matrices if t.ndim in (4, 5) and t.shape[1] == 3), None)
    if seen is not None:
        shape = (None, 3, *[None] * (seen.ndim - 2))
        return [Port(argument.name, shape, "float32")], "from weights that see 3 colours"
    widths = dict.fromkeys(int(t.shape[1]) for t in matrices if t.ndim == 2)
    # A program that takes one number more as well does not say what it was made for.
    running = [
        width
        for width in widths
        if _runs(program, argument.name, width, where)
        and not _runs(program, argument.name, width + 1, where)
    ]
    for path, value in program.fresh.items():
        program.put(path, value)
    if len(running) != 1:
        found = ", ".join(map(str, running)) or "none of its weights' widths alone"
        raise DefinitionError(
            f"the width of the input of {where} cannot be told ({found} would run); say it with"
            " option shape, such as shape=0,47"
        )
    return [Port(argument.name, (None, running[0]), "float32")], "the one width that runs"


def _runs(program: _Program, name: str, width: int, where: str) -> bool:
    engine = TorchScriptEngine(program, [Port(name, (None, width), "float32")], where=where)
    engine.state = tuple(program.fresh)
    try:
        engine.run({name: torch.zeros(1, width)}, {})
    except FormatError:
        return False
    return True


def _asked(text: str, wanted: Sequence[tuple[str, str]], where: str) -> tuple[list[Port], str]:
    ports = []
    parts = text.split(";")
    dictionary = len(wanted) == 1 and wanted[0][1].startswith("Dict")
    for i, part in enumerate(parts):
        key, equals, axes = part.rpartition("=")
        try:
            shape = tuple(int(word) or None for word in axes.split(","))
        except ValueError:
            shape = ()
        named = bool(equals) == dictionary and (dictionary or len(parts) == len(wanted))
        if not named or len(shape) < 2 or any(n is not None and n < 0 for n in shape):
            listed = ", ".join(f"{name}: {kind}" for name, kind in wanted)
            raise DefinitionError(
                f"option shape is '{text}'; needed the axes of ({listed}) of {where}, batch first,"
                " such as 0,47 or image=0,3,96,96;state=0,14"
            )
        name = f"{wanted[0][0]}.{key}" if dictionary else wanted[i][0]
        ports.append(Port(name, shape, "float32"))
    return ports, "as asked with option shape"


def _value(place: Place) -> str:
    return "call " + " ".join(map(str, place))


def _can_change(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(_can_change(part) for part in value)
    return isinstance(value, Tensor | bool | int | float)


def _copy(value: Any, device: torch.device | None = None) -> Any:
    if isinstance(value, Tensor):
        return value.detach().clone() if device is None else value.detach().to(device)
    if isinstance(value, list):
        return [_copy(part, device) for part in value]
    if isinstance(value, tuple):
        return tuple(_copy(part, device) for part in value)
    return value


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.shape == b.shape and torch.equal(a, b)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(_equal, a, b))
    return bool(a == b)

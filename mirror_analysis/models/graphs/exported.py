"""Exported programs of torch (torch.export.save, .pt2) of both roles."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mirror_analysis.errors import FormatError, MirrorError
from mirror_analysis.files.archives import Archive
from mirror_analysis.models.checkpoint import Checkpoint, Options
from mirror_analysis.models.graphs import aten_operations
from mirror_analysis.models.graphs import inputs as graph_inputs
from mirror_analysis.models.graphs.engines import Engine, Memory, Values, said
from mirror_analysis.models.graphs.exported_program import ExportedGraph, compute, read_exported
from mirror_analysis.models.graphs.inputs import Port, plan
from mirror_analysis.models.graphs.layers import Operation, Site, sites
from mirror_analysis.models.graphs.models import ActingGraph, WatchingGraph, build, trial
from mirror_analysis.models.weights.redrawing import redrawn

SUMMARY = "exported programs (torch.export.save, .pt2), computed without running their code"
OPTIONS: Mapping[str, str] = graph_inputs.OPTIONS


def recognise(checkpoint: Checkpoint) -> str | None:
    """What it is, if it is an exported program."""
    if checkpoint.kind != "exported":
        return None
    try:
        with Archive(checkpoint.path) as archive:
            weights = sum("/data/weights/weight_" in name for name in archive.names)
    except MirrorError:
        return "exported program of torch, damaged"
    return f"exported program of torch with {weights} weights"


def load(checkpoint: Checkpoint, *, name: str, options: Options) -> WatchingGraph | ActingGraph:
    """Reads an exported program.

    Args:
        checkpoint: the file, of torch 2.8 or newer.
        name: what to call the model.
        options: those of OPTIONS.

    Raises:
        FormatError: if it is damaged, refused, or its inputs are neither pictures nor vectors.
        DefinitionError: if an option does not fit it.

    Example:
        >>> load(Checkpoint(Path("policy.pt2")), name="policy", options=Options()).role
        'execution'
    """
    path = checkpoint.path
    graph = read_exported(path)
    ports = [Port(key, shape, dtype) for key, (dtype, shape) in graph.inputs.items()]
    used = plan(ports, options, where=str(path))
    batches = {port.shape[0] for port in ports} - {None}
    if len(batches) > 1 or not graph.outputs:
        raise FormatError(
            f"{path} takes {sorted(map(str, batches))} rows and gives {len(graph.outputs)} tensors;"
            " needed the same batch for all inputs, and one tensor at least"
        )
    engine = ExportedEngine(checkpoint, graph, ports, batch=batches.pop() or 0 if batches else 0)
    engine.learn(used.readings)
    return build(
        engine,
        used,
        name=name,
        options=options,
        where=str(path),
        outputs={value: f"output{i or ''}" for i, value in enumerate(graph.outputs)},
        facts={
            "family": "exported",
            "architecture": f"{len(graph.nodes)} operations, {_numbers(graph)} parameters",
            "producer": graph.about,
            "hidden state": ", ".join(engine.state) or "none",
        },
    )


class ExportedEngine(Engine):
    """An exported program, computed by torch operation by operation.

    Args:
        checkpoint: the file.
        graph: what it holds.
        ports: its inputs.
        batch: rows of one run, 0 for any.
    """

    def __init__(
        self, checkpoint: Checkpoint, graph: ExportedGraph, ports: Sequence[Port], *, batch: int
    ) -> None:
        self.checkpoint, self.graph, self.ports, self.batch = checkpoint, graph, ports, batch
        self.where = str(checkpoint.path)
        self.state: tuple[str, ...] = tuple(sorted(graph.buffers))
        self.sites: Sequence[Site] = sites(_operations(graph), graph.outputs)
        self._device = torch.device("cpu")
        self.digest = _digest(graph)

    def learn(self, readings: Any) -> None:
        """Finds out which buffers a run changes; all are put back before the run."""
        memory = trial(self, readings, self.batch or 2, where=self.where)[2]
        changed = [
            name for name in self.state if not torch.equal(memory[name], self.graph.weights[name])
        ]
        self.state, self.remembers = tuple(changed), bool(changed)
        if changed:
            self.batch = 1

    def run(self, feeds: Mapping[str, Tensor], memory: Memory) -> tuple[Values, Tensor, Memory]:
        """Computes all nodes once."""
        values: dict[str, Any] = dict(self.graph.weights)
        for name in self.state:
            values[name] = memory.get(name, self.graph.weights[name]).clone()
        for port in self.ports:
            values[port.name] = feeds[port.name].to(self._device, getattr(torch, port.dtype))
        wanted = {site.value for site in self.sites}
        kept: dict[str, Tensor] = {}

        def given(name: str, value: Any) -> None:
            if name in wanted:
                kept[name] = value.clone()  # a later operation may change it in place

        with torch.inference_mode():
            try:
                compute(self.graph.nodes, values, self.checkpoint.path, given)
            except (RuntimeError, ValueError, TypeError, KeyError, IndexError) as error:
                raise FormatError(f"{self.where} does not run ({said(error)})") from None
        for value, buffer in self.graph.updates.items():
            values[buffer] = values[value]
        after = {name: values[name].clone() for name in self.state}
        found = [[kept[site.value]] if site.value in kept else [] for site in self.sites]
        return found, values[self.graph.outputs[0]], after

    def with_sites(self, sites: Sequence[Site]) -> ExportedEngine:
        """The same program, giving back other values."""
        self.sites = list(sites)
        return self

    def untrained(self, seed: int) -> ExportedEngine:
        """The same program with its parameters of two or more axes drawn anew."""
        weights = self.graph.weights
        chosen = {name: weights[name].cpu() for name in self.graph.parameters}
        if not any(tensor.ndim >= 2 for tensor in chosen.values()):
            raise FormatError(
                f"{self.where} has no parameters of two or more axes, so it has no untrained twin;"
                " export the module that holds its weights as parameters"
            )
        drawn = redrawn(chosen, seed)
        on_device = {name: tensor.to(self._device) for name, tensor in drawn.items()}
        graph = ExportedGraph(
            self.graph.nodes, self.graph.inputs, self.graph.outputs, {**weights, **on_device},
            self.graph.parameters, self.graph.buffers, self.graph.updates, self.graph.about,
        )  # fmt: skip
        twin = ExportedEngine(self.checkpoint, graph, self.ports, batch=self.batch)
        twin.state, twin.remembers, twin.sites = self.state, self.remembers, self.sites
        twin._device = self._device
        return twin

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return self._device

    def to(self, device: torch.device) -> None:
        """Moves the weights."""
        self._device = device
        for name, tensor in self.graph.weights.items():
            self.graph.weights[name] = tensor.to(device)

    def require_precision(self) -> None:
        """Any precision: torch itself computes."""


def _operations(graph: ExportedGraph) -> list[Operation]:
    found = []
    for node in graph.nodes:
        names = [v["as_tensor"]["name"] for _, v in node.inputs if "as_tensor" in v]
        names += [one["name"] for _, v in node.inputs for one in v.get("as_tensors", ())]
        computed = tuple(name for name in names if name not in graph.weights)
        if not node.outputs or not isinstance(node.outputs[0], str):
            continue
        word = node.word
        found.append(
            Operation(
                aten_operations.kind(word, len(computed)),
                computed,
                node.outputs[0],
                node.scope,
                word,
                aten_operations.channels(word),
            )
        )
    return found


def _digest(graph: ExportedGraph) -> str:
    digest = hashlib.sha256()
    for node in graph.nodes:
        digest.update(f"{node.target} {node.inputs} {node.outputs}\n".encode())
    for name, tensor in sorted(graph.weights.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _numbers(graph: ExportedGraph) -> int:
    return sum(graph.weights[name].numel() for name in graph.parameters)

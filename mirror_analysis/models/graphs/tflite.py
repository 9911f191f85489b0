"""TFLite graphs of both roles, quantised ones included, with their inner values given back."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mirror_analysis.errors import FormatError, MissingDependencyError
from mirror_analysis.files.places import require_file
from mirror_analysis.models.checkpoint import Checkpoint, Options
from mirror_analysis.models.graphs import inputs as graph_inputs
from mirror_analysis.models.graphs import tflite_file
from mirror_analysis.models.graphs.engines import Engine, Memory, Values, quantised, said
from mirror_analysis.models.graphs.inputs import Port, plan
from mirror_analysis.models.graphs.layers import Site, sites
from mirror_analysis.models.graphs.models import ActingGraph, WatchingGraph, build
from mirror_analysis.models.graphs.trial import require_runs

SUMMARY = "TFLite graphs, float and quantised, by the LiteRT runtime"
OPTIONS: Mapping[str, str] = graph_inputs.OPTIONS | {
    "output": "name of the output that is the answer or the action (the first)",
}
_MOST = 2**31  # bytes of a file


def recognise(checkpoint: Checkpoint) -> str | None:
    """What it is, if it is a TFLite file."""
    return "TFLite graph" if checkpoint.kind == "tflite" else None


def load(checkpoint: Checkpoint, *, name: str, options: Options) -> WatchingGraph | ActingGraph:
    """Reads a TFLite file.

    The graph is run once in a process of its own first: the runtime checks the form of a file,
    but may break down at what a hostile one says.

    Args:
        checkpoint: the file.
        name: what to call the model.
        options: those of OPTIONS.

    Raises:
        MissingDependencyError: if ai-edge-litert is not installed.
        FormatError: if it is damaged, keeps variables, or its inputs are neither pictures nor
            vectors.
        DefinitionError: if an option does not fit it.

    Example:
        >>> load(Checkpoint(Path("mobilenet_v2_quant.tflite")), name="m", options=Options()).role
        'observation'
    """
    _require()
    where = str(checkpoint.path)
    data = require_file(checkpoint.path, "a TFLite file", most=_MOST).read_bytes()
    tflite_file.check_header(data, where=where)
    require_runs("tflite", data, where=where)
    graph = tflite_file.read_graph(data, where=where)
    if any(tensor.variable for tensor in graph.tensors):
        raise FormatError(
            f"{where} keeps variables from one run to the next; needed a graph that takes its"
            " hidden state as an input, so convert it so"
        )
    found = sites(tflite_file.operations(graph), [str(i) for i in graph.outputs])
    names = {graph.tensors[i].name: i for i in graph.outputs}
    answer = names[options.choice("output", next(iter(names), ""), names)]
    engine = TfliteEngine(data, found, answer=answer, where=where)
    used = plan(engine.ports, options, where=where, mean=(0.5,) * 3, std=(0.5,) * 3)
    weights = sum(int(np.prod(t.shape)) for t in graph.tensors if t.constant)
    return build(
        engine,
        used,
        name=name,
        options=options,
        where=where,
        outputs={str(i): _plain(graph.tensors[i].name) for i in graph.outputs},
        facts={
            "family": "tflite",
            "architecture": f"{len(graph.nodes)} operations, {weights} constants",
            "producer": graph.description or "not stated",
            "quantised": "yes" if any(port.scale for port in engine.ports) else "no",
        },
        settings={"output": graph.tensors[answer].name},
    )


class TfliteEngine(Engine):
    """A TFLite graph in the LiteRT interpreter, every tensor of it kept.

    Args:
        data: the file's bytes.
        sites: numbers of the tensors to give back.
        answer: number of the tensor that is the answer.
        where: the file, for the words of errors.
    """

    def __init__(self, data: bytes, sites: Sequence[Site], *, answer: int, where: str) -> None:
        from ai_edge_litert.interpreter import Interpreter, OpResolverType

        self.data, self.sites, self.answer, self.where = data, list(sites), answer, where
        self.digest = hashlib.sha256(data).hexdigest()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that keeping every tensor is for debugging
                self._runtime: Any = Interpreter(
                    model_content=data,
                    num_threads=torch.get_num_threads(),
                    experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
                    experimental_preserve_all_tensors=True,
                )
            self._runtime.allocate_tensors()
            details = self._runtime.get_input_details()
            every = self._runtime.get_tensor_details()
        except (ValueError, RuntimeError, TypeError, KeyError) as error:
            raise FormatError(f"{where} cannot be run ({said(error)}); convert it again") from None
        self._places = {detail["name"]: detail["index"] for detail in details}
        self.ports = [_port(detail) for detail in details]
        self.batch = 0 if self.ports and all(p.shape[:1] == (None,) for p in self.ports) else 1
        if self.batch and self.ports and self.ports[0].shape:
            self.batch = self.ports[0].shape[0] or 1
        self._scales = {detail["index"]: detail["quantization"] for detail in every}
        self._rows = -1

    def run(self, feeds: Mapping[str, Tensor], memory: Memory) -> tuple[Values, Tensor, Memory]:
        """Runs the interpreter once."""
        try:
            self._resize(len(next(iter(feeds.values()))))
            for port in self.ports:
                self._runtime.set_tensor(self._places[port.name], quantised(feeds[port.name], port))
            self._runtime.invoke()
            values = [[self._value(int(site.value))] for site in self.sites]
            return values, self._value(self.answer), {}
        except (ValueError, RuntimeError, KeyError) as error:
            raise FormatError(f"{self.where} does not run ({said(error)})") from None

    def with_sites(self, sites: Sequence[Site]) -> TfliteEngine:
        """The same graph, giving back other values."""
        self.sites = list(sites)
        return self

    def untrained(self, seed: int) -> TfliteEngine:
        """The same graph with its weights drawn anew; see `tflite_file.redraw`."""
        data = tflite_file.redraw(self.data, seed, where=self.where)
        return TfliteEngine(data, self.sites, answer=self.answer, where=self.where)

    def _resize(self, rows: int) -> None:
        if self.batch or rows == self._rows:
            return
        for port in self.ports:
            shape = [rows, *(size or 1 for size in port.shape[1:])]
            self._runtime.resize_tensor_input(self._places[port.name], shape)
        self._runtime.allocate_tensors()
        self._rows = rows

    def _value(self, index: int) -> Tensor:
        """A tensor as real values, in a copy."""
        stored = self._runtime.get_tensor(index)
        scale, zero = self._scales[index]
        if scale and np.issubdtype(stored.dtype, np.integer):
            return torch.from_numpy((stored.astype(np.float32) - zero) * np.float32(scale))
        return torch.from_numpy(np.array(stored))


def _port(detail: Mapping[str, Any]) -> Port:
    signature = detail["shape_signature"] if len(detail["shape_signature"]) else detail["shape"]
    shape = tuple(int(size) if size > 0 else None for size in signature)
    scale, zero = detail["quantization"]
    return Port(detail["name"], shape, np.dtype(detail["dtype"]).name, float(scale), int(zero))


def _plain(name: str) -> str:
    return name.partition(";")[0].removesuffix(":0").rpartition("/")[2] or "output"


def _require() -> None:
    try:
        import ai_edge_litert.interpreter  # noqa: F401
    except ImportError:
        raise MissingDependencyError(
            "ai-edge-litert", "a TFLite file", "pip install 'mirror-analysis[tflite]'"
        ) from None

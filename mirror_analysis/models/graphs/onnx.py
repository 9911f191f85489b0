"""ONNX models of both roles, run by onnxruntime with their inner values given back."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from mirror_analysis.errors import (
    DefinitionError,
    DeviceError,
    FormatError,
    MirrorError,
    MissingDependencyError,
)
from mirror_analysis.files.onnx_files import OnnxFile, read_onnx
from mirror_analysis.models.checkpoint import Checkpoint, Options
from mirror_analysis.models.graphs import inputs as graph_inputs
from mirror_analysis.models.graphs.engines import Engine, Memory, Values, quantised, said
from mirror_analysis.models.graphs.inputs import Port, plan
from mirror_analysis.models.graphs.layers import Site, sites
from mirror_analysis.models.graphs.models import ActingGraph, WatchingGraph, build
from mirror_analysis.models.graphs.trial import require_runs

if TYPE_CHECKING:
    import onnxruntime

SUMMARY = "ONNX graphs that watch pictures or act on vectors, by onnxruntime"
OPTIONS: Mapping[str, str] = graph_inputs.OPTIONS | {
    "memory": "inputs fed from outputs of the moment before, as h_in=h_out,c_in=c_out, or none"
    " (those named and shaped alike)",
    "output": "name of the output that is the answer or the action (the first)",
}
_CUDA = "CUDAExecutionProvider"
_TYPES = {"tensor(float16)": torch.float16, "tensor(double)": torch.float64}
_DESCRIBED = 2**26  # bytes; a larger file is not read only to say what it is


def recognise(checkpoint: Checkpoint) -> str | None:
    """What it is, if it is an ONNX model."""
    if checkpoint.kind != "onnx":
        return None
    if checkpoint.path.stat().st_size > _DESCRIBED:
        return "ONNX graph"
    try:
        file = read_onnx(checkpoint.path)
    except FormatError:
        return "ONNX graph, damaged or refused"
    takes = ", ".join(f"{name} {_shown(shape)}" for name, (_, shape) in file.inputs.items())
    gives = ", ".join(f"{name} {_shown(shape)}" for name, (_, shape) in file.outputs.items())
    return f"ONNX graph of {sum(file.operators.values())} operations: {takes} -> {gives}"


def load(checkpoint: Checkpoint, *, name: str, options: Options) -> WatchingGraph | ActingGraph:
    """Reads an ONNX model.

    Args:
        checkpoint: the file; weights kept beside it have to lie in its folder.
        name: what to call the model.
        options: those of OPTIONS.

    Raises:
        MissingDependencyError: if onnx or onnxruntime is not installed.
        FormatError: if it is damaged, or its inputs are neither pictures nor vectors.
        DefinitionError: if an option does not fit it.

    Example:
        >>> load(Checkpoint(Path("go1_policy.onnx")), name="go1", options=Options()).inputs
        ('states',)
    """
    _require()
    where = str(checkpoint.path)
    file = read_onnx(checkpoint.path)
    require_runs("onnx", file.model, where=where)
    pairs = _memory(file, options.text("memory"), where)
    ports = [
        Port(key, tuple(n if isinstance(n, int) and n > 0 else None for n in shape), dtype)
        for key, (dtype, shape) in file.inputs.items()
        if key not in pairs
    ]
    used = plan(ports, options, where=where)
    answer = options.choice("output", next(iter(file.outputs), ""), file.outputs)
    batches = {port.shape[0] for port in ports} - {None}
    if len(batches) > 1:
        raise FormatError(
            f"{where} has inputs of {sorted(batches, key=str)} rows; needed the same batch for all"
        )
    engine = OnnxEngine(
        file.model,
        ports,
        _sites(file.model, [n for n in file.outputs if n not in pairs.values()], where),
        pairs=pairs,
        answer=answer,
        batch=1 if pairs else (batches.pop() or 0) if batches else 0,
        where=where,
    )
    opset = ", ".join(f"{domain or 'onnx'} {number}" for domain, number in file.opset.items())
    return build(
        engine,
        used,
        name=name,
        options=options,
        where=where,
        outputs={n: _plain(n) for n in file.outputs},
        facts={
            "family": "onnx",
            "architecture": f"{sum(file.operators.values())} operations, opset {opset}",
            "producer": file.producer or "not stated",
            "memory": ", ".join(f"{a} from {b}" for a, b in pairs.items()) or "none",
            "answer": answer,
            **{key: text[:500] for key, text in file.metadata.items() if "licen" in key.lower()},
        },
        settings={"memory": ",".join(f"{a}={b}" for a, b in pairs.items()), "output": answer},
    )


class OnnxEngine(Engine):
    """An ONNX graph in a session of onnxruntime.

    Args:
        model: the ModelProto, with nothing left outside it.
        ports: its inputs, without memory.
        sites: values to give back.
        pairs: input -> output it is fed from, of the moment before; zeros at the start.
        answer: the output that is the answer.
        batch: rows of one run, 0 for any.
        where: the file, for the words of errors.
    """

    def __init__(
        self,
        model: bytes,
        ports: Sequence[Port],
        sites: Sequence[Site],
        *,
        pairs: Mapping[str, str],
        answer: str,
        batch: int,
        where: str,
        device: torch.device | None = None,
    ) -> None:
        self.model, self.ports, self.sites = model, tuple(ports), tuple(sites)
        self.pairs, self.answer, self.batch, self.where = dict(pairs), answer, batch, where
        self.remembers = bool(pairs)
        self.digest = hashlib.sha256(model).hexdigest()
        self._device = device or torch.device("cpu")
        self._session = self._open()

    def run(self, feeds: Mapping[str, Tensor], memory: Memory) -> tuple[Values, Tensor, Memory]:
        """Runs the session once."""
        inputs = {port.name: quantised(feeds[port.name], port) for port in self.ports}
        remembered = memory or self._fresh
        inputs |= {name: remembered[name].numpy() for name in self.pairs}
        wanted = [*(site.value for site in self.sites), self.answer, *self.pairs.values()]
        try:
            found = self._session.run(list(dict.fromkeys(wanted)), inputs)
        except Exception as error:
            # The runtime's own classes share no base but Exception.
            raise FormatError(f"{self.where} does not run ({said(error)})") from None
        given = {
            name: torch.from_numpy(np.asarray(value)).to(self._device)
            for name, value in zip(dict.fromkeys(wanted), found, strict=True)
            if isinstance(value, np.ndarray)
        }
        if not {self.answer, *self.pairs.values()} <= set(given):
            raise FormatError(
                f"{self.where} gives '{self.answer}' as a list or map of tensors; needed one tensor"
            )
        values = [[given[site.value]] if site.value in given else [] for site in self.sites]
        after = {name: given[source].cpu() for name, source in self.pairs.items()}
        return values, given[self.answer], after

    def with_sites(self, sites: Sequence[Site]) -> OnnxEngine:
        """The same graph, giving back other values."""
        return self._with(self.model, sites)

    def untrained(self, seed: int) -> OnnxEngine:
        """The same graph with its weights drawn anew; see `onnx_twins.redraw`."""
        from mirror_analysis.models.graphs.onnx_twins import redraw

        return self._with(redraw(self.model, seed, where=self.where), self.sites)

    @property
    def device(self) -> torch.device:
        """Where the session runs."""
        return self._device

    def to(self, device: torch.device) -> None:
        """Opens the session anew on another device.

        Raises:
            DeviceError: if the installed onnxruntime cannot run there.
        """
        if device.type == self._device.type:
            return
        import onnxruntime

        there = onnxruntime.get_available_providers()
        if device.type != "cpu" and (device.type != "cuda" or _CUDA not in there):
            raise DeviceError(
                f"device '{device}' was asked for but onnxruntime has only {', '.join(there)};"
                " install onnxruntime-gpu, or ask for 'cpu'"
            )
        before, self._device = self._device, device
        try:
            self._session = self._open()
        except MirrorError:
            self._device = before
            raise

    def _with(self, model: bytes, sites: Sequence[Site]) -> OnnxEngine:
        return OnnxEngine(
            model, self.ports, sites, pairs=self.pairs, answer=self.answer, batch=self.batch,
            where=self.where, device=self._device,
        )  # fmt: skip

    def _open(self) -> onnxruntime.InferenceSession:
        import onnx
        import onnxruntime

        message = _parsed(self.model, self.where)
        there = {value.name for value in message.graph.output}
        for site in self.sites:
            if site.value not in there:
                message.graph.output.append(onnx.ValueInfoProto(name=site.value))
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = torch.get_num_threads()
        settings.inter_op_num_threads = 1
        settings.use_deterministic_compute = True
        settings.log_severity_level = 4
        providers: list[Any] = ["CPUExecutionProvider"]
        if self._device.type == "cuda":
            providers = [(_CUDA, {"device_id": self._device.index or 0}), *providers]
        try:
            session = onnxruntime.InferenceSession(
                message.SerializeToString(), settings, providers=providers
            )
        except Exception as error:
            # As above.
            raise FormatError(
                f"{self.where} cannot be run by onnxruntime ({said(error)}); export it again"
            ) from None
        if self._device.type == "cuda" and session.get_providers()[0] != _CUDA:
            raise DeviceError("onnxruntime fell back from CUDA to the CPU; ask for 'cpu'")
        self._fresh = {
            node.name: torch.zeros(
                [n if isinstance(n, int) and n > 0 else 1 for n in node.shape],
                dtype=_TYPES.get(node.type, torch.float32),
            )
            for node in session.get_inputs()
            if node.name in self.pairs
        }
        return session


def _sites(model: bytes, outputs: Sequence[str], where: str) -> list[Site]:
    from mirror_analysis.models.graphs.onnx_operations import operations

    message = _parsed(model, where)
    try:
        found = sites(operations(message), outputs)
    except TypeError:
        # A name that is no text comes back as bytes.
        raise FormatError(f"{where} has names that are no text; export it again") from None
    if not found:
        raise FormatError(f"{where} has no operation that could be a layer")
    return found


def _parsed(model: bytes, where: str) -> Any:
    import onnx
    from google.protobuf.message import DecodeError

    try:
        return onnx.ModelProto.FromString(model)
    except DecodeError:
        raise FormatError(f"{where} is no whole ONNX model; copy or export it again") from None


def _memory(file: OnnxFile, asked: str, where: str) -> dict[str, str]:
    """Inputs that are the outputs of the moment before."""
    if asked == "none":
        return {}
    if asked:
        found = dict(pair.partition("=")[::2] for pair in asked.split(","))
        for name, source in found.items():
            if name not in file.inputs or source not in file.outputs:
                raise DefinitionError(
                    f"option memory says '{name}={source}' but {where} has the inputs"
                    f" {', '.join(file.inputs)} and the outputs {', '.join(file.outputs)}"
                )
        return found
    by_stem = {_stem(name): name for name in file.outputs}
    return {
        name: by_stem[_stem(name)]
        for name, about in file.inputs.items()
        if len(file.inputs) > 1
        and _stem(name) in by_stem
        and _fits(about, file.outputs[by_stem[_stem(name)]])
    }


def _stem(name: str) -> str:
    words = name.lower().replace(".", "_").replace("/", "_").split("_")
    return "_".join(w for w in words if w not in ("in", "out", "input", "output", "next", "prev"))


def _fits(taken: tuple[str, Sequence[object]], given: tuple[str, Sequence[object]]) -> bool:
    # An exporter may leave the sizes of an output open.
    same = [a == b or not (isinstance(a, int) and isinstance(b, int))
            for a, b in zip(taken[1], given[1], strict=False)]  # fmt: skip
    return taken[0] == given[0] and len(taken[1]) == len(given[1]) and all(same)


def _plain(name: str) -> str:
    return name.removesuffix(":0").replace("/", ".").strip(".") or "output"


def _shown(shape: Sequence[object]) -> str:
    return "[" + ", ".join("?" if n is None else str(n) for n in shape) + "]"


def _require() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError:
        raise MissingDependencyError(
            "onnx and onnxruntime", "an ONNX model", "pip install 'mirror-analysis[onnx]'"
        ) from None

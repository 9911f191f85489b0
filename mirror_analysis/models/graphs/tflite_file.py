"""What a TFLite file holds, read from its flatbuffer, and new weights written into it."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np

from mirror_analysis.errors import FormatError
from mirror_analysis.models.graphs.layers import Operation
from mirror_analysis.models.graphs.twins import is_weight, redrawn_arrays

_MOST = 1_000_000  # tensors, operations, or numbers of either
_WEIGHTED = {
    "BATCH_MATMUL", "BIDIRECTIONAL_SEQUENCE_LSTM", "CONV_2D", "CONV_3D", "CONV_3D_TRANSPOSE",
    "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "LSTM", "RNN", "SVDF", "TRANSPOSE_CONV",
    "UNIDIRECTIONAL_SEQUENCE_LSTM", "UNIDIRECTIONAL_SEQUENCE_RNN",
}  # fmt: skip
_ACTIVATIONS = {"ELU", "GELU", "HARD_SWISH", "LEAKY_RELU", "LOGISTIC", "PRELU", "RELU", "RELU6",
                "RELU_N1_TO_1", "TANH"}  # fmt: skip
_POOLS = {"AVERAGE_POOL_2D", "MAX_POOL_2D", "MEAN"}
_PASSED = {"DEQUANTIZE", "RESHAPE", "TRANSPOSE"}
_SCALING = {"DIV", "SUB"}
_NUMBERS: dict[int, Any] = {0: np.float32, 1: np.float16, 3: np.uint8, 9: np.int8, 10: np.float64}
_FAULTS = (struct.error, IndexError, ValueError, TypeError, AttributeError, UnicodeDecodeError,
           OverflowError, MemoryError, KeyError)  # fmt: skip


@dataclass(frozen=True)
class TfliteTensor:
    """One tensor of the main graph.

    Attributes:
        name: as the converter made it, parts divided by ";".
        shape: of its axes.
        type: the number of the schema's TensorType.
        buffer: where its constant value is; 0 for none.
        constant: whether it has one.
        variable: whether it keeps its value from one run to the next.
    """

    name: str
    shape: tuple[int, ...]
    type: int
    buffer: int
    constant: bool
    variable: bool


@dataclass(frozen=True)
class TfliteGraph:
    """The main graph of a TFLite file.

    Attributes:
        tensors: in the order of their numbers.
        nodes: operation, numbers of the tensors it takes, and of those it gives.
        outputs: numbers of what it gives.
        description: by the converter.
        version: of the schema.
    """

    tensors: tuple[TfliteTensor, ...]
    nodes: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]
    outputs: tuple[int, ...]
    description: str
    version: int


def check_header(data: bytes, *, where: str) -> None:
    """Makes sure that bytes start as a TFLite file does, with its root inside them.

    Raises:
        FormatError: if they do not.
    """
    root = int.from_bytes(data[:4], "little")
    if len(data) < 16 or data[4:8] != b"TFL3" or not 8 <= root <= len(data) - 4:
        raise FormatError(f"{where} does not start as a TFLite file does; copy it again")
    back = struct.unpack_from("<i", data, root)[0]
    if not 0 <= root - back <= len(data) - 4:
        raise FormatError(f"{where} has a table outside the file; copy it again")


def read_graph(data: bytes, *, where: str) -> TfliteGraph:
    """The main graph.

    Args:
        data: the file's bytes, which a runtime has found whole.
        where: the file, for the words of errors.

    Raises:
        FormatError: if it is damaged, or empty.
    """
    from ai_edge_litert import schema_py_generated as schema

    check_header(data, where=where)
    try:
        model = schema.Model.GetRootAs(data, 0)
        if model.SubgraphsLength() < 1:
            raise ValueError("no graph")
        main = model.Subgraphs(0)
        words = {v: k for k, v in vars(schema.BuiltinOperator).items() if isinstance(v, int)}
        codes = []
        for i in range(_count(model.OperatorCodesLength())):
            code = model.OperatorCodes(i)
            number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
            codes.append(words.get(number, f"operation {number}"))
        tensors = [_tensor(main.Tensors(i), model) for i in range(_count(main.TensorsLength()))]
        nodes = []
        for i in range(_count(main.OperatorsLength())):
            node = main.Operators(i)
            takes, gives = _array(node.InputsAsNumpy()), _array(node.OutputsAsNumpy())
            nodes.append((codes[node.OpcodeIndex()], takes, gives))
        described = (model.Description() or b"").decode(errors="replace")
        outputs = _array(main.OutputsAsNumpy())
        if any(not 0 <= i < len(tensors) for i in outputs):
            raise ValueError("an output that is not there")
    except _FAULTS as error:
        raise FormatError(f"{where} is no whole TFLite file ({error}); copy it again") from None
    return TfliteGraph(tuple(tensors), tuple(nodes), outputs, described[:200], model.Version())


def operations(graph: TfliteGraph) -> list[Operation]:
    """The operations in words; the channels of what they give are the last axis."""
    found = []
    for word, takes, gives in graph.nodes:
        if not gives:
            continue
        computed = [i for i in takes if i >= 0 and not graph.tensors[i].constant]
        name = graph.tensors[gives[0]].name.partition(";")[0]
        words = [part for part in name.split("/") if part]
        found.append(
            Operation(
                _kind(word, len(computed)),
                tuple(str(i) for i in computed),
                str(gives[0]),
                tuple(words[:-1]),
                word.lower(),
                -1,
            )
        )
    return found


def redraw(data: bytes, seed: int, *, where: str) -> bytes:
    """The same file with its weights drawn anew.

    Weights are chosen as `graph_twins.is_weight` says; quantised ones are drawn among the bytes
    their trained values are, so the scales of the file still fit them.

    Raises:
        FormatError: if it has none that can be told.
    """
    from ai_edge_litert import schema_py_generated as schema

    graph = read_graph(data, where=where)
    takers: dict[int, set[str]] = {}
    for word, takes, gives in reversed(graph.nodes):
        for i in takes:
            passed = word in _PASSED and gives and i == takes[0]
            takers.setdefault(i, set()).update(takers.get(gives[0], set()) if passed else {word})
    changed = bytearray(data)
    model = schema.Model.GetRootAs(changed, 0)
    views: dict[str, Any] = {}
    learned = _WEIGHTED | {"EMBEDDING_LOOKUP", "GATHER"}
    for i, tensor in enumerate(graph.tensors):
        if not tensor.constant or tensor.type not in _NUMBERS:
            continue
        if not is_weight(tensor.shape, takers.get(i, set()), weighted=learned, scaling=_SCALING):
            continue
        raw = model.Buffers(tensor.buffer).DataAsNumpy()
        values = raw.view(_NUMBERS[tensor.type])
        if values.size == int(np.prod(tensor.shape)):
            views[f"{tensor.buffer:08d}"] = values.reshape(tensor.shape)
    if not views:
        raise FormatError(
            f"{where} has no weights that can be told and drawn anew, so it has no untrained twin;"
            " convert it with weights as float32, float16 or int8"
        )
    for name, values in redrawn_arrays(views, seed).items():
        views[name][...] = values
    return bytes(changed)


def _tensor(tensor: Any, model: Any) -> TfliteTensor:
    buffer = tensor.Buffer()
    if not 0 <= buffer < model.BuffersLength():
        raise ValueError("a tensor without its buffer")
    held = model.Buffers(buffer)
    return TfliteTensor(
        (tensor.Name() or b"").decode(errors="replace")[:500],
        _array(tensor.ShapeAsNumpy()),
        tensor.Type(),
        buffer,
        held.DataLength() > 0 or held.Size() > 0,
        bool(tensor.IsVariable()),
    )


def _array(values: Any) -> tuple[int, ...]:
    if isinstance(values, int):  # the schema's own word for an absent vector
        return ()
    _count(len(values))
    return tuple(int(value) for value in values)


def _count(number: int) -> int:
    if number > _MOST:
        raise ValueError(f"{number} entries")
    return number


def _kind(word: str, computed: int) -> str:
    if word in _WEIGHTED:
        return "weighted" if computed < 2 or word != "BATCH_MATMUL" else "other"
    if word == "ADD":
        return "sum" if computed > 1 else "bias"
    if word in _ACTIVATIONS:
        return "activation"
    return "pool" if word in _POOLS else "other"

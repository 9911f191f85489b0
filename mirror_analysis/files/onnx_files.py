"""ONNX models, checked as messages before any runtime sees them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mirror_analysis.errors import FormatError
from mirror_analysis.files.onnx_tensors import TYPES, Weight, read_weight
from mirror_analysis.files.places import contents, inside, reason, require_file, shown
from mirror_analysis.files.protobuf import BYTES, VARINT, encode, encode_number, fields

_MOST_NODES = 1_000_000
_DEEPEST = 32
_DOMAINS = {"", "ai.onnx", "ai.onnx.ml", "ai.onnx.preview.training", "com.microsoft"}
_REFUSED = {"EPContext", "PyOp", "PythonOp"}  # these load or run what is not in the model
Shape = tuple[int | str | None, ...]


@dataclass(frozen=True)
class OnnxFile:
    """An ONNX model in memory, with nothing left outside it.

    Attributes:
        model: the bytes of the ModelProto; weights kept beside the file are inside.
        inputs: name -> (type such as "float32", shape: a number, a name, or None where unknown);
            weights that may be overridden are not among them.
        outputs: the same of the outputs.
        opset: domain -> version; "" is the standard domain.
        producer: the program that wrote it, with its version, or "".
        ir_version: of the format.
        operators: how often each is used, such as {"Gemm": 4}, in subgraphs and functions too.
        weights: name -> (type, shape) of the constants of the graph.
        metadata: what its maker added.
    """

    model: bytes
    inputs: dict[str, tuple[str, Shape]]
    outputs: dict[str, tuple[str, Shape]]
    opset: dict[str, int]
    producer: str
    ir_version: int
    operators: dict[str, int]
    weights: dict[str, tuple[str, tuple[int, ...]]]
    metadata: dict[str, str]


def read_onnx(path: Path, *, most: int = 2**31 - 1) -> OnnxFile:
    """An ONNX model with its facts, read without a runtime.

    Refused are weights that do not have the bytes their shape needs, weights in files outside
    the model's folder or beyond their file's end, operators of unknown domains, those that load
    something, more than a million nodes, and graphs nested deeper than 32.

    Args:
        path: the file.
        most: bytes the model may have, together with the weights beside it.

    Raises:
        MissingFileError: if there is no such file, or weights beside it are missing.
        FormatError: if it is no ONNX model, damaged, or refused.

    Example:
        >>> read_onnx(Path("go1_policy.onnx")).inputs
        {'obs': ('float32', (1, 48))}
    """
    data = contents(path, "an ONNX model", most=most)
    walk = _Walk(path)
    # Lists first: a damaged message may lack any part.
    try:
        return _read(memoryview(data), walk, most)
    except (ValueError, OverflowError, AssertionError, MemoryError) as error:
        raise FormatError(
            f"{path} is not a whole ONNX model: {reason(error)}; needed one as onnx.save writes it,"
            " so fetch or export it anew"
        ) from None


@dataclass
class _Walk:
    path: Path
    nodes: int = 0
    operators: dict[str, int] = field(default_factory=dict)
    domains: set[str] = field(default_factory=lambda: set(_DOMAINS))
    weights: dict[str, tuple[str, tuple[int, ...]]] = field(default_factory=dict)
    outside: dict[int, Weight] = field(default_factory=dict)


def _read(data: memoryview, walk: _Walk, most: int) -> OnnxFile:
    parts = _parts(data)
    if len(parts.get(7, ())) != 1:
        raise ValueError("it holds no graph")
    (graph,) = parts[7]
    for function in parts.get(25, ()):
        walk.domains.add(_text(_parts(function), 10))
    for function in parts.get(25, ()):
        for node in _parts(function).get(7, ()):
            _check_node(node, walk, 1)
    _check_graph(graph, walk, 0)
    opset = {
        _text(entry, 1): _number(message, 2)
        for message in parts.get(8, ())
        for entry in [_parts(message)]
    }
    inner = _parts(graph)
    named = {
        name: kind for name, kind in map(_value, inner.get(11, ())) if name not in walk.weights
    }
    return OnnxFile(
        model=_whole(data, graph, walk, most) if walk.outside else bytes(data),
        inputs=named,
        outputs=dict(map(_value, inner.get(12, ()))),
        opset=opset,
        producer=" ".join(filter(None, (_text(parts, 2), _text(parts, 3)))),
        ir_version=_number(data, 1),
        operators=dict(sorted(walk.operators.items())),
        weights=walk.weights,
        metadata={
            _text(entry, 1): _text(entry, 2)
            for message in parts.get(14, ())
            for entry in [_parts(message)]
        },
    )


def _check_graph(graph: memoryview, walk: _Walk, depth: int) -> None:
    if depth > _DEEPEST:
        raise ValueError(f"graphs nested deeper than {_DEEPEST}")
    position = 0
    for number, wire, value in fields(graph):
        if wire != BYTES or not isinstance(value, memoryview):
            continue
        if number == 1:
            _check_node(value, walk, depth)
        elif number == 5:
            weight = read_weight(value)
            if weight.outside and depth:
                raise ValueError("a subgraph with weights in another file")
            if weight.outside:
                walk.outside[position] = weight
            if not depth:
                walk.weights[weight.name] = (weight.type, weight.shape)
            position += 1
        elif number == 15:
            _check_sparse(value)


def _check_node(node: memoryview, walk: _Walk, depth: int) -> None:
    walk.nodes += 1
    if walk.nodes > _MOST_NODES:
        raise ValueError(f"more than {_MOST_NODES} nodes")
    parts = _parts(node)
    operator, domain = _text(parts, 4), _text(parts, 7)
    if domain not in walk.domains or operator in _REFUSED:
        raise FormatError(
            f"{walk.path} uses the operator {shown(f'{domain}::{operator}')}; needed operators of"
            f" {', '.join(sorted(_DOMAINS - {''}))}, so export it without custom ones"
        )
    walk.operators[operator] = walk.operators.get(operator, 0) + 1
    for attribute in parts.get(5, ()):
        for number, wire, value in fields(attribute):
            if wire != BYTES or not isinstance(value, memoryview):
                continue
            if number in (6, 11):
                _check_graph(value, walk, depth + 1)
            elif number in (5, 10) and read_weight(value).outside:
                raise ValueError("an attribute with values in another file")
            elif number in (22, 23):
                _check_sparse(value)


def _check_sparse(message: memoryview) -> None:
    for part in (1, 2):
        for tensor in _parts(message).get(part, ()):
            if read_weight(tensor).outside:
                raise ValueError("sparse weights in another file")


def _whole(data: memoryview, graph: memoryview, walk: _Walk, most: int) -> bytes:
    """The model with the weights that lie beside it put in."""
    total = len(data) + sum(weight.size for weight in walk.outside.values())
    if total > most:
        raise FormatError(
            f"{walk.path} has {total} bytes with the weights beside it; needed at most {most}, so"
            " give it in another format"
        )
    inner, position = bytearray(), 0
    for number, wire, value in fields(graph):
        if number == 5 and wire == BYTES:
            assert isinstance(value, memoryview)
            weight = walk.outside.get(position)
            inner += encode(5, bytes(value) if weight is None else _filled(value, weight, walk))
            position += 1
        else:
            inner += _again(number, wire, value)
    model = bytearray()
    for number, wire, value in fields(data):
        model += encode(7, bytes(inner)) if number == 7 else _again(number, wire, value)
    return bytes(model)


def _filled(tensor: memoryview, weight: Weight, walk: _Walk) -> bytes:
    file = inside(walk.path.parent, weight.outside["location"])
    require_file(file, f"the weights of {walk.path.name}")
    start = int(weight.outside.get("offset", "0"))
    length = int(weight.outside.get("length", str(weight.size)))
    if start < 0 or length != weight.size or start + length > file.stat().st_size:
        raise FormatError(
            f"{walk.path} needs {weight.size} bytes for {shown(weight.name)} from byte {start} of"
            f" {file}, which has {file.stat().st_size}; fetch both anew"
        )
    with file.open("rb") as opened:
        opened.seek(start)
        raw = opened.read(length)
    kept = b"".join(_again(n, w, v) for n, w, v in fields(tensor) if n not in (9, 13, 14))
    return kept + encode(9, raw)


def _again(number: int, wire: int, value: int | memoryview) -> bytes:
    if isinstance(value, int):
        return encode_number(number << 3 | VARINT) + encode_number(value)
    if wire == BYTES:
        return encode(number, bytes(value))
    return encode_number(number << 3 | wire) + bytes(value)


def _parts(message: memoryview) -> dict[int, list[memoryview]]:
    found: dict[int, list[memoryview]] = {}
    for number, wire, value in fields(message):
        if wire == BYTES:
            assert isinstance(value, memoryview)
            found.setdefault(number, []).append(value)
    return found


def _numbers(message: memoryview, wanted: int) -> Iterator[int]:
    for number, _, value in fields(message):
        if number == wanted and isinstance(value, int):
            yield value


def _number(message: memoryview, wanted: int) -> int:
    return max(_numbers(message, wanted), default=0)


def _text(parts: dict[int, list[memoryview]], number: int) -> str:
    return bytes(parts[number][-1]).decode("utf-8", "replace") if number in parts else ""


def _value(message: memoryview) -> tuple[str, tuple[str, Shape]]:
    parts = _parts(message)
    kind, shape = "unknown", []
    for declared in parts.get(2, ()):
        for tensor in _parts(declared).get(1, ()):
            kind = TYPES.get(_number(tensor, 1), ("unknown", 0))[0]
            for sides in _parts(tensor).get(2, ()):
                for side in _parts(sides).get(1, ()):
                    known = next(_numbers(side, 1), None)
                    shape.append(known if known is not None else _text(_parts(side), 2) or None)
    return _text(parts, 1), (kind, tuple(shape))

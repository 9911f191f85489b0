"""Exported programs (torch.export), read as data and computed operation by operation.

torch's own reader evaluates expressions and runs text of the file as code. Here the graph is data:
every node names one operation of torch that computes, and its arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mirror_analysis.errors import FormatError
from mirror_analysis.files.archives import Archive
from mirror_analysis.files.jsons import read_json
from mirror_analysis.files.torch_files import read_torch

_TYPES = {
    1: torch.uint8, 2: torch.int8, 3: torch.int16, 4: torch.int32, 5: torch.int64,
    6: torch.float16, 7: torch.float32, 8: torch.float64, 12: torch.bool, 13: torch.bfloat16,
}  # fmt: skip
_FORMATS = {
    1: torch.contiguous_format,
    2: torch.channels_last,
    3: torch.channels_last_3d,
    4: torch.preserve_format,
}
# Operations of torch's own name space that open files, or hand values to somewhere else.
_REFUSED = {"_print", "_test_warn_in_autograd", "from_file", "load", "save"}
_ARITHMETIC = {
    "add", "and_", "eq", "floordiv", "ge", "getitem", "gt", "le", "lt", "mod", "mul", "ne", "neg",
    "not_", "or_", "pos", "sub", "truediv",
}  # fmt: skip
_SYMBOLIC = {"sym_float", "sym_int", "sym_ite", "sym_max", "sym_min", "sym_not"}
_WITHIN = "torch.ops.higher_order.wrap_with_set_grad_enabled"
_MOST_TEXT = 2**28  # bytes of the graph
_DEEPEST = 8  # graphs within graphs


@dataclass(frozen=True, eq=False)
class Node:
    """One operation.

    Attributes:
        target: its full name, such as "torch.ops.aten.linear.default".
        inputs: argument name and value, as the file has them.
        outputs: names of what it gives; None for what is left aside; a list for a list.
        scope: path of the module it belongs to.
    """

    target: str
    inputs: tuple[tuple[str, Any], ...]
    outputs: tuple[Any, ...]
    scope: tuple[str, ...]

    @property
    def word(self) -> str:
        """The operation in a word, such as "linear"."""
        parts = self.target.split(".")
        return parts[3] if len(parts) > 3 else parts[-1]


@dataclass(frozen=True, eq=False)
class ExportedGraph:
    """What an exported program holds.

    Attributes:
        nodes: in an order they can run in.
        inputs: name of a user's input -> (type, shape with None where free).
        outputs: names of what it gives to the user.
        weights: name in the graph -> tensor: parameters, buffers and constants.
        parameters: those of the weights that are parameters.
        buffers: those that a run may change.
        updates: value -> the buffer it is the new value of.
        about: versions, for people.
    """

    nodes: tuple[Node, ...]
    inputs: dict[str, tuple[str, tuple[int | None, ...]]]
    outputs: tuple[str, ...]
    weights: dict[str, Tensor]
    parameters: frozenset[str]
    buffers: frozenset[str]
    updates: dict[str, str] = field(default_factory=dict)
    about: str = ""


def read_exported(path: Path) -> ExportedGraph:
    """An exported program, of torch 2.8 or newer.

    Args:
        path: the file.

    Raises:
        FormatError: if it is damaged, older, has objects other than tensors, or an operation
            that does more than compute.
    """
    with Archive(path) as archive:
        texts = [name for name in archive.names if name.endswith("models/model.json")]
        if len(texts) != 1:
            raise FormatError(
                f"{path} holds {len(texts)} graphs named model; needed one, as torch.export.save of"
                " torch 2.8 or newer writes it"
            )
        top = texts[0].removesuffix("models/model.json")
        text: dict[str, Any] = read_json(archive.read(texts[0], most=_MOST_TEXT), most=_MOST_TEXT)
        try:
            return _graph(text, _tensors(archive, top), path)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise FormatError(
                f"{path} is no whole exported program ({type(error).__name__}: {error}); export it"
                " again"
            ) from None


def _graph(text: Mapping[str, Any], tensors: Mapping[str, Tensor], path: Path) -> ExportedGraph:
    module = text["graph_module"]
    graph, signature = module["graph"], module["signature"]
    weights: dict[str, Tensor] = {}
    parameters, buffers, inputs = set(), {}, {}
    for spec in signature["input_specs"]:
        ((sort, about),) = spec.items()
        if sort == "user_input":
            name = about["arg"].get("as_tensor", {}).get("name")
            if name is not None:
                inputs[name] = _described(graph["tensor_values"][name])
        elif sort in ("parameter", "buffer", "tensor_constant"):
            name = about["arg"]["name"]
            weights[name] = _named(tensors, about[f"{sort}_name"], path)
            if sort == "parameter":
                parameters.add(name)
            else:
                buffers[about[f"{sort}_name"]] = name
        elif sort != "constant_input":
            raise FormatError(
                f"{path} takes a {sort.replace('_', ' ')}; needed tensors alone, so export it"
                " without objects of other kinds"
            )
    outputs, updates = [], {}
    for spec in signature["output_specs"]:
        ((sort, about),) = spec.items()
        if sort == "user_output" and "as_tensor" in about["arg"]:
            outputs.append(about["arg"]["as_tensor"]["name"])
        elif sort == "buffer_mutation":
            updates[about["arg"]["name"]] = buffers[about["buffer_name"]]
    version = text.get("torch_version") or "not stated"
    return ExportedGraph(
        tuple(_nodes(graph, path)), inputs, tuple(outputs), weights, frozenset(parameters),
        frozenset(buffers.values()), updates, f"torch {version}",
    )  # fmt: skip


def _nodes(
    graph: Mapping[str, Any], path: Path, depth: int = 0, names: Mapping[str, str] | None = None
) -> list[Node]:
    """The nodes of a graph, those of a part that only switches gradients off among them.

    Args:
        graph: as the file has it.
        path: the file, for the words of errors.
        depth: of graphs within graphs.
        names: what its values are called in the graph around it.
    """
    if depth > _DEEPEST:
        raise FormatError(f"{path} has graphs nested deeper than {_DEEPEST}; export it again")
    found: list[Node] = []
    for i, node in enumerate(graph["nodes"]):
        target = str(node["target"])
        inputs = [(str(e["name"]), _renamed(e["arg"], names or {})) for e in node["inputs"]]
        outputs = [_output(_renamed(output, names or {})) for output in node["outputs"]]
        if target != _WITHIN:
            operation(target, path)  # refused here, not when it runs
            found.append(Node(target, tuple(inputs), tuple(outputs), _scope(node)))
            continue
        place = [k for k, (_, value) in enumerate(inputs) if "as_graph" in value][0]  # noqa: RUF015
        inner = node["inputs"][place]["arg"]["as_graph"]["graph"]
        prefix = f"{depth}.{i}."
        own = {name: prefix + name for name in inner["tensor_values"]}
        own |= {name: prefix + name for name in inner.get("sym_int_values", {})}
        taken = [_output(value) for _, value in inputs[place + 1 :]]
        own |= dict(zip(map(_output, inner["inputs"]), taken, strict=True))
        given = [name for name in outputs for name in (name if isinstance(name, list) else [name])]
        own |= dict(zip(map(_output, inner["outputs"]), given, strict=True))
        found += _nodes(inner, path, depth + 1, own)
    return found


def _renamed(argument: Any, names: Mapping[str, str]) -> Any:
    if isinstance(argument, list):
        return [_renamed(one, names) for one in argument]
    if not isinstance(argument, dict) or not names:
        return argument
    if "as_graph" in argument:
        return argument
    return {
        key: names.get(value, value)
        if key in ("name", "as_name") and isinstance(value, str)
        else _renamed(value, names)
        for key, value in argument.items()
    }


def operation(target: str, path: Path) -> Callable[..., Any]:
    """The operation a node names.

    Raises:
        FormatError: if it is not one of torch that only computes.
    """
    import operator

    space, _, name = target.partition(".")
    if space == "_operator" and name in _ARITHMETIC:
        found: Callable[..., Any] = getattr(operator, name)
        return found
    if space == "torch" and name in _SYMBOLIC:
        symbolic: Callable[..., Any] = getattr(torch, name)
        return symbolic
    parts = target.split(".")
    if parts[:3] == ["torch", "ops", "aten"] and len(parts) == 5 and parts[3] not in _REFUSED:
        packet: Any = getattr(torch.ops.aten, parts[3], None)
        if isinstance(packet, torch._ops.OpOverloadPacket) and parts[4] in _overloads(packet):
            overload: Callable[..., Any] = getattr(packet, parts[4])
            return overload
    raise FormatError(
        f"{path} uses the operation {target[:80]}; needed operations of torch that only compute, so"
        " export it again with run_decompositions()"
    )


def _overloads(packet: Any) -> list[str]:
    return list(packet.overloads())


def compute(
    nodes: Sequence[Node],
    values: dict[str, Any],
    path: Path,
    given: Callable[[str, Any], None] = lambda name, value: None,
) -> None:
    """Runs the nodes.

    Args:
        nodes: in an order they can run in.
        values: name -> what is known: inputs and weights; what is computed is added.
        path: the file, for the words of errors.
        given: told of every value as it comes.
    """
    device = next((v.device for v in values.values() if isinstance(v, Tensor)), None)
    for node in nodes:
        function = operation(node.target, path)
        if node.target.startswith("torch.ops."):
            result = function(**{k: _value(v, values, device) for k, v in node.inputs})
        else:
            result = function(*(_value(v, values, device) for _, v in node.inputs))
        if len(node.outputs) == 1 and not isinstance(node.outputs[0], list):
            result = (result[0] if isinstance(result, tuple) else result,)
        elif len(node.outputs) == 1:
            result = (result,)
        for names, value in zip(node.outputs, result or (), strict=False):
            pairs = zip(names, value, strict=True) if isinstance(names, list) else [(names, value)]
            for name, part in pairs:
                if name is not None:
                    values[name] = part
                    given(name, part)


def _value(argument: Mapping[str, Any], values: Mapping[str, Any], device: Any) -> Any:
    """What an argument of the file stands for."""
    ((sort, value),) = argument.items()
    match sort:
        case "as_tensor":
            return values[value["name"]]
        case "as_tensors":
            return [values[one["name"]] for one in value]
        case "as_optional_tensor":
            return _value(value, values, device)
        case "as_optional_tensors":
            return [_value(one, values, device) for one in value]
        case "as_none":
            return None
        case "as_sym_int" | "as_sym_float" | "as_sym_bool":
            ((how, one),) = value.items()
            return values[one] if how == "as_name" else one
        case "as_sym_ints" | "as_sym_floats" | "as_sym_bools":
            return [_value({"as_sym_int": one}, values, device) for one in value]
        case "as_scalar_type":
            return _TYPES[value]
        case "as_memory_format":
            return _FORMATS[value]
        case "as_layout":
            return torch.strided
        case "as_device":
            return device
        case "as_int" | "as_float" | "as_bool" | "as_string":
            return value
        case "as_ints" | "as_floats" | "as_bools" | "as_strings":
            return list(value)
    raise FormatError(f"an exported program has an argument of the kind {sort}; needed a plain one")


def _scope(node: Mapping[str, Any]) -> tuple[str, ...]:
    """Path of the module a node belongs to: the second word of the innermost of its stack."""
    stack = str(node.get("metadata", {}).get("nn_module_stack", ""))
    words = stack.rpartition(";")[2].split(",")
    known = len(words) == 3 and words[1] and not words[1].startswith("_empty")
    return tuple(words[1].split(".")) if known else ()


def _output(output: Mapping[str, Any]) -> Any:
    ((sort, value),) = output.items()
    if sort == "as_tensors":
        return [one["name"] for one in value]
    if sort in ("as_sym_int", "as_sym_float", "as_sym_bool"):
        return value.get("as_name")
    return value["name"] if sort == "as_tensor" else None


def _tensors(archive: Archive, top: str) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for folder, name in (("weights", "model_weights"), ("constants", "model_constants")):
        listing = f"{top}data/{folder}/{name}_config.json"
        if listing not in archive:
            continue
        text: dict[str, Any] = read_json(archive.read(listing, most=_MOST_TEXT), most=_MOST_TEXT)
        for key, about in text["config"].items():
            member = f"{top}data/{folder}/{about['path_name']}"
            if not about["path_name"].startswith(("weight_", "tensor_")):
                continue  # an object of another kind; refused where the graph takes it
            data = archive.buffer(member)
            if about["use_pickle"]:
                value = read_torch(bytes(data))
                if not isinstance(value, Tensor):
                    raise ValueError(f"{key} is no tensor")
            else:
                value = _stored(data, about["tensor_meta"], key)
            found[key] = value
    return found


def _stored(data: bytearray, about: Mapping[str, Any], key: str) -> Tensor:
    dtype = _TYPES[about["dtype"]]
    sizes = [int(n["as_int"]) for n in about["sizes"]]
    strides = [int(n["as_int"]) for n in about["strides"]]
    offset = int(about["storage_offset"]["as_int"])
    if min([offset, *sizes, *strides], default=0) < 0 or len(sizes) != len(strides):
        raise ValueError(f"the shape of {key} is {sizes}")
    if 0 in sizes:
        return torch.empty(sizes, dtype=dtype)
    last = offset + sum((n - 1) * step for n, step in zip(sizes, strides, strict=True))
    if (last + 1) * dtype.itemsize > len(data) or len(data) % dtype.itemsize:
        raise ValueError(f"{key} has {len(data)} bytes and needs {(last + 1) * dtype.itemsize}")
    return torch.frombuffer(data, dtype=dtype).as_strided(sizes, strides, offset).contiguous()


def _named(tensors: Mapping[str, Tensor], name: str, path: Path) -> Tensor:
    if name not in tensors:
        raise FormatError(f"{path} lacks the tensor '{name}' its graph takes; export it again")
    return tensors[name]


def _described(value: Mapping[str, Any]) -> tuple[str, tuple[int | None, ...]]:
    shape = tuple(size.get("as_int") for size in value["sizes"])
    return str(_TYPES[value["dtype"]]).removeprefix("torch."), shape

"""Untrained ONNX graphs: new weights in the same program."""

from __future__ import annotations

from typing import Any

import numpy as np

from mirror_analysis.errors import FormatError
from mirror_analysis.models.graphs.onnx_operations import WEIGHTED
from mirror_analysis.models.graphs.twins import is_weight, redrawn_arrays

_PASSED = {"Cast", "DequantizeLinear", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}
_LEARNED = WEIGHTED | {"Gather"}
_SCALING = {"Div", "Sub"}


def redraw(model: bytes, seed: int, *, where: str) -> bytes:
    """The same graph with its weights drawn anew.

    Weights are the constants of two or more axes, in the list of initializers or in nodes, of
    floating-point numbers or quantised bytes, that a convolution, matrix product, recurrent cell
    or embedding takes, or that have two axes longer than 1 and are neither subtracted nor divided
    by. Everything else stays: biases, norms, and the mean and scale that normalise an input.

    Args:
        model: the ModelProto.
        seed: of the draw.
        where: the file, for the words of errors.

    Raises:
        FormatError: if the graph has no such constant.
    """
    import onnx
    from onnx import numpy_helper

    message = onnx.ModelProto.FromString(model)
    takers = _takers(message.graph)
    tensors = {tensor.name: tensor for tensor in message.graph.initializer}
    for node in message.graph.node:
        if node.op_type == "Constant":
            for attribute in node.attribute:
                if attribute.name == "value":
                    tensors[node.output[0]] = attribute.t
    chosen: dict[str, Any] = {}
    for name, tensor in tensors.items():
        shape, taken = list(tensor.dims), takers.get(name, set())
        if is_weight(shape, taken, weighted=_LEARNED, scaling=_SCALING):
            values = numpy_helper.to_array(tensor)
            if values.dtype.kind == "f" or values.dtype in (np.int8, np.uint8):
                chosen[name] = values
    if not chosen:
        raise FormatError(
            f"{where} has no constants that can be told to be weights, so it has no untrained"
            " twin; export it with its weights as initializers"
        )
    for name, values in redrawn_arrays(chosen, seed).items():
        tensors[name].CopyFrom(numpy_helper.from_array(values, tensors[name].name))
    return message.SerializeToString()


def _takers(graph: Any) -> dict[str, set[str]]:
    """Constant -> the operations it reaches."""
    takers: dict[str, set[str]] = {}
    for node in reversed(graph.node):
        for place, name in enumerate(node.input):
            if node.op_type in _PASSED and place == 0:
                reached = takers.get(node.output[0], set())
            else:
                reached = {node.op_type}
            takers.setdefault(name, set()).update(reached)
    return takers

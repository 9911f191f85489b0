"""The operations of an ONNX graph in words: what kind each is and where it stands."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mirror_analysis.models.graphs.layers import Operation

if TYPE_CHECKING:
    import onnx

WEIGHTED = {
    "Conv", "ConvInteger", "ConvTranspose", "FusedConv", "FusedGemm", "FusedMatMul", "GRU", "Gemm",
    "LSTM", "MatMul", "MatMulInteger", "QLinearConv", "QLinearMatMul", "RNN",
}  # fmt: skip
_CHANNELS_FIRST = {
    "BatchNormalization", "Conv", "ConvInteger", "ConvTranspose", "FusedConv", "GlobalAveragePool",
    "GlobalMaxPool", "GroupNormalization", "InstanceNormalization", "QLinearConv",
}  # fmt: skip
_NORMS = {
    "BatchNormalization", "GroupNormalization", "InstanceNormalization", "LayerNormalization",
    "RMSNormalization", "SimplifiedLayerNormalization", "SkipLayerNormalization",
}  # fmt: skip
_ACTIVATIONS = {
    "BiasGelu", "Celu", "Clip", "Elu", "FastGelu", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu",
    "Mish", "PRelu", "QuickGelu", "Relu", "Selu", "Sigmoid", "Softplus", "Softsign", "Swish",
    "Tanh", "ThresholdedRelu",
}  # fmt: skip
_POOLS = {"AveragePool", "GlobalAveragePool", "GlobalMaxPool", "MaxPool", "ReduceMean"}
_GATES = {"Erf", "HardSigmoid", "Sigmoid", "Softplus", "Tanh"}
_AXES_KEPT = _ACTIVATIONS | _POOLS | {
    "Add", "Cast", "Concat", "DequantizeLinear", "Div", "Dropout", "Identity", "Mul", "Pow",
    "QuantizeLinear", "Resize", "Slice", "Split", "Sub", "Where",
}  # fmt: skip


def operations(model: onnx.ModelProto) -> list[Operation]:
    """The operations of the main graph, in the order of the file, which is one they can run in.

    A product of a value with its own gate, as exporters write swish and gelu, is an activation.
    """
    constants = {tensor.name for tensor in model.graph.initializer}
    constants |= {n.output[0] for n in model.graph.node if n.op_type == "Constant" and n.output}
    makers: dict[str, Any] = {}
    found = []
    for node in model.graph.node:
        if not node.output or node.op_type == "Constant":
            continue
        computed = [name for name in node.input if name and name not in constants]
        scope, word = _place(node)
        for output in node.output:
            makers[output] = node
        found.append(
            Operation(
                _kind(node, computed, makers),
                tuple(computed),
                node.output[0],
                scope,
                word,
                _channels(node),
            )
        )
    return found


def _kind(node: Any, computed: list[str], makers: Mapping[str, Any]) -> str:
    op = node.op_type
    if op in WEIGHTED:
        # A product of two computed values, as in attention, has no weights.
        plain = op == "MatMul" and len(computed) > 1 and not _weights_behind(computed, makers)
        return "other" if plain else "weighted"
    if op == "Mul" and len(computed) == 2:
        gated = any(_through(name, makers) for name in computed)
        return "activation" if gated else "other"
    if op in ("Add", "Sum"):
        return "sum" if len(computed) > 1 else "bias"
    kinds = (("norm", _NORMS), ("activation", _ACTIVATIONS), ("pool", _POOLS))
    return next((kind for kind, ops in kinds if op in ops), "other")


def _weights_behind(computed: list[str], makers: Mapping[str, Any]) -> bool:
    return any(
        name in makers and makers[name].op_type in ("DequantizeLinear", "Transpose")
        and all(source not in makers for source in makers[name].input)
        for name in computed
    )  # fmt: skip


def _through(name: str, makers: Mapping[str, Any], steps: int = 3) -> bool:
    """Whether a value was made by a gate, or by shifting and scaling one."""
    maker = makers.get(name)
    if maker is None or not steps:
        return False
    if maker.op_type in _GATES:
        return True
    if maker.op_type not in ("Add", "Mul", "Div"):
        return False
    return any(_through(source, makers, steps - 1) for source in maker.input)


def _channels(node: Any) -> int | None:
    if node.op_type in _CHANNELS_FIRST:
        return 1
    if node.op_type in WEIGHTED | _NORMS | {"Gather"}:
        return -1
    return 0 if node.op_type in _AXES_KEPT else None


def _place(node: Any) -> tuple[tuple[str, ...], str]:
    """Scope and word of a node, from the name its exporter gave it."""
    words = [word for word in re.split(r"[/:]", node.name) if word and word != "0"]
    if len(words) < 2:
        return (), node.op_type
    scope = words[:-1]
    # Exporters repeat the parent, as in /blocks/blocks.0/block/block.2/Mul.
    scope = [w for w, after in zip(scope, [*scope[1:], ""], strict=True)
             if not after.startswith(f"{w}.")]  # fmt: skip
    return tuple(part for word in scope for part in word.split(".")), _plain(words[-1])


def _plain(word: str) -> str:
    return re.sub(r"_+\d+$", "", word).replace(".", "_") or word

"""The operations of torch in words: what kind each is, and which axis it leaves the channels on."""

from __future__ import annotations

_WEIGHTED = {
    "_convolution", "addmm", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d",
    "conv_transpose3d", "convolution", "embedding", "gru", "linear", "lstm", "rnn_tanh",
}  # fmt: skip
_NORMS = {
    "_native_batch_norm_legit_no_training", "batch_norm", "group_norm", "instance_norm",
    "layer_norm", "native_group_norm", "native_layer_norm", "rms_norm",
}  # fmt: skip
_ACTIVATIONS = {
    "celu", "clamp", "elu", "gelu", "hardsigmoid", "hardswish", "hardtanh", "leaky_relu", "mish",
    "prelu", "relu", "relu6", "selu", "sigmoid", "silu", "softplus", "tanh",
}  # fmt: skip
_POOLS = {
    "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "adaptive_max_pool2d",
    "avg_pool1d", "avg_pool2d", "avg_pool3d", "max_pool1d", "max_pool2d", "max_pool3d", "mean",
}  # fmt: skip
_KEPT = {
    "add", "cat", "clone", "contiguous", "div", "dropout", "mul", "pow", "slice", "sub", "to",
}  # fmt: skip
_LAST = {"addmm", "embedding", "gru", "layer_norm", "linear", "lstm", "matmul", "mm",
         "native_layer_norm", "rms_norm", "rnn_tanh"}  # fmt: skip


def kind(word: str, computed: int) -> str:
    """What an operation is, as `graph_layers.Operation` has it.

    Args:
        word: its name without namespace, such as "conv2d".
        computed: how many of its inputs are computed values, neither weights nor constants.
    """
    word = word.rstrip("_")
    if word == "add":
        return "sum" if computed > 1 else "bias"
    if word in ("matmul", "mm"):
        return "weighted" if computed == 1 else "other"
    kinds = (("weighted", _WEIGHTED), ("activation", _ACTIVATIONS), ("norm", _NORMS),
             ("pool", _POOLS))  # fmt: skip
    return next((name for name, words in kinds if word in words), "other")


def channels(word: str) -> int | None:
    """The channel axis of what it gives: 1, -1, 0 for that of its input, None where unknown."""
    word = word.rstrip("_")
    if word in _LAST:
        return -1
    if word in _WEIGHTED | _NORMS:
        return 1
    return 0 if word in _ACTIVATIONS | _POOLS | _KEPT else None

"""Small graphs in the formats of other programs, made by the tests that read them."""

import warnings
from dataclasses import dataclass

import numpy as np
import onnx
import torch
from drawn import drawn
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from mirror_analysis.models.checkpoint import Checkpoint, Options


@dataclass
class Seen:
    """An episode as a model reads it: one array per stream."""

    values: dict
    id: str = "0"
    instruction: str = ""
    length: int = 1
    steps = timestamps = None

    def stream(self, name):
        return self.values[name]


def opened(family, path, **values):
    """A model of a family module."""
    calls = values.pop("calls", "last")
    return family.load(Checkpoint(path), name="m", options=Options(calls=calls, values=values))


def weights(**shapes):
    return {name: drawn(name, shape) for name, shape in shapes.items()}


def onnx_bytes(nodes, inputs, outputs, constants, *, opset=17, types=None):
    """A model of `onnx.helper` nodes; constants are name -> array."""
    types = types or {}

    def about(shapes):
        return [
            helper.make_tensor_value_info(name, types.get(name, TensorProto.FLOAT), shape)
            for name, shape in shapes.items()
        ]

    graph = helper.make_graph(
        nodes,
        "graph",
        about(inputs),
        about(outputs),
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = 8
    onnx.checker.check_model(model)
    return model.SerializeToString()


def write_onnx_policy(path, batch="N"):
    """Normalise, two layers of tanh, one linear: 6 -> 8 -> 8 -> 3."""
    constants = {
        **weights(w0=(6, 8), b0=(8,), w1=(8, 8), b1=(8,), w2=(8, 3), b2=(3,)),
        "mean": np.linspace(-1, 1, 6, dtype=np.float32)[None],
        "std": np.linspace(0.5, 2, 6, dtype=np.float32)[None],
    }
    nodes = [
        helper.make_node("Sub", ["obs", "mean"], ["s"], name="/norm/Sub"),
        helper.make_node("Div", ["s", "std"], ["x0"], name="/norm/Div"),
        helper.make_node("Gemm", ["x0", "w0", "b0"], ["g0"], name="/actor/actor.0/Gemm"),
        helper.make_node("Tanh", ["g0"], ["x1"], name="/actor/actor.1/Tanh"),
        helper.make_node("Gemm", ["x1", "w1", "b1"], ["g1"], name="/actor/actor.2/Gemm"),
        helper.make_node("Tanh", ["g1"], ["x2"], name="/actor/actor.3/Tanh"),
        helper.make_node("Gemm", ["x2", "w2", "b2"], ["actions"], name="/actor/actor.4/Gemm"),
    ]
    path.write_bytes(onnx_bytes(nodes, {"obs": [batch, 6]}, {"actions": [batch, 3]}, constants))
    return constants


def write_onnx_watcher(path, *, layout="NCHW", size=8, channels=3, dtype=TensorProto.FLOAT):
    """Two convolutions with a residual sum between, pooled: pictures -> 5."""
    constants = weights(k0=(4, channels, 3, 3), c0=(4,), k1=(4, 4, 3, 3), c1=(4,), w=(4, 5))
    shape = {"C": channels, "H": size, "W": size, "N": "N"}
    source = "pictures"
    nodes = []
    if dtype != TensorProto.FLOAT:
        nodes.append(helper.make_node("Cast", [source], ["float"], to=TensorProto.FLOAT))
        source = "float"
    if layout == "NHWC":
        nodes.append(helper.make_node("Transpose", [source], ["nchw"], perm=[0, 3, 1, 2]))
        source = "nchw"
    pads = [1, 1, 1, 1]
    nodes += [
        helper.make_node("Conv", [source, "k0", "c0"], ["a"], name="/stem/Conv", pads=pads),
        helper.make_node("Relu", ["a"], ["b"], name="/stem/Relu"),
        helper.make_node("Conv", ["b", "k1", "c1"], ["c"], name="/block/Conv", pads=pads),
        helper.make_node("Add", ["b", "c"], ["d"], name="/block/Add"),
        helper.make_node("Relu", ["d"], ["e"], name="/block/Relu"),
        helper.make_node("GlobalAveragePool", ["e"], ["p"], name="/pool/GlobalAveragePool"),
        helper.make_node("Flatten", ["p"], ["f"], name="/Flatten"),
        helper.make_node("MatMul", ["f", "w"], ["logits"], name="/head/MatMul"),
    ]
    axes = [shape[letter] for letter in layout]
    path.write_bytes(
        onnx_bytes(
            nodes, {"pictures": axes}, {"logits": ["N", 5]}, constants, types={"pictures": dtype}
        )
    )
    return constants


def write_onnx_memory(path):
    """A recurrent policy whose state goes in and out: h' = tanh(obs W + h U)."""
    constants = weights(w=(4, 6), u=(6, 6), v=(6, 2))
    nodes = [
        helper.make_node("MatMul", ["obs", "w"], ["a"], name="/rnn/MatMul"),
        helper.make_node("MatMul", ["h_in", "u"], ["b"], name="/rnn/MatMul_1"),
        helper.make_node("Add", ["a", "b"], ["c"], name="/rnn/Add"),
        helper.make_node("Tanh", ["c"], ["h_out"], name="/rnn/Tanh"),
        helper.make_node("MatMul", ["h_out", "v"], ["actions"], name="/head/MatMul"),
    ]
    path.write_bytes(
        onnx_bytes(
            nodes,
            {"obs": [1, 4], "h_in": [1, 6]},
            {"actions": [1, 2], "h_out": [1, 6]},
            constants,
        )
    )
    return constants


def scripted(module, path, *, freeze=False):
    """Writes a module as TorchScript; gives the module back, in evaluation mode."""
    module.eval()
    with torch.no_grad():
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
            if tensor.is_floating_point() and name.partition(".")[0] not in ("h", "hidden"):
                tensor.copy_(torch.from_numpy(drawn(name, tuple(tensor.shape))))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = torch.jit.script(module)
        if freeze:
            made = torch.jit.freeze(made)
        torch.jit.save(made, str(path))
    return module


class Recurrent(nn.Module):
    """A policy that keeps its hidden state, a counter and a list of tensors inside."""

    def __init__(self):
        super().__init__()
        self.inward = nn.Linear(5, 6)
        self.across = nn.Linear(6, 6)
        self.outward = nn.Linear(6, 2)
        self.register_buffer("hidden", torch.zeros(1, 6))
        self.steps = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.hidden[:] = torch.tanh(self.inward(x) + self.across(self.hidden))
        self.steps += 1
        return self.outward(self.hidden) + float(self.steps)


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.first = nn.Linear(width, width)
        self.second = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.second(torch.relu(self.first(x)))


class Blocks(nn.Module):
    """Three blocks of one class: TorchScript keeps one program for all of them."""

    def __init__(self, width=6):
        super().__init__()
        self.stem = nn.Linear(4, width)
        self.blocks = nn.Sequential(Block(width), Block(width), Block(width))
        self.head = nn.Linear(width, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.blocks(self.stem(x)))


class Pictures(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.norm(self.stem(x))).mean((2, 3)))


def tflite_bytes(tensors, nodes, inputs, outputs):
    """A TFLite file.

    Args:
        tensors: (name, shape, array or None, (scale, zero) or None, type) each.
        nodes: (operation, inputs, outputs, options class name or None, its fields) each.
        inputs: numbers of tensors.
        outputs: the same.
    """
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT()
    model.version = 3
    model.description = "made by a test"
    model.buffers = [schema.BufferT()]
    main = schema.SubGraphT()
    main.tensors = []
    for name, shape, array, scale, kind in tensors:
        tensor = schema.TensorT()
        tensor.name, tensor.type = name, getattr(schema.TensorType, kind)
        tensor.shape = [1 if n < 0 else n for n in shape]
        if any(n < 0 for n in shape):
            tensor.shapeSignature = list(shape)
        tensor.isVariable = name == "variable"
        tensor.buffer = 0
        if array is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(np.ascontiguousarray(array).tobytes(), np.uint8)
            tensor.buffer = len(model.buffers)
            model.buffers.append(buffer)
        if scale is not None:
            tensor.quantization = schema.QuantizationParametersT()
            tensor.quantization.scale = [scale[0]]
            tensor.quantization.zeroPoint = [scale[1]]
        main.tensors.append(tensor)
    model.operatorCodes, main.operators = [], []
    for word, takes, gives, options, settings in nodes:
        code = schema.OperatorCodeT()
        code.builtinCode = getattr(schema.BuiltinOperator, word)
        code.deprecatedBuiltinCode = min(code.builtinCode, 127)
        code.version = 1
        node = schema.OperatorT()
        node.opcodeIndex = len(model.operatorCodes)
        model.operatorCodes.append(code)
        node.inputs, node.outputs = takes, gives
        if options is not None:
            node.builtinOptionsType = getattr(schema.BuiltinOptions, options)
            node.builtinOptions = getattr(schema, f"{options}T")()
            for name, value in settings.items():
                setattr(node.builtinOptions, name, value)
        main.operators.append(node)
    main.inputs, main.outputs = inputs, outputs
    model.subgraphs = [main]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def write_tflite_watcher(path, *, kind="FLOAT32", rows=-1):
    """A convolution, a residual sum, a mean and one layer: pictures of 8 x 8 -> 5."""
    real = kind == "FLOAT32"
    quantised = None if real else (1 / 128, 128 if kind == "UINT8" else 0)
    source = 0
    tensors = [("pictures", (rows, 8, 8, 3), None, quantised, kind)]
    nodes = []
    if not real:
        tensors.append(("net/cast/real", (rows, 8, 8, 3), None, None, "FLOAT32"))
        nodes.append(("DEQUANTIZE", [0], [1], None, {}))
        source = 1
    n = len(tensors)
    c = weights(k0=(4, 3, 3, 3), c0=(4,), k1=(4, 3, 3, 4), c1=(4,), w=(5, 4), b=(5,))
    maps = (rows, 8, 8, 4)
    tensors += [(name, c[name].shape, c[name], None, "FLOAT32") for name in c]
    tensors += [
        ("axes", (2,), np.array([1, 2], np.int32), None, "INT32"),
        ("net/stem/Relu", maps, None, None, "FLOAT32"),
        ("net/block/conv/Conv2D", maps, None, None, "FLOAT32"),
        ("net/block/add/Add", maps, None, None, "FLOAT32"),
        ("net/pool/Mean", (rows, 4), None, None, "FLOAT32"),
        ("net/head/logits", (rows, 5), None, None, "FLOAT32"),
    ]
    relu = {"strideW": 1, "strideH": 1, "padding": 0, "fusedActivationFunction": 1}
    nodes += [
        ("CONV_2D", [source, n, n + 1], [n + 7], "Conv2DOptions", relu),
        ("CONV_2D", [n + 7, n + 2, n + 3], [n + 8], "Conv2DOptions",
         {**relu, "fusedActivationFunction": 0}),
        ("ADD", [n + 7, n + 8], [n + 9], "AddOptions", {}),
        ("MEAN", [n + 9, n + 6], [n + 10], "ReducerOptions", {"keepDims": False}),
        ("FULLY_CONNECTED", [n + 10, n + 4, n + 5], [n + 11], "FullyConnectedOptions", {}),
    ]  # fmt: skip
    path.write_bytes(tflite_bytes(tensors, nodes, [0], [n + 11]))
    return c

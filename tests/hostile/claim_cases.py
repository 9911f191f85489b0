"""Checkpoints that claim sizes no memory holds, and pipes where files should be."""

import json
import os
import struct

import numpy as np
import onnx
import torch
from hostile import sound_episodes, sound_models
from hostile.bomb_cases import HUGE
from hostile.cases import case
from hostile.code_cases import saved
from hostile.path_cases import change_json
from hostile.sound_episodes import field
from onnx import TensorProto, helper

# -- checkpoints ----------------------------------------------------------------------------------


def _weights(folder, header, *, length=None, data=b""):
    sound_models.transformers(folder)
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    length = len(text) if length is None else length
    path = folder / "model.safetensors"
    path.write_bytes(struct.pack("<Q", length) + text + data)
    return folder


@case("model", "header")
def header_of_a_claimed_length(folder, bait):
    return _weights(folder, {}, length=2**63)


@case("model", "header|safetensors")
def header_of_deep_json(folder, bait):
    return _weights(folder, b'{"a":' * 100_000)


@case("model", "numbers|bytes|axes|shape")
def tensor_of_a_claimed_shape(folder, bait):
    entry = {"dtype": "F32", "shape": [HUGE, HUGE], "data_offsets": [0, 4]}
    return _weights(folder, {"embeddings.cls_token": entry}, data=bytes(4))


@case("model", "gap|offset|inside")
def tensor_outside_the_file(folder, bait):
    entry = {"dtype": "F32", "shape": [1, 1, 32], "data_offsets": [2**50, 2**50 + 128]}
    return _weights(folder, {"embeddings.cls_token": entry}, data=bytes(4))


def _storage(folder, function, *arguments):
    sound_models.transformers_bin(folder)
    path = folder / "pytorch_model.bin"

    class Claims:
        def __reduce__(self):
            return function, arguments

    held = saved({"x": Claims(), "y": torch.zeros(4)})
    path.write_bytes(held)
    return folder


def _view(folder, shape, strides, offset=0):
    storage = torch.zeros(4).untyped_storage()
    typed = torch.storage.TypedStorage(wrap_storage=storage, dtype=torch.float32, _internal=True)
    return _storage(
        folder, torch._utils._rebuild_tensor_v2, typed, offset, shape, strides, False, {}
    )


@case("model", "reaches")
def tensor_of_giant_steps(folder, bait):
    return _view(folder, (4, 4), (HUGE, 1))


@case("model", "shape|reaches|plain data")
def tensor_shown_without_end(folder, bait):
    return _view(folder, (2**20, 2**19), (0, 0))


@case("model", "steps|shape")
def tensor_before_its_storage(folder, bait):
    return _view(folder, (4,), (1,), -4)


def _config(make, **changes):
    def built(folder, bait):
        path = make(folder)
        change_json(folder / "config.json", lambda said: said.update(changes))
        return path

    return built


CONFIGS = {
    "layers": _config(sound_models.transformers, num_hidden_layers=10**9),
    "width": _config(sound_models.transformers, hidden_size=2**36),
    "picture": _config(sound_models.transformers, image_size=2**30),
    "patch": _config(sound_models.transformers, patch_size=0),
    "layers of text": _config(sound_models.transformers, num_hidden_layers="1" * 5000),
    "words": _config(sound_models.sentences, vocab_size=2**40),
    "layers of a sentence": _config(sound_models.sentences, num_hidden_layers=10**9),
    "act layers": _config(sound_models.lerobot, n_encoder_layers=10**9),
    "act width": _config(sound_models.lerobot, dim_model=2**36),
    "act chunk": _config(sound_models.lerobot, chunk_size=2**40),
    "act input": _config(sound_models.lerobot, input_features={"observation.state": {
        "type": "STATE", "shape": [2**40]}}),
    "classes": _config(sound_models.timm, num_classes=2**40),
    "timm depth": _config(sound_models.timm, model_args={"depth": 10**9, "img_size": 32}),
    "timm width": _config(sound_models.timm, model_args={"embed_dim": 2**36, "img_size": 32}),
}  # fmt: skip
for _name, _make in CONFIGS.items():
    case("model", "", name=f"config: {_name}")(_make)


@case("model", "deep|nest|JSON")
def config_of_deep_json(folder, bait):
    sound_models.transformers(folder)
    (folder / "config.json").write_text('{"a":' * 200_000 + "1" + "}" * 200_000)
    return folder


@case("model", "bytes")
def config_without_end(folder, bait):
    sound_models.transformers(folder)
    with (folder / "config.json").open("wb") as file:
        file.truncate(2**36)
    return folder


@case("model", "config.json|no known family")
def config_is_a_pipe(folder, bait):
    sound_models.transformers(folder)
    (folder / "config.json").unlink()
    os.mkfifo(folder / "config.json")
    return folder


@case("episodes", "is no file")
def picture_is_a_pipe(folder, bait):
    sound_episodes.rlbench(folder)
    (place,) = folder.rglob("2.png")
    place.unlink()
    os.mkfifo(place)
    return folder


@case("episodes", "is no file")
def film_is_a_pipe(folder, bait):
    sound_episodes.films(folder)
    (folder / "a.mp4").unlink()
    os.mkfifo(folder / "a.mp4")
    return folder


# -- graphs ---------------------------------------------------------------------------------------


def _graph(folder, nodes, constants=()):
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("obs", TensorProto.FLOAT, ["N", 6])],
        [helper.make_tensor_value_info("actions", TensorProto.FLOAT, ["N", "M"])],
        list(constants),
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    (folder / "policy.onnx").write_bytes(model.SerializeToString())
    return folder / "policy.onnx"


@case("model", "weight|numbers|bytes|shape")
def onnx_weight_of_a_claimed_shape(folder, bait):
    weight = TensorProto(name="w", data_type=1, dims=[HUGE, HUGE], raw_data=b"\0" * 4)
    return _graph(folder, [helper.make_node("MatMul", ["obs", "w"], ["actions"])], [weight])


@case("model", "not a graph its runtime takes")
def onnx_that_allocates(folder, bait):
    """A constant of 2 ** 40 numbers that the graph itself makes."""
    shape = onnx.numpy_helper.from_array(np.array([2**20, 2**20]), "s")
    nodes = [
        helper.make_node("ConstantOfShape", ["s"], ["c"]),
        helper.make_node("ReduceSum", ["c"], ["r"], keepdims=0),
        helper.make_node("Add", ["obs", "r"], ["actions"]),
    ]
    return _graph(folder, nodes, [shape])


@case("model", "deep|nested|levels")
def onnx_of_nested_graphs(folder, bait):
    """2,000 branches in branches, by the numbers of the fields: no library writes them."""
    path = sound_models.onnx_policy(folder)
    node = field(1, b"obs") + field(2, b"actions") + field(4, b"Identity")
    for _ in range(2000):
        branch = field(1, b"then_branch") + field(6, field(1, node)) + b"\xa0\x01\x05"
        node = field(1, b"obs") + field(2, b"actions") + field(4, b"If") + field(5, branch)
    graph = onnx.load(str(path)).graph.SerializeToString() + field(1, node)
    path.write_bytes(b"\x08\x08" + field(7, graph) + field(8, b"\x10\x11"))
    return path


@case("model", "outside the file")
def tflite_of_offsets_elsewhere(folder, bait):
    path = sound_models.tflite(folder)
    data = bytearray(path.read_bytes())
    for at in range(16, 400, 4):
        struct.pack_into("<I", data, at, 0x7FFFFFF0)
    path.write_bytes(data)
    return path

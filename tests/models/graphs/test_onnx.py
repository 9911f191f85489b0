"""ONNX graphs: forward equal to onnxruntime and to the formula, layers, memory, refusals."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from drawn import drawn
from graph_files import (
    Seen,
    onnx_bytes,
    opened,
    write_onnx_memory,
    write_onnx_policy,
    write_onnx_watcher,
)
from onnx import TensorProto, helper

from mirror_analysis.errors import (
    DefinitionError,
    DeviceError,
    FormatError,
    MissingDependencyError,
    ShapeError,
    UnknownNameError,
)
from mirror_analysis.models.checkpoint import Checkpoint
from mirror_analysis.models.graphs import onnx as onnx_graphs
from mirror_analysis.models.graphs.onnx_twins import redraw
from mirror_analysis.models.model import Input
from mirror_analysis.testing import check_model


def _reference(path, feeds, names=None):
    return onnxruntime.InferenceSession(str(path)).run(names, feeds)


def test_recognised_by_content_under_a_lying_name(tmp_path):
    path = tmp_path / "weights.zip"
    write_onnx_policy(path)
    assert onnx_graphs.recognise(Checkpoint(path)) == (
        "ONNX graph of 7 operations: obs [N, 6] -> actions [N, 3]"
    )
    (tmp_path / "a.onnx").write_text("{}")
    assert onnx_graphs.recognise(Checkpoint(tmp_path / "a.onnx")) is None


def test_policy_acts_as_the_formula_says(tmp_path):
    c = write_onnx_policy(tmp_path / "p.onnx")
    model = opened(onnx_graphs, tmp_path / "p.onnx")
    assert model.role == "execution"
    assert model.needs == (Input("states", 6, "input 'obs'"),)
    states = np.random.default_rng(0).standard_normal((40, 6)).astype(np.float32)
    x = (states - c["mean"]) / c["std"]
    h = np.tanh(np.tanh(x @ c["w0"] + c["b0"]) @ c["w1"] + c["b1"])
    actions = model.act({"states": states})
    np.testing.assert_allclose(actions, h @ c["w2"] + c["b2"], atol=1e-6)
    (direct,) = _reference(tmp_path / "p.onnx", {"obs": states[:32]})
    np.testing.assert_array_equal(actions[:32], direct)


def test_layers_are_where_blocks_end_and_named_by_place(tmp_path):
    write_onnx_policy(tmp_path / "p.onnx")
    model = opened(onnx_graphs, tmp_path / "p.onnx")
    assert [(i.name, i.width, i.axes) for i in model.layers()] == [
        ("actor.1", 8, "episode*time channel"),
        ("actor.3", 8, "episode*time channel"),
        ("actions", 3, "episode*time channel"),
    ]
    write_onnx_watcher(tmp_path / "w.onnx")
    model = opened(onnx_graphs, tmp_path / "w.onnx")
    assert [(i.name, i.width, i.axes) for i in model.layers()] == [
        ("stem", 4, "episode*time channel height width"),
        ("block", 4, "episode*time channel height width"),
        ("pool", 4, "episode*time channel height width"),
        ("logits", 5, "episode*time channel"),
    ]


def test_contract(tmp_path):
    write_onnx_policy(tmp_path / "p.onnx")
    check_model(opened(onnx_graphs, tmp_path / "p.onnx"))
    write_onnx_watcher(tmp_path / "w.onnx")
    check_model(opened(onnx_graphs, tmp_path / "w.onnx"))
    write_onnx_memory(tmp_path / "m.onnx")
    check_model(opened(onnx_graphs, tmp_path / "m.onnx"))


def test_batch_of_one_is_run_row_by_row(tmp_path):
    write_onnx_policy(tmp_path / "one.onnx", batch=1)
    write_onnx_policy(tmp_path / "any.onnx")
    states = np.random.default_rng(1).standard_normal((5, 6)).astype(np.float32)
    one = opened(onnx_graphs, tmp_path / "one.onnx").act({"states": states})
    every = opened(onnx_graphs, tmp_path / "any.onnx").act({"states": states})
    np.testing.assert_allclose(one, every, atol=1e-6)
    write_onnx_policy(tmp_path / "three.onnx", batch=3)
    three = opened(onnx_graphs, tmp_path / "three.onnx").act({"states": states})
    np.testing.assert_allclose(three, every, atol=1e-6)


def test_pictures_are_prepared_as_declared(tmp_path):
    write_onnx_watcher(tmp_path / "w.onnx")
    frames = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3)).astype(np.uint8)
    model = opened(onnx_graphs, tmp_path / "w.onnx")
    assert model.role == "observation"
    assert model.facts["normalisation"].startswith("ASSUMED, for the file does not say")
    given = model.forward_batch([Seen({"camera": frames})])
    x = (frames / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    x = x.transpose(0, 3, 1, 2).astype(np.float32)
    (direct,) = _reference(tmp_path / "w.onnx", {"pictures": x})
    np.testing.assert_allclose(given[0], direct, atol=1e-5)
    asked = opened(onnx_graphs, tmp_path / "w.onnx", scale="1", mean="127", std="128")
    assert asked.facts["normalisation"] == "as asked with options"
    x = ((frames.astype(np.float32) - 127) / 128).transpose(0, 3, 1, 2)
    (direct,) = _reference(tmp_path / "w.onnx", {"pictures": x})
    np.testing.assert_allclose(
        asked.forward_batch([Seen({"camera": frames})])[0], direct, atol=1e-5
    )
    assert asked.settings != model.settings


def test_bytes_and_channels_last_are_taken_as_they_are(tmp_path):
    write_onnx_watcher(tmp_path / "w.onnx", layout="NHWC", dtype=TensorProto.UINT8)
    model = opened(onnx_graphs, tmp_path / "w.onnx")
    frames = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3)).astype(np.uint8)
    (direct,) = _reference(tmp_path / "w.onnx", {"pictures": frames})
    np.testing.assert_array_equal(model.forward_batch([Seen({"camera": frames})])[0], direct)
    assert "bytes as they are" in model.facts["normalisation"]


def test_memory_goes_from_moment_to_moment_and_no_further(tmp_path):
    c = write_onnx_memory(tmp_path / "m.onnx")
    model = opened(onnx_graphs, tmp_path / "m.onnx")
    assert model.facts["memory"] == "h_in from h_out"
    assert [info.name for info in model.layers()] == ["h_out", "actions"]
    states = np.random.default_rng(0).standard_normal((3, 7, 4)).astype(np.float32)
    wanted = []
    for episode in states:
        h, found = np.zeros((1, 6), dtype=np.float32), []
        for row in episode:
            h = np.tanh(row[None] @ c["w"] + h @ c["u"])
            found.append(h @ c["v"])
        wanted.append(np.concatenate(found))
    acted = np.stack([model.act({"states": states[:, t]}) for t in range(7)], axis=1)
    np.testing.assert_allclose(acted, wanted, atol=1e-6)
    first = model.forward_batch([Seen({"states": x}) for x in states])
    np.testing.assert_allclose(first, wanted, atol=1e-6)
    other = model.forward_batch([Seen({"states": x}) for x in states[::-1].copy()])
    np.testing.assert_array_equal(other.flip(0), first)
    with pytest.raises(ShapeError, match=r"was acting in 3 environments and is asked for 1; reset"):
        model.act({"states": states[:1, 0]})
    model.reset()
    again = np.stack([model.act({"states": states[:, t]}) for t in range(7)], axis=1)
    np.testing.assert_array_equal(again, acted)


def test_memory_can_be_named_and_refused(tmp_path):
    write_onnx_memory(tmp_path / "m.onnx")
    without = opened(onnx_graphs, tmp_path / "m.onnx", memory="none")
    assert without.inputs == ("array:obs", "array:h_in")
    named = opened(onnx_graphs, tmp_path / "m.onnx", memory="h_in=h_out")
    assert named.inputs == ("states",)
    with pytest.raises(DefinitionError, match=r"option memory says 'h=h_out' but .* obs, h_in"):
        opened(onnx_graphs, tmp_path / "m.onnx", memory="h=h_out")


def test_windows_of_the_past(tmp_path):
    nodes = [
        helper.make_node("ReduceSum", ["history", "axis"], ["sums"], keepdims=0),
        helper.make_node("Gemm", ["sums", "w"], ["logits"]),
    ]
    constants = {"axis": np.array([1]), "w": np.eye(2, 3, dtype=np.float32)}
    data = onnx_bytes(nodes, {"history": ["N", 4, 2]}, {"logits": ["N", 3]}, constants)
    (tmp_path / "w.onnx").write_bytes(data)
    model = opened(onnx_graphs, tmp_path / "w.onnx")
    assert model.role == "observation" and not model.framewise
    states = np.arange(12, dtype=np.float32).reshape(6, 2)
    given = model.forward_batch([Seen({"states": states})])[0]
    padded = np.concatenate([np.repeat(states[:1], 3, axis=0), states])
    wanted = np.stack([padded[t : t + 4].sum(axis=0) for t in range(6)])
    np.testing.assert_allclose(given[:, :2], wanted)
    acting = opened(onnx_graphs, tmp_path / "w.onnx", role="execution")
    for t in range(6):
        np.testing.assert_allclose(acting.act({"states": states[t : t + 1]})[0, :2], wanted[t])


def test_untrained_twin_keeps_the_normaliser(tmp_path):
    c = write_onnx_policy(tmp_path / "p.onnx")
    model = opened(onnx_graphs, tmp_path / "p.onnx")
    twin = onnx.ModelProto.FromString(model.untrained(3).engine.model)
    drawn = {t.name: onnx.numpy_helper.to_array(t) for t in twin.graph.initializer}
    for name in ("mean", "std", "b0", "b1", "b2"):
        np.testing.assert_array_equal(drawn[name], c[name])
    for name in ("w0", "w1", "w2"):
        assert abs(np.corrcoef(drawn[name].ravel(), c[name].ravel())[0, 1]) < 0.6
        np.testing.assert_allclose(drawn[name].std(), c[name].std(), rtol=0.5)


def test_twin_redraws_constants_in_nodes_and_bytes():
    weight = np.random.default_rng(0).integers(-100, 100, (4, 8)).astype(np.int8)
    inside = helper.make_node(
        "Constant", [], ["v"], value=onnx.numpy_helper.from_array(np.ones((8, 2), np.float32))
    )
    nodes = [
        inside,
        helper.make_node("DequantizeLinear", ["q", "scale"], ["w"]),
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("MatMul", ["h", "v"], ["y"]),
    ]
    constants = {"q": weight, "scale": np.array(0.1, dtype=np.float32)}
    data = onnx_bytes(nodes, {"x": ["N", 4]}, {"y": ["N", 2]}, constants)
    twin = onnx.ModelProto.FromString(redraw(data, 0, where="f"))
    (q, _) = (onnx.numpy_helper.to_array(t) for t in twin.graph.initializer)
    assert q.dtype == np.int8 and (q != weight).mean() > 0.9
    bare = onnx_bytes(
        [helper.make_node("Relu", ["x"], ["y"])], {"x": ["N", 4]}, {"y": ["N", 4]}, {}
    )
    with pytest.raises(FormatError, match=r"f has no constants that can be told to be weights"):
        redraw(bare, 0, where="f")


def test_too_many_layers_are_thinned_by_place(tmp_path):
    nodes, constants, x = [], {}, "x"
    for block in range(6):
        for part in ("fc1", "fc2", "fc3"):
            name = f"w{block}{part}"
            constants[name] = drawn(name, (3, 3))
            place = f"/blocks.{block}/{part}"
            nodes.append(
                helper.make_node("MatMul", [x, name], [f"m{name}"], name=f"{place}/MatMul")
            )
            nodes.append(helper.make_node("Tanh", [f"m{name}"], [f"t{name}"], name=f"{place}/Tanh"))
            x = f"t{name}"
    path = tmp_path / "deep.onnx"
    path.write_bytes(onnx_bytes(nodes, {"x": ["N", 3]}, {x: ["N", 3]}, constants))
    assert len(opened(onnx_graphs, path).layers()) == 18
    names = [info.name for info in opened(onnx_graphs, path, layers="8").layers()]
    assert names == ["blocks.0", "blocks.1", "blocks.2", "blocks.3", "blocks.4", x]
    assert len(opened(onnx_graphs, path, layers="4").layers()) == 4


def test_refusals(tmp_path, monkeypatch):
    write_onnx_policy(tmp_path / "p.onnx")
    model = opened(onnx_graphs, tmp_path / "p.onnx")
    with pytest.raises(DeviceError, match=r"device 'cuda' was asked for but onnxruntime has only"):
        model.to(torch.device("cuda"))
    assert model.to(torch.device("cpu")) is model
    states = np.zeros((1, 6), dtype=np.float32)
    with (
        torch.autocast("cpu", torch.bfloat16),
        pytest.raises(DeviceError, match="runs in the precision of its file; ask for float32"),
    ):
        model.act({"states": states})
    with pytest.raises(ShapeError, match=r"states is \[1, 5\]; input 'obs' needs 6 numbers"):
        model.act({"states": states[:, :5]})
    with pytest.raises(UnknownNameError, match="unknown value of option output 'x'"):
        opened(onnx_graphs, tmp_path / "p.onnx", output="x")
    whole = (tmp_path / "p.onnx").read_bytes()
    (tmp_path / "cut.onnx").write_bytes(whole[:-40])
    with pytest.raises(FormatError, match=r"cut\.onnx"):
        opened(onnx_graphs, tmp_path / "cut.onnx")
    broken = onnx.ModelProto.FromString(whole)
    broken.graph.node[2].op_type = "Flatten"
    (tmp_path / "broken.onnx").write_bytes(broken.SerializeToString())
    with pytest.raises(FormatError, match=r"is not a graph its runtime takes \("):
        opened(onnx_graphs, tmp_path / "broken.onnx")
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(MissingDependencyError, match=r"needs onnx and onnxruntime.*\[onnx\]"):
        opened(onnx_graphs, tmp_path / "p.onnx")


def test_inputs_that_are_neither_are_refused(tmp_path):
    def write(shape, dtype=TensorProto.FLOAT):
        nodes = [helper.make_node("Identity", ["x"], ["y"])]
        data = onnx_bytes(nodes, {"x": shape}, {"y": shape}, {}, types={"x": dtype, "y": dtype})
        (tmp_path / "x.onnx").write_bytes(data)
        return opened(onnx_graphs, tmp_path / "x.onnx")

    with pytest.raises(FormatError, match=r"input 'x' of .* is int64 \[\?, 7\]; needed pictures"):
        write(["N", 7], TensorProto.INT64)
    with pytest.raises(FormatError, match=r"has the shape \[\?, 4, 84, 84\]; needed .* 3 colours"):
        write(["N", 4, 84, 84])
    with pytest.raises(FormatError, match=r"is float32 \[\?, \?\]; needed pictures"):
        write(["N", "D"])


def test_graphs_that_open_and_do_not_run(tmp_path):
    def refused(words, nodes, inputs, outputs, constants):
        (tmp_path / "x.onnx").write_bytes(onnx_bytes(nodes, inputs, outputs, constants))
        with pytest.raises(FormatError, match=words):
            opened(onnx_graphs, tmp_path / "x.onnx")

    reshape = helper.make_node("Reshape", ["x", "shape"], ["y"])
    refused(
        r"x\.onnx does not run \(",
        [reshape],
        {"x": ["N", 6]},
        {"y": ["A", "B"]},
        {"shape": np.array([5, 5])},
    )
    two = [helper.make_node("Tanh", [a], [b]) for a, b in (("x", "u"), ("y", "v"))]
    inputs, outputs = {"x": [2, 3], "y": [3, 3]}, {"u": [2, 3], "v": [3, 3]}
    refused(r"has inputs of \[2, 3\] rows", two, inputs, outputs, {})
    constant = helper.make_node(
        "Constant", [], ["y"], value=onnx.numpy_helper.from_array(np.ones((1, 2), np.float32))
    )
    refused(
        "has no operation that could be a layer", [constant], {"x": ["N", 3]}, {"y": [1, 2]}, {}
    )
    with pytest.raises(FormatError, match="f is no whole ONNX model; copy or export it again"):
        onnx_graphs._parsed(b"\xff", "f")


def test_names_that_are_no_text(tmp_path):
    write_onnx_policy(tmp_path / "p.onnx")
    data = (tmp_path / "p.onnx").read_bytes().replace(b"/norm/Sub", b"/norm/S\xff\xfe")
    (tmp_path / "p.onnx").write_bytes(data)
    with pytest.raises(FormatError, match=r"names that are no text|utf-8"):
        opened(onnx_graphs, tmp_path / "p.onnx")
    with pytest.raises(FormatError, match="f has names that are no text; export it again"):
        onnx_graphs._sites(data, [], "f")


def test_answers_that_are_no_tensor(tmp_path):
    write_onnx_policy(tmp_path / "p.onnx")
    engine = opened(onnx_graphs, tmp_path / "p.onnx").engine

    class Listing:
        def run(self, names, feeds):
            return [[np.zeros(2)] for _ in names]

    engine._session = Listing()
    with pytest.raises(FormatError, match="gives 'actions' as a list or map of tensors"):
        engine.run({"obs": torch.zeros(1, 6)}, {})


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_a_gpu_that_is_claimed_but_not_there(tmp_path, monkeypatch):
    write_onnx_policy(tmp_path / "p.onnx")
    model = opened(onnx_graphs, tmp_path / "p.onnx")
    claimed = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: claimed)
    with pytest.raises(DeviceError, match="onnxruntime fell back from CUDA to the CPU"):
        model.to(torch.device("cuda"))
    assert model.device == torch.device("cpu")


@pytest.mark.real_weights
@pytest.mark.parametrize("name, width, actions", [("go1", 48, 12), ("leap_reorient", 57, 16)])
def test_real_policies(shared, name, width, actions):
    path = shared / "weights" / "onnx" / f"{name}_policy.onnx"
    model = opened(onnx_graphs, path)
    assert [info.width for info in model.layers()] == [512, 256, 128, 2 * actions, actions]
    assert next(info.name for info in model.layers()) == "hidden_0_1"
    states = np.random.default_rng(0).standard_normal((20, width)).astype(np.float32)
    acted = model.act({"states": states})
    session = onnxruntime.InferenceSession(str(path))
    direct = np.concatenate([session.run(None, {"obs": row[None]})[0] for row in states])
    np.testing.assert_allclose(acted, direct, atol=2e-7, rtol=0)
    graph = onnx.load(path).graph
    c = {t.name: onnx.numpy_helper.to_array(t).astype(np.float64) for t in graph.initializer}
    x = (states - c["mlp_1/sub/ReadVariableOp:0"]) * c["ConstantFolding/mlp_1/truediv_recip:0"]
    for i in range(4):
        place = f"mlp_1/MLP_0_1/hidden_{i}_1"
        x = x @ c[f"{place}/Cast/ReadVariableOp:0"] + c[f"{place}/BiasAdd/ReadVariableOp:0"]
        x = x / (1 + np.exp(-x)) if i < 3 else x
    np.testing.assert_allclose(acted, np.tanh(x[:, :actions]), atol=1e-5)
    check_model(model)


@pytest.mark.real_weights
def test_real_watcher_of_poses(shared):
    path = shared / "weights" / "onnx" / "nfd-fall.onnx"
    model = opened(onnx_graphs, path)
    assert model.needs[0].width == 60 and model.role == "observation"
    assert model.readings[0].frames == 32
    poses = np.random.default_rng(0).standard_normal((40, 60)).astype(np.float32)
    given = model.forward_batch([Seen({"states": poses})])[0]
    windows = np.stack([poses[t - 31 : t + 1] for t in range(31, 40)])
    (direct,) = _reference(path, {"pose_history": windows})
    np.testing.assert_allclose(given[31:], direct, atol=1e-5)
    check_model(model)

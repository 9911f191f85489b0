"""TFLite graphs: values equal to the runtime's and to the formula, quantised inputs, refusals."""

import random
import sys

import numpy as np
import pytest
import torch
from graph_files import Seen, opened, tflite_bytes, weights, write_tflite_watcher

from mirror_analysis.errors import (
    DeviceError,
    FormatError,
    MissingDependencyError,
    UnknownNameError,
)
from mirror_analysis.files.pictures import read_picture
from mirror_analysis.models.checkpoint import Checkpoint
from mirror_analysis.models.graphs import tflite, tflite_file
from mirror_analysis.models.graphs.models import WatchingGraph
from mirror_analysis.models.graphs.trial import require_runs
from mirror_analysis.testing import check_model


def _formula(c, x):
    """The graph of `write_tflite_watcher` in torch; x is [row, height, width, 3]."""
    k0, k1 = (torch.from_numpy(c[k].transpose(0, 3, 1, 2)) for k in ("k0", "k1"))
    x = torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))
    a = torch.relu(torch.conv2d(x, k0, torch.from_numpy(c["c0"]), padding=1))
    b = a + torch.conv2d(a, k1, torch.from_numpy(c["c1"]), padding=1)
    return a, b, b.mean((2, 3)) @ torch.from_numpy(c["w"]).T + torch.from_numpy(c["b"])


def test_recognised_by_content(tmp_path):
    write_tflite_watcher(tmp_path / "model.pt")
    assert tflite.recognise(Checkpoint(tmp_path / "model.pt")) == "TFLite graph"
    (tmp_path / "b.tflite").write_text("no")
    assert tflite.recognise(Checkpoint(tmp_path / "b.tflite")) is None


def test_values_and_layers(tmp_path):
    c = write_tflite_watcher(tmp_path / "m.tflite")
    model = opened(tflite, tmp_path / "m.tflite")
    assert isinstance(model, WatchingGraph)
    assert [(i.name, i.width, i.axes) for i in model.layers()] == [
        ("stem", 4, "episode*time height width channel"),
        ("block.add", 4, "episode*time height width channel"),
        ("pool", 4, "episode*time channel"),
        ("logits", 5, "episode*time channel"),
    ]
    assert "ASSUMED" in model.facts["normalisation"]
    frames = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3)).astype(np.uint8)
    seen = {}
    for name, tap in model.taps().items():
        tap.register_forward_hook(lambda m, i, o, name=name: seen.update({name: o}))
    output = model.forward_batch([Seen({"camera": frames})])[0]
    a, b, logits = _formula(c, (frames / 127.5 - 1).astype(np.float32))
    torch.testing.assert_close(output, logits, atol=1e-5, rtol=0)
    torch.testing.assert_close(seen["stem"].permute(0, 3, 1, 2), a, atol=1e-5, rtol=0)
    torch.testing.assert_close(seen["block.add"].permute(0, 3, 1, 2), b, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["UINT8", "INT8"])
def test_quantised_inputs_take_bytes_as_they_are(tmp_path, kind):
    c = write_tflite_watcher(tmp_path / "m.tflite", kind=kind, rows=1)
    model = opened(tflite, tmp_path / "m.tflite")
    assert model.engine.batch == 1
    frames = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3)).astype(np.uint8)
    given = model.forward_batch([Seen({"camera": frames})])[0]
    # Both store (byte - 128) / 128: one with its zero at 128, one with bytes from -128 on.
    logits = _formula(c, (frames.astype(np.float32) - 128) / 128)[2]
    torch.testing.assert_close(given, logits, atol=1e-5, rtol=0)
    assert "as the quantisation of the file's input takes them" in model.facts["normalisation"]


def test_quantised_values_come_back_as_real_ones(tmp_path):
    tensors = [
        ("x", (-1, 4), None, None, "FLOAT32"),
        ("tanh", (-1, 4), None, None, "FLOAT32"),
        ("y", (-1, 4), None, (1 / 64, 100), "UINT8"),
    ]
    nodes = [("TANH", [0], [1], None, {}), ("QUANTIZE", [1], [2], None, {})]
    (tmp_path / "q.tflite").write_bytes(tflite_bytes(tensors, nodes, [0], [2]))
    model = opened(tflite, tmp_path / "q.tflite")
    states = np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32)
    given = model.act({"states": states})
    np.testing.assert_allclose(given, np.tanh(states), atol=1 / 127)
    assert (given * 64 == np.round(given * 64)).all()


def test_contract(tmp_path):
    write_tflite_watcher(tmp_path / "m.tflite")
    check_model(opened(tflite, tmp_path / "m.tflite"))
    write_tflite_watcher(tmp_path / "q.tflite", kind="UINT8", rows=1)
    check_model(opened(tflite, tmp_path / "q.tflite"))


def _policy(path, dtype):
    """Subtract a mean, one layer with the weights as they are given: 4 -> 3."""
    w = weights(w=(3, 4))["w"]
    stored = np.round(w * 50).astype(dtype) if dtype is np.int8 else w.astype(dtype)
    kind = {np.float16: "FLOAT16", np.int8: "INT8"}[dtype]
    scale = (0.02, 0) if dtype is np.int8 else None
    tensors = [
        ("obs", (-1, 4), None, None, "FLOAT32"),
        ("mean", (1, 4), np.arange(4, dtype=np.float32), None, "FLOAT32"),
        ("norm/Sub", (-1, 4), None, None, "FLOAT32"),
        ("w", (3, 4), stored, scale, kind),
        ("w/real", (3, 4), None, None, "FLOAT32"),
        ("actor/action", (-1, 3), None, None, "FLOAT32"),
    ]
    nodes = [
        ("SUB", [0, 1], [2], "SubOptions", {}),
        ("DEQUANTIZE", [3], [4], None, {}),
        ("FULLY_CONNECTED", [2, 4, -1], [5], "FullyConnectedOptions", {}),
    ]
    path.write_bytes(tflite_bytes(tensors, nodes, [0], [5]))
    return stored.astype(np.float32) * (0.02 if dtype is np.int8 else 1)


@pytest.mark.parametrize("dtype", [np.float16, np.int8])
def test_policies_and_their_twins(tmp_path, dtype):
    w = _policy(tmp_path / "p.tflite", dtype)
    model = opened(tflite, tmp_path / "p.tflite")
    assert model.role == "execution" and model.inputs == ("states",)
    states = np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32)
    wanted = (states - np.arange(4)) @ w.T
    np.testing.assert_allclose(model.act({"states": states}), wanted, atol=1e-4)
    twin = model.untrained(0)
    assert np.abs(twin.act({"states": states}) - wanted).max() > 0.1
    # The mean of the observations is no weight.
    graph = tflite_file.read_graph(twin.engine.data, where="f")
    assert np.arange(4, dtype=np.float32).tobytes() in twin.engine.data
    assert [t.name for t in graph.tensors][3] == "w"


def test_refusals(tmp_path, monkeypatch):
    path = tmp_path / "m.tflite"
    write_tflite_watcher(path)
    model = opened(tflite, path)
    with pytest.raises(DeviceError, match="'cuda' was asked for but TfliteEngine runs on the CPU"):
        model.to(torch.device("cuda"))
    with pytest.raises(UnknownNameError, match="value of option output 'x'"):
        opened(tflite, path, output="x")
    data = path.read_bytes()
    for damaged, words in (
        (data[:12], "does not start as a TFLite file does"),
        (b"\xff\xff\xff\x7f" + data[4:], "does not start as a TFLite file does"),
        (data[:400], "is not a graph its runtime takes"),
    ):
        path.write_bytes(damaged)
        with pytest.raises(FormatError, match=words):
            opened(tflite, path)
    outside = b"\x10\0\0\0TFL3" + bytes(8) + b"\xff\xff\xff\x7f" * 20
    with pytest.raises(FormatError, match="f has a table outside the file"):
        tflite_file.check_header(outside, where="f")
    with pytest.raises(FormatError, match=r"f is no whole TFLite file \("):
        tflite_file.read_graph(data[:300] + bytes(100), where="f")
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(MissingDependencyError, match=r"needs ai-edge-litert.*\[tflite\]"):
        opened(tflite, path)


def test_what_a_graph_cannot_be(tmp_path):
    tensors = [("x", (-1, 4), None, None, "FLOAT32"), ("y", (-1, 4), None, None, "FLOAT32")]
    path = tmp_path / "t.tflite"
    path.write_bytes(tflite_bytes(tensors, [("TANH", [0], [1], None, {})], [0], [1]))
    model = opened(tflite, path)
    with pytest.raises(FormatError, match="has no weights that can be told and drawn anew"):
        model.untrained(0)


def test_damage_that_only_shows_inside(tmp_path):
    write_tflite_watcher(tmp_path / "m.tflite")
    model = opened(tflite, tmp_path / "m.tflite")
    model.engine._places = {"pictures": 10**6}
    with pytest.raises(FormatError, match=r"m\.tflite does not run \("):
        model.engine.run({"pictures": torch.zeros(1, 8, 8, 3)}, {})
    model.engine._scales.clear()
    model.engine._places = {"pictures": 0}
    with pytest.raises(FormatError, match=r"m\.tflite does not run \("):
        model.engine.run({"pictures": torch.zeros(1, 8, 8, 3)}, {})
    with pytest.raises(FormatError, match=r"f cannot be run \(.*convert it again"):
        tflite.TfliteEngine(b"nothing of the kind", [], answer=0, where="f")
    tensors = [("x", (1, 4), None, None, "FLOAT32"), ("y", (1, 4), None, None, "FLOAT32")]
    nodes = [("TANH", [0], [1], None, {})]
    with pytest.raises(FormatError, match=r"f is no whole TFLite file \(an output that is not"):
        tflite_file.read_graph(tflite_bytes(tensors, nodes, [0], [7]), where="f")
    with pytest.raises(ValueError, match="1000001 entries"):
        tflite_file._count(1_000_001)


def test_variables_are_refused(tmp_path):
    tensors = [
        ("x", (1, 4), None, None, "FLOAT32"),
        ("variable", (1, 4), None, None, "FLOAT32"),
        ("y", (1, 4), None, None, "FLOAT32"),
    ]
    path = tmp_path / "v.tflite"
    path.write_bytes(tflite_bytes(tensors, [("TANH", [0], [2], None, {})], [0], [2]))
    with pytest.raises(FormatError, match="keeps variables from one run to the next"):
        opened(tflite, path)


def test_a_runtime_that_dies_or_hangs_takes_nothing_with_it(monkeypatch):
    from mirror_analysis.models.graphs import trial as graph_trial

    monkeypatch.setattr(graph_trial, "_PROGRAM", "import os; os.abort()")
    with pytest.raises(FormatError, match=r"f is not a graph .* \(the runtime broke down\)"):
        require_runs("tflite", b"", where="f")
    monkeypatch.setattr(graph_trial, "_PROGRAM", "import time; time.sleep(60)")
    monkeypatch.setattr(graph_trial, "_SECONDS", 0.5)
    with pytest.raises(FormatError, match=r"f took its runtime more than 0\.5 seconds"):
        require_runs("tflite", b"", where="f")


def test_flipped_bits_are_refused_or_run(tmp_path):
    path = tmp_path / "m.tflite"
    write_tflite_watcher(path)
    data = path.read_bytes()
    g = random.Random(0)
    for _ in range(6):
        changed = bytearray(data)
        for _ in range(3):
            changed[g.randrange(8, len(data))] ^= 1 << g.randrange(8)
        path.write_bytes(changed)
        try:
            model = opened(tflite, path)
        except FormatError:
            continue
        assert model.layers()


@pytest.mark.real_weights
def test_real_photographs(shared):
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    path = shared / "weights" / "vision" / "mobilenet_v2_1.0_224_quant.tflite"
    labels = (shared / "episodes" / "imagenet_labels.txt").read_text().splitlines()
    model = opened(tflite, path)
    assert [i.name for i in model.layers()][:3] == ["Conv", "expanded_conv", "expanded_conv_1"]
    assert len(model.layers()) == 21
    plain = Interpreter(
        str(path), experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    )
    plain.allocate_tensors()
    names = []
    for photograph in ("cat.bmp", "bird.bmp", "hot_dog.jpg"):
        frames = read_picture(shared / "episodes" / photograph)[None]
        given = model.forward_batch([Seen({"camera": frames})])[0, 0]
        names.append(labels[int(given.argmax())])
        x = model.readings[0].prepare(frames).permute(0, 2, 3, 1)
        stored = np.round(x.numpy() * 128 + 128).astype(np.uint8)
        plain.set_tensor(plain.get_input_details()[0]["index"], stored)
        plain.invoke()
        direct = plain.get_tensor(plain.get_output_details()[0]["index"])[0] / 256
        np.testing.assert_array_equal(given, direct.astype(np.float32))
    assert names == ["Egyptian cat", "chickadee", "hotdog, hot dog, red hot"]

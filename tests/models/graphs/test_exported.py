"""Exported programs: values equal to torch's own, nothing of the file run as code, refusals."""

import io
import json
import zipfile

import numpy as np
import pytest
import torch
from drawn import drawn
from graph_files import Blocks, Pictures, Seen, opened
from torch import nn

from mirror_analysis.errors import FormatError
from mirror_analysis.models.checkpoint import Checkpoint
from mirror_analysis.models.graphs import exported
from mirror_analysis.models.graphs.exported_program import read_exported
from mirror_analysis.testing import check_model


class _Everything(nn.Module):
    """A transformer on patches, with buffers, constants and a part without gradients."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 4, stride=4)
        self.norm = nn.BatchNorm2d(8)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(8, 2, 16, batch_first=True) for _ in range(2)
        )
        self.head = nn.Linear(8, 5)
        self.register_buffer("scale", torch.tensor(2.0))
        self.register_buffer("shift", torch.arange(5.0), persistent=False)

    def forward(self, pictures):
        with torch.no_grad():
            x = torch.relu(self.norm(self.stem(pictures))) * self.scale
        x = x.flatten(2).transpose(1, 2)
        for layer in self.layers:
            x = layer(x)
        return {"logits": self.head(x.mean(1)) + self.shift, "tokens": x}


class _Remembering(nn.Module):
    def __init__(self):
        super().__init__()
        self.inward = nn.Linear(4, 6)
        self.outward = nn.Linear(6, 2)
        self.register_buffer("hidden", torch.zeros(1, 6))

    def forward(self, x):
        self.hidden.copy_(torch.tanh(self.inward(x) + 0.5 * self.hidden))
        return self.outward(self.hidden)


def _export(module, path, x, *, free=True):
    module.eval()
    with torch.no_grad():
        for name, tensor in module.named_parameters():
            tensor.copy_(torch.from_numpy(drawn(name, tuple(tensor.shape))))
    shapes = ({0: torch.export.Dim("batch", min=1, max=4096)},) if free else None
    program = torch.export.export(module, (x,), dynamic_shapes=shapes)
    torch.export.save(program, str(path))
    return module


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    torch.manual_seed(0)
    _export(_Everything(), folder / "everything.pt2", torch.rand(2, 3, 16, 16))
    _export(Blocks(), folder / "blocks.pt2", torch.rand(2, 4))
    _export(_Remembering(), folder / "remembering.pt2", torch.rand(1, 4), free=False)
    return folder


def _changed(path, target, change, member="models/model.json"):
    """A copy of an exported program with one JSON member changed."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name.endswith(member):
                text = json.loads(data)
                change(text)
                data = json.dumps(text).encode()
            new.writestr(name, data)
    return target


def test_recognised_by_content(folder, tmp_path):
    lying = tmp_path / "model.onnx"
    lying.write_bytes((folder / "blocks.pt2").read_bytes())
    words = exported.recognise(Checkpoint(lying))
    assert words == "exported program of torch with 16 weights"
    torch.save({}, tmp_path / "a.pt2")
    assert exported.recognise(Checkpoint(tmp_path / "a.pt2")) is None


def test_values_equal_those_of_torch(folder):
    path = folder / "everything.pt2"
    model = opened(exported, path)
    assert model.role == "observation"
    x = torch.from_numpy(drawn("x", (3, 3, 16, 16)))
    with torch.inference_mode():
        wanted = torch.export.load(str(path)).module()(x)
        _, output, _ = model.engine.run({"pictures": x}, {})
    assert torch.equal(output, wanted["logits"])
    names = [info.name for info in model.layers()]
    assert names[-1] == "output" and "layers.0.norm1" in names and "relu" in names
    tokens = next(info for info in model.layers() if info.name == "layers.0.norm1")
    assert (tokens.width, tokens.axes) == (8, "episode*time token channel")


def test_layers_equal_the_modules(folder):
    model = opened(exported, folder / "blocks.pt2")
    torch.manual_seed(0)
    module = Blocks().eval()
    with torch.no_grad():
        for name, tensor in module.named_parameters():
            tensor.copy_(torch.from_numpy(drawn(name, tuple(tensor.shape))))
    states = np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32)
    seen = {}
    for name, tap in model.taps().items():
        tap.register_forward_hook(lambda m, i, o, name=name: seen.update({name: o}))
    model.forward_batch([Seen({"states": states})])
    x = module.stem(torch.from_numpy(states))
    torch.testing.assert_close(seen["stem"], x)
    for i, block in enumerate(module.blocks):
        x = block(x)
        torch.testing.assert_close(seen[f"blocks.{i}.add"], x)
    torch.testing.assert_close(seen["output"], module.head(x))


def test_contract(folder):
    for name in ("everything", "blocks", "remembering"):
        check_model(opened(exported, folder / f"{name}.pt2"))


def test_hidden_state_starts_anew(folder):
    model = opened(exported, folder / "remembering.pt2")
    assert model.facts["hidden state"] == "b_hidden"
    w = model.engine.graph.weights
    states = np.random.default_rng(0).standard_normal((2, 5, 4)).astype(np.float32)
    wanted = []
    for episode in torch.from_numpy(states):
        h, found = torch.zeros(6), []
        for x in episode:
            h = torch.tanh(w["p_inward_weight"] @ x + w["p_inward_bias"] + 0.5 * h)
            found.append(w["p_outward_weight"] @ h + w["p_outward_bias"])
        wanted.append(torch.stack(found))
    wanted = torch.stack(wanted).numpy()
    for _ in range(2):
        acted = np.stack([model.act({"states": states[:, t]}) for t in range(5)], axis=1)
        np.testing.assert_allclose(acted, wanted, atol=1e-6)
        model.reset()
    given = model.forward_batch([Seen({"states": states[i]}) for i in (1, 0)])
    np.testing.assert_allclose(given, wanted[::-1], atol=1e-6)


@pytest.mark.filterwarnings("ignore:.*treespec:FutureWarning")
def test_functional_forms_give_the_same(folder, tmp_path):
    """After decomposition, a changed buffer is one more output of the graph."""
    program = torch.export.load(str(folder / "remembering.pt2"))
    torch.export.save(program.run_decompositions(), str(tmp_path / "f.pt2"))
    graph = read_exported(tmp_path / "f.pt2")
    assert list(graph.updates.values()) == ["b_hidden"]
    states = np.random.default_rng(0).standard_normal((2, 5, 4)).astype(np.float32)
    seen = [Seen({"states": x}) for x in states]
    one = opened(exported, folder / "remembering.pt2").forward_batch(seen)
    other = opened(exported, tmp_path / "f.pt2").forward_batch(seen)
    torch.testing.assert_close(one, other, atol=1e-6, rtol=0)


class _Lists(nn.Module):
    """Lists of tensors, sizes computed on the way, an attention mask left out."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x):
        a, b = torch.split(self.one(x), 3, dim=1)
        y = torch.cat([a, b, a.new_zeros(x.shape[0] * 2 // 2, 1)], dim=1)[:, :6]
        return self.two(y) + torch.einsum("ij,ij->i", a, b)[:, None]


def test_lists_and_sizes(tmp_path):
    _export(_Lists(), tmp_path / "l.pt2", torch.rand(2, 4))
    model = opened(exported, tmp_path / "l.pt2")
    x = torch.from_numpy(drawn("x", (7, 4)))
    with torch.inference_mode():
        wanted = torch.export.load(str(tmp_path / "l.pt2")).module()(x)
    assert torch.equal(model.engine.run({"x": x}, {})[1], wanted)
    check_model(model)


class _Clips(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv3d(3, 4, 3, padding=1)
        self.head = nn.Linear(4, 5)

    def forward(self, x):
        return self.head(torch.relu(self.stem(x)).mean((2, 3, 4)))


def test_clips_are_one_row_an_episode(tmp_path):
    _export(_Clips(), tmp_path / "c.pt2", torch.rand(2, 3, 4, 8, 8))
    model = opened(exported, tmp_path / "c.pt2")
    assert [(i.name, i.axes) for i in model.layers()] == [
        ("relu", "episode channel time height width"),
        ("mean", "episode channel"),
        ("output", "episode channel"),
    ]
    check_model(model, pixels=(8, 8), frames=6)


def test_text_of_the_file_is_never_run(folder, tmp_path):
    mark = tmp_path / "mark"
    code = f"__import__('pathlib').Path({str(mark)!r}).touch()"

    def guards(text):
        text["guards_code"] = [code]
        for value in text["graph_module"]["graph"]["tensor_values"].values():
            for size in value["sizes"]:
                if "as_expr" in size:
                    size["as_expr"]["expr_str"] = code

    path = _changed(folder / "blocks.pt2", tmp_path / "guards.pt2", guards)
    model = opened(exported, path)
    model.act({"states": np.zeros((2, 4), dtype=np.float32)})
    assert not mark.exists()


@pytest.mark.parametrize(
    "target",
    [
        "torch.load",
        "torch.hub.load",
        "torch.ops.aten.from_file.default",
        "torch.ops.aten.save.default",
        "torch.ops.aten.__class__.default",
        "torch.ops.mine.op.default",
        "torch.ops.aten.add.__init__",
        "_operator.attrgetter",
        "builtins.exec",
        "torch.ops.higher_order.cond",
    ],
)
def test_operations_that_do_more_than_compute_are_refused(folder, tmp_path, target):
    def change(text):
        text["graph_module"]["graph"]["nodes"][0]["target"] = target

    path = _changed(folder / "blocks.pt2", tmp_path / "x.pt2", change)
    with pytest.raises(FormatError, match=r"uses the operation .*; needed operations of torch"):
        opened(exported, path)


def test_damage_is_said_in_words(folder, tmp_path):
    def refused(change, words, member="models/model.json"):
        path = _changed(folder / "blocks.pt2", tmp_path / "x.pt2", change, member)
        with pytest.raises(FormatError, match=words):
            opened(exported, path)

    config = "data/weights/model_weights_config.json"
    refused(lambda t: t.pop("graph_module"), r"no whole exported program \(KeyError")
    refused(lambda t: t["config"].pop("stem.weight"), r"lacks the tensor 'stem\.weight'", config)
    refused(
        lambda t: t["config"]["stem.weight"]["tensor_meta"]["sizes"].__setitem__(
            0, {"as_int": 10**9}
        ),
        r"stem\.weight has 96 bytes and needs",
        config,
    )

    refused(
        lambda t: t["config"]["stem.weight"]["tensor_meta"]["sizes"].pop(),
        r"the shape of stem\.weight is \[6\]",
        config,
    )

    def object_input(text):
        specs = text["graph_module"]["signature"]["input_specs"]
        specs[0] = {"custom_obj": {"arg": {"name": "a", "class_fqn": "b"}, "custom_obj_name": "c"}}

    refused(object_input, r"takes a custom obj; needed tensors alone")

    def odd_argument(text):
        text["graph_module"]["graph"]["nodes"][0]["inputs"][0]["arg"] = {"as_operator": "os.system"}

    refused(odd_argument, r"has an argument of the kind as_operator")

    def odd_shapes(text):
        node = text["graph_module"]["graph"]["nodes"][0]
        node["inputs"][1]["arg"] = node["inputs"][0]["arg"]

    refused(odd_shapes, r"does not run \(")
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("m/archive_format", "pt2")
        archive.writestr("m/serialized_exported_program.json", "{}")
    (tmp_path / "old.pt2").write_bytes(data.getvalue())
    with pytest.raises(FormatError, match=r"holds 0 graphs named model; needed one.* torch 2\.8"):
        read_exported(tmp_path / "old.pt2")


def test_deep_graphs_and_missing_weights(folder, tmp_path):
    def nest(text):
        graph = text["graph_module"]["graph"]
        for _ in range(12):
            inner = {"inputs": [], "outputs": [], "tensor_values": {}, "nodes": graph["nodes"]}
            node = {
                "target": "torch.ops.higher_order.wrap_with_set_grad_enabled",
                "inputs": [{"name": "g", "arg": {"as_graph": {"name": "g", "graph": inner}}}],
                "outputs": [],
            }
            graph["nodes"] = [node]

    with pytest.raises(FormatError, match="graphs nested deeper than 8"):
        opened(exported, _changed(folder / "blocks.pt2", tmp_path / "deep.pt2", nest))

    def buffers(text):
        for spec in text["graph_module"]["signature"]["input_specs"]:
            if "parameter" in spec:
                about = spec.pop("parameter")
                about["buffer_name"] = about.pop("parameter_name")
                spec["buffer"] = about

    model = opened(exported, _changed(folder / "blocks.pt2", tmp_path / "b.pt2", buffers))
    with pytest.raises(FormatError, match="has no parameters of two or more axes"):
        model.untrained(0)


def test_batches_that_do_not_agree(folder, tmp_path):
    def change(text):
        text["graph_module"]["signature"]["output_specs"] = []

    path = _changed(folder / "blocks.pt2", tmp_path / "x.pt2", change)
    with pytest.raises(FormatError, match=r"takes \[\] rows and gives 0 tensors"):
        opened(exported, path)


def test_pictures_are_sized_by_the_graph(tmp_path):
    _export(Pictures(), tmp_path / "p.pt2", torch.rand(1, 3, 12, 10), free=False)
    model = opened(exported, tmp_path / "p.pt2")
    assert model.readings[0].prepare.size == (12, 10)
    assert model.engine.batch == 1

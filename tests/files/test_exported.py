"""Programs of torch.export: loaded when they compute, refused when they could do more."""

import io
import json
import os
import zipfile

import pytest
import torch

from mirror_analysis.errors import FormatError, MissingFileError
from mirror_analysis.files.exported import check_graph_json, load_exported


@pytest.fixture(scope="module")
def program() -> tuple[torch.nn.Module, dict[str, bytes]]:
    module = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3), torch.nn.Tanh())
    module.eval()
    sizes = ({0: torch.export.Dim("batch")},)
    exported = torch.export.export(module, (torch.ones(4, 2),), dynamic_shapes=sizes)
    buffer = io.BytesIO()
    torch.export.save(exported, buffer)
    with zipfile.ZipFile(buffer) as archive:
        return module, {name: archive.read(name) for name in archive.namelist()}


def written(path, members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def test_a_program_is_loaded(tmp_path, program) -> None:
    module, members = program
    loaded = load_exported(written(tmp_path / "x.pt2", members))
    for batch in (2, 7):
        x = torch.randn(batch, 2)
        assert torch.equal(loaded.module()(x), module(x))
    stacks = [node.meta.get("nn_module_stack") for node in loaded.graph.nodes]
    assert any(stacks)


NAME = "archive/models/model.json"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("torch.ops.aten.tanh.default", "torch.os.system", r"operator 'torch\.os\.system'"),
        ("torch.ops.aten.tanh.default", "torch.hub.load", r"operator 'torch\.hub\.load'"),
        ("torch.ops.aten.tanh.default", "torch.ops.aten.from_file.default", "operator .*from_file"),
        ("torch.ops.aten.tanh.default", "torch.ops.mine.run.default", "operator"),
        ("torch.ops.aten.tanh.default", "_operator.methodcaller", "operator"),
        ("torch.ops.aten.tanh.default", "#ext", "operator"),
        ("Symbol('s", "__import__('os').mkdir('ran'), Symbol('s", "has the expression"),
    ],
)
def test_what_would_be_evaluated_is_refused(tmp_path, monkeypatch, program, old, new, words):
    monkeypatch.chdir(tmp_path)
    _, members = program
    text = members[NAME].decode()
    assert old in text
    with pytest.raises(FormatError, match=words):
        load_exported(written(tmp_path / "x", members | {NAME: text.replace(old, new).encode()}))
    assert os.listdir(tmp_path) == ["x"]


@pytest.mark.parametrize(
    ("text", "fine"),
    [
        ("Symbol('s31', positive=True, integer=True)", True),
        ("2*s0 + s1**2", True),
        ("Max(1, FloorDiv(s0, 2)) >= 1.5", True),
        ("9**9**9", False),
        ("(9**9)**9", False),
        ("9**99", False),
        ("9" * 30, False),
        ("s0.__class__", False),
        ("(1).real", False),
        ("'a'.upper", False),
        ("Lambda(s0, s0)", False),
        ("exec('x')", False),
        ("[1]", False),
        ("1; 2", False),
        ("", False),
        (5, False),
    ],
)
def test_expressions_are_sums_of_sizes(text, fine) -> None:
    data = json.dumps({"a": [{"expr_str": text}]}).encode()
    if fine:
        assert check_graph_json(data, "x")["a"] == [{"expr_str": text}]
        return
    with pytest.raises(FormatError, match="x has the expression"):
        check_graph_json(data, "x")


def test_other_parts_that_do_more_are_refused_or_dropped() -> None:
    kept = check_graph_json(
        b'{"guards_code": ["x"], "nodes": [{"metadata": {"custom": "x", "torch_fn": "y"}}]}', "x"
    )
    assert kept == {"guards_code": [], "nodes": [{"metadata": {"torch_fn": "y"}}]}
    spec = json.dumps([1, {"context": json.loads('{"\\u005f_enum__": true}')}])
    with pytest.raises(FormatError, match="names an enumeration"):
        check_graph_json(json.dumps({"in_spec": spec}).encode(), "x")
    with pytest.raises(FormatError, match="bounds something other than sizes"):
        check_graph_json(b'{"range_constraints": {"f()": {}}}', "x")


class Runs:
    def __reduce__(self):
        return (os.mkdir, ("ran",))


def saved(value) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def test_pickles_and_objects_in_a_program_are_refused(tmp_path, monkeypatch, program) -> None:
    monkeypatch.chdir(tmp_path)
    _, members = program
    (sample,) = [name for name in members if name.endswith(".pt")]
    with pytest.raises(FormatError, match="which is not on the list of plain data"):
        load_exported(written(tmp_path / "x", members | {sample: saved(Runs())}))
    for name in ("data/constants/custom_obj_0", "data/weights/other", "code.py"):
        with pytest.raises(FormatError, match="an object or compiled code"):
            load_exported(written(tmp_path / "x", members | {f"archive/{name}": b"x"}))
    (config,) = [name for name in members if name.endswith("weights_config.json")]
    pickled = members[config].replace(b'"use_pickle": false', b'"use_pickle": true')
    assert pickled != members[config]
    with pytest.raises(FormatError, match="has a pickled weight"):
        load_exported(written(tmp_path / "x", members | {config: pickled}))
    huge = members[config].replace(b'{"as_int": 3}', b'{"as_int": 30000000}')
    with pytest.raises(FormatError, match=r"has a weight of \d+ bytes that claims the shape"):
        load_exported(written(tmp_path / "x", members | {config: huge}))
    assert os.listdir(tmp_path) == ["x"]


def test_compiled_code_is_left_out(tmp_path, program) -> None:
    module, members = program
    extra = {"archive/data/aotinductor/model/x.so": b"x", "archive/extra/note": b"x"}
    loaded = load_exported(written(tmp_path / "x", members | extra))
    assert torch.equal(loaded.module()(torch.ones(3, 2)), module(torch.ones(3, 2)))


def test_damaged_and_other_files_are_refused(tmp_path, program) -> None:
    _, members = program
    with pytest.raises(MissingFileError, match=r"needed a file of torch\.export\.save"):
        load_exported(tmp_path)
    with pytest.raises(FormatError, match=r"holds no one program as torch 2\.8"):
        load_exported(written(tmp_path / "x", {"a": b""}))
    empty = json.dumps({"graph_module": {}}).encode()
    with pytest.raises(FormatError, match=r"cannot be loaded as a program of torch\.export"):
        load_exported(written(tmp_path / "x", members | {NAME: empty}))

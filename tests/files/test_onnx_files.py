"""ONNX models: facts, weights beside them, and what is refused."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from mirror_analysis.errors import FormatError, MissingFileError
from mirror_analysis.files.onnx_files import read_onnx

WEIGHT = np.arange(12, dtype=np.float32).reshape(3, 4)


def model(*, weight=None, nodes=None, domain: str = "", **options) -> onnx.ModelProto:
    weight = numpy_helper.from_array(WEIGHT, "w") if weight is None else weight
    nodes = nodes or [helper.make_node("MatMul", ["x", "w"], ["y"], domain=domain)]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", None])],
        [weight],
    )
    made = helper.make_model(graph, producer_name="maker", ir_version=8, **options)
    helper.set_model_props(made, {"author": "me"})
    return made


def written(tmp_path, made, name: str = "x.onnx"):
    path = tmp_path / name
    path.write_bytes(made if isinstance(made, bytes) else made.SerializeToString())
    return path


def test_facts_are_those_of_the_package(tmp_path) -> None:
    path = written(
        tmp_path, model(opset_imports=[helper.make_opsetid("", 17)], producer_version="2")
    )
    read = read_onnx(path)
    assert read.inputs == {"x": ("float32", ("batch", 3))}
    assert read.outputs == {"y": ("float32", ("batch", None))}
    assert (read.opset, read.producer, read.ir_version) == ({"": 17}, "maker 2", 8)
    assert read.operators == {"MatMul": 1} and read.weights == {"w": ("float32", (3, 4))}
    assert read.metadata == {"author": "me"} and read.model == path.read_bytes()


def test_weights_beside_the_model_are_put_in(tmp_path) -> None:
    made = model()
    path = tmp_path / "x.onnx"
    onnx.save(
        made, path, save_as_external_data=True, location="x.data", size_threshold=0,
        convert_attribute=True,
    )  # fmt: skip
    assert len(path.read_bytes()) < len(read_onnx(path).model)
    session = onnxruntime.InferenceSession(read_onnx(path).model)
    (y,) = session.run(None, {"x": np.ones((2, 3), np.float32)})
    assert (y == np.ones((2, 3)) @ WEIGHT).all()
    (tmp_path / "x.data").unlink()
    with pytest.raises(MissingFileError, match=r"is not there; needed the weights of x\.onnx"):
        read_onnx(path)


def outside(**entries: str) -> TensorProto:
    weight = TensorProto(name="w", dims=[3, 4], data_type=1, data_location=1)
    for key, value in entries.items():
        weight.external_data.add(key=key, value=value)
    return weight


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"location": "/etc/passwd"}, "'/etc/passwd', which is absolute"),
        ({"location": "../secret"}, "which is climbing out of the folder"),
        ({"location": "link"}, "which a link takes outside it"),
        ({"location": "x.data", "offset": "1"}, "needs 48 bytes for 'w' from byte 1 of"),
        ({"location": "x.data", "offset": "-1"}, "at no possible place"),
        ({"location": "x.data", "offset": "9" * 30}, "needs 48 bytes for 'w' from byte 9999"),
        ({"location": "x.data", "length": "49"}, "needs 48 bytes for 'w'"),
        ({"location": "x.data", "length": "x"}, "at no possible place"),
        ({"offset": "0"}, "is in another file that is not named"),
    ],
)
def test_weights_elsewhere_are_refused(tmp_path, entries, words) -> None:
    (tmp_path / "secret").write_bytes(b"0" * 48)
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "x.data").write_bytes(b"0" * 48)
    (folder / "link").symlink_to("../secret")
    with pytest.raises(FormatError, match=words):
        read_onnx(written(folder, model(weight=outside(**entries))))
    assert read_onnx(written(folder, model(weight=outside(location="x.data"))))


def raw(dims, data: bytes = b"", kind: int = 1, **options) -> TensorProto:
    return TensorProto(name="w", dims=dims, data_type=kind, raw_data=data, **options)


@pytest.mark.parametrize(
    ("weight", "words"),
    [
        (raw([2**40]), r"'w' has the shape \[1099511627776\]"),
        (raw([0, 2**50]), "'w' has the shape"),
        (raw([-1]), "'w' has the shape"),
        (raw([1] * 70, b"0000"), "'w' has the shape"),
        (raw([4]), r"'w' \[4\] has 0 bytes; needed 16"),
        (raw([4], b"0" * 17), r"'w' \[4\] has 17 bytes; needed 16"),
        (raw([4], b"0" * 16, kind=99), "'w' has the unknown type 99"),
        (
            raw([4], b"0" * 16, segment=TensorProto.Segment(begin=0, end=4)),
            "a tensor in segments",
        ),
    ],
)
def test_lying_weights_are_refused(tmp_path, weight, words) -> None:
    with pytest.raises(FormatError, match=words):
        read_onnx(written(tmp_path, model(weight=weight)))
    holder = helper.make_node("Constant", [], ["y"], value=weight)
    with pytest.raises(FormatError, match=words):
        read_onnx(written(tmp_path, model(nodes=[holder])))


def test_small_types_are_counted_in_bits(tmp_path) -> None:
    weight = raw([3], b"00", kind=TensorProto.INT4)
    assert read_onnx(written(tmp_path, model(weight=weight))).weights == {"w": ("int4", (3,))}


def nested(levels: int) -> onnx.ModelProto:
    node = helper.make_node("Identity", ["x"], ["y"])
    for _ in range(levels):
        inner = helper.make_graph([node], "inner", [], [])
        node = helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=inner)
        if levels > 5:
            del node.attribute[1]
    return model(nodes=[node])


def test_nested_graphs_are_counted_and_bounded(tmp_path) -> None:
    assert read_onnx(written(tmp_path, nested(3))).operators == {"Identity": 8, "If": 7}
    with pytest.raises(FormatError, match="graphs nested deeper than 32"):
        read_onnx(written(tmp_path, nested(33)))


def test_hidden_weights_elsewhere_are_refused(tmp_path) -> None:
    far = outside(location="x.data")
    inner = helper.make_graph([], "inner", [], [], [far])
    branch = helper.make_node("If", ["x"], ["y"], then_branch=inner)
    with pytest.raises(FormatError, match="a subgraph with weights in another file"):
        read_onnx(written(tmp_path, model(nodes=[branch])))
    holder = helper.make_node("Constant", [], ["y"], value=far)
    with pytest.raises(FormatError, match="an attribute with values in another file"):
        read_onnx(written(tmp_path, model(nodes=[holder])))
    made = model()
    made.graph.sparse_initializer.add(values=far)
    with pytest.raises(FormatError, match="sparse weights in another file"):
        read_onnx(written(tmp_path, made))


def test_operators_from_elsewhere_are_refused(tmp_path) -> None:
    with pytest.raises(FormatError, match=r"the operator 'my\.ops::MatMul'; needed operators"):
        read_onnx(written(tmp_path, model(domain="my.ops")))
    context = helper.make_node("EPContext", ["x"], ["y"], domain="com.microsoft")
    with pytest.raises(FormatError, match=r"the operator 'com\.microsoft::EPContext'"):
        read_onnx(written(tmp_path, model(nodes=[context])))
    made = model(domain="own")
    node = helper.make_node("PyOp", ["a"], ["b"])
    versions = [helper.make_opsetid("", 17)]
    made.functions.append(helper.make_function("own", "MatMul", ["a"], ["b"], [node], versions))
    with pytest.raises(FormatError, match="uses the operator '::PyOp'"):
        read_onnx(written(tmp_path, made))
    made.functions[0].node[0].op_type = "Neg"
    assert read_onnx(written(tmp_path, made)).operators == {"MatMul": 1, "Neg": 1}


def test_too_many_nodes_and_bytes_are_refused(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("mirror_analysis.files.onnx_files._MOST_NODES", 2)
    nodes = [helper.make_node("Neg", ["x"], ["y"]) for _ in range(3)]
    with pytest.raises(FormatError, match="more than 2 nodes"):
        read_onnx(written(tmp_path, model(nodes=nodes)))
    with pytest.raises(FormatError, match="needed an ONNX model of at most 10"):
        read_onnx(written(tmp_path, model()), most=10)
    (tmp_path / "x.data").write_bytes(b"0" * 48)
    path = written(tmp_path, model(weight=outside(location="x.data")))
    size = path.stat().st_size
    with pytest.raises(FormatError, match="bytes with the weights beside it; needed at most"):
        read_onnx(path, most=size + 40)


def test_other_files_are_refused(tmp_path) -> None:
    with pytest.raises(FormatError, match="it holds no graph"):
        read_onnx(written(tmp_path, b""))
    with pytest.raises(FormatError, match="is not a whole ONNX model"):
        read_onnx(written(tmp_path, b"hello"))
    data = model().SerializeToString()
    refused = 0
    for size in range(len(data)):
        try:
            read_onnx(written(tmp_path, data[:size]))
        except FormatError:
            refused += 1
    # A cut between two fields leaves a message; the graph is whole in it then.
    assert refused > len(data) - 12


@pytest.mark.real_weights
def test_real_models_are_read(shared) -> None:
    read = read_onnx(shared / "weights" / "onnx" / "go1_policy.onnx")
    assert read.inputs == {"obs": ("float32", (1, 48))}
    assert read.outputs == {"continuous_actions": ("float32", (1, 12))}
    falls = read_onnx(shared / "weights" / "onnx" / "nfd-fall.onnx")
    assert falls.inputs == {"pose_history": ("float32", ("people", 32, 60))}

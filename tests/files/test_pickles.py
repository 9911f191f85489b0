"""Pickles are read as data; what runs, lies or grows is refused in words."""

import collections
import os
import pickle
import struct
import tracemalloc

import numpy as np
import pytest
import torch

from mirror_analysis.errors import FormatError, MissingFileError
from mirror_analysis.files.inert import Named, Record
from mirror_analysis.files.pickles import pickle_names, read_pickle

ARRAYS = {
    "matrix": np.arange(6.0).reshape(2, 3),
    "columns": np.asfortranarray(np.arange(6).reshape(2, 3)),
    "big endian": np.arange(3, dtype=">i4"),
    "text": np.array(["a", "bcd"]),
    "bytes": np.array([b"a", b"bcd"]),
    "dates": np.array(["2020-01-01", "2021-05-06"], dtype="M8[D]"),
    "fields": np.array([(1.0, [2, 3])], dtype=[("x", "f4"), ("y", "i2", (2,))]),
    "objects": np.array([{"a": 1}, None, "x"], dtype=object),
    "truth": np.array([True, False]),
    "empty": np.zeros((0, 4)),
    "point": np.array(3.5),
}
PLAIN = {
    "none": [None, True, False],
    "numbers": [1, -1, 255, 256, 65536, -(2**31), 2**80, -(2**2000), 1.5, 2j],
    "text": ["", "é", "\U0001f600", "x" * 300, "\ud800"],
    "bytes": [b"", b"\xff" * 300, bytearray(b"abc")],
    "nested": ({"a": [(1, 2), (1,), ()]}, {1, 2}, frozenset("ab")),
    "ordered": collections.OrderedDict(a=1, b=2),
    "deque": collections.deque([1, 2], maxlen=3),
    "keys": {1: "a", (1, "b"): 2, None: 3, 1.5: 4, b"x": 5},
}


def same(one, two) -> bool:
    if isinstance(two, np.ndarray):
        return one.dtype == two.dtype.newbyteorder("=") and str(one) == str(two)
    return one == two and type(one) is type(two)


# -- what is read -----------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_of_every_protocol_are_read(name, protocol) -> None:
    assert same(read_pickle(pickle.dumps(ARRAYS[name], protocol)), ARRAYS[name])


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("name", PLAIN)
def test_plain_values_of_every_protocol_are_read(name, protocol) -> None:
    assert same(read_pickle(pickle.dumps(PLAIN[name], protocol)), PLAIN[name])


def test_arrays_can_be_written_to_and_share_what_they_shared() -> None:
    array = np.ones(3)
    one, two = read_pickle(pickle.dumps([array, array], 4))
    one[0] = 5.0
    assert one is two
    kinds = read_pickle(pickle.dumps([np.float32(1), np.float32(2), array.dtype, array.dtype], 2))
    assert [type(kinds[0]), kinds[1], kinds[2]] == [np.float32, 2.0, np.dtype("f8")]
    assert kinds[2] is kinds[3]


@pytest.mark.parametrize("module", ["numpy.core", "numpy._core"])
def test_numpy_one_and_two_are_read(module) -> None:
    data = pickle.dumps(np.arange(3.0), 2).replace(b"numpy._core", module.encode())
    assert read_pickle(data).tolist() == [0.0, 1.0, 2.0]
    data = pickle.dumps(np.float64(2), 2).replace(b"numpy._core", module.encode())
    assert read_pickle(data) == 2.0


def test_a_default_dict_is_a_dict() -> None:
    counts = collections.defaultdict(list, a=[1])
    assert read_pickle(pickle.dumps(counts, 4)) == {"a": [1]}


def test_tensors_in_a_pickle_are_read() -> None:
    base = torch.arange(6.0)
    given = {"a": base.reshape(2, 3).T, "b": base[2:], "p": torch.nn.Parameter(torch.ones(2))}
    read = read_pickle(pickle.dumps(given, 2))
    assert all(torch.equal(read[name], given[name]) for name in given)
    assert type(read["p"]) is torch.Tensor


def python2(array_bytes: bytes, head: bytes = b"") -> bytes:
    """A pickle as Python 2 wrote it: arrays hold strings."""
    return (
        b"\x80\x02}q\x00U\x01a"
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x01\x85cnumpy\ndtype\nU\x02f8K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xff"
        b"J\xff\xff\xff\xffK\x00tb\x89U" + bytes([len(array_bytes)]) + array_bytes + b"tbs."
    )


def test_pickles_of_python_two_need_their_encoding() -> None:
    data = python2(struct.pack("<d", 1e-300))
    assert read_pickle(data, encoding="latin1")["a"].tolist() == [1e-300]
    with pytest.raises(FormatError, match="read it with encoding 'latin1'"):
        read_pickle(data)
    with pytest.raises(FormatError, match="encoding 'klingon' is not one of ASCII, latin1"):
        read_pickle(data, encoding="klingon")
    assert read_pickle(b"U\x01\xff.", encoding="bytes") == b"\xff"


class Demo:
    def __init__(self) -> None:
        self.steps = [1, 2]

    def __len__(self) -> int:
        return 2


class Table(dict):
    pass


class Slots:
    __slots__ = ("x",)


@pytest.mark.parametrize("protocol", range(6))
def test_named_classes_come_back_as_records(protocol) -> None:
    module = Demo.__module__
    kinds = [f"{module}.{name}" for name in ("Demo", "Table")]
    table = Table(a=1)
    table.note = "x"
    demo, read = read_pickle(pickle.dumps([Demo(), table], protocol), records=kinds)
    assert (demo.kind, demo.fields) == (kinds[0], {"steps": [1, 2]})
    assert read.fields == {"note": "x"}
    assert read.items == [("a", 1)]
    with pytest.raises(FormatError, match="Demo', which is not on the list of plain data"):
        read_pickle(pickle.dumps(Demo(), protocol))


def test_slots_states_and_arguments_are_kept() -> None:
    slots = Slots()
    slots.x = 3
    kind = f"{Slots.__module__}.Slots"
    assert read_pickle(pickle.dumps(slots, 2), records=[kind]).fields == {"x": 3}
    called = read_pickle(b"cos\nsystem\n(Vecho\ntR.", records=["os.system"])
    assert isinstance(called, Record) and called.arguments == ("echo",)
    stated = read_pickle(b"cos\nsystem\n)RK\x05b.", records=["os.system"])
    assert stated.fields == {"__state__": 5}
    assert read_pickle(b"cos\nsystem\n.", records=["os.system"]) == Named("os.system")


def test_names_are_listed_without_reading() -> None:
    data = pickle.dumps([os.getcwd, np.ones(2)], 2)
    assert {"posix.getcwd", "numpy.dtype", "numpy.ndarray"} <= set(pickle_names(data))
    with pytest.raises(FormatError, match="is not a pickle of plain data"):
        pickle_names(b"hello")


def test_where_a_pickle_comes_from(tmp_path) -> None:
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps([1]))
    assert read_pickle(path) == [1]
    with pytest.raises(FormatError, match=r"holds \d+ bytes; needed a pickle of at most 3"):
        read_pickle(path, most=3)
    with pytest.raises(FormatError, match=r"20 bytes were given; needed a pickle of at most 3"):
        read_pickle(b"x" * 20, most=3)
    with pytest.raises(MissingFileError, match="is a folder; needed a pickle"):
        read_pickle(tmp_path)


# -- what is refused --------------------------------------------------------------------------


class Runs:
    def __init__(self, function, *arguments) -> None:
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "call",
    [
        (os.system, "touch ran"),
        (eval, "open('ran', 'w')"),
        (exec, "open('ran', 'w')"),
        (getattr, "x", "upper"),
        (__import__, "os"),
        (np.load, "x"),
        (np.ndarray, (2,)),
        (np.zeros, (2,)),
        (torch.load, "x"),
        (open, "ran", "w"),
        (os.mkdir, "ran"),
    ],
    ids=lambda call: call[0].__name__,
)
def test_nothing_is_run(tmp_path, monkeypatch, protocol, call) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FormatError, match=r"which is not on the list|array or object made directl"):
        read_pickle(pickle.dumps([Runs(*call)], protocol))
    assert list(tmp_path.iterdir()) == []


ARRAY = b"cnumpy._core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tC\x01btR"
MINUS = b"J\xff\xff\xff\xff"
F8 = b"cnumpy\ndtype\n(X\x02\0\0\0f8\x89\x88tR(K\x03X\x01\0\0\0<NNN" + 2 * MINUS + b"K\0tb"
HUGE = b"\x8a\x08" + struct.pack("<q", 2**60)


def array(shape: bytes, content: bytes, dtype: bytes = F8) -> bytes:
    return ARRAY + b"(K\x01" + shape + dtype + b"\x89" + content + b"tb."


def dtype(spec: bytes, state: bytes) -> bytes:
    return (
        b"cnumpy\ndtype\n(X"
        + struct.pack("<I", len(spec))
        + spec
        + b"\x89\x88tR(K\x03"
        + state
        + b"tb"
    )


TENSOR = b"ctorch._utils\n_rebuild_tensor_v2\n("
HOSTILE = {
    "nothing": (b"", "it ends at byte 0"),
    "no pickle": (b"hello", "entry 101 is used before"),
    "cut": (pickle.dumps({"a": np.ones(30)})[:-9], "it ends at byte"),
    "no stop": (b"]", "it ends at byte 1"),
    "two objects": (b"]].", "stops before its object is made"),
    "open mark": (b"](.", "stops before its object is made"),
    "empty stack": (b"0.", "nothing is left to take"),
    "no mark": (b"t.", "a mark is missing"),
    "below the mark": (b"](a.", "nothing is left to take"),
    "bytearray of 2**60": (b"\x96" + struct.pack("<Q", 2**60) + b"x.", "more are needed"),
    "text of 2**60": (b"\x8d" + struct.pack("<Q", 2**60) + b"x.", "more are needed"),
    "bytes of 2**63": (b"\x8e" + struct.pack("<Q", 2**63) + b"x.", "more are needed"),
    "bytes of 2**31": (b"B" + struct.pack("<I", 2**31) + b"x.", "more are needed"),
    "negative string": (b"T" + struct.pack("<i", -5) + b"x.", "more are needed"),
    "long of 2**31": (b"\x8b" + struct.pack("<I", 2**31) + b"x.", "a number of 2147483648 bytes"),
    "long of 5000": (b"\x8b" + struct.pack("<I", 5000) + b"x" * 5000 + b".", "of 5000 bytes"),
    "digits": (b"I" + b"9" * 5000 + b"\n.", "a line at byte 1 does not end"),
    "no number": (b"Iabc\n.", "invalid literal"),
    "no quotes": (b"Sabc\n.", "a string without quotes"),
    "memo never made": (b"j\xff\xff\xff\xff.", "entry 4294967295 is used before it is made"),
    "extension": (b"\x82\x01.", r"operation b'\\x82'"),
    "buffer outside": (b"\x97.", r"operation b'\\x97'"),
    "outside": (b"Pkey\n.", "something outside the pickle"),
    "outside, binary": (b"K\x01Q.", "something outside the pickle"),
    "name of numbers": (b"K\x01K\x02\x93.", "a name that is not text"),
    "calls a value": (b"K\x01)R.", "it calls a value of type int"),
    "arguments of no tuple": (b"ccollections\nOrderedDict\nK\x01R.", "not a tuple"),
    "class as a value": (b"cnumpy\ndtype\n.", "the class numpy.dtype as a value"),
    "class in a list": (b"]cnumpy\ndtype\na.", "the class numpy.dtype as a value"),
    "attributes of a list": (b"]}b.", "sets attributes of a value of type list"),
    "appends to a number": (b"K\x01K\x01a.", "appends to a value of type int"),
    "items of a list": (b"]K\x00K\x01s.", "sets items of a value of type list"),
    "adds to a list": (b"](K\x01\x90.", "adds to a value of type list"),
    "odd items": (b"}(K\x01u.", "a key without a value"),
    "list as a key": (b"}]K\x01s.", "a key of type list"),
    "huge key": (b"}\x8a\x09" + b"\x01" * 9 + b"K\x01s.", "a key of type int"),
    "tuple of tuples as a key": (b"})\x85\x85K\x01s.", "a key of type tuple"),
    "set of lists": (b"\x8f(]\x90.", "a key of type list"),
    "contains itself": (b"]q\x00h\x00a.", "a value that contains itself"),
    "deep lists": (b"]" * 500 + b"a" * 499 + b".", "nested deeper than 100"),
    "deep tuples": (b")" + b"\x85" * 500 + b".", "nested deeper than 100"),
    "one in another in another": (b"]" + b"q\x00h\x00\x86" * 60 + b".", "many times"),
    "bytes() of a number": (b"cbuiltins\nbytes\n(" + HUGE + b"tR.", "with the arguments"),
    "bytearray() of a number": (b"cbuiltins\nbytearray\n(" + HUGE + b"tR.", "with the arguments"),
    "list() of text": (b"cbuiltins\nlist\n(X\x01\0\0\0atR.", "with the arguments"),
    "dict of no pairs": (b"ccollections\nOrderedDict\n((K\x01lt\x52.", "other than pairs"),
    "another encoding": (b"c_codecs\nencode\n(X\x01\0\0\0aX\x03\0\0\0hextR.", "the encoding 'hex'"),
    "copies": (
        b"X"
        + struct.pack("<I", 2**20)
        + b"x" * 2**20
        + b"q\x000("
        + b"c_codecs\nencode\n(h\x00X\x06\0\0\0latin1tR" * 90
        + b"l.",
        "copies its own content",
    ),
    "array of a class": (ARRAY.replace(b"cnumpy\nndarray\n", b"K\x01") + b".", "class other than"),
    "array without content": (ARRAY + b".", "stops before its object is made"),
    "array used too early": (ARRAY + b"q\x00h\x00.", "that contains itself"),
    "array doubled": (ARRAY + b"2.", "that contains itself"),
    "array of a number": (ARRAY + b"K\x01b.", "an array without its content"),
    "array without type": (ARRAY + b"(K\x01)NNC\x00tb.", "an array without its type"),
    "array of 2**60": (array(b"(" + HUGE + b"t", b"C\x08" + b"x" * 8), "the shape"),
    "array of 2 in 8 bytes": (
        array(b"K\x02\x85", b"C\x08" + b"x" * 8),
        r"8 bytes that claims \(2,\)",
    ),
    "array of -1": (array(b"J\xff\xff\xff\xff\x85", b"C\x08" + b"x" * 8), "not made of whole num"),
    "array of True": (array(b"\x88\x85", b"C\x08" + b"x" * 8), "not made of whole numbers"),
    "array of none": (array(b"(K\x00" + HUGE + b"t", b"C\x00"), "the shape"),
    "array of 33 axes": (array(b"(" + b"K\x01" * 33 + b"t", b"C\x08" + b"x" * 8), "the shape"),
    "array of a list": (array(b"K\x01\x85", b"]"), "whose content is not bytes"),
    "objects that do not fit": (
        array(b"K\x02\x85", b"]", dtype(b"O8", b"X\x01\0\0\0|NNNK\x08K\x08K?")),
        "objects that do not fit",
    ),
    "objects from bytes": (
        array(b"K\x01\x85", b"C\x08" + b"x" * 8, dtype(b"O8", b"X\x01\0\0\0|NNNK\x08K\x08K?")),
        "objects that do not fit",
    ),
    "type of code": (b"cnumpy\ndtype\n(X\x08\0\0\0f8,(9,)f\x89\x88tR.", "the numpy type"),
    "type of 2**26": (b"cnumpy\ndtype\n(X\x08\0\0\0S9999999\x89\x88tR.", "the numpy type"),
    "type without state": (F8[:-1].rsplit(b"(", 1)[0] + b"K\x01b.", "without its state"),
    "order of bytes": (dtype(b"f8", b"X\x01\0\0\0!NNNK\xffK\xffK\0") + b".", "the byte order"),
    "fields beyond": (  # x at 65535 of 8 bytes
        dtype(
            b"V8",
            b"X\x01\0\0\0|NX\x01\0\0\0x\x85}X\x01\0\0\0x" + F8 + b"M\xff\xff\x86sK\x08K\x01K\0",
        )
        + b".",
        "ValueError",
    ),
    "scalar of two": (
        b"cnumpy._core.multiarray\nscalar\n(" + F8 + b"C\x10" + b"x" * 16 + b"tR.",
        "an array of 16",
    ),
    "reconstructor": (b"ccopyreg\n_reconstructor\n(K\x01K\x02NtR.", "a class that is not a record"),
    "instance": (b"(ios\nsystem\n.", "'os.system', which is not on the list"),
    "object": (b"(cos\nsystem\no.", "'os.system', which is not on the list"),
    "nested name": (b"cnumpy\ncore.multiarray._reconstruct.__globals__\n.", "not on the list"),
    "tensor of no storage": (TENSOR + b"K\x01K\x00))tR.", "a tensor without its storage"),
    "parameter of no tensor": (
        b"ctorch._utils\n_rebuild_parameter\n(K\x01tR.",
        "without its tensor",
    ),
    "storage of no bytes": (
        b"ctorch.storage\n_load_from_bytes\n(K\x01tR.",
        "a storage that is not",
    ),
    "pickle in a storage": (
        b"ctorch.storage\n_load_from_bytes\n(C\x0ecos\nsystem\n)R.tR.",
        "'os.system'",
    ),
    "tensor of a class": (
        b"ctorch._tensor\n_rebuild_from_type_v2\n(K\x01K\x02K\x03K\x04tR.",
        "of a class of its own",
    ),
    "device": (b"ctorch\ndevice\n(K\x01tR.", "a device without a name"),
    "size": (b"ctorch\nSize\n(K\x01tR.", "a torch.Size of something else"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_pickle_is_refused_in_words_and_little_memory(name) -> None:
    data, words = HOSTILE[name]
    read_pickle(pickle.dumps(torch.ones(1), 2))  # what is imported once is not counted
    tracemalloc.start()
    try:
        with pytest.raises(FormatError, match=words) as caught:
            read_pickle(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 5 * 2**20 + 200 * len(data)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


def test_work_is_bounded(monkeypatch) -> None:
    monkeypatch.setattr("mirror_analysis.files.stack_machine._WORK", 1000)
    assert len(read_pickle(b"(" + b"K\x01" * 500 + b"l.")) == 500
    with pytest.raises(FormatError, match="more than 1000 operations or objects"):
        read_pickle(b"(" + b"K\x01" * 1000 + b"l.")
    many = b"]q\x00(" + b"K\x01" * 100 + b"e0(" + b"cbuiltins\nset\n(h\x00tR" * 50 + b"l."
    with pytest.raises(FormatError, match="more than 1000 operations or objects"):
        read_pickle(many)


@pytest.mark.real_weights
def test_real_pickles_open(shared) -> None:
    demos = read_pickle(shared / "episodes" / "adroit_door_demos.pickle")
    assert len(demos) == 25 and demos[0]["observations"].shape[1] == 39
    expert = read_pickle(shared / "episodes" / "expert_data_Hopper-v4.pkl")
    assert expert[0]["observation"].shape == (1000, 11)
    policy = read_pickle(shared / "weights" / "cs285" / "Hopper.pkl")
    assert policy["GaussianPolicy"]["out"]["AffineLayer"]["W"].shape == (64, 3)
    path = shared / "weights" / "dapg" / "door-v0.pickle"
    with pytest.raises(FormatError, match=r"mjrl\.policies\.gaussian_mlp\.MLP', which is not on"):
        read_pickle(path, encoding="latin1")
    foreign = [n for n in pickle_names(path) if n.startswith(("mjrl", "torch.", "builtins"))]
    foreign = [n for n in foreign if not n.startswith(("torch._utils", "torch.storage"))]
    door = read_pickle(path, records=foreign, encoding="latin1")
    weight = door.fields["model"].fields["_modules"]["fc_layers"].fields["_modules"]["0"]
    assert weight.fields["_parameters"]["weight"].shape == (32, 39)
    stats = shared / "weights" / "sb3" / "ppo_Hopper-v3.vecnormalize.pkl"
    names = [
        n for n in pickle_names(stats) if not n.startswith(("numpy.core", "numpy.d", "numpy.nd"))
    ]
    assert read_pickle(stats, records=names).fields["obs_rms"].fields["mean"].shape == (11,)

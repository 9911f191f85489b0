"""Records with their checksums, and the examples in them."""

import struct

import numpy as np
import pytest

from mirror_analysis.errors import FormatError, MissingFileError
from mirror_analysis.files.protobuf import encode, encode_number
from mirror_analysis.files.tfrecords import example, masked, records


def framed(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    return length + struct.pack("<I", masked(length)) + data + struct.pack("<I", masked(data))


def written(tmp_path, data: bytes):
    path = tmp_path / "x.tfrecord"
    path.write_bytes(data)
    return path


def test_records_are_read_one_by_one(tmp_path) -> None:
    parts = [b"", b"abc", b"x" * 5000]
    path = written(tmp_path, b"".join(map(framed, parts)))
    assert list(records(path)) == parts
    assert next(iter(records(path))) == b""
    assert list(records(written(tmp_path, b""))) == []
    with pytest.raises(MissingFileError, match="needed a TFRecord file"):
        list(records(tmp_path))


def test_damage_is_found(tmp_path) -> None:
    good = framed(b"abc") + framed(b"defgh")
    for place in range(len(good)):
        data = bytearray(good)
        data[place] ^= 4
        words = "has no whole record at byte|does not match its checksum"
        with pytest.raises(FormatError, match=words):
            list(records(written(tmp_path, bytes(data))))
    for size in set(range(1, len(good))) - {len(framed(b"abc"))}:
        with pytest.raises(FormatError, match=r"has no whole record|claims"):
            list(records(written(tmp_path, good[:size])))
    flipped = bytearray(framed(b"abc"))
    flipped[12] ^= 1
    path = written(tmp_path, bytes(flipped))
    assert list(records(path, check=False)) == [b"`bc"]
    with pytest.raises(FormatError, match="the record at byte 0 of"):
        list(records(path))


def test_lengths_are_bounded(tmp_path) -> None:
    length = struct.pack("<Q", 2**60)
    path = written(tmp_path, length + struct.pack("<I", masked(length)) + b"x" * 100)
    with pytest.raises(FormatError, match="claims 1152921504606846976 bytes for the record at"):
        list(records(path))
    with pytest.raises(FormatError, match=r"claims 50 bytes .* the cap is 49"):
        list(records(written(tmp_path, framed(b"x" * 50)), most=49))


def feature(name: str, kind: int, content: bytes) -> bytes:
    return encode(1, encode(1, name.encode()) + encode(2, encode(kind, content)))


def test_examples_are_read() -> None:
    floats = np.array([1.5, -2], "<f4").tobytes()
    integers = b"".join(encode_number(n % 2**64) for n in (3, -4, 300))
    message = encode(
        1,
        feature("text", 1, encode(1, b"a") + encode(1, b"bc"))
        + feature("packed", 2, encode(1, floats))
        + feature("single", 2, b"\x0d" + floats[:4] + b"\x0d" + floats[4:])
        + feature("count", 3, encode(1, integers))
        + feature("one", 3, b"\x08" + encode_number(7))
        + feature("none", 1, b""),
    )
    read = example(message)
    assert read["text"] == [b"a", b"bc"] and read["none"] == []
    assert read["packed"].tolist() == read["single"].tolist() == [1.5, -2]
    assert read["packed"].dtype == np.float32 and read["count"].dtype == np.int64
    assert read["count"].tolist() == [3, -4, 300] and read["one"].tolist() == [7]


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (b"\x0a\x7f", "a field of 127 bytes where 0 are left"),
        (b"hello", "is not a tf.train.Example"),
        (encode(1, feature("x", 2, encode(1, b"abc"))), "is not a tf.train.Example"),
        (encode(1, feature("x", 2, b"\x08\x01")), "a list of floats with the field 1"),
        (encode(1, feature("x", 3, b"\x0d1234")), "a list of integers with the field 1"),
        (encode(1, feature("x", 3, encode(1, b"\xff"))), "a number that does not end"),
        (encode(1, encode(1, encode(2, b"\x08\x01"))), "a feature with the field 1"),
        (encode(1, encode(1, encode(1, b"\xff") + encode(2, b""))), "is not a tf.train.Example"),
    ],
)
def test_other_messages_are_refused(message, words) -> None:
    with pytest.raises(FormatError, match=words) as caught:
        example(message)
    assert "\n" not in str(caught.value)


def test_many_small_values_are_refused(monkeypatch) -> None:
    many = encode(1, feature("x", 1, encode(1, b"") * 20))
    assert len(example(many)["x"]) == 20
    monkeypatch.setattr("mirror_analysis.files.tfrecords._MOST_VALUES", 19)
    with pytest.raises(FormatError, match="more than 19 strings in a feature"):
        example(many)
    monkeypatch.setattr("mirror_analysis.files.tfrecords._MOST_FEATURES", 1)
    with pytest.raises(FormatError, match="more than 1 features"):
        example(encode(1, feature("x", 1, b"") + feature("y", 1, b"")))


@pytest.mark.real_weights
def test_a_real_robot_dataset_is_read(shared) -> None:
    (path,) = (shared / "episodes").glob("bridge_dataset-train.tfrecord-*")
    episodes = [example(record) for record in records(path)]
    assert len(episodes) == 25
    assert {len(e["steps/action"]) for e in episodes} == {70}
    assert episodes[0]["steps/observation/image_0"][0].startswith(b"\xff\xd8\xff")

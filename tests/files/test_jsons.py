"""JSON of bounded size and depth, of the type that was asked for."""

import json
import math

import msgspec
import pytest

from mirror_analysis.errors import FormatError, MissingFileError
from mirror_analysis.files.jsons import read_json


class Info(msgspec.Struct):
    fps: int


def test_values_are_of_the_type_asked_for(tmp_path) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(b'\xef\xbb\xbf{"fps": 30}')
    assert read_json(path) == {"fps": 30}
    assert read_json(path, Info) == Info(30)
    assert read_json(b"[1, 2]", list[int]) == [1, 2]


def test_numbers_as_python_writes_them_are_read() -> None:
    read = read_json(json.dumps({"a": math.nan, "b": [math.inf, -math.inf]}).encode())
    assert math.isnan(read["a"]) and read["b"] == [math.inf, -math.inf]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is not the JSON that is needed: Input data was truncated"),
        (b"{", "truncated"),
        (b"[1]", "Expected `object`, got `array`"),
        (b'{"a": NaN', "is not the JSON that is needed"),
        (b"\xff\xfe{}", "is not the JSON that is needed"),
        (b'{"\xff": 1}', "is not the JSON that is needed"),
        (b'{"a":' + b"[" * 150 + b"]" * 150 + b"}", None),
        (b'{"a":' + b"[" * 250 + b"]" * 250 + b"}", "nested deeper than 200"),
        (b'{"a":' * 300 + b"1" + b"}" * 300, "nested deeper than 200"),
        (b'{"a":' + b"[" * 10**5 + b"]" * 10**5 + b"}", "is not the JSON that is needed"),
        (b'{"a": NaN, "b":' + b"[" * 10**5 + b"]" * 10**5 + b"}", "is not the JSON that is need"),
        (b'{"a": "' + b"[{" * 300 + b'\\"[["}', None),
        (b"<html>", "is not the JSON that is needed"),
    ],
)
def test_anything_else_is_refused_in_words(data, words) -> None:
    if words is None:
        assert "a" in read_json(data)
        return
    with pytest.raises(FormatError, match=words) as caught:
        read_json(data)
    assert "\n" not in str(caught.value)


def test_size_is_bounded(tmp_path) -> None:
    with pytest.raises(FormatError, match="needed a JSON file of at most 3"):
        read_json(b'{"a": 1}', most=3)
    with pytest.raises(MissingFileError, match="needed a JSON file"):
        read_json(tmp_path)

import re

import pytest

from mirror_analysis.errors import DefinitionError, StreamError, UnknownNameError
from mirror_analysis.models.model import Input
from mirror_analysis.streams import parse, resolve

HAS = {
    "camera:front": (),
    "camera:wrist": (),
    "states": (7,),
    "actions": (4,),
    "instruction": (),
    "array:goal": (3,),
}


def test_names_that_are_the_same_and_the_only_camera_are_found():
    needs = [Input("camera:wrist"), Input("states", 7), Input("instruction")]
    assert resolve("m", needs, HAS) == {n.name: n.name for n in needs}
    only = {name: shape for name, shape in HAS.items() if name != "camera:front"}
    assert resolve("m", [Input("camera")], only) == {"camera": "camera:wrist"}


def test_what_is_mapped_comes_first():
    given = {"camera": "camera:front", "states": "array:goal"}
    assert resolve("m", [Input("camera"), Input("states", 3)], HAS, given) == given
    assert resolve("m", [Input("array:x", 4)], HAS, {"array:x": "actions"}) == {
        "array:x": "actions"
    }


@pytest.mark.parametrize(
    ("needs", "words"),
    [
        (
            [Input("camera")],
            "camera could be any of several cameras. It needs camera; the episodes have"
            " camera:front, camera:wrist, states [7], actions [4], instruction, array:goal [3];"
            " map them: --map 'camera=camera:front'",
        ),
        (
            [Input("camera:top"), Input("camera:wrist")],
            "no camera:top. It needs camera:top, camera:wrist; the episodes",
        ),
        ([Input("camera:top"), Input("camera:wrist")], "map them: --map 'camera:top=camera:front'"),
        (
            [Input("states", 3, "hand, metres")],
            "states has 7 numbers where states has 3. It needs states [3] (hand, metres); the",
        ),
        ([Input("states", 3)], "map them: --map 'states=array:goal'"),
        ([Input("states", 5)], "no stream of the episodes would fit, so give it other episodes"),
        (
            [Input("array:a", 3), Input("array:b", 3)],
            "no array:a; no array:b. It needs array:a [3], array:b [3]",
        ),
        # One goal cannot be both.
        ([Input("array:a", 3), Input("array:b", 3)], "no stream of the episodes would fit"),
    ],
)
def test_what_does_not_fit_is_told_with_the_map_that_would(needs, words):
    with pytest.raises(StreamError, match=re.escape(words)):
        resolve("m", needs, HAS)


def test_a_map_between_different_kinds_is_refused():
    with pytest.raises(StreamError, match="camera is a camera but states is a vector"):
        resolve("m", [Input("camera")], HAS, {"camera": "states"})
    with pytest.raises(StreamError, match="instruction is words but actions is a vector"):
        resolve("m", [Input("instruction")], HAS, {"instruction": "actions"})


def test_a_map_names_only_what_there_is():
    with pytest.raises(UnknownNameError, match="unknown input of m 'camra'; did you mean"):
        resolve("m", [Input("camera")], HAS, {"camra": "camera:front"})
    with pytest.raises(
        UnknownNameError, match=r"unknown stream of the episodes 'camera:frnt'; did"
    ):
        resolve("m", [Input("camera")], HAS, {"camera": "camera:frnt"})


def test_pairs_are_read_from_words():
    assert parse(["camera:top=camera:front", "states=array:goal"]) == {
        "camera:top": "camera:front",
        "states": "array:goal",
    }
    for text in ("camera", "=camera", "camera="):
        with pytest.raises(DefinitionError, match=f"--map '{text}' is no pair; needed MODEL_INPUT"):
            parse([text])
    with pytest.raises(DefinitionError, match="names the input 'a' twice; give it once"):
        parse(["a=b", "a=c"])


def test_inputs_are_streams():
    with pytest.raises(DefinitionError, match="model input 'video' is no stream; needed camera"):
        Input("video")

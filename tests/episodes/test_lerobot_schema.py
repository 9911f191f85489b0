import numpy as np
import pytest
from test_lerobot_writer import lesson, lessons

from mirror_analysis.episodes.episode import Episodes
from mirror_analysis.episodes.lerobot_schema import plain, schema_of, splits
from mirror_analysis.errors import FormatError, ShapeError


def at(times):
    return lesson(0, time=len(times), timestamps=np.array(times, dtype=np.float64))


@pytest.mark.parametrize(
    ("gap", "fps"),
    [(0.1, 10), (np.float32(1 / 30), 30), (1001 / 30000, 30), (0.16, 6.25), (0.126, 1 / 0.126)],
)
def test_the_rate_is_that_of_frames_at_once(gap, fps):
    times = np.arange(9) * gap
    times[-1] += 3  # one long wait
    schema = schema_of(Episodes([at(times)]), fps=None)
    assert schema.fps == pytest.approx(fps)
    assert isinstance(schema.fps, int) == isinstance(fps, int)
    assert schema_of(Episodes([at(times)]), fps=4).fps == 4


def test_a_rate_is_needed():
    for times in ([0.0], [0.0, 0.0, 0.0]):
        with pytest.raises(ShapeError, match=r"do not tell how many frames .* give fps"):
            schema_of(Episodes([at(times)]), fps=None)
    with pytest.raises(ShapeError, match=r"no episodes to write; needed at least one"):
        schema_of(Episodes([]), fps=10)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"states": np.zeros((6, 3), np.float32)},
            r"lesson 1 has .*observation.state float32\[3\]",
        ),
        ({"extras": {}}, r"lesson 1 has .* but lesson 0 has .*flag bool"),
        ({"frames": {}}, r"lesson 0 has camera front"),
    ],
)
def test_episodes_have_to_hold_the_same(changes, words):
    with pytest.raises(ShapeError, match=words):
        schema_of(Episodes([lesson(0), lesson(1, **changes)]), fps=None)


@pytest.mark.parametrize("name", ["a/b", "..", "", "x" * 201, "a b"])
def test_names_of_cameras_are_names_of_folders(name):
    frames = {name: lesson(0).frames("front")}
    with pytest.raises(FormatError, match=r"cannot be a folder's name"):
        schema_of(Episodes([lesson(0, frames=frames)]), fps=None)


@pytest.mark.parametrize(
    "name", ["action", "index", "next.success", "source.step", "a/b", "observation.images.front"]
)
def test_names_of_extras_are_free(name):
    with pytest.raises(FormatError, match=r"cannot be a feature's name; .*none of action, "):
        schema_of(Episodes([lesson(0, extras={name: np.zeros(5)})]), fps=None)


@pytest.mark.parametrize(
    "values", [np.array(list("abcde")), np.zeros((5, 0)), np.zeros(5, complex), np.zeros(5, "g")]
)
def test_extras_are_numbers(values):
    with pytest.raises(FormatError, match=r"extra 'odd' holds .*; needed numbers"):
        schema_of(Episodes([lesson(0, extras={"odd": values})]), fps=None)


def labelled(*labels):
    return Episodes([lesson(n, labels=each) for n, each in enumerate(labels)])


def test_labels_have_one_type():
    found = schema_of(labelled({"a": 1, "b": True}, {"a": 0.5, "c": "x"}), fps=None).labels
    assert found == {"a": "float64", "b": "bool", "c": "string"}
    assert schema_of(labelled({"a": 1.5}, {"a": 2}, {"a": 3.0}), fps=None).labels["a"] == "float64"
    for first, second in ((1, "x"), (True, 1), (0.5, False)):
        with pytest.raises(FormatError, match=r"label 'a' is \w+ in some .* needed one type"):
            schema_of(labelled({"a": first}, {"a": second}), fps=None)
    for value in (2**63, -(2**63) - 1):
        with pytest.raises(FormatError, match=r"label 'a' of episode lesson 0 is .*64 bits"):
            schema_of(labelled({"a": value}), fps=None)
    assert type(plain(np.float32(0.5))) is float and plain("x") == "x"


def test_splits_are_runs_or_one():
    assert splits(lessons(4)) == {"train": "0:2", "test": "2:4"}
    mixed = labelled({"split": "a"}, {"split": "b"}, {"split": "a"})
    assert splits(mixed) == {"train": "0:3"}
    assert splits(labelled({"split": "a"}, {})) == {"train": "0:2"}

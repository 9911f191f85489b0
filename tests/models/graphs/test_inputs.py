"""What the inputs of a graph are, by their shapes and by what the user says."""

import numpy as np
import pytest
import torch

from mirror_analysis.errors import DefinitionError, FormatError, UnknownNameError
from mirror_analysis.models.checkpoint import Options
from mirror_analysis.models.graphs.inputs import Port, plan


def _plan(*ports, **values):
    return plan(ports, Options(values=values), where="f")


def _port(*shape, name="x", dtype="float32", **more):
    return Port(name, shape, dtype, **more)


def test_pictures_watch_and_vectors_act():
    assert _plan(_port(None, 3, 32, 32)).role == "observation"
    assert _plan(_port(None, 7)).role == "execution"
    assert _plan(_port(None, 32, 60)).role == "observation"
    both = _plan(_port(None, 3, 32, 32, name="see"), _port(None, 7, name="feel"))
    assert both.role == "execution"
    assert [r.need.name for r in both.readings] == ["camera", "states"]
    assert _plan(_port(None, 3, 32, 32), role="execution").role == "execution"
    with pytest.raises(UnknownNameError, match="unknown value of option role 'watch'"):
        _plan(_port(None, 7), role="watch")


def test_several_of_a_kind_are_told_apart_by_name():
    two = _plan(_port(None, 3, name="arm"), _port(None, 4, name="hand"))
    assert [(r.need.name, r.need.width) for r in two.readings] == [
        ("array:arm", 3), ("array:hand", 4),
    ]  # fmt: skip
    eyes = _plan(_port(None, 3, 8, 8, name="left"), _port(None, 8, 8, 3, name="right"))
    assert [(r.need.name, r.layout) for r in eyes.readings] == [
        ("camera:left", "NCHW"), ("camera:right", "NHWC"),
    ]  # fmt: skip


def test_layouts_and_clips():
    frames = np.random.default_rng(0).integers(0, 256, (10, 8, 8, 3)).astype(np.uint8)
    for shape, layout in (
        ((None, 3, 4, 8, 8), "NCTHW"),
        ((None, 4, 3, 8, 8), "NTCHW"),
        ((None, 4, 8, 8, 3), "NTHWC"),
    ):
        (reading,) = _plan(_port(*shape)).readings
        assert (reading.layout, reading.kind, reading.frames) == (layout, "clip", 4)
        assert reading.rows(frames).shape == (1, *shape[1:])
        assert reading.made_up(2, torch.Generator()).shape == (2, *shape[1:])
        (acting,) = _plan(_port(*shape), role="execution").readings
        assert acting.kind == "window" and acting.rows(frames).shape == (10, *shape[1:])
    (free,) = _plan(_port(None, 3, None, 8, 8)).readings
    assert free.frames == 16
    (free,) = _plan(_port(None, 3, None, 8, 8), frames="2").readings
    x = free.rows(frames)
    assert torch.equal(x[0].transpose(0, 1), free.prepare(frames[[0, 9]]))
    (asked,) = _plan(_port(None, 3, 3, 8, 8), layout="NTCHW").readings
    assert asked.layout == "NTCHW"


def test_windows_look_back_and_never_ahead():
    states = np.arange(10, dtype=np.float32).reshape(5, 2)
    (reading,) = _plan(_port(None, 3, 2), role="execution").readings
    rows = reading.rows(states)
    assert rows[0, :, 0].tolist() == [0, 0, 0] and rows[4, :, 0].tolist() == [4, 6, 8]
    past = [states[t : t + 1] for t in range(2)]
    assert torch.equal(reading.now(past), rows[1:2])
    (whole,) = _plan(_port(None, None, 2)).readings
    assert whole.kind == "sequence" and whole.rows(states).shape == (1, 5, 2)
    (one,) = _plan(_port(None, None, 2), role="execution").readings
    assert (one.kind, one.frames) == ("window", 1)
    assert whole.made_up(2, torch.Generator()).shape == (2, 4, 2)


def test_pictures_of_free_size():
    (reading,) = _plan(_port(None, 3, None, None)).readings
    assert reading.prepare.size == (224, 224)
    assert _plan(_port(None, 3, None, None), size="96").readings[0].prepare.size == (96, 96)
    assert _plan(_port(None, 3, None, None), size="96,64").readings[0].prepare.size == (96, 64)
    assert _plan(_port(None, 3, 96, None), size="96,64").readings[0].prepare.size == (96, 64)


def test_normalisation_is_declared():
    found = plan([_port(None, 3, 8, 8)], Options(), where="f", said="the file's own")
    assert found.facts["normalisation"] == "the file's own"
    assert _plan(_port(None, 3, 8, 8)).facts["normalisation"].startswith("ASSUMED")
    asked = _plan(_port(None, 3, 8, 8), mean="0.5", std="0.25").readings[0].prepare
    assert (asked.mean, asked.std, asked.scale) == ((0.5,) * 3, (0.25,) * 3, 1 / 255)
    bare = _plan(_port(None, 3, 8, 8), scale="1").readings[0].prepare
    assert (bare.mean, bare.std, bare.scale) == ((0.0,) * 3, (1.0,) * 3, 1.0)


@pytest.mark.parametrize(
    "shape, values, words",
    [
        ((None, 3, 8, 8), {"size": "9,9"}, r"option size is 9,9 but input 'x' of f takes 8 x 8"),
        ((None, 3, 8, 8), {"size": "1,2,3"}, r"option size is '1,2,3'; needed height,width"),
        ((None, 3, 8, 8), {"size": "0"}, r"option size is '0'; needed height,width"),
        ((None, 3, 8, 8), {"mean": "1,2"}, r"option mean is '1,2'; needed one number or three"),
        ((None, 3, 8, 8), {"std": "0,1,1"}, r"option std holds 0"),
        ((None, 4, 2), {"frames": "5"}, r"option frames is 5 but input 'x' of f takes 4"),
        ((None, None, 2), {"frames": "100000"}, r"100000 frames at once are too many"),
    ],
)
def test_options_that_do_not_fit(shape, values, words):
    with pytest.raises(DefinitionError, match=words):
        _plan(_port(*shape), **values)


def test_graphs_that_cannot_be_used():
    with pytest.raises(FormatError, match="f has no inputs"):
        _plan()
    with pytest.raises(FormatError, match=r"takes single frames and whole clips at once \(a"):
        _plan(_port(None, 3, 4, 8, 8, name="a"), _port(None, 3, 8, 8, name="b"))
    with pytest.raises(FormatError, match=r"takes pictures of 60000 x 60000; needed at most"):
        _plan(_port(None, 3, 60000, 60000))
    with pytest.raises(FormatError, match=r"has the shape \[\?, 3, 8, 8\]; needed pictures"):
        _plan(_port(None, 3, 8, 8), layout="NHWC")
    with pytest.raises(FormatError, match=r"is int32 \[\?, 8\]; needed pictures"):
        _plan(_port(None, 8, dtype="int32"))
    with pytest.raises(FormatError, match=r"is float32 \[8\]; needed pictures"):
        _plan(_port(8))

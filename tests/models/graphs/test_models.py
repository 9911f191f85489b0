"""Engines in general: batches, precision, shapes that change, several actions for one moment."""

import numpy as np
import pytest
import torch
from graph_files import Seen

from mirror_analysis.errors import DeviceError, FormatError, HookError
from mirror_analysis.models.checkpoint import Options
from mirror_analysis.models.graphs.engines import Engine, Relay, quantised, said
from mirror_analysis.models.graphs.inputs import Port, plan
from mirror_analysis.models.graphs.layers import Site
from mirror_analysis.models.graphs.models import ActingGraph, WatchingGraph, build


class _Twice(Engine):
    """Gives back twice its input, by whatever function of [row, 3] a test brings."""

    def __init__(self, function=lambda x: ([[2 * x]], 2 * x), batch=0):
        self.function, self.batch, self.digest, self.rows = function, batch, "0", []
        self.sites = [Site("v", ("part",), "double")]

    def run(self, feeds, memory):
        self.rows.append(len(feeds["x"]))
        return *self.function(feeds["x"]), {}

    def with_sites(self, sites):
        self.sites = sites
        return self

    def untrained(self, seed):
        return self


def _model(engine, *, shape=(None, 3), **values):
    options = Options(values=values)
    used = plan([Port("x", shape, "float32")], options, where="f")
    return build(engine, used, name="m", options=options, where="f", outputs={}, facts={})


def test_rows_are_run_in_batches_and_put_together():
    states = np.arange(120, dtype=np.float32).reshape(40, 3)
    for batch, rows in ((0, [32, 8]), (1, [1] * 40), (16, [16, 16, 16])):
        engine = _Twice(batch=batch)
        model = _model(engine)
        engine.rows.clear()
        given = model.forward_batch([Seen({"states": states[:20]}), Seen({"states": states[20:]})])
        assert engine.rows == rows
        np.testing.assert_array_equal(given.reshape(40, 3), 2 * states)


def test_roles():
    assert isinstance(_model(_Twice()), ActingGraph)
    assert isinstance(_model(_Twice(), role="observation"), WatchingGraph)


def test_of_several_actions_one_is_taken():
    engine = _Twice(lambda x: ([[x]], torch.stack([x, 10 * x], dim=1)))
    states = np.ones((2, 3), dtype=np.float32)
    assert _model(engine).act({"states": states}).tolist() == [[1.0] * 3] * 2
    last = _model(engine, action="last")
    assert last.act({"states": states}).tolist() == [[10.0] * 3] * 2
    assert last.settings["action"] == "last"


def test_values_without_rows_and_repeated_ones_are_left_out():
    def function(x):
        return [[x.T], [2 * x], [2 * x], [x.sum()], [], [x.argmax(1, keepdim=True)]], 2 * x

    engine = _Twice(function)
    engine.sites = [Site(name, (name,), name) for name in "abcdef"]
    assert [info.name for info in _model(engine).layers()] == ["b"]
    with pytest.raises(FormatError, match="f gives no floating-point value with a row for each"):
        _model(_Twice(lambda x: ([[x.T]], x)))


def test_a_network_that_does_not_run():
    def broken(x):
        raise RuntimeError("first line\nRuntimeError: sizes do not match\nlast")

    with pytest.raises(FormatError, match=r"f does not run on 2 rows \(RuntimeError: sizes"):
        _model(_Twice(broken))
    assert said(ValueError()) == "ValueError"


def test_frames_of_one_pass_are_bounded_by_the_values_they_give():
    assert _model(_Twice()).frames_at_once == 2**27 // 3
    big = _Twice(lambda x: ([[torch.ones(len(x), 2**16)]], x))
    assert _model(big).untrained(0).frames_at_once == 2**11


def test_one_number_each_is_an_action():
    engine = _Twice(lambda x: ([[x]], x.argmax(1)))
    states = np.eye(3, dtype=np.float32)
    assert _model(engine).act({"states": states}).tolist() == [[0.0], [1.0], [2.0]]


def test_values_that_come_and_go():
    engine = _Twice()
    relay = Relay(engine)
    calls = iter([1, 2])
    engine.function = lambda x: ([[x] * next(calls)], x)
    with pytest.raises(HookError, match="value 0 ran 1 times for the first frames and 2 times"):
        relay({"x": torch.ones(40, 3)}, 1)
    engine.function = lambda x: ([[x.sum()]], x)
    with pytest.raises(HookError, match="a value lost its rows"):
        relay({"x": torch.ones(40, 3)}, 1)


def test_device_and_precision_are_refused_not_replaced():
    engine = _Twice()
    engine.to(torch.device("cpu"))
    with pytest.raises(DeviceError, match="'cuda' was asked for but _Twice runs on the CPU alone"):
        engine.to(torch.device("cuda"))
    with (
        torch.autocast("cpu", torch.bfloat16),
        pytest.raises(DeviceError, match="_Twice runs in the precision of its file"),
    ):
        Relay(engine)({"x": torch.ones(1, 3)}, 1)


def test_quantised_values():
    x = torch.tensor([-2.0, 0.0, 0.26, 9.0])
    assert quantised(x, Port("x", (4,), "uint8", 0.5, 3)).tolist() == [0, 3, 4, 21]
    assert quantised(x, Port("x", (4,), "int8", 0.5, 0)).tolist() == [-4, 0, 1, 18]
    assert quantised(x, Port("x", (4,), "uint8")).tolist() == [0, 0, 0, 9]
    assert quantised(x, Port("x", (4,), "float16")).dtype == np.float16

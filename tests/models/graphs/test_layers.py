"""Which values of a graph are layers, and how they are called."""

import pytest
import torch

from mirror_analysis.models.graphs import layers as graph_layers
from mirror_analysis.models.graphs.aten_operations import channels, kind
from mirror_analysis.models.graphs.layers import Operation, Site, axes, choose, named, sites


def _chain(*kinds):
    """Operations one after another, named by their place."""
    return [
        Operation(kind, (str(i),), str(i + 1), ("part", str(i)), kind)
        for i, kind in enumerate(kinds)
    ]


def _found(operations, *outputs):
    return [site.value for site in sites(operations, outputs)]


def test_a_layer_ends_after_its_activation():
    operations = _chain("weighted", "bias", "norm", "activation", "weighted", "pool", "weighted")
    assert _found(operations, "7") == ["4", "5", "6", "7"]
    assert _found(_chain("weighted", "bias", "activation"), "3") == ["3"]
    assert _found(_chain("norm", "weighted", "activation"), "3") == ["1", "3"]
    assert _found(_chain("weighted", "other", "other"), "3") == ["1", "3"]


def test_a_residual_sum_is_a_layer_unless_it_is_activated():
    operations = [
        Operation("weighted", ("x",), "a", (), "linear"),
        Operation("sum", ("x", "a"), "b", (), "add"),
        Operation("norm", ("b",), "c", (), "norm"),
        Operation("weighted", ("c",), "d", (), "linear"),
        Operation("sum", ("b", "d"), "e", (), "add"),
        Operation("activation", ("e",), "f", (), "relu"),
    ]
    assert _found(operations, "f") == ["b", "c", "f"]


def test_channels_are_followed_through_operations_that_keep_axes():
    operations = [
        Operation("weighted", ("x",), "a", (), "conv", 1),
        Operation("activation", ("a",), "b", (), "relu", 0),
        Operation("other", ("b",), "c", (), "transpose", None),
        Operation("weighted", ("c",), "d", (), "linear", -1),
        Operation("sum", ("c", "d"), "e", (), "add", 0),
    ]
    assert [(s.value, s.channels) for s in sites(operations, ["c", "e"])] == [
        ("b", 1), ("c", 0), ("e", -1),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "shape, channel, by_frame, words",
    [
        ((2, 5), -1, True, "episode*time channel"),
        ((2, 5), 0, False, "episode channel"),
        ((2, 7, 5), -1, True, "episode*time token channel"),
        ((2, 5, 7), 1, False, "episode channel token"),
        ((2, 4, 4, 5), -1, True, "episode*time height width channel"),
        ((2, 5, 4, 4), 0, True, "episode*time channel height width"),
        ((2, 5, 3, 4, 4), 1, False, "episode channel time height width"),
        ((2, 3, 4, 4, 5), -1, False, "episode time height width channel"),
        ((2, 5, 3, 4, 4), 1, True, None),
        ((3, 5), -1, True, None),
        ((2,), -1, True, None),
        ((2, 0), -1, True, None),
    ],
)
def test_axes(shape, channel, by_frame, words):
    assert axes(shape, rows=2, channels=channel, by_frame=by_frame) == words


def test_values_that_are_no_numbers_are_no_layers():
    site = Site("v", (), "argmax")
    value = torch.zeros((2, 3), dtype=torch.int64)
    assert graph_layers.layer("n", site, value, rows=2, by_frame=True, calls="only") is None


def test_few_are_kept_and_many_thinned():
    found = [
        Site(f"{i}{part}", ("net", f"block{i}", part), "conv", 0, i == 5 and part == "c")
        for i in range(6)
        for part in "abc"
    ]
    assert choose(found, 18) == found
    assert [s.value for s in choose(found, 7)] == [f"{i}c" for i in range(6)]
    assert choose(found, 7)[0].scope == ("net", "block0")
    assert [s.value for s in choose(found, 3)] == ["0a", "2c", "5c"]
    assert [s.value for s in choose(found, 1)] == ["5c"]
    flat = [Site(str(i), (), "add" if i % 4 == 3 else "conv") for i in range(12)]
    assert [s.value for s in choose(flat, 5)] == ["3", "7", "11"]


def test_names_are_short_readable_and_single():
    def names(*scopes, outputs=()):
        made = [
            Site(str(i), tuple(s.split(".")) if s else (), "Relu") for i, s in enumerate(scopes)
        ]
        return named(made, {str(i): name for i, name in outputs})

    assert names("a.b.c", "a.b.d") == ["c", "d"]
    assert names("layers.0", "layers.1") == ["layers.0", "layers.1"]
    assert names("a.b", "a.b.c") == ["b", "b.c"]
    assert names("a.x", "a.x", "a.y") == ["x.relu", "x.relu2", "y"]
    assert names("", "", "a") == ["relu", "relu2", "a"]
    assert names("a", "a", outputs=[(1, "logits")]) == ["a", "logits"]
    assert names("a", "b", outputs=[(1, "a")]) == ["a", "a2"]


def test_words_of_torch():
    assert kind("relu_", 1) == "activation" and kind("conv2d", 1) == "weighted"
    assert (kind("add", 1), kind("add", 2)) == ("bias", "sum")
    assert (kind("matmul", 1), kind("matmul", 2)) == ("weighted", "other")
    assert (kind("mean", 1), kind("view", 1)) == ("pool", "other")
    assert (channels("linear"), channels("conv2d"), channels("relu")) == (-1, 1, 0)
    assert channels("permute") is None

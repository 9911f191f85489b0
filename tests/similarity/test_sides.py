import numpy as np
import oracles
import pytest
import torch

from mirror_analysis.errors import DegenerateError, DeviceError, ShapeError
from mirror_analysis.similarity.sides import Side, agree, alike, title


def values(seed, n=8, d=3):
    return np.random.default_rng(seed).standard_normal((n, d))


@pytest.mark.parametrize(("rows", "kind"), [(512, torch.float64), (513, torch.float32)])
def test_few_rows_are_exact_and_many_stay_as_they_are(rows, kind):
    side = Side.read({"a": values(0, rows).astype(np.float32), "b": values(1, rows)}, "x")
    assert side.layers["a"].dtype == kind
    assert side.layers["b"].dtype == torch.float64


def test_types_are_made_alike_over_both_sides():
    x = Side.read({"a": values(0, 600).astype(np.float32)}, "x")
    y = Side.read({"b": values(1, 600), "bad": np.full((600, 2), np.nan)}, "y")
    assert alike((x, x)) == (x, x)
    found = alike((x, y))
    assert {side.layers[k].dtype for side, k in zip(found, "ab", strict=True)} == {torch.float64}
    assert found[1].layers["bad"] == y.layers["bad"]
    assert (found[0].name, found[1].name) == ("x", "y")


def test_a_bad_layer_is_its_reason_and_is_not_prepared():
    side = Side.read({"good": values(0), "bad": np.full((8, 2), np.inf)}, "y")
    assert side.layers["bad"].startswith("layer 'bad' of y holds NaN or infinity in 8 of 8 rows")
    assert list(side.prepared(None, None, budget=5, by_rows=True)) == ["good"]


def test_layers_are_prepared_with_what_the_grid_knows():
    side = Side.read({"a": values(0)}, "x")
    groups, units = torch.arange(8) // 4, torch.arange(8) // 2
    plain = side.prepared(None, units, budget=5, by_rows=True)["a"]
    assert (plain.name, plain.budget, plain.by_rows, plain.groups) == (
        "layer 'a' of x",
        5,
        True,
        None,
    )
    assert plain.units is units
    np.testing.assert_array_equal(plain.values, values(0))
    inside = side.prepared(groups, None, budget=5, by_rows=False)["a"]
    assert inside.groups is groups
    expected = oracles.group_residual(values(0), groups.tolist())
    np.testing.assert_allclose(inside.values, expected, atol=1e-15)


def test_some_rows_only():
    side = Side.read({"a": values(0), "bad": np.full((8, 2), np.nan)}, "x").take(
        torch.tensor([5, 2])
    )
    np.testing.assert_array_equal(side.layers["a"], values(0)[[5, 2]])
    assert isinstance(side.layers["bad"], str) and side.name == "x"
    assert side.widths == [3]


def test_one_number_of_rows_and_one_device():
    x, y = Side.read({"a": values(0), "b": values(1)}, "x"), Side.read({"": values(2)}, "y")
    assert agree((x, y)) == (8, torch.device("cpu"))
    assert (title("x", ""), title("x", "conv")) == ("x", "layer 'conv' of x")


def test_says_what_is_wrong():
    x = Side.read({"a": values(0)}, "x")
    with pytest.raises(ShapeError, match=r"y has no layers; needed at least one \[sample, feature"):
        Side.read({}, "y")
    with pytest.raises(ShapeError, match=r"layer 'a' of y has shape \(8, 3, 1\); needed"):
        Side.read({"a": values(0)[..., None]}, "y")
    with pytest.raises(ShapeError, match="layer 'a' of x has 8 samples but y has 7; pair"):
        agree((x, Side.read({"": values(1, 7)}, "y")))
    elsewhere = Side("y", {"b": torch.zeros(8, 2, device="meta")})
    with pytest.raises(
        DeviceError, match="layer 'a' of x is on cpu but layer 'b' of y on meta; mo"
    ):
        agree((x, elsewhere))
    with pytest.raises(DegenerateError, match="no layer can be measured: y holds NaN or infinity"):
        agree((Side.read({"": np.full((8, 2), np.nan)}, "y"),))

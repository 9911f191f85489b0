import pickle

import numpy as np
import pytest
import torch
from drawn import drawn
from sb3_zips import foreign

from mirror_analysis.errors import FormatError
from mirror_analysis.models import load_model, perceptron
from mirror_analysis.models.checkpoint import Checkpoint, Options
from mirror_analysis.testing import check_model

SIZES = (5, 8, 7, 3)
STATES = drawn("states", (6, 5))


def mjrl(monkeypatch, **changes: object) -> bytes:
    """A pickle of mjrl's MLP; the classes are there while it is written only."""
    linear = []
    for i in range(3):
        made = torch.nn.Linear(SIZES[i], SIZES[i + 1])
        with torch.no_grad():
            made.weight.copy_(torch.from_numpy(drawn(f"w{i}", (SIZES[i + 1], SIZES[i]))))
            made.bias.copy_(torch.from_numpy(drawn(f"b{i}", (SIZES[i + 1],))))
        linear.append(made)
    scales = {
        "in_shift": drawn("in_shift", (5,)), "in_scale": drawn("in_scale", (5,)),
        "out_shift": drawn("out_shift", (3,)), "out_scale": drawn("out_scale", (3,)),
    }  # fmt: skip
    fields = {name: torch.from_numpy(values) for name, values in scales.items()}
    fields |= {
        "_modules": {"fc_layers": torch.nn.ModuleList(linear)},
        "nonlinearity": torch.tanh,
        "layer_sizes": SIZES,
    }
    network = foreign(monkeypatch, "mjrl.utils.fc_network.FCNetwork", **fields | changes)
    policy = foreign(monkeypatch, "mjrl.policies.gaussian_mlp.MLP", n=5, m=3, model=network)
    return pickle.dumps(policy, protocol=2)


def cs285(**changes: object) -> bytes:
    """A pickle of cs285's expert: weights are [input, output], moments and biases have a row."""
    layers = [
        {"AffineLayer": {"W": drawn(f"w{i}", (SIZES[i + 1], SIZES[i])).T.astype(float),
                         "b": drawn(f"b{i}", (1, SIZES[i + 1])).astype(float)}}
        for i in range(3)
    ]  # fmt: skip
    mean = drawn("mean", (1, 5)).astype(float)
    moments = {"mean_1_D": mean, "meansq_1_D": mean**2 + drawn("var scale", (1, 5)), "count": 9}
    policy = {
        "obsnorm": {"Standardizer": moments},
        "logstdevs_1_Da": np.zeros((1, 3)),
        "hidden": {"FeedforwardNet": {"layer_0": layers[0], "layer_2": layers[1]}},
        "out": layers[2],
    }
    return pickle.dumps({"GaussianPolicy": policy, "nonlin_type": "tanh"} | changes, protocol=2)


def loaded(path):
    return perceptron.load(Checkpoint(path), name="expert", options=Options())


def chain(x, biases):
    for i in range(3):
        x = x @ drawn(f"w{i}", (SIZES[i + 1], SIZES[i])).T + biases[i]
        x = np.tanh(x) if i < 2 else x
    return x


def test_mjrl_acts_by_its_published_formula(tmp_path, monkeypatch):
    path = tmp_path / "policy.onnx"
    path.write_bytes(mjrl(monkeypatch))
    assert perceptron.recognise(Checkpoint(path)) == "perceptron of mjrl"
    model = load_model(path)
    x = (STATES - drawn("in_shift", (5,))) / (drawn("in_scale", (5,)) + 1e-8)
    hidden = chain(x, [drawn(f"b{i}", (SIZES[i + 1],)) for i in range(3)])
    expected = hidden * drawn("out_scale", (3,)) + drawn("out_shift", (3,))
    np.testing.assert_allclose(model.act({"states": STATES}), expected, atol=1e-5)
    assert model.facts["architecture"] == "5-8-7-3" and model.facts["family"] == "mjrl"
    assert [(x.name, x.width) for x in model.layers()] == [
        ("hidden1", 8), ("hidden2", 7), ("action", 3)
    ]  # fmt: skip
    check_model(model)


def test_cs285_acts_by_its_published_formula(tmp_path):
    path = tmp_path / "expert.zip"
    path.write_bytes(cs285())
    assert perceptron.recognise(Checkpoint(path)) == "perceptron of cs285"
    model = load_model(path)
    std = np.sqrt(drawn("var scale", (1, 5)))
    x = (STATES - drawn("mean", (1, 5))) / (std + 1e-6)
    expected = chain(x, [drawn(f"b{i}", (1, SIZES[i + 1])) for i in range(3)])
    np.testing.assert_allclose(model.act({"states": STATES}), expected, atol=1e-5)
    assert model.facts["activation"] == "tanh, as the file says"
    check_model(model)
    twin = model.untrained(1)
    assert torch.equal(twin.module.shift, model.module.shift)
    assert torch.equal(twin.module.scale, model.module.scale)


def test_loading_leaves_the_random_numbers_of_others_alone(tmp_path):
    (tmp_path / "a.pkl").write_bytes(cs285())
    before = torch.random.get_rng_state()
    loaded(tmp_path / "a.pkl")
    assert torch.equal(before, torch.random.get_rng_state())


def test_other_pickles_are_not_recognised(tmp_path):
    path = tmp_path / "a.pkl"
    for value in ({"GaussianPolicy": 1}, [1, 2]):
        path.write_bytes(pickle.dumps(value))
        assert perceptron.recognise(Checkpoint(path)) is None
    path.write_bytes(b"GaussianPolicy obsnorm")
    assert perceptron.recognise(Checkpoint(path)) is None


def test_damaged_ones_are_refused_in_words(tmp_path, monkeypatch):
    path = tmp_path / "a.pkl"
    no = r"a\.pkl is no perceptron of mjrl or cs285, or damaged"
    swish = "its activation is swish; read are tanh, relu, lrelu"
    for data, words in (
        (pickle.dumps([1]), no),
        (cs285(GaussianPolicy={}), no),
        (cs285(nonlin_type="swish"), swish),
        (mjrl(monkeypatch, nonlinearity=torch.sin), "its activation is sin"),
        (mjrl(monkeypatch, nonlinearity=1), "its activation is not named"),
        (mjrl(monkeypatch, in_shift=torch.ones(4)), "a layer has weights .8, 5. where 4 numbers"),
        (mjrl(monkeypatch, in_scale=torch.ones(4)), "its scales do not fit its layers"),
        (mjrl(monkeypatch, out_shift=torch.full((3,), np.nan)), "it holds NaN or infinity"),
        (mjrl(monkeypatch, out_shift=[1.0]), "a weight is not a tensor"),
        (mjrl(monkeypatch, _modules={"fc_layers": 1}), "a part of it is missing"),
    ):
        path.write_bytes(data)
        with pytest.raises(FormatError, match=words):
            loaded(path)
    deep = cs285()
    path.write_bytes(deep[: len(deep) // 2])
    with pytest.raises(FormatError, match=r"a\.pkl"):
        loaded(path)
    path.write_bytes(b"cposix\nsystem\n(S'true'\ntR.")
    with pytest.raises(FormatError, match=r"posix\.system"):
        loaded(path)


def test_an_array_that_is_none_is_refused(tmp_path):
    held = pickle.loads(cs285())
    held["GaussianPolicy"]["out"]["AffineLayer"]["W"] = "many"
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(held))
    with pytest.raises(FormatError, match="a weight is not an array"):
        loaded(tmp_path / "a.pkl")


@pytest.mark.real_weights
@pytest.mark.parametrize(
    ("file", "what", "architecture"),
    [("dapg/door-v0.pickle", "mjrl", "39-32-32-28"), ("dapg/pen-v0.pickle", "mjrl", "45-64-64-24"),
     ("cs285/HalfCheetah.pkl", "cs285", "17-64-64-6"), ("cs285/Hopper.pkl", "cs285", "11-64-64-3"),
     ("cs285/Walker2d.pkl", "cs285", "17-64-64-6")],
)  # fmt: skip
def test_published_ones_load_and_act(file, what, architecture, shared):
    model = load_model(shared / "weights" / file)
    assert model.facts["family"] == what and model.facts["architecture"] == architecture
    states = drawn("states", (3, int(architecture.partition("-")[0])))
    assert np.ptp(model.act({"states": states}), axis=0).any()

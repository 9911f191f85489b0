"""Networks out of a function of the user's."""

import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from mirror_analysis.errors import (
    DefinitionError,
    FormatError,
    HookError,
    MissingFileError,
    UnknownNameError,
)
from mirror_analysis.models import load_model
from mirror_analysis.models.checkpoint import Checkpoint, Options
from mirror_analysis.models.model import weights_digest
from mirror_analysis.models.module import from_factory, load, recognise
from mirror_analysis.testing import check_model

SOURCE = """
import torch
from torch import nn


def pictures():
    return nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.Conv2d(4, 6, 3, 2), nn.Flatten(),
                         nn.LazyLinear(5)).eval()


class Pictures(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, 2)
        self.head = nn.Linear(4, 5)

    def forward(self, x):
        return {"logits": self.head(self.stem(x).mean((2, 3)))}


def compiled():
    return torch.compile(Pictures(), backend="eager")


def parallel():
    return nn.DataParallel(Pictures())


class Clips(nn.Module):
    def __init__(self, time_axis):
        super().__init__()
        self.time_axis = time_axis
        self.conv = nn.Conv3d(3, 4, 3)

    def forward(self, x):
        return self.conv(x if self.time_axis == 2 else x.transpose(1, 2))


def time_channel():
    return Clips(1)


def channel_time():
    return Clips(2)


class Policy(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(7, 8), nn.Tanh(), nn.Linear(8, 8))
        self.mean, self.value = nn.Linear(8, 2), nn.Linear(8, 1)

    def forward(self, x):
        y = self.trunk(x)
        return torch.tanh(self.mean(y)), self.value(y)


def plain_policy():
    return nn.Sequential(nn.Linear(7, 8), nn.Tanh(), nn.Linear(8, 2))


def trained_trunk():
    net = Pictures()
    with torch.random.fork_rng():
        torch.manual_seed(11)
        net.stem.reset_parameters()
    return net


def seeded():
    torch.manual_seed(5)
    return Pictures()


def finished():
    from mirror_analysis.models import load_model
    return load_model("reference-observation-s0")


def number():
    return 3


def broken():
    raise ValueError("no luck today")


def wide():
    return Wide()


class Wide(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(7, 6)

    def forward(self, x):
        return self.layer(x).reshape(len(x), 2, 3)


class Silent(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, x):
        return x


_private = Silent
"""


@pytest.fixture(autouse=True)
def nets(tmp_path, monkeypatch):
    """A module in the current folder, as a user has it."""
    (tmp_path / "own_nets.py").write_text(SOURCE)
    (tmp_path / "own_broken.py").write_text("raise KeyError('missing')")
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    yield
    sys.modules.pop("own_nets", None)
    assert sys.path == before


def made(name, calls="last", **options):
    return from_factory(f"own_nets:{name}", options=Options(calls, values=options))


def refused(error, name, **options):
    with pytest.raises(error) as caught:
        made(name, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def names(model):
    return [info.name for info in model.layers()]


def test_a_network_that_watches():
    model = made("Pictures", size="32", mean="0.5,0.5,0.5", std="0.25,0.25,0.25")
    assert names(model) == ["stem", "head"]
    assert (model.role, model.name, model.framewise) == ("observation", "own_nets.Pictures", True)
    assert model.facts["architecture"] == "Pictures of own_nets:Pictures"
    assert model.prepare.pixels == (32, 32)
    check_model(model)


@pytest.mark.parametrize("name", ["compiled", "parallel"])
def test_wrapped_networks_are_unwrapped(name):
    model = made(name, size="24,32", resize="stretch")
    assert type(model.module).__name__ == "Pictures"
    assert model.prepare.size == (24, 32)
    check_model(model)


@pytest.mark.parametrize("name", ["time_channel", "channel_time"])
def test_networks_of_clips(name):
    model = made(name, layout=name.replace("_", " "), clip="5", size="16")
    [info] = model.layers()
    assert info.axes == "episode channel time height width"
    assert model.clip == 5 and not model.framewise
    check_model(model, pixels=(20, 20), frames=7)


def test_pictures_of_a_clip():
    model = made("Pictures", size="16", clip="2")
    assert model.layers()[0].frames == 2
    check_model(model, pixels=(20, 20))


def test_a_network_that_acts():
    model = made("Policy", role="execution", width="7")
    assert names(model)[-2:] == ["value", "action"]
    assert (model.role, model.inputs, model.needs[0].width) == ("execution", ("states",), 7)
    x = np.random.default_rng(0).standard_normal((3, 7)).astype(np.float32)
    with torch.no_grad():
        expected = model.module.network(torch.from_numpy(x))[0].numpy()
    np.testing.assert_array_equal(model.act({"states": x}), expected)
    check_model(model)
    plain = made("plain_policy", role="execution", width="7", input="array:joints")
    assert names(plain) == ["0", "2"]
    assert plain.inputs == ("array:joints",)
    check_model(plain)


@pytest.mark.parametrize("kind", ["safetensors", "torch"])
def test_weights_are_put_in(kind, tmp_path):
    other = made("Pictures", size="16").module
    path = tmp_path / "weights.dat"
    weights = {f"module.model.{k}": v.clone() for k, v in other.state_dict().items()}
    if kind == "torch":
        torch.save({"state_dict": weights, "epoch": 3}, path)
    else:
        save_file(weights, path)
    model = made("Pictures", size="16", weights=str(path))
    assert weights_digest(model.module) == weights_digest(other)
    assert model.facts["weights"].endswith("without 'module.model.' before its names")
    check_model(model, pixels=(20, 20))


def test_weights_of_another_network_are_refused(tmp_path):
    path = tmp_path / "weights.dat"
    save_file({"stem.weight": torch.zeros(2)}, path)
    text = refused(FormatError, "Pictures", weights=str(path))
    assert "does not fit the network of own_nets:Pictures: it lacks stem.bias" in text
    assert "stem.weight (2,) for (4, 3, 3, 3)" in text
    path.write_bytes(b"\x80\x04cos\nsystem\n.")
    assert "is no file of weights (its bytes: pickle)" in refused(
        FormatError, "Pictures", weights=str(path)
    )
    refused(MissingFileError, "Pictures", weights=str(tmp_path / "nothing"))


def test_a_twin_does_not_keep_what_the_function_reads_from_somewhere():
    model = made("trained_trunk", size="16")
    twin = model.untrained(1)
    assert not torch.equal(twin.module.stem.weight, model.module.stem.weight)
    scale = (twin.module.stem.weight.std() / model.module.stem.weight.std()).detach()
    assert 0.7 < float(scale) < 1.4
    check_model(model, pixels=(20, 20))


def test_a_twin_of_a_function_that_sets_a_seed():
    check_model(made("seeded", size="16"), pixels=(20, 20))


def test_a_finished_model_is_given_as_it_is():
    model = made("finished")
    assert model.name == "reference-observation-s0"
    assert "gives a finished model, but option size is given" in refused(
        DefinitionError, "finished", size="3"
    )


def test_through_the_front_door():
    model = load_model("own_nets:Pictures", options={"size": "16"})
    assert names(model) == ["stem", "head"]


def test_functions_that_cannot_be_used():
    assert "gave int; needed a torch.nn.Module or a Model" in refused(DefinitionError, "number")
    text = refused(DefinitionError, "broken")
    assert "own_nets:broken() failed: ValueError: no luck today; it has to work" in text
    assert "'Picture'; did you mean 'Pictures'?" in refused(UnknownNameError, "Picture")
    for source, words in {
        "own_missing:net": "own_missing:net cannot be imported (No module named 'own_missing')",
        "own_broken:net": "importing own_broken failed: KeyError: 'missing'; mend it",
    }.items():
        with pytest.raises(DefinitionError) as caught:
            from_factory(source, options=Options())
        assert words in str(caught.value)


def test_options_that_do_not_fit():
    for options, words in {
        ("size", "0"): "option size is '0'; needed pixels from 1 to 4096",
        ("size", "3.5"): "option size is '3.5'; needed pixels",
        ("size", "1,2,3"): "option size is '1,2,3'; needed pixels",
        ("mean", "1"): "option mean is '1'; needed three numbers with commas between",
        ("std", "1,0,1"): "needed three numbers with commas between, none of them 0",
    }.items():
        assert words in refused(DefinitionError, "Pictures", **dict([options]))
    for option in ("layout", "resize", "role"):
        assert f"value of option {option}" in refused(
            UnknownNameError, "Pictures", **{option: "sideways"}
        )
    assert "unknown option of module 'sise'" in refused(UnknownNameError, "Pictures", sise="3")
    assert "give the option width" in refused(DefinitionError, "Policy", role="execution")
    assert "option input is 'camera'; needed states or array:NAME" in refused(
        DefinitionError, "Policy", role="execution", width="7", input="camera"
    )


def test_networks_that_do_not_run():
    text = refused(FormatError, "Policy", role="execution", width="6")
    assert "the network of own_nets:Policy does not run on what it is given: RuntimeError" in text
    assert "gave the shape (3, 2, 3) for 3 vectors; needed [row, action]" in refused(
        FormatError, "wide", role="execution", width="7"
    )
    assert "no layer gives a tensor" in refused(HookError, "_private")


def test_a_file_does_not_say_which_function_made_it(tmp_path):
    path = tmp_path / "weights.pt"
    torch.save({"stem.weight": torch.zeros(2)}, path)
    checkpoint = Checkpoint(path)
    assert recognise(checkpoint) is None
    with pytest.raises(DefinitionError, match=r"give package\.module:factory in its place"):
        load(checkpoint, name="net", options=Options())

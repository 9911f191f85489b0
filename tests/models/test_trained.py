"""Files of models that were trained further."""

import numpy as np
import pytest
import torch
from drawn import drawn
from tiny_models import MAKERS, STATES
from torch import nn

from mirror_analysis.errors import ChecksumError, DefinitionError, FormatError
from mirror_analysis.files.safetensors import read_safetensors, write_safetensors
from mirror_analysis.models import load_model, trained
from mirror_analysis.models.checkpoint import Checkpoint, Options
from mirror_analysis.models.trained import Origin, head_weights, save_trained

NOW = {"states": drawn("now", (4, STATES))}


def moved(model):
    """The model after a training of sorts, and what it was before."""
    origin = Origin("policy.pkl", model.weights_sha256)
    with torch.no_grad():
        for parameter in model.module.parameters():
            parameter.add_(0.1)
    return origin


@pytest.fixture
def saved(tmp_path):
    model = MAKERS["perceptron"](tmp_path)
    origin = moved(model)
    path = tmp_path / "tuned.bin"
    save_trained(model, path, origin=origin, head=nn.Linear(2, 1), provenance={"run": "a"})
    return path, model


def loaded(path, **options):
    return trained.load(Checkpoint(path), name="tuned", options=Options(values=options))


def test_a_trained_model_comes_back(saved, tmp_path):
    path, model = saved
    before = load_model(tmp_path / "policy.pkl")
    again = loaded(path, source=str(tmp_path / "policy.pkl"))
    assert again.name == "tuned" and again.weights_sha256 == model.weights_sha256
    np.testing.assert_array_equal(again.act(NOW), model.act(NOW))
    assert not np.allclose(again.act(NOW), before.act(NOW))
    assert again.facts["trained from"] == str(tmp_path / "policy.pkl")
    assert trained.recognise(Checkpoint(path)) == "model trained from 'policy.pkl'"


def test_what_was_trained_along_with_it_is_kept(saved, tmp_path):
    path, model = saved
    head = nn.Linear(2, 1)
    head.load_state_dict(head_weights(path))
    tensors, header = read_safetensors(path)
    assert torch.equal(tensors["head/weight"], head.weight.detach())
    assert header["run"] == "a"
    save_trained(model, tmp_path / "alone.bin", origin=Origin("policy.pkl", "0"))
    assert head_weights(tmp_path / "alone.bin") == {}


def test_a_name_of_the_catalogue_is_taken_from_the_file(tmp_path):
    model = load_model("reference-execution-s0")
    origin = Origin("reference-execution-s0", model.weights_sha256)
    moved(model)
    save_trained(model, tmp_path / "tuned.bin", origin=origin)
    again = loaded(tmp_path / "tuned.bin")
    assert again.weights_sha256 == model.weights_sha256


def test_options_of_the_origin_are_given_again(tmp_path):
    model = MAKERS["timm"](tmp_path)
    given = {"frames": "2"}
    model = load_model(tmp_path, options=given, calls="first")
    origin = Origin("net", model.weights_sha256, "timm", "first", given)
    moved(model)
    save_trained(model, tmp_path / "tuned.bin", origin=origin)
    again = loaded(tmp_path / "tuned.bin", source=str(tmp_path))
    assert again.settings == model.settings and again.clip == 2


def test_the_file_is_not_believed_to_name_other_files(saved):
    path, _ = saved
    with pytest.raises(DefinitionError, match=r"began from 'policy\.pkl', which is not of the"):
        loaded(path)


def test_another_source_is_refused(saved, tmp_path):
    _, model = saved
    save_trained(model, tmp_path / "twice.bin", origin=Origin("x", "ab" * 32))
    with pytest.raises(ChecksumError, match=r"sha256 'abab.* but .*policy\.pkl has .*; give the"):
        loaded(tmp_path / "twice.bin", source=str(tmp_path / "policy.pkl"))


def test_weights_of_another_network_are_refused(saved, tmp_path):
    path, _ = saved
    tensors, header = read_safetensors(path)
    del tensors["model/last.bias"]
    write_safetensors(tmp_path / "less.bin", tensors, header)
    with pytest.raises(FormatError, match=r"less\.bin lacks 'last\.bias'"):
        loaded(tmp_path / "less.bin", source=str(tmp_path / "policy.pkl"))


def test_files_that_are_something_else(saved, tmp_path):
    path, _ = saved
    tensors, header = read_safetensors(path)
    plain = tmp_path / "plain.bin"
    write_safetensors(plain, tensors, {"format": "pt"})
    assert trained.recognise(Checkpoint(plain)) is None
    assert trained.recognise(Checkpoint(tmp_path / "policy.pkl")) is None
    for read in (loaded, head_weights):
        with pytest.raises(FormatError, match="has the format 'pt'; needed 'mirror-analysis trai"):
            read(plain)
    for origin in ("", '{"source": 3}', '{"source": "a", "weights": "b", "code": "c"}'):
        write_safetensors(plain, tensors, header | {"origin": origin})
        with pytest.raises(FormatError, match="does not say what it was trained from"):
            loaded(plain)

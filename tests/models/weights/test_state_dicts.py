"""Weights out of the many ways to save them."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from mirror_analysis.errors import FormatError, MissingFileError
from mirror_analysis.models.weights.state_dicts import (
    check_fit,
    mentions,
    on_paper,
    put_into,
    read_state_dict,
    unwrapped,
)

WEIGHTS = {"first.weight": torch.ones(2, 3), "second.bias": torch.zeros(4, dtype=torch.float16)}


def test_reads_what_lies_deep_in_a_training_checkpoint(tmp_path):
    path = tmp_path / "last.ckpt"
    torch.save({"optimizer": {"lr": 0.1}, "model": {"state_dict": WEIGHTS, "step": 3}}, path)
    state = read_state_dict(path)
    assert state.told == (
        "last.ckpt, stored in float16 and float32, run in float32, taken from its model.state_dict"
    )
    assert {t.dtype for t in state.tensors.values()} == {torch.float32}
    save_file(WEIGHTS, path)
    assert read_state_dict(path).told == "last.ckpt, stored in float16 and float32, run in float32"


def test_reads_the_form_of_old_torch(tmp_path):
    path = tmp_path / "old.pth"
    torch.save({"module": WEIGHTS}, path, _use_new_zipfile_serialization=False)
    assert set(read_state_dict(path, first=("ema",)).tensors) == set(WEIGHTS)
    assert mentions(path, ["first.weight"])


def test_keys_that_come_first(tmp_path):
    path = tmp_path / "last.ckpt"
    torch.save({"state_dict": WEIGHTS, "ema": {"x": torch.ones(1)}}, path)
    assert set(read_state_dict(path, first=("ema",)).tensors) == {"x"}


@pytest.mark.parametrize("value", [{}, {"a": 1, "b": 2}, [torch.ones(1)], {"model": {}}])
def test_refuses_what_is_no_dictionary_of_tensors(value, tmp_path):
    path = tmp_path / "weights.pt"
    torch.save(value, path)
    with pytest.raises(FormatError, match=r"holds no dictionary of tensors \(it holds"):
        read_state_dict(path)


def test_refuses_other_files(tmp_path):
    path = tmp_path / "weights.pt"
    with pytest.raises(MissingFileError):
        read_state_dict(path)
    path.write_bytes(b"")
    with pytest.raises(FormatError, match=r"is no file of weights \(its bytes: empty\)"):
        read_state_dict(path)


def test_only_words_before_all_names_go(tmp_path):
    path = tmp_path / "weights.pt"
    torch.save({f"module.model.{k}": v for k, v in WEIGHTS.items()}, path)
    state = read_state_dict(path)
    assert set(unwrapped(state, WEIGHTS).tensors) == set(WEIGHTS)
    inner = {f"model.{k}" for k in WEIGHTS}
    assert set(unwrapped(state, inner).tensors) == inner
    assert unwrapped(state, inner).told.endswith("without 'module.' before its names")
    assert unwrapped(state, ["else"]) is state
    torch.save({"module.a": torch.ones(1), "b": torch.ones(1)}, path)
    assert set(unwrapped(read_state_dict(path), ["a", "b"]).tensors) == {"module.a", "b"}


def test_every_name_and_shape_has_to_fit(tmp_path):
    path = tmp_path / "weights.pt"
    torch.save({f"layer{i}": torch.ones(2) for i in range(6)} | {"weight": torch.ones(1)}, path)
    state, network = read_state_dict(path), nn.Linear(2, 3)
    before = network.weight.clone()
    with pytest.raises(FormatError) as caught:
        put_into(network, state, "a line")
    assert str(caught.value) == (
        f"{path} does not fit a line: it lacks bias; it has layer0, layer1, layer2, layer3 and 2"
        " more besides; it has other shapes: weight (1,) for (3, 2); give the weights of that"
        " network, or say which one it is"
    )
    assert torch.equal(network.weight, before)
    check_fit(state, state.tensors, "itself")


def test_networks_on_paper_take_no_memory():
    network = on_paper(lambda: nn.Linear(1 << 20, 1 << 20), "a line")
    assert network.weight.is_meta

    def square():
        raise ValueError("no luck.\nAt all.")

    with pytest.raises(FormatError, match=r"no square can be made \(no luck\); copy"):
        on_paper(square, "square")


def test_names_are_looked_for_without_reading(tmp_path):
    path = tmp_path / "weights.pt"
    torch.save(WEIGHTS, path)
    assert mentions(path, ["first.", "second.bias"])
    assert not mentions(path, ["first.", "third"])
    save_file(WEIGHTS, path)
    assert mentions(path, ["first.", "second.bias"])
    assert not mentions(path, ["third"])
    path.write_bytes(path.read_bytes()[:40])
    assert not mentions(path, ["first."])
    path.write_text("first.weight")
    assert not mentions(path, ["first."])
    assert not mentions(tmp_path / "nothing", ["first."])

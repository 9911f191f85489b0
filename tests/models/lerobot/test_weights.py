import copy

import pytest
import torch

from mirror_analysis.errors import FormatError
from mirror_analysis.files.safetensors import read_safetensors, write_safetensors


@pytest.fixture
def folder(kit, tmp_path):
    return kit.write_folder(tmp_path / "policy", "act", copy.deepcopy(kit.FEELING))


def rewritten(folder, change):
    tensors, header = read_safetensors(folder / "model.safetensors")
    write_safetensors(folder / "model.safetensors", change(tensors), header)


def test_a_missing_tensor_is_named(kit, folder):
    rewritten(folder, lambda t: {n: v for n, v in t.items() if n != "model.action_head.bias"})
    with pytest.raises(FormatError, match=r"lacks 'action_head\.bias'; needed the weights that"):
        kit.loaded(folder)


def test_many_missing_tensors_are_counted(kit, folder):
    rewritten(folder, lambda t: {n: v for n, v in t.items() if ".encoder." not in n})
    with pytest.raises(FormatError, match=r"lacks .* and 9 more tensors"):
        kit.loaded(folder)


def test_a_strange_tensor_is_named(kit, folder):
    rewritten(folder, lambda t: t | {"model.second_head.bias": torch.zeros(2)})
    with pytest.raises(FormatError, match=r"has 'second_head\.bias' besides what its config"):
        kit.loaded(folder)


def test_another_shape_is_named(kit, folder):
    rewritten(folder, lambda t: t | {"model.action_head.bias": torch.zeros(3)})
    words = r"has action_head\.bias of shape \(3,\) where its configuration says \(2,\)"
    with pytest.raises(FormatError, match=words):
        kit.loaded(folder)


def test_what_only_training_takes_is_left_out(kit, folder):
    digest = kit.loaded(folder).weights_sha256
    rewritten(folder, lambda t: t | {"model.vae_encoder_pos_enc": torch.zeros(1, 7, 16)})
    assert kit.loaded(folder).weights_sha256 == digest


def test_names_of_a_compiled_policy_are_read(kit, tmp_path):
    config = copy.deepcopy(kit.DENOISING)
    folder = kit.write_folder(tmp_path / "plain", "diffusion", config)
    digest = kit.loaded(folder).weights_sha256
    rewritten(folder, lambda t: {n.replace(".unet.", ".unet._orig_mod."): v for n, v in t.items()})
    assert kit.loaded(folder).weights_sha256 == digest


def test_half_precision_is_run_in_float32(kit, folder):
    rewritten(folder, lambda t: {n: v.to(torch.bfloat16) for n, v in t.items()})
    module = kit.loaded(folder).module
    assert {t.dtype for t in module.state_dict().values()} == {torch.float32}


def test_a_config_cannot_ask_for_memory(kit, folder, monkeypatch):
    # 4096 steps of 65536 numbers would take a gibibyte, were the header not looked at first.
    config = copy.deepcopy(kit.FEELING) | {"chunk_size": 4096, "dim_model": 65536}
    text = (folder / "config.json").read_text(encoding="utf-8")
    (folder / "config.json").write_text(
        text.replace('"dim_model": 16', f'"dim_model": {config["dim_model"]}'), encoding="utf-8"
    )
    with pytest.raises(FormatError, match=r"where its configuration says \(.*65536"):
        kit.loaded(folder)


def test_a_cut_file_is_refused(kit, folder):
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(FormatError, match=r"model\.safetensors"):
        kit.loaded(folder)

"""Networks of timm: the same numbers as timm gives, and nothing fetched or run."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from mirror_analysis.errors import (
    DefinitionError,
    FormatError,
    MissingDependencyError,
    MissingFileError,
    UnknownNameError,
)
from mirror_analysis.models import load_model
from mirror_analysis.models.checkpoint import Checkpoint, Options
from mirror_analysis.models.families import recognise as recognise_any
from mirror_analysis.models.images.timm import load, recognise
from mirror_analysis.models.images.timm_settings import prepared
from mirror_analysis.testing import check_model
from mirror_analysis.torchvision_shim import ensure_torchvision

ensure_torchvision()
timm = pytest.importorskip("timm")

SWIN = {"img_size": 32, "patch_size": 2, "embed_dim": 16, "depths": [1, 2], "num_heads": [1, 2],
        "window_size": 4}  # fmt: skip
VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2,
       "reg_tokens": 2}  # fmt: skip
CASES = {
    "vit_tiny_patch16_224": VIT,
    "swin_tiny_patch4_window7_224": SWIN,
    "convnext_atto": {"depths": [1, 1, 1, 1], "dims": [8, 12, 16, 24]},
    "resnet10t": {"channels": [8, 12, 16, 24]},
    "mobilenetv3_small_050": {},
}


def network(architecture, arguments, classes=5):
    """A network of timm with its own first weights, in evaluation mode."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return timm.create_model(
            architecture, pretrained=False, num_classes=classes, **arguments
        ).eval()


def folder(path, architecture="vit_tiny_patch16_224", arguments=None, classes=5, **config):
    """A folder as the hub gives it, and the network it was saved from."""
    arguments = CASES[architecture] if arguments is None else arguments
    config = {k.removeprefix("say_"): v for k, v in config.items()}
    module = network(architecture, arguments, classes)
    path.mkdir(exist_ok=True)
    save_file(
        {k: v.contiguous() for k, v in module.state_dict().items()}, path / "model.safetensors"
    )
    inner = {"input_size": [3, 32, 32], "crop_pct": 0.9, "mean": [0.5] * 3, "std": [0.25] * 3,
             "license": "apache-2.0", "fixed_input_size": "img_size" in arguments}  # fmt: skip
    said = {"architecture": architecture, "num_classes": classes, "num_features": 8,
            "pretrained_cfg": inner, "model_args": arguments}  # fmt: skip
    (path / "config.json").write_text(json.dumps(said | config))
    return module


def opened(path, **options):
    return load(Checkpoint(path), name="net", options=Options(values=options))


def refused(path, error=FormatError, **options):
    with pytest.raises(error) as caught:
        opened(path, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def described(model):
    return {info.name: (info.axes, info.width, info.prefix) for info in model.layers()}


@pytest.mark.parametrize("architecture", CASES)
def test_gives_what_timm_gives(architecture, tmp_path):
    reference = folder(tmp_path, architecture)
    model = opened(tmp_path)
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(model.module(x), reference(x), rtol=0, atol=0)
    check_model(model, pixels=(40, 50))


def test_layers_of_a_transformer_know_their_prefix(tmp_path):
    folder(tmp_path)
    found = described(opened(tmp_path))
    assert list(found) == ["patch_embed", "block0", "block1", "norm", "head"]
    assert found["patch_embed"] == ("episode*time token channel", 32, 0)
    assert found["block1"] == ("episode*time token channel", 32, 3)
    assert found["head"] == ("episode*time channel", 5, 0)


def test_layers_of_networks_in_stages(tmp_path):
    folder(tmp_path / "swin", "swin_tiny_patch4_window7_224")
    found = described(opened(tmp_path / "swin"))
    assert found["stage1.block1"] == ("episode*time height width channel", 32, 0)
    folder(tmp_path / "convnext", "convnext_atto")
    found = described(opened(tmp_path / "convnext"))
    assert found["stage3.block0"] == ("episode*time channel height width", 24, 0)


def test_recognised_by_content(tmp_path):
    folder(tmp_path)
    (tmp_path / "config.json").write_text((tmp_path / "config.json").read_text() + "\n")
    found = recognise_any(Checkpoint(tmp_path))
    assert (found.family, found.what) == ("timm", "vit_tiny_patch16_224 of timm")
    for config in ('{"architecture": "x"}', '{"architecture": 3, "num_features": 1}', "[", "{}",
                   '{"architecture": "x", "num_features": 1, "model_type": "vit"}'):  # fmt: skip
        (tmp_path / "config.json").write_text(config)
        assert recognise(Checkpoint(tmp_path)) is None
    (tmp_path / "weights.txt").write_text("conv_stem.weight")
    assert recognise(Checkpoint(tmp_path / "weights.txt")) is None


def test_facts_say_what_was_read(tmp_path):
    folder(tmp_path)
    model = opened(tmp_path, frames="2")
    assert model.facts["architecture"] == "vit_tiny_patch16_224"
    assert model.facts["licence"] == "apache-2.0"
    assert model.facts["weights"] == "model.safetensors, stored in float32"
    assert model.clip == 2 and not model.framewise


@pytest.mark.parametrize(
    "settings",
    [
        {"input_size": (3, 32, 32), "crop_pct": 0.875},
        {"input_size": (3, 32, 32), "crop_pct": 0.9, "interpolation": "bilinear"},
        {"input_size": (3, 30, 30), "crop_pct": 1.0, "mean": (0.5,) * 3, "std": (0.5,) * 3},
        {"input_size": (3, 32, 32), "crop_pct": 0.9, "crop_mode": "squash"},
        {"input_size": (3, 32, 32), "crop_pct": 0.9, "crop_mode": "border"},
        {"input_size": (3, 40, 28), "crop_pct": 0.9},
        {"input_size": (3, 40, 28), "crop_pct": 1.0, "crop_mode": "border"},
        {},
    ],
)
def test_pictures_are_prepared_as_timm_does(settings):
    for height, width in [(37, 53), (64, 48), (29, 90), (33, 33), (31, 20), (300, 201)]:
        compare_with_timm(settings, drawn_picture(height, width))


@pytest.mark.real_weights
def test_photographs_are_prepared_as_timm_does(shared):
    for settings in ({"crop_pct": 0.875}, {"crop_pct": 0.95, "crop_mode": "border"},
                     {"crop_pct": 0.9, "crop_mode": "squash"}):  # fmt: skip
        for picture in photographs(shared).values():
            compare_with_timm(settings, picture)


def drawn_picture(height, width):
    g = np.random.default_rng(height * width)
    return g.integers(0, 256, (height, width, 3), dtype=np.uint8)


def compare_with_timm(settings, picture):
    from PIL import Image
    from timm.data import create_transform, resolve_data_config

    transform = create_transform(**resolve_data_config(pretrained_cfg=dict(settings) or {"x": 1}))
    expected = transform(Image.fromarray(picture))
    torch.testing.assert_close(
        prepared(settings, where="")(picture[None])[0], expected, rtol=0, atol=1e-6
    )


def photographs(shared):
    from PIL import Image

    found = {}
    for name in ("cat.bmp", "bird.bmp", "hot_dog.jpg"):
        with Image.open(shared / "episodes" / name) as picture:
            found[name] = np.asarray(picture.convert("RGB"))
    return found


def test_bare_weights_need_the_name_of_their_network(tmp_path):
    module = network("resnet10t", {}, 7)
    path = tmp_path / "best.pth.tar"
    weights = {f"module.{k}": v.half() if v.is_floating_point() else v
               for k, v in module.state_dict().items()}  # fmt: skip
    torch.save({"epoch": 3, "state_dict": weights}, path)
    assert "option architecture, such as architecture=resnet50" in refused(path, DefinitionError)
    model = opened(path, architecture="resnet10t")
    assert model.facts["weights"] == (
        "best.pth.tar, stored in float16, run in float32, taken from its state_dict, without"
        " 'module.' before its names, with 7 classes"
    )
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(model.module(x), module(x), rtol=1e-2, atol=1e-2)
    text = refused(path, DefinitionError, architecture="resnet11t")
    assert "timm has no network 'resnet11t' (resnet1" in text
    assert "resnet10t.other" in refused(path, UnknownNameError, architecture="resnet10t.other")
    assert "no network 'hf-hub:a/b'" in refused(path, DefinitionError, architecture="hf-hub:a/b")
    path.write_bytes(path.read_bytes()[:-2000])
    refused(path, architecture="resnet10t")


def test_weights_averaged_over_training_come_first(tmp_path):
    first, second = network("resnet10t", {}, 3), network("resnet10t", {}, 3)
    second.fc.bias.data.add_(1.0)
    path = tmp_path / "last.ckpt"
    torch.save({"state_dict": first.state_dict(), "state_dict_ema": second.state_dict()}, path)
    model = opened(path, architecture="resnet10t")
    torch.testing.assert_close(model.module.fc.bias, second.fc.bias)


def test_weights_without_a_classifier(tmp_path):
    module = folder(tmp_path)
    rest = {k: v for k, v in module.state_dict().items() if not k.startswith("head.")}
    save_file(rest, tmp_path / "model.safetensors")
    model = opened(tmp_path)
    assert model.facts["weights"].endswith("without a classifier")
    assert list(described(model))[-1] == "norm"


def test_weights_of_another_network_are_refused(tmp_path):
    module = folder(tmp_path)
    weights = dict(module.state_dict())
    short = {k: v for k, v in weights.items() if k != "blocks.1.norm1.bias"}
    save_file(short, tmp_path / "model.safetensors")
    assert "it lacks blocks.1.norm1.bias; give the weights" in refused(tmp_path)
    save_file({**weights, "extra": torch.zeros(2)}, tmp_path / "model.safetensors")
    assert "it has extra besides" in refused(tmp_path)
    wrong = {**weights, "blocks.0.norm1.weight": torch.zeros(3)}
    save_file(wrong, tmp_path / "model.safetensors")
    assert "blocks.0.norm1.weight (3,) for (32,)" in refused(tmp_path)
    torch.save({"model": 3}, tmp_path / "model.safetensors")
    assert "holds no dictionary of tensors (it holds model)" in refused(tmp_path)
    (tmp_path / "model.safetensors").write_text("<html>")
    assert "is no file of weights (its bytes: html)" in refused(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    assert "model.safetensors or pytorch_model.bin" in refused(tmp_path, MissingFileError)
    torch.save(weights, tmp_path / "pytorch_model.bin")
    assert opened(tmp_path).facts["weights"].startswith("pytorch_model.bin")


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"say_architecture": "local-dir:/etc"}, "which this version of timm does not have"),
        ({"say_architecture": "hf-hub:a/b"}, "which this version of timm does not have"),
        ({"pretrained_cfg": 3}, "has no architecture and pretrained_cfg"),
        ({"pretrained_cfg": {"input_size": [3, 10**9, 10**9]}}, "input_size [3, 1000000000"),
        ({"pretrained_cfg": {"input_size": [1, 32, 32]}}, "pictures have 1 channels"),
        ({"pretrained_cfg": {"crop_pct": 0.0001}}, "crop_pct 0.0001; needed"),
        ({"pretrained_cfg": {"crop_mode": "spiral"}}, "crop_mode 'spiral'; needed center"),
        ({"pretrained_cfg": {"interpolation": "random"}}, "interpolation 'random'; needed one of"),
        ({"pretrained_cfg": {"mean": [1, 2]}}, "mean [1, 2]; needed three numbers"),
        ({"pretrained_cfg": {"std": [1, 0, 1]}}, "std 0; needed numbers to divide by"),
        ({"num_classes": 10**9}, "num_classes 1000000000; needed"),
        ({"model_args": [1]}, "model_args that are no object"),
        ({"model_args": {"checkpoint_path": "/etc/passwd"}}, "gives checkpoint_path"),
        ({"model_args": {"pretrained": True}}, "gives pretrained to the network"),
        ({"model_args": VIT | {"depth": 10**6}}, "gives depth 1000000; needed 1024"),
        ({"model_args": VIT | {"embed_dim": 10**9}}, "gives embed_dim 1000000000"),
        ({"model_args": VIT | {"embed_dim": float("nan")}}, "not JSON"),
        ({"model_args": VIT | {"x": [0] * 2000}}, "gives x 2000 values"),
        ({"model_args": VIT | {"what": 1}}, "can be made ("),
        ({"model_args": VIT | {"embed_dim": 60000}}, "has other shapes"),
    ],
)
def test_settings_out_of_bounds_are_refused(config, words, tmp_path):
    folder(tmp_path, **config)
    if words == "not JSON":
        refused(tmp_path)
        return
    assert words in refused(tmp_path)


def test_a_network_that_does_not_run_is_refused(tmp_path):
    folder(tmp_path, "vit_tiny_patch16_224", pretrained_cfg={"input_size": [3, 48, 48]})
    assert "does not run on pictures of 48 x 48 pixels" in refused(tmp_path)


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    folder(tmp_path)
    monkeypatch.setattr("mirror_analysis.models.images.timm.find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"mirror-analysis\[vision\]"):
        opened(tmp_path)


def lite(architecture="tf_efficientnet_lite0"):
    """Weights under the names of the converted checkpoints, by rule, and timm's network."""
    module = network(architecture, {}, 1000)
    names = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1",
             "classifier": "_fc"}  # fmt: skip
    first = {"conv_dw": "_depthwise_conv", "bn1": "_bn1", "conv_pw": "_project_conv",
             "bn2": "_bn2"}  # fmt: skip
    later = {"conv_pw": "_expand_conv", "bn1": "_bn0", "conv_dw": "_depthwise_conv",
             "bn2": "_bn1", "conv_pwl": "_project_conv", "bn3": "_bn2"}  # fmt: skip
    found, numbers = {}, {}
    for name, tensor in module.state_dict().items():
        parts = name.split(".")
        if parts[0] == "blocks":
            number = numbers.setdefault((parts[1], parts[2]), len(numbers))
            inner = (later if number else first)[parts[3]]
            found[f"_blocks.{number}.{inner}.{parts[4]}"] = tensor
        else:
            found[f"{names[parts[0]]}.{parts[1]}"] = tensor
    return found, module


@pytest.mark.parametrize(("number", "pixels"), [(0, 224), (2, 260)])
def test_lite_is_known_by_its_names(number, pixels, tmp_path):
    weights, module = lite(f"tf_efficientnet_lite{number}")
    path = tmp_path / "notes.txt"
    torch.save(weights, path)
    assert recognise_any(Checkpoint(path)).family == "timm"
    model = opened(path)
    assert model.facts["architecture"] == f"tf_efficientnet_lite{number}"
    assert model.prepare.pixels == (pixels, pixels)
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(model.module(x), module(x), rtol=0, atol=0)


def test_lite_of_no_known_size_is_refused(tmp_path):
    weights, _ = lite()
    path = tmp_path / "lite.pth"
    torch.save({k: v for k, v in weights.items() if not k.startswith("_blocks.15.")}, path)
    assert "has 15 blocks and 320 channels" in refused(path)
    torch.save({**weights, "_other.weight": torch.zeros(1)}, path)
    assert "has _other.weight, which EfficientNet-Lite does not have" in refused(path)
    torch.save({**weights, "_se_reduce.weight": torch.zeros(1)}, path)
    assert recognise(Checkpoint(path)) is None
    Path(path).write_bytes(path.read_bytes()[:300])
    assert recognise(Checkpoint(path)) is None


@pytest.mark.real_weights
def test_lite0_recognises_photographs_as_its_own_network_does(shared):
    try:
        model = load_model("efficientnet-lite0")
    except MissingDependencyError as error:
        pytest.skip(str(error))
    text = (shared / "episodes" / "imagenet_labels.txt").read_text().splitlines()[1:]
    from mirror_analysis.hub import checkpoint_file

    weights = torch.load(checkpoint_file("efficientnet-lite0"), weights_only=True)
    found = {}
    for name, picture in photographs(shared).items():
        x = model.prepare(picture[None])
        with torch.no_grad():
            logits = model.module(x)
            torch.testing.assert_close(logits, slow_lite0(weights, x), rtol=0, atol=1e-4)
        found[name] = text[int(logits.argmax())].split(",")[0]
    assert found == {"cat.bmp": "Egyptian cat", "bird.bmp": "chickadee", "hot_dog.jpg": "hotdog"}


@pytest.mark.real_weights
def test_lite2_recognises_photographs(shared):
    try:
        model = load_model("efficientnet-lite2")
    except MissingDependencyError as error:
        pytest.skip(str(error))
    labels = {"cat.bmp": 285, "bird.bmp": 19, "hot_dog.jpg": 934}
    for name, picture in photographs(shared).items():
        with torch.inference_mode():
            logits = model.module(model.prepare(picture[None]))
        assert int(logits.argmax()) == labels[name], name


def slow_lite0(weights, x):
    """The network written out: TensorFlow's padding, epsilon 0.001, ReLU up to 6."""

    def convolved(x, name, stride=1, groups=1):
        kernel = weights[f"{name}.weight"]
        size = kernel.shape[-1]
        spare = max((-(-x.shape[-1] // stride) - 1) * stride + size - x.shape[-1], 0)
        x = F.pad(x, (spare // 2, spare - spare // 2) * 2)
        return F.conv2d(x, kernel, stride=stride, groups=groups)

    def normed(x, name):
        mean, var, gain, bias = (
            weights[f"{name}.{part}"].view(1, -1, 1, 1)
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / torch.sqrt(var + 1e-3) * gain + bias

    x = normed(convolved(x, "_conv_stem", 2), "_bn0").clamp(0, 6)
    for number in range(16):
        name, before = f"_blocks.{number}", x
        if f"{name}._expand_conv.weight" in weights:
            x = normed(convolved(x, f"{name}._expand_conv"), f"{name}._bn0").clamp(0, 6)
        stride = 2 if number in (1, 3, 5, 11) else 1
        x = convolved(x, f"{name}._depthwise_conv", stride, x.shape[1])
        x = normed(x, f"{name}._bn1").clamp(0, 6)
        x = normed(convolved(x, f"{name}._project_conv"), f"{name}._bn2")
        x = x + before if x.shape == before.shape and stride == 1 else x
    x = normed(convolved(x, "_conv_head"), "_bn1").clamp(0, 6).mean((2, 3))
    return x @ weights["_fc.weight"].T + weights["_fc.bias"]


@pytest.mark.parametrize("size", [1e-300, "12", [], {}, [8, 8, 8], True])
def test_a_side_of_pictures_that_is_no_number_of_pixels_is_refused(size):
    from mirror_analysis.models.images.timm_settings import described as read

    config = {
        "architecture": "vit_tiny_patch16_224",
        "pretrained_cfg": {"input_size": [3, 32, 32], "fixed_input_size": True},
        "model_args": {"img_size": size},
    }
    with pytest.raises(FormatError, match=r"config says|config gives|config has"):
        read(config, where="config")

"""The half of CLIP that watches: the same numbers as open_clip gives."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from mirror_analysis.errors import (
    DefinitionError,
    FormatError,
    MissingDependencyError,
    MissingFileError,
    UnknownNameError,
)
from mirror_analysis.models.checkpoint import Checkpoint, Options
from mirror_analysis.models.families import recognise as recognise_any
from mirror_analysis.models.images.open_clip import load, recognise
from mirror_analysis.models.images.open_clip_settings import (
    fitting_architectures,
    prepared,
    published_preparation,
)
from mirror_analysis.testing import check_model
from mirror_analysis.torchvision_shim import ensure_torchvision

ensure_torchvision()
open_clip = pytest.importorskip("open_clip")

TEXT = {"context_length": 6, "vocab_size": 20, "width": 16, "heads": 2, "layers": 1}
VIT = {"image_size": 32, "patch_size": 8, "width": 32, "head_width": 16, "layers": 2}
CASES = {
    "transformer": VIT,
    "average": VIT | {"pool_type": "avg", "final_ln_after_pool": True, "no_ln_pre": True},
    "tokens": VIT | {"attentional_pool": True, "attn_pooler_queries": 4, "attn_pooler_heads": 2,
                     "output_tokens": True},
    "resnet": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "head_width": 8},
    "timm": {"image_size": 160, "timm_model_name": "test_vit", "timm_pool": "token",
             "timm_proj": "linear"},
}  # fmt: skip


def model_config(vision, quick=False):
    return {"embed_dim": 12, "vision_cfg": vision, "text_cfg": TEXT, "quick_gelu": quick}


def folder(path, vision=VIT, quick=False, name="open_clip_model.safetensors", **preprocess):
    """A folder as open_clip writes it, and the whole model it was saved from."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        whole = open_clip.CLIP(**json.loads(json.dumps(model_config(vision, quick)))).eval()
    path.mkdir(exist_ok=True)
    weights = {k: v.contiguous() for k, v in whole.state_dict().items()}
    if name.endswith("safetensors"):
        save_file(weights, path / name)
    else:
        torch.save(weights, path / name)
    said = {"model_cfg": model_config(vision, quick), "preprocess_cfg": preprocess}
    (path / "open_clip_config.json").write_text(json.dumps(said))
    return whole


def opened(path, **options):
    return load(Checkpoint(path), name="clip", options=Options(values=options))


def refused(path, error=FormatError, **options):
    with pytest.raises(error) as caught:
        opened(path, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def pictures(size):
    return torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("quick", [False, True])
def test_gives_what_open_clip_gives(case, quick, tmp_path):
    whole = folder(tmp_path, CASES[case], quick)
    model = opened(tmp_path)
    x = pictures(CASES[case]["image_size"])
    with torch.no_grad():
        expected = whole.encode_image(x) if case != "tokens" else whole.visual(x)[0]
        torch.testing.assert_close(model.module(x), expected, rtol=0, atol=1e-6)
    last = {"resnet": "pooler", "timm": "head"}.get(case, "embedding")
    assert (model.layers()[-1].name, model.layers()[-1].width) == (last, 12)
    if quick:
        check_model(model, pixels=(40, 50))


def test_layers_know_their_prefix(tmp_path):
    folder(tmp_path)
    found = {i.name: (i.axes, i.width, i.prefix) for i in opened(tmp_path).layers()}
    assert list(found) == ["conv1", "norm_pre", "block0", "block1", "norm", "embedding"]
    assert found["conv1"] == ("episode*time channel height width", 32, 0)
    assert found["block1"] == ("episode*time token channel", 32, 1)
    assert found["embedding"] == ("episode*time channel", 12, 0)


def test_recognised_by_content(tmp_path):
    folder(tmp_path, name="open_clip_pytorch_model.bin")
    found = recognise_any(Checkpoint(tmp_path))
    assert (found.family, found.what) == ("open_clip", "CLIP of open_clip, 2 blocks")
    weights = tmp_path / "open_clip_pytorch_model.bin"
    usual = weights.rename(tmp_path / "pytorch_model.bin")
    assert recognise(Checkpoint(tmp_path)) == "CLIP of open_clip, 2 blocks"
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    assert recognise(Checkpoint(tmp_path)) is None
    assert "no weights of open_clip; needed one of" in refused(tmp_path, MissingFileError)
    usual.rename(weights)
    for text in ("[", '{"model_cfg": 3}', '{"model_cfg": {"vision_cfg": 3}}'):
        (tmp_path / "open_clip_config.json").write_text(text)
        assert recognise(Checkpoint(tmp_path)) is None
    assert recognise(Checkpoint(weights)) == "CLIP under open_clip's names, its weights alone"
    torch.save({"visual.conv1.weight": torch.zeros(1)}, weights)
    assert recognise(Checkpoint(weights)) is None


def test_facts_say_what_was_read_and_left_out(tmp_path):
    whole = folder(tmp_path, quick=True)
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n")
    facts = opened(tmp_path).facts
    assert facts["licence"] == "mit"
    words = sum(not name.startswith("visual.") for name in whole.state_dict())
    assert facts["left out"] == f"the half for words ({words} tensors)"
    assert facts["activation"] == "QuickGELU, by open_clip_config.json"
    no = opened(tmp_path, quick_gelu="no")
    assert no.facts["activation"] == "no QuickGELU, by the option quick_gelu"
    assert no.settings["activation"] != opened(tmp_path).settings["activation"]
    x = pictures(32)
    with torch.no_grad():
        assert not torch.allclose(no.module(x), whole.encode_image(x), atol=1e-4)


def test_a_timm_network_is_never_fetched(tmp_path):
    folder(tmp_path, CASES["timm"])
    path = tmp_path / "open_clip_config.json"
    said = json.loads(path.read_text())
    said["model_cfg"]["vision_cfg"]["timm_model_pretrained"] = True
    path.write_text(json.dumps(said))
    assert opened(tmp_path).facts["architecture"] == "test_vit"
    for name in ("hf-hub:a/b", "local-dir:/etc", 3):
        said["model_cfg"]["vision_cfg"]["timm_model_name"] = name
        path.write_text(json.dumps(said))
        assert "which this version of timm does not have" in refused(tmp_path)


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"interpolation": "bilinear", "mean": [0.5] * 3, "std": [0.5] * 3},
        {"resize_mode": "squash", "interpolation": "bicubic"},
        {"resize_mode": "longest", "fill_color": 7},
        {"interpolation": "random"},
    ],
)
@pytest.mark.parametrize("size", [(32, 32), (40, 28)])
def test_pictures_are_prepared_as_open_clip_does(said, size):
    from open_clip.transform import PreprocessCfg, image_transform_v2
    from PIL import Image

    transform = image_transform_v2(PreprocessCfg(size=size, **said), is_train=False)
    for height, width in [(37, 53), (64, 48), (29, 90), (31, 20), (300, 201)]:
        g = np.random.default_rng(height)
        picture = g.integers(0, 256, (height, width, 3), dtype=np.uint8)
        expected = transform(Image.fromarray(picture))
        found = prepared(said, size, where="")(picture[None])[0]
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("model", "preprocess", "words"),
    [
        ({"vision_cfg": 3}, {}, "has no model_cfg with embed_dim and vision_cfg"),
        ({"embed_dim": 10**9}, {}, "has no model_cfg with embed_dim and vision_cfg"),
        ({"vision_cfg": VIT | {"image_size": 5000}}, {}, "image_size 5000; needed pixels"),
        ({"vision_cfg": VIT | {"layers": 10**6}}, {}, "gives layers 1000000"),
        ({"vision_cfg": VIT | {"width": 64}}, {}, "has other shapes: class_embedding (32,) for"),
        ({"vision_cfg": VIT | {"what": 1}}, {}, "can be made ("),
        ({"vision_cfg": VIT | {"checkpoint_path": "x"}}, {}, "gives checkpoint_path to the"),
        ({}, {"interpolation": "box"}, "interpolation 'box'; needed bicubic or bilinear"),
        ({}, {"resize_mode": "fold"}, "resize_mode 'fold'; needed shortest, longest or squash"),
        ({}, {"mean": 3}, "mean 3; needed three numbers"),
        ({}, {"std": [1, 1, 0]}, "std 0; needed numbers to divide by"),
        ({}, {"resize_mode": "longest", "fill_color": 300}, "fill_color 300; needed 0 to 255"),
    ],
)
def test_settings_out_of_bounds_are_refused(model, preprocess, words, tmp_path):
    folder(tmp_path)
    said = {"model_cfg": model_config(VIT) | model, "preprocess_cfg": preprocess}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(said))
    assert words in refused(tmp_path)


def test_damaged_weights_are_refused(tmp_path):
    whole = folder(tmp_path)
    weights = {k: v for k, v in whole.state_dict().items() if k != "visual.proj"}
    save_file(weights, tmp_path / "open_clip_model.safetensors")
    assert "it lacks proj" in refused(tmp_path)
    path = tmp_path / "open_clip_model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    refused(tmp_path)


def test_bare_weights_need_the_name_of_their_network(tmp_path, monkeypatch):
    whole = folder(tmp_path, VIT, quick=True)
    path = tmp_path / "ViT-tiny.pt"
    weights = {f"module.{k}": v for k, v in whole.state_dict().items()}
    torch.save({"epoch": 1, "state_dict": weights}, path)
    assert "option architecture (their shapes fit none known)" in refused(path, DefinitionError)
    monkeypatch.setattr(open_clip, "get_model_config", lambda name: model_config(VIT)
                        if name == "ViT-B-32" else None)  # fmt: skip
    assert "'ViT-B-31'; did you mean 'ViT-B-32'?" in refused(
        path, UnknownNameError, architecture="ViT-B-31"
    )
    refused(path, UnknownNameError, architecture="hf-hub:a/b")
    assert "unknown tag of ViT-B-32 'laion'" in refused(
        path, UnknownNameError, architecture="ViT-B-32", tag="laion"
    )
    x = pictures(32)
    plain = opened(path, architecture="ViT-B/32")
    assert "weights of OpenAI need the option quick_gelu=yes" in plain.facts["activation"]
    tagged = opened(path, architecture="ViT-B-32", tag="openai")
    assert tagged.facts["activation"] == "QuickGELU, by the tag openai"
    with torch.no_grad():
        torch.testing.assert_close(tagged.module(x), whole.encode_image(x), rtol=0, atol=1e-6)
    marks = {"input_resolution": 32, "context_length": 6, "vocab_size": 20}
    own = whole.state_dict() | {key: torch.tensor(value) for key, value in marks.items()}
    torch.save(own, path)
    model = opened(path, architecture="ViT-B-32")
    assert model.facts["activation"] == "QuickGELU, by the weights, which are OpenAI's own"
    torch.save(whole.visual.state_dict(), path)
    assert opened(path, architecture="ViT-B-32").facts["left out"] == "nothing"


def test_architectures_whose_shapes_weights_have():
    shapes = {"conv1.weight": (768, 3, 32, 32), "positional_embedding": (50, 768),
              "proj": (768, 512)}  # fmt: skip
    shapes |= {f"transformer.resblocks.{i}.ln_1.weight": (768,) for i in range(12)}
    weights = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    found = fitting_architectures(weights)
    assert {"ViT-B-32", "ViT-B-32-quickgelu"} <= set(found)
    assert not {"ViT-B-16", "ViT-B-32-256", "ViT-L-14"} & set(found)
    assert fitting_architectures({"proj": torch.zeros(1)}) == []


def test_what_open_clip_knows_of_published_weights():
    said, source, quick = published_preparation("ViT-B-16-SigLIP", "webli")
    assert said["resize_mode"] == "squash" and quick is False
    assert source == "as open_clip has it for webli"
    said, source, quick = published_preparation("ViT-B-16-SigLIP", "")
    assert said["resize_mode"] == "squash" and quick is None
    assert published_preparation("ViT-M-32-alt", "")[1] == "as CLIP's, since nothing says it"


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    folder(tmp_path)
    monkeypatch.setattr("mirror_analysis.models.images.open_clip.find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"mirror-analysis\[vision\]"):
        opened(tmp_path)

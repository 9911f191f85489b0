"""Encoders of pictures and clips against transformers' own, on small random checkpoints."""

import json

import numpy as np
import pytest
import torch
from tiny_transformers import BLOCKS, CLIP, NETWORKS, Scene, saved

import mirror_analysis.models.transformers.vision as family
from mirror_analysis.errors import (
    DefinitionError,
    FormatError,
    MissingDependencyError,
    MissingFileError,
    UnknownNameError,
)
from mirror_analysis.models import load_model
from mirror_analysis.models.checkpoint import Checkpoint, Options
from mirror_analysis.models.families import recognise
from mirror_analysis.testing import check_model

pytest.importorskip("transformers")

# Name -> leading tokens of the blocks, and how many layers beside the blocks there are.
PREFIX = {
    "VideoMAEModel": 0,
    "VivitModel": 1,
    "TimesformerModel": 1,
    "VJEPA2Model": 0,
    "XCLIPModel": 1,
    "CLIPModel": 1,
    "SiglipModel": 0,
    "Dinov2Model": 1,
    "Dinov2WithRegistersModel": 5,
    "DINOv3ViTModel": 3,
    "ViTModel": 1,
    "DeiTModel": 2,
    "BeitModel": 1,
    "IJepaModel": 0,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Folders of networks, each written once."""
    made = {}

    def get(name):
        if name not in made:
            made[name] = saved(name, tmp_path_factory.mktemp(name))
        return made[name]

    return get


def loaded(path, calls="last", trusted=False, **values):
    return family.load(Checkpoint(path), name="made", options=Options(calls, trusted, values))


def raw(model, episodes):
    """What every layer gives, unpooled, and the network's own output."""
    found, handles = {}, []
    for name, tap in model.taps().items():

        def hook(module, given, output, name=name):
            found[name] = output[0] if isinstance(output, tuple) else output

        handles.append(tap.register_forward_hook(hook))
    with torch.inference_mode():
        output = model.forward_batch(episodes)
    for handle in handles:
        handle.remove()
    return found, output


def reference(name, path, model, episodes):
    """The same by transformers' own loading, with its own hidden states."""
    import transformers

    from mirror_analysis.models.transformers.files import quiet

    cls = {
        "VideoMAEForPreTraining": "VideoMAEModel",
        "CLIPModel": "CLIPVisionModelWithProjection",
        "SiglipModel": "SiglipVisionModel",
    }.get(name, name)
    with quiet():
        own = getattr(transformers, cls).from_pretrained(path, local_files_only=True).eval()
    frames = [episode.pictures for episode in episodes]
    if model.clip:
        spaced = np.linspace(0, len(frames[0]) - 1, CLIP).round().astype(int)
        x = torch.stack([model.prepare(f[spaced]) for f in frames])
    else:
        x = torch.cat([model.prepare(f) for f in frames])
    with torch.inference_mode():
        if name == "XCLIPModel":
            given = own.vision_model(x.flatten(0, 1), output_hidden_states=True)
            given["pooler_output"] = own.get_video_features(x).pooler_output
            return given
        skip = {"skip_predictor": True} if name == "VJEPA2Model" else {}
        return own(x, output_hidden_states=True, **skip)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_layer_is_what_transformers_itself_gives(name, folder) -> None:
    path = folder(name)
    model = loaded(path)
    episodes = [Scene(6, seed) for seed in (0, 1)]
    layers, output = raw(model, episodes)
    own = reference(name, path, model, episodes)
    states = own.hidden_states
    blocks = [layer for layer in layers if "block" in layer and "mit" not in layer
              and "pooler" not in layer]  # fmt: skip
    assert len(model.layers()) == len(layers)
    if "stage" not in blocks[0]:
        assert len(states) == BLOCKS + 1 == len(blocks) + 1
        stem = layers.get("norm_pre", layers["embeddings"])
        *firsts, last = zip(states, [stem, *(layers[b] for b in blocks)], strict=True)
        for state, value in firsts:
            torch.testing.assert_close(value, state, rtol=1e-5, atol=1e-5)
        # Some put the final norm's output in the place of the last block's.
        normed = layers["norm"] if _is_normed(own, layers) else last[1]
        torch.testing.assert_close(normed, last[0], rtol=1e-5, atol=1e-5)
    elif name in ("ConvNextModel", "DINOv3ConvNextModel", "ResNetForImageClassification"):
        lasts = {block.partition(".")[0]: layers[block] for block in blocks}
        for state, value in zip(states[-len(lasts) :], lasts.values(), strict=True):
            torch.testing.assert_close(value.reshape(state.shape), state, rtol=1e-5, atol=1e-5)
    if "norm" in layers and getattr(own, "last_hidden_state", None) is not None:
        last = own.last_hidden_state
        if layers["norm"].shape == last.shape:
            torch.testing.assert_close(layers["norm"], last, rtol=1e-5, atol=1e-5)
    end = next(
        value
        for key in ("logits", "pooler_output", "image_embeds", "last_hidden_state")
        if (value := getattr(own, key, None)) is not None
    )
    torch.testing.assert_close(output.reshape(end.shape), end, rtol=1e-5, atol=1e-5)


def _is_normed(own, layers) -> bool:
    last, norm = getattr(own, "last_hidden_state", None), layers.get("norm")
    state = own.hidden_states[-1]
    alike = norm is not None and norm.shape == state.shape
    return alike and last is not None and torch.equal(last, state)


CONTRACT = ("CLIPModel", "DINOv3ConvNextModel", "DINOv3ViTModel", "Dinov2WithRegistersModel",
            "SiglipModel", "SwinModel", "TimesformerModel", "VJEPA2Model", "ViTModel",
            "VideoMAEForVideoClassification", "VivitModel", "XCLIPModel")  # fmt: skip


@pytest.mark.parametrize("name", CONTRACT)
def test_every_family_keeps_the_contract_of_models(name, folder) -> None:
    check_model(loaded(folder(name)), frames=5)


@pytest.mark.parametrize(("name", "prefix"), PREFIX.items())
def test_leading_tokens_that_stand_for_no_place_are_declared(name, prefix, folder) -> None:
    model = loaded(folder(name))
    blocks = {i.prefix for i in model.layers() if "block" in i.name and "mit" not in i.name}
    assert blocks == {prefix}
    tokens = 16 * (CLIP if name == "TimesformerModel" else CLIP // 2 if model.clip else 1)
    tokens = 16 if name == "XCLIPModel" else tokens
    layers, _ = raw(model, [Scene(2, 0)])
    assert next(v for n, v in layers.items() if "block0" in n).shape[1] == prefix + tokens


@pytest.mark.parametrize("name", ["VideoMAEModel", "CLIPModel", "VJEPA2Model", "SwinModel"])
def test_names_are_readable_and_in_forward_order(name, folder) -> None:
    names = [info.name for info in loaded(folder(name)).layers()]
    assert names == {
        "VideoMAEModel": ["embeddings", "block0", "block1", "block2"],
        "CLIPModel": ["embeddings", "norm_pre", "block0", "block1", "block2", "norm",
                      "visual_projection"],
        "VJEPA2Model": ["embeddings", "block0", "block1", "block2", "norm"],
        "SwinModel": ["embeddings", "stage0.block0", "stage0.downsample", "stage1.block0",
                      "stage1.block1", "norm"],
    }[name]  # fmt: skip


def test_a_recogniser_keeps_its_logits_as_last_layer(folder) -> None:
    for name, classes in {
        "ViTForImageClassification": 2,
        "ResNetForImageClassification": 5,
    }.items():
        last = loaded(folder(name)).layers()[-1]
        assert (last.name, last.width) == ("head", classes)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_folder_is_recognised_by_its_config_alone(name, folder, tmp_path) -> None:
    lying = tmp_path / "policy.zip"
    lying.mkdir()
    (lying / "config.json").write_bytes((folder(name) / "config.json").read_bytes())
    found = recognise(Checkpoint(lying))
    assert found.family == "transformers"
    assert found.what.startswith(f"{name} of transformers (")


def test_other_folders_are_not_taken(tmp_path) -> None:
    for config in ("{}", '{"model_type": 3}', '{"model_type": "llama", "hidden_size": 8}', "[", "3",
                   '{"type": "act", "image_size": 3}'):  # fmt: skip
        (tmp_path / "config.json").write_text(config)
        assert family.recognise(Checkpoint(tmp_path)) is None
    (tmp_path / "config.json").unlink()
    assert family.recognise(Checkpoint(tmp_path)) is None


def test_a_path_is_loaded_whatever_it_is_called(folder) -> None:
    model = load_model(folder("ViTModel"))
    assert model.facts["architecture"] == "ViTModel"
    assert model.facts["weights"] == "model.safetensors, stored in float32"
    assert model.facts["preparation"] == "preprocessor_config.json (ViTImageProcessor)"


# -- clips ------------------------------------------------------------------------------------


def test_frames_of_a_clip_are_those_of_the_config(folder) -> None:
    with pytest.raises(DefinitionError, match="frames is 8 but this videomae takes clips of 4"):
        loaded(folder("VideoMAEModel"), frames="8")
    with pytest.raises(DefinitionError, match="frames is 3 but this vjepa2 takes multiples of 2"):
        loaded(folder("VJEPA2Model"), frames="3")
    assert loaded(folder("VJEPA2Model"), frames="8").clip == 8


def test_an_encoder_of_pictures_may_look_at_fewer_frames(folder) -> None:
    every, some = loaded(folder("ViTModel")), loaded(folder("ViTModel"), frames="3")
    assert (every.framewise, some.framewise) == (True, False)
    layers, output = raw(some, [Scene(7, 0), Scene(7, 1)])
    assert layers["block0"].shape[0] == 6
    all_layers, _ = raw(every, [Scene(7, 0)])
    torch.testing.assert_close(layers["block0"][1], all_layers["block0"][3])
    assert output.shape[:2] == (2, 3)
    check_model(some, frames=5)


def test_the_predictor_of_v_jepa_does_not_run(folder) -> None:
    model = loaded(folder("VJEPA2Model"))
    ran = []
    model.module.predictor.register_forward_hook(lambda *_: ran.append(1))
    raw(model, [Scene(4, 0)])
    assert ran == []
    assert not any("predictor" in info.name for info in model.layers())


# -- files ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_weights_of_half_precision_run_in_float32(kind, folder, tmp_path) -> None:
    from safetensors.torch import load_file, save_file

    path = folder("ViTModel")
    half = {k: v.to(getattr(torch, kind)) for k, v in
            load_file(path / "model.safetensors").items()}  # fmt: skip
    config = json.loads((path / "config.json").read_text()) | {"dtype": kind}
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file(half, tmp_path / "model.safetensors")
    model = loaded(tmp_path)
    assert model.facts["weights"] == f"model.safetensors, stored in {kind}, run in float32"
    assert {p.dtype for p in model.module.parameters()} == {torch.float32}
    stored = half["embeddings.cls_token"]
    assert torch.equal(model.module.embeddings.cls_token, stored.float())


def test_weights_in_several_files_and_in_torch_files(folder, tmp_path) -> None:
    from safetensors.torch import load_file

    digest = loaded(folder("ViTModel")).weights_sha256
    several = saved("ViTModel", tmp_path / "several", max_shard_size="20KB")
    assert not (several / "model.safetensors").exists()
    model = loaded(several)
    assert model.weights_sha256 == digest
    assert model.facts["weights"].startswith("the files of model.safetensors.index.json")
    old = tmp_path / "old"
    old.mkdir()
    (old / "config.json").write_bytes((several / "config.json").read_bytes())
    torch.save(load_file(folder("ViTModel") / "model.safetensors"), old / "pytorch_model.bin")
    assert loaded(old).weights_sha256 == digest
    index = several / "model.safetensors.index.json"
    places = json.loads(index.read_text())
    first = next(iter(places["weight_map"]))
    for file, words in {
        "../other.safetensors": "climbing out of the folder",
        "gone.safetensors": "no gone.safetensors",
    }.items():
        broken = {"weight_map": {**places["weight_map"], first: file}}
        index.write_text(json.dumps(broken))
        with pytest.raises((FormatError, MissingFileError), match=words):
            loaded(several)
    index.write_text(json.dumps({"weight_map": {**places["weight_map"], "more": next(
        iter(places["weight_map"].values()))}}))  # fmt: skip
    with pytest.raises(FormatError, match=r"names more, which .* does not hold"):
        loaded(several)
    index.write_text("{}")
    with pytest.raises(FormatError, match="has no weight_map of tensor names to files"):
        loaded(several)


def test_an_encoder_published_without_its_pooler_is_read_without(folder, tmp_path) -> None:
    copy(folder("ViTModel"), tmp_path, drop="pooler.")
    model = loaded(tmp_path)
    assert [info.name for info in model.layers()][-1] == "norm"
    assert model.facts["left out"] == "no pooler"
    check_model(model)


def test_what_a_checkpoint_holds_beside_its_encoder_is_told(folder) -> None:
    facts = loaded(folder("VideoMAEForPreTraining")).facts
    assert facts["architecture"] == "VideoMAEModel"
    assert "decoder (" in facts["left out"]
    assert "text_model (" in loaded(folder("CLIPModel")).facts["left out"]
    assert "left out" not in loaded(folder("ViTModel")).facts


def copy(source, target, *, drop="", change=(), config=None) -> None:
    """A folder with tensors left out, of another shape, or with another config."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(source / "model.safetensors")
    tensors = {k: v for k, v in tensors.items() if not (drop and k.startswith(drop))}
    for name in change:
        tensors[name] = torch.zeros(7)
    save_file(tensors, target / "model.safetensors")
    said = json.loads((source / "config.json").read_text()) | (config or {})
    (target / "config.json").write_text(json.dumps(said))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"drop": "encoder.layer.1."}, r"lacks 16 weights of ViTModel, such as layers\.1\."),
        ({"change": ["layernorm.bias"]}, r"layernorm\.bias of shape \(7,\) but .* says \(32,\)"),
        ({"config": {"hidden_size": 64}}, r"of shape \(1, 1, 32\) but its config.json says"),
        (
            {"config": {"num_attention_heads": 5}},
            r"of shape \(32,\) but its config.json says \(30,\)",
        ),
        ({"config": {"hidden_act": "none of these"}}, "no ViTModel can be made of"),
        ({"config": {"hidden_size": "wide"}}, "is no config of vit|no ViTModel can be made of"),
        ({"config": {"hidden_size": 1 << 20}}, "describes a network of .* but its files hold"),
        ({"config": {"num_hidden_layers": 1 << 20}}, "says num_hidden_layers 1048576; needed at"),
        ({"config": {"image_size": 1 << 20}}, "says pictures of 1048576 pixels in 1 frames"),
        ({"config": {"quantization_config": {"bits": 4}}}, "holds quantised weights"),
        ({"config": {"model_type": "vit_mae"}}, "of the type vit_mae, which hides a random part"),
        ({"config": {"model_type": "siglip2"}}, "of the type siglip2, which takes pictures cut"),
        ({"config": {"model_type": "bert"}}, "is of the type bert, whose model reads no pictures"),
        ({"config": {"model_type": "never-heard"}}, "which this version of transformers does not"),
        ({"config": {"model_type": None}}, "has no model_type"),
    ],
)
def test_a_damaged_checkpoint_is_refused_in_words(changes, words, folder, tmp_path) -> None:
    copy(folder("ViTModel"), tmp_path, **changes)
    with pytest.raises(FormatError, match=words):
        loaded(tmp_path)


def test_a_missing_file_is_named(folder, tmp_path) -> None:
    with pytest.raises(MissingFileError, match=r"has no config\.json"):
        loaded(tmp_path)
    (tmp_path / "config.json").write_bytes((folder("ViTModel") / "config.json").read_bytes())
    with pytest.raises(MissingFileError, match="has no weights; needed model"):
        loaded(tmp_path)
    torch.save([1, 2], tmp_path / "pytorch_model.bin")
    with pytest.raises(FormatError, match="holds no dictionary of tensors"):
        loaded(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"\x00" * 40)
    with pytest.raises(FormatError):
        loaded(tmp_path)


def test_a_truncated_file_is_refused(folder, tmp_path) -> None:
    copy(folder("ViTModel"), tmp_path)
    whole = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[:-8])
    with pytest.raises(FormatError, match="model"):
        loaded(tmp_path)


# -- code -------------------------------------------------------------------------------------

_OWN = """
from pathlib import Path
import torch
from transformers import PretrainedConfig, PreTrainedModel

Path({marker!r}).write_text("ran")

class OwnConfig(PretrainedConfig):
    model_type = "own-watcher"

class OwnModel(PreTrainedModel):
    config_class = OwnConfig
    main_input_name = "pixel_values"

    def __init__(self, config):
        super().__init__(config)
        self.conv = torch.nn.Conv2d(3, 6, 8, stride=8)
        self.post_init()

    def forward(self, pixel_values):
        return self.conv(pixel_values)
"""


@pytest.fixture
def foreign(tmp_path, monkeypatch):
    """A checkpoint with code of its own, which leaves a mark when it runs."""
    from safetensors.torch import save_file
    from transformers import dynamic_module_utils

    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    path, mark = tmp_path / "own", tmp_path / "mark"
    path.mkdir()
    places = {"AutoConfig": "own.OwnConfig", "AutoModel": "own.OwnModel"}
    config = {"model_type": "own-watcher", "auto_map": places, "num_channels": 3, "image_size": 32}
    (path / "config.json").write_text(json.dumps(config))
    (path / "own.py").write_text(_OWN.format(marker=str(mark)))
    g = torch.Generator().manual_seed(0)
    weights = {"conv.weight": torch.randn(6, 3, 8, 8, generator=g), "conv.bias": torch.zeros(6)}
    save_file(weights, path / "model.safetensors", {"format": "pt"})
    return path, mark


def test_code_of_a_checkpoint_is_not_run(foreign) -> None:
    path, mark = foreign
    assert family.recognise(Checkpoint(path)) == "own-watcher of transformers (own-watcher)"
    with pytest.raises(FormatError, match=r"brings code of its own \(.*OwnModel.*with --trust"):
        loaded(path)
    assert not mark.exists()


def test_trusted_code_is_run_and_said(foreign) -> None:
    path, mark = foreign
    model = loaded(path, trusted=True)
    assert mark.exists()
    assert model.facts["own code"] == "run, as trusted"
    assert [info.name for info in model.layers()] == ["conv"]
    check_model(model)


def test_code_beside_a_known_type_is_left_alone(folder, tmp_path) -> None:
    copy(folder("ViTModel"), tmp_path, config={"auto_map": {"AutoModel": "own.OwnModel"}})
    (tmp_path / "own.py").write_text("raise SystemExit('ran')")
    model = loaded(tmp_path, trusted=True)
    assert model.facts["own code"].startswith("not run; the package's own")


def test_without_transformers_the_extra_is_named(folder, monkeypatch) -> None:
    from mirror_analysis.models.transformers import files as transformers_files

    monkeypatch.setattr(transformers_files, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"install mirror-analysis\[hf\]"):
        loaded(folder("ViTModel"))


def test_nothing_is_fetched(folder, monkeypatch) -> None:
    import socket

    def refuse(*given, **more):
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert loaded(folder("CLIPModel")).untrained(0).layers()


def test_a_config_chooses_no_kernels(folder, tmp_path) -> None:
    wanted = {"_attn_implementation": "kernels-community/flash-attn", "dtype": "float16"}
    copy(folder("ViTModel"), tmp_path, config=wanted)
    model = loaded(tmp_path)
    assert "kernels" not in str(model.module.config._attn_implementation)
    assert next(model.module.parameters()).dtype == torch.float32


# -- preparation and licence ------------------------------------------------------------------


def test_without_a_preprocessor_the_family_decides(tmp_path) -> None:
    model = loaded(saved("Dinov2Model", tmp_path, preprocessor=None))
    assert model.facts["preparation"] == "no file says it; as usual for dinov2"
    assert (model.prepare.shortest, model.prepare.crop, model.prepare.filter) == (
        36, (32, 32), "bicubic",
    )  # fmt: skip


def test_pictures_of_another_size_move_the_places_of_tokens(tmp_path) -> None:
    size = {"size": {"height": 48, "width": 48}, "image_processor_type": "ViTImageProcessor"}
    for name in ("ViTModel", "Dinov2Model"):
        path = saved(name, tmp_path / name, preprocessor=size)
        assert raw(loaded(path), [Scene(1, 0)])[0]["block0"].shape[1] == 37
    path = saved("VideoMAEModel", tmp_path / "clip", preprocessor=size)
    with pytest.raises(FormatError, match="does not run on the pictures its preprocessor gives"):
        loaded(path)


def test_the_resizing_may_be_chosen(folder) -> None:
    assert loaded(folder("ViTModel"), resize="torch").prepare.engine == "torch"
    with pytest.raises(UnknownNameError, match="unknown value of option resize 'cv2'"):
        loaded(folder("ViTModel"), resize="cv2")


def test_the_licence_of_the_card_is_told(folder, tmp_path) -> None:
    copy(folder("ViTModel"), tmp_path)
    for card, wanted in {
        "---\nlicense: apache-2.0\n---\n# ViT": "apache-2.0",
        "---\nlicense: other\nlicense_name: 'own'\n---": "own",
        "---\ntags: [x]\n---\nlicense: mit": None,
        "license: mit": None,
    }.items():
        (tmp_path / "README.md").write_text(card)
        assert loaded(tmp_path).facts.get("licence") == wanted

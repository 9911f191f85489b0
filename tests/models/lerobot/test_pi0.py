"""pi0 folders with drawn weights, held to the implementation in transformers."""

import json
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from drawn import drawn

from mirror_analysis.errors import FormatError
from mirror_analysis.files.safetensors import write_safetensors
from mirror_analysis.models.checkpoint import Checkpoint, Options
from mirror_analysis.models.lerobot import load
from mirror_analysis.testing import check_model
from mirror_analysis.torchvision_shim import ensure_torchvision

STATE, TOP = "observation.state", "observation.images.top"
WRIST = "observation.images.wrist"
WORDS = ["[UNK]", "open", "the", "door", "close", "red", "drawer"]
IMAGE = len(WORDS)  # the token transformers puts in the place of pictures
TEXT = {
    "hidden_size": 24, "num_attention_heads": 4, "head_dim": 6, "num_key_value_heads": 1,
    "intermediate_size": 20, "num_hidden_layers": 2, "vocab_size": IMAGE + 1,
    "rms_norm_eps": 1e-6,
}  # fmt: skip
VISION = {
    "hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 20,
    "patch_size": 4, "image_size": 12,
}  # fmt: skip


def feature(kind, *shape):
    return {"type": kind, "shape": list(shape)}


CONFIG = {
    "type": "pi0", "chunk_size": 4, "n_action_steps": 3, "num_inference_steps": 3,
    "max_state_dim": 6, "max_action_dim": 5, "image_resolution": [12, 12],
    "input_features": {
        STATE: feature("STATE", 3),
        TOP: feature("VISUAL", 3, 12, 12),
        WRIST: feature("VISUAL", 3, 12, 12),
    },
    "output_features": {"action": feature("ACTION", 2)},
    "normalization_mapping": {"VISUAL": "IDENTITY", "STATE": "MEAN_STD", "ACTION": "MEAN_STD"},
}  # fmt: skip
OLD = {"image_resolution": None, "resize_imgs_with_padding": [12, 12], "num_steps": 3}


@pytest.fixture(scope="module")
def reference():
    """The network of transformers with drawn weights."""
    ensure_torchvision()
    from transformers import PI0Config, PI0ForConditionalGeneration

    config = PI0Config(
        vlm_config={"model_type": "paligemma", "text_config": {"model_type": "gemma", **TEXT},
                    "vision_config": {"model_type": "siglip_vision_model", **VISION,
                                      "vision_use_head": False},
                    "image_token_id": IMAGE, "projection_dim": 24, "hidden_size": 24},
        dit_config={"model_type": "gemma", **TEXT, "hidden_size": 12, "intermediate_size": 14},
        chunk_size=4, max_state_dim=6, max_action_dim=5, num_inference_steps=3,
    )  # fmt: skip
    network = PI0ForConditionalGeneration(config).float().eval()
    for name, tensor in network.state_dict().items():
        tensor.copy_(torch.from_numpy(drawn(name, tuple(tensor.shape))))
    # LeRobot tells the time in double precision, transformers in single.
    waves = network.embed_action_time.sinusoid_embeds
    period = 4e-3 * 1000 ** torch.linspace(0.0, 1.0, 6, dtype=torch.float64)
    assert torch.allclose(waves.sinusoid_freq.double(), 2 * torch.pi / period)
    waves.sinusoid_freq = 2 * torch.pi / period
    return network


def published(name):
    """LeRobot's name for a tensor of transformers."""
    for start, here in (
        ("model.vlm.vision_tower.", "paligemma_with_expert.paligemma.model.vision_tower."),
        ("model.vlm.multi_modal_projector.",
         "paligemma_with_expert.paligemma.model.multi_modal_projector."),
        ("model.vlm.language_model.", "paligemma_with_expert.paligemma.model.language_model."),
        ("model.dit.", "paligemma_with_expert.gemma_expert.model."),
        ("embed_action_time.", ""),
    ):  # fmt: skip
        if name.startswith(start):
            name = here + name.removeprefix(start)
    name = name.replace("vision_tower.embeddings", "vision_tower.vision_model.embeddings")
    for part in ("encoder", "post_layernorm"):
        name = name.replace(f"vision_tower.{part}", f"vision_tower.vision_model.{part}")
    return f"model.{name}"


def tensors(network):
    found = {published(name): t.clone() for name, t in network.state_dict().items()}
    return {name: t for name, t in found.items() if "gemma_expert.model.embed" not in name}


def aged(name):
    """The same tensor's name before LeRobot 0.4."""
    name = name.replace("paligemma.model.language_model.", "paligemma.language_model.model.")
    return name.replace("paligemma.model.", "paligemma.")


def write(path, weights, **changes):
    from tokenizers import Tokenizer, models, pre_tokenizers

    path.mkdir(parents=True, exist_ok=True)
    config = {k: v for k, v in (CONFIG | changes).items() if v is not None}
    (path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    statistics = {
        f"{part}_{where}.buffer_{key}.{what}": torch.from_numpy(drawn(f"{key} {what}", (count,)))
        for part, where, key, count in (
            ("normalize", "inputs", "observation_state", 3),
            ("unnormalize", "outputs", "action", 2),
        )
        for what in ("mean", "std")
    }
    write_safetensors(path / "model.safetensors", weights | statistics, {"format": "pt"})
    backbone = path / "backbone"
    backbone.mkdir(exist_ok=True)
    text = {"text_config": {"head_dim": 6, "rms_norm_eps": 1e-6}, "vision_config": VISION}
    (backbone / "config.json").write_text(json.dumps(text), encoding="utf-8")
    words = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.save(str(backbone / "tokenizer.json"))
    return path


def loaded(path):
    values = {"backbone": str(path / "backbone")}
    return load(Checkpoint(path), name="pi0", options=Options(values=values))


@dataclass
class Seen:
    id: str
    streams: dict

    instruction = ""
    length = 3
    steps = np.arange(3)
    timestamps = np.arange(3) / 10

    def stream(self, name):
        return self.streams[name]


ASKED = ("open the door", "close the red drawer")


def episodes(pixels=(12, 12)):
    g = np.random.default_rng(0)
    return [
        Seen(
            f"e{i}",
            {
                "camera:top": g.integers(0, 256, (3, *pixels, 3), dtype=np.uint8),
                "camera:wrist": g.integers(0, 256, (3, *pixels, 3), dtype=np.uint8),
                "states": g.standard_normal((3, 3)).astype(np.float32),
                "instruction": np.full(3, asked),
            },
        )
        for i, asked in enumerate(ASKED)
    ]


def expected(reference, some, noise):
    """What transformers plans, in the units of the robot."""

    def joined(name):
        return torch.from_numpy(np.concatenate([e.streams[name] for e in some]))

    pictures = torch.stack([joined("camera:top"), joined("camera:wrist")], 1)
    pictures = pictures.permute(0, 1, 4, 2, 3).float() / 255 * 2 - 1
    mean, std = (torch.from_numpy(drawn(f"observation_state {k}", (3,))) for k in ("mean", "std"))
    state = torch.nn.functional.pad((joined("states") - mean) / (std + 1e-8), (0, 3))
    ids = [[WORDS.index(word) for word in text.split()] for text in ASKED]
    rows = [[IMAGE] * 18 + row + [0] * (4 - len(row)) for row in ids for _ in range(3)]
    mask = [[1] * 18 + [1] * len(row) + [0] * (4 - len(row)) for row in ids for _ in range(3)]
    with torch.no_grad():
        planned = reference.sample_actions(
            state, torch.tensor(rows), pictures, noise=noise.clone(),
            attention_mask=torch.tensor(mask),
            pixel_attention_mask=torch.ones(6, 2, dtype=torch.bool),
        )  # fmt: skip
    mean, std = (torch.from_numpy(drawn(f"action {k}", (2,))) for k in ("mean", "std"))
    return planned[..., :2] * std + mean


def run(model, some, noise):
    left = iter(noise)
    model.network.chance = lambda seed: next(left)
    with torch.inference_mode():
        planned = model.forward_batch(some)
    del model.network.chance
    return planned.flatten(0, 1)


def test_plans_are_those_of_transformers_by_either_name(reference, tmp_path):
    noise = torch.from_numpy(drawn("noise", (6, 4, 5))) * 4
    wanted = expected(reference, episodes(), noise)
    new = loaded(write(tmp_path / "new", tensors(reference)))
    weights = {aged(name): t for name, t in tensors(reference).items()}
    # Embeddings that are tied to what says words are kept under the latter's name alone.
    embedding = weights.pop("model.paligemma_with_expert.paligemma.language_model.model."
                            "embed_tokens.weight")  # fmt: skip
    weights["model.paligemma_with_expert.paligemma.language_model.lm_head.weight"] = embedding
    old = loaded(write(tmp_path / "old", weights, **OLD))
    for model in (new, old):
        error = (run(model, episodes(), noise) - wanted).abs().max() / wanted.abs().max()
        assert error < 1e-5
    assert new.facts["architecture"].startswith("pi0 on PaliGemma, 2 blocks")


def test_other_pictures_get_margins(reference, tmp_path):
    weights = tensors(reference)
    new = loaded(write(tmp_path / "new", weights)).network
    old = loaded(write(tmp_path / "old", weights, **OLD)).network
    pictures = torch.ones(1, 3, 6, 12)
    assert new.prepared(pictures)[0, 0, :, 0].tolist() == [-3.0] * 3 + [1.0] * 6 + [-3.0] * 3
    assert old.prepared(pictures)[0, 0, :, 0].tolist() == [-1.0] * 6 + [1.0] * 6
    halved = new.prepared(torch.full((1, 3, 24, 24), 0.5))
    assert halved.shape == (1, 3, 12, 12) and not halved.any()


def test_it_keeps_the_contract(reference, tmp_path):
    model = loaded(write(tmp_path, tensors(reference)))
    check_model(model, pixels=(20, 28))
    names = [info.name for info in model.layers()]
    assert names[:4] == ["vision.top.block0", "vision.top.block1", "vision.top.norm", "image.top"]
    assert names[-5:] == ["expert.block0", "expert.block1", "expert.norm", "velocity", "action"]
    assert model.inputs == ("camera:top", "camera:wrist", "states", "instruction")


def test_faults_are_said_in_words(reference, tmp_path):
    weights = tensors(reference)
    with pytest.raises(FormatError, match="has pictures of 16 x 16 pixels where the weights take"):
        loaded(write(tmp_path / "a", weights, image_resolution=[16, 16]))
    less = {name: t for name, t in weights.items() if "gemma_expert.model.layers.1" not in name}
    with pytest.raises(FormatError, match="has 2 blocks of the language model and 1 of the"):
        loaded(write(tmp_path / "b", less))
    with pytest.raises(FormatError, match="does not describe a policy 'pi0'"):
        loaded(write(tmp_path / "c", weights, adapt_to_pi_aloha=True))

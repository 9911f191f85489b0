"""OpenVLA folders with drawn weights, held to timm's and transformers' own networks."""

import json
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from drawn import drawn
from torch import nn

from mirror_analysis.errors import DefinitionError, FormatError, UnknownNameError
from mirror_analysis.files.safetensors import write_safetensors
from mirror_analysis.models.checkpoint import Checkpoint, Options
from mirror_analysis.models.openvla.family import load, recognise
from mirror_analysis.models.preparation import Preparation
from mirror_analysis.testing import check_model
from mirror_analysis.torchvision_shim import ensure_torchvision

WORDS = ["[UNK]", "<s>", "▁", "In:", "What", "action", "should", "the", "robot", "take", "to",
         "open", "door?", "close", "red", "drawer?", "Out:", "ASSISTANT:"]  # fmt: skip
VOCABULARY, PADDING, BINS = 40, 8, 9
RANGES = {
    "bridge": {"action": {"q01": [-1, -2, 0.0], "q99": [1, 4, 1.0], "mask": [True, True, False]}},
    "lab": {"action": {"q01": [0.0, 0.0, 0.0, 0.0], "q99": [1.0, 1.0, 1.0, 1.0]}},
}
CONFIG = {
    "model_type": "openvla", "norm_stats": RANGES, "n_action_bins": BINS,
    "vision_backbone_id": "dinosiglip-vit-so-224px", "llm_backbone_id": "llama2-7b-pure",
    "image_resize_strategy": "resize-naive", "pad_to_multiple_of": PADDING,
    "use_fused_vision_backbone": True,
    "auto_map": {"AutoConfig": "configuration_prismatic.OpenVLAConfig"},
    "text_config": {"model_type": "llama", "vocab_size": VOCABULARY, "num_attention_heads": 4,
                    "pad_token_id": 32000},
}  # fmt: skip
PROCESSOR = {
    "image_processor_type": "PrismaticImageProcessor",
    "input_sizes": [[3, 28, 28], [3, 28, 28]],
    "interpolations": ["bicubic", "bicubic"],
    "means": [[0.484375, 0.455078125, 0.40625], [0.5, 0.5, 0.5]],
    "stds": [[0.228515625, 0.2236328125, 0.224609375], [0.5, 0.5, 0.5]],
}
ASKED = ("Open the door", "close the red drawer")


class Original(nn.Module):
    """The published network of public parts, batches of one picture."""

    def __init__(self):
        super().__init__()
        ensure_torchvision()
        from timm.models.vision_transformer import VisionTransformer
        from transformers import LlamaConfig, LlamaForCausalLM

        same = {"img_size": 28, "patch_size": 14, "num_classes": 0, "depth": 3}
        self.featurizer = VisionTransformer(
            embed_dim=128, num_heads=2, reg_tokens=2, no_embed_class=True, init_values=1e-5, **same
        )
        self.fused_featurizer = VisionTransformer(
            embed_dim=64, num_heads=1, class_token=False, global_pool="map", **same
        )
        self.projector = nn.ModuleDict(
            {"fc1": nn.Linear(192, 768), "fc2": nn.Linear(768, 32), "fc3": nn.Linear(32, 32)}
        )
        self.language_model = LlamaForCausalLM(
            LlamaConfig(hidden_size=32, num_attention_heads=4, num_hidden_layers=2,
                        intermediate_size=48, vocab_size=VOCABULARY, rms_norm_eps=1e-6)
        )  # fmt: skip
        for name, tensor in self.state_dict().items():
            if tensor.is_floating_point():
                values = drawn(name, tuple(tensor.shape))
                norm = name.endswith("norm.weight")
                tensor.copy_(torch.from_numpy(values + 1 if norm else values))
        # Tokens that are actions come first, or everything would end in the outermost bins.
        words = VOCABULARY - PADDING
        self.language_model.lm_head.weight.data[words - BINS : words] *= 5
        self.eval()

    def published(self):
        found = {}
        for name, tensor in self.state_dict().items():
            name = name.replace(".gamma", ".scale_factor")
            prefix = "vision_backbone." if "featurizer" in name else ""
            found[prefix + name] = tensor.clone()
        return found

    @torch.no_grad()
    def act(self, picture, words, count=3):
        """The tokens of an action, and what went into the language model."""
        seen = []
        for eye, mean, std in zip((self.featurizer, self.fused_featurizer), PROCESSOR["means"],
                                  PROCESSOR["stds"], strict=True):  # fmt: skip
            prepare = Preparation(size=(28, 28), filter="bicubic", mean=tuple(mean), std=tuple(std))
            seen.append(eye.get_intermediate_layers(prepare(picture[None]), n={1})[0])
        gelu = nn.functional.gelu
        x = gelu(self.projector["fc1"](torch.cat(seen, 2)))
        image = self.projector["fc3"](gelu(self.projector["fc2"](x)))
        embed = self.language_model.get_input_embeddings()
        told = embed(torch.tensor([words]))
        x = torch.cat([told[:, :1], image, told[:, 1:]], 1)
        tokens = []
        for _ in range(count):
            token = self.language_model(inputs_embeds=x).logits[:, -1].argmax(-1)
            tokens.append(int(token))
            x = torch.cat([x, embed(token)[:, None]], 1)
        return tokens, image


@pytest.fixture(scope="module")
def original():
    torch.manual_seed(0)
    return Original()


def write(path, weights, *, config=None, processor=None, sharded=False, words=WORDS):
    from tokenizers import Tokenizer, models, pre_tokenizers

    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(json.dumps(CONFIG | (config or {})), encoding="utf-8")
    text = json.dumps(PROCESSOR | (processor or {}))
    (path / "preprocessor_config.json").write_text(text, encoding="utf-8")
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(path / "tokenizer.json"))
    if not sharded:
        write_safetensors(path / "model.safetensors", weights, {"format": "pt"})
        return path
    half = len(weights) // 2
    places = {}
    for i, names in enumerate((list(weights)[:half], list(weights)[half:])):
        file = f"model-{i}.safetensors"
        write_safetensors(path / file, {n: weights[n] for n in names}, {"format": "pt"})
        places |= dict.fromkeys(names, file)
    index = path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": places}), encoding="utf-8")
    return path


def loaded(path, calls="last", **options):
    options = {"dataset": "bridge"} | options
    return load(Checkpoint(path), name="vla", options=Options(calls, values=options))


@dataclass
class Seen:
    id: str
    streams: dict

    instruction = ""
    length = 2
    steps = np.arange(2)
    timestamps = np.arange(2) / 10

    def stream(self, name):
        return self.streams[name]


def episodes():
    g = np.random.default_rng(0)
    return [
        Seen(f"e{i}", {"camera": g.integers(0, 256, (2, 30, 40, 3), dtype=np.uint8),
                       "instruction": np.full(2, asked)})
        for i, asked in enumerate(ASKED)
    ]  # fmt: skip


def prompt(asked):
    line = f"In: What action should the robot take to {asked.lower()}? Out:"
    return [1, *(WORDS.index(w) for w in line.split()), 2]


def test_actions_are_those_of_the_original(original, tmp_path):
    model = loaded(write(tmp_path, original.published(), sharded=True))
    images, last = [], []
    model.taps()["image"].register_forward_hook(lambda m, i, o: images.append(o))
    model.taps()["action"].register_forward_hook(lambda m, i, o: last.append(o))
    with torch.inference_mode():
        actions = model.forward_batch(episodes())
    edges = np.linspace(-1, 1, BINS)
    middles = (edges[:-1] + edges[1:]) / 2
    row = 0
    for episode, asked, found in zip(episodes(), ASKED, actions, strict=True):
        for picture, action in zip(episode.streams["camera"], found, strict=True):
            tokens, image = original.act(picture, prompt(asked))
            bins = np.clip(VOCABULARY - PADDING - np.array(tokens) - 1, 0, BINS - 2)
            low, high = (np.array(RANGES["bridge"]["action"][key]) for key in ("q01", "q99"))
            wanted = 0.5 * (middles[bins] + 1) * (high - low) + low
            wanted[2] = middles[bins[2]]
            assert np.allclose(action, wanted, atol=1e-6)
            assert torch.allclose(images[0][row], image[0].mean(0), atol=1e-5)
            assert np.allclose(last[0][row], middles[bins], atol=1e-6)
            row += 1
    assert len(torch.unique(last[0])) > 2  # bins differ, or this would show little


def test_the_language_model_runs_once_for_each_number(original, tmp_path):
    path = write(tmp_path, original.published())
    steps = []
    model = loaded(path)
    model.taps()["language.block1"].register_forward_hook(lambda m, i, o: steps.append(o))
    with torch.inference_mode():
        model.forward_batch(episodes())
        model.forward_batch(episodes()[1:])
    assert [len(step) for step in steps] == [4] * 3 + [2] * 3
    # The first instruction is shorter, so the second has to be unmoved by how it was padded.
    assert all(torch.allclose(steps[i][2:], steps[i + 3], atol=1e-5) for i in range(3))
    states = {}

    def keep(module, given, output):
        states["whole"] = output[0] if isinstance(output, tuple) else output

    original.language_model.model.layers[1].register_forward_hook(keep)
    picture = episodes()[0].streams["camera"][0]
    original.act(picture, prompt(ASKED[0]), count=1)
    assert torch.allclose(steps[0][0], states["whole"][0].mean(0), atol=1e-4)
    original.act(picture, prompt(ASKED[0]), count=3)
    assert torch.allclose(steps[2][0], states["whole"][0, -1], atol=1e-4)


def test_frames_that_go_in_parts_give_the_same(original, tmp_path, monkeypatch):
    model = loaded(write(tmp_path, original.published()))
    with torch.inference_mode():
        whole = model.forward_batch(episodes())
        monkeypatch.setattr("mirror_analysis.models.openvla.network._AT_ONCE", 30)
        parts = model.forward_batch(episodes())
    assert torch.equal(whole, parts)


def test_it_keeps_the_contract_and_says_what_it_is(original, tmp_path):
    path = write(tmp_path, original.published())
    model = loaded(path)
    check_model(model, pixels=(20, 24), frames=2)
    assert recognise(Checkpoint(path)) == "OpenVLA with actions of 2 data sets"
    assert [info.name for info in model.layers()] == [
        "vision.block0", "vision.block1", "fused.block0", "fused.block1", "image",
        "language.block0", "language.block1", "language.norm", "action",
    ]  # fmt: skip
    assert {i.calls for i in loaded(path, "first").layers()} == {"only", "first"}
    now = {name: np.stack([e.streams[name][0] for e in episodes()]) for name in model.inputs}
    with torch.inference_mode():
        first = model.forward_batch(episodes())[:, 0].numpy()
    assert np.allclose(model.act(now), first)
    assert loaded(path, dataset="lab").network.sizes.actions == 4


def test_a_chat_is_asked_otherwise(original, tmp_path):
    path = write(tmp_path, original.published(), config={"llm_backbone_id": "vicuna-v15-7b"})
    tokens, there = loaded(path).words(["open the door"])
    assert tokens[0, -2:].tolist() == [WORDS.index("ASSISTANT:"), 2] and there.all()


def test_one_picture_encoder_is_enough(original, tmp_path):
    weights = {n: t for n, t in original.published().items() if "fused" not in n}
    weights = {n: t for n, t in weights.items() if not n.startswith("projector.fc")}
    for name, shape in (("fc1", (32, 128)), ("fc2", (32, 32))):
        weights[f"projector.{name}.weight"] = torch.from_numpy(drawn(name, shape))
        weights[f"projector.{name}.bias"] = torch.zeros(32)
    single = {key: PROCESSOR[key][:1] for key in PROCESSOR if key != "image_processor_type"}
    model = loaded(write(tmp_path, weights, processor=single,
                         config={"vision_backbone_id": "dinov2-vit-l"}))  # fmt: skip
    with torch.inference_mode():
        assert model.forward_batch(episodes()).shape == (2, 2, 3)


def test_a_class_token_may_have_a_place(original, tmp_path):
    from timm.models.vision_transformer import VisionTransformer

    from mirror_analysis.models.openvla.vision import TransformerSizes
    from mirror_analysis.models.openvla.vision import VisionTransformer as Own

    eye = VisionTransformer(img_size=28, patch_size=14, num_classes=0, depth=3, embed_dim=64,
                            num_heads=1).eval()  # fmt: skip
    state = {f"eye.{n}": t for n, t in eye.state_dict().items()}
    own = Own(TransformerSizes.measured({n: tuple(t.shape) for n, t in state.items()}, "eye"))
    own.load_state_dict({n.removeprefix("eye."): t for n, t in state.items()}, strict=False)
    x = torch.randn(2, 3, 28, 28)
    with torch.no_grad():
        wanted = eye.get_intermediate_layers(x, n={1})[0]
        assert torch.allclose(list(own.stages(x))[-1], wanted, atol=1e-5)


def test_faults_are_said_in_words(original, tmp_path):
    weights = original.published()
    count = iter(range(99))

    def fault(kind=FormatError, options=None, tensors=weights, **changes):
        path = write(tmp_path / str(next(count)), tensors, **changes)
        with pytest.raises(kind) as caught:
            loaded(path, **(options or {}))
        return str(caught.value)

    several = fault(DefinitionError, options={"dataset": ""})
    assert "several data sets (bridge, lab); say whose count with dataset=NAME" in several
    assert "data set with units" in fault(UnknownNameError, options={"dataset": "kitchen"})
    assert "does not describe an OpenVLA" in fault(config={"image_resize_strategy": "letterbox"})
    assert "looks with clip-vit-l; needed" in fault(config={"vision_backbone_id": "clip-vit-l"})
    ranges = {"bridge": {"action": {"q01": [0.0]}}}
    assert "has no range of actions of bridge" in fault(config={"norm_stats": ranges})
    ranges = {"bridge": {"action": {"q01": [0.0], "q99": [1.0, 2.0]}}}
    assert "has ranges of [1, 2] numbers" in fault(config={"norm_stats": ranges})
    less = {n: t for n, t in weights.items() if "embed_tokens" not in n}
    assert "lacks 'language_model.model.embed_tokens.weight'" in fault(tensors=less)
    text = CONFIG["text_config"] | {"rope_theta": 5000.0}
    assert "do not go with its config.json" in fault(config={"text_config": text})
    less = {n: t for n, t in weights.items() if "layers.1.mlp" not in n}
    assert "lacks 'language_model.model.layers.1.mlp" in fault(tensors=less)
    assert "prepares 1 pictures for 2" in fault(processor={"input_sizes": [[3, 28, 28]]})
    assert "has no token '▁'" in fault(words=[w for w in WORDS if w != "▁"])
    path = write(tmp_path / "many", weights, words=WORDS)
    entry = json.loads((path / "tokenizer.json").read_text(encoding="utf-8"))
    entry["model"]["vocab"]["door?"] = 99
    (path / "tokenizer.json").write_text(json.dumps(entry), encoding="utf-8")
    with pytest.raises(FormatError, match="gives the token 99 where the language model knows 40"):
        loaded(path).forward_batch(episodes())


def test_other_folders_are_not_recognised(tmp_path):
    assert recognise(Checkpoint(tmp_path)) is None
    (tmp_path / "config.json").write_text("{")
    assert recognise(Checkpoint(tmp_path)) is None
    assert recognise(Checkpoint(tmp_path / "config.json")) is None

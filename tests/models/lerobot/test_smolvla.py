"""SmolVLA folders in the exact format, held to what the original gave."""

import functools
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from drawn import drawn

from mirror_analysis.errors import FormatError, MissingFileError
from mirror_analysis.files.safetensors import write_safetensors
from mirror_analysis.models.checkpoint import Checkpoint, Options
from mirror_analysis.models.lerobot import load, recognise
from mirror_analysis.testing import check_model

REFERENCE = json.loads((Path(__file__).parent / "smolvla.json").read_text(encoding="utf-8"))
EPISODES, TIME, WORDS = (REFERENCE[key] for key in ("episodes", "time", "words"))
CASES = REFERENCE["cases"]
ONE, TWO = CASES
TENSORS = CASES[ONE]["tensors"]  # in the original both cases have the same but for crossed blocks
CROSSED = "model.vlm_with_expert.lm_expert.layers.1.self_attn."


@functools.cache
def weight(name, shape):
    values = drawn(name, shape)
    return torch.from_numpy(values + 1 if name.endswith("weight") and len(shape) == 1 else values)


def write(path, config, *, backbone=True, words=True, less=(), more=None):
    path.mkdir(parents=True, exist_ok=True)
    shapes = {name: tuple(shape) for name, shape in TENSORS.items()}
    if config.get("attention_mode") == "self_attn":
        width = shapes["model.action_in_proj.weight"][0]
        shapes |= {CROSSED + f"{part}_proj.weight": (16, width) for part in "kv"}
    tensors = {name: weight(name, shape) for name, shape in shapes.items() if name not in less}
    write_safetensors(path / "model.safetensors", tensors | (more or {}), {"format": "pt"})
    named = {"type": "smolvla", "vlm_model_name": "some/model", **config}
    (path / "config.json").write_text(json.dumps(named), encoding="utf-8")
    below = path / "backbone"
    below.mkdir(exist_ok=True)
    if backbone:
        text = json.dumps(REFERENCE["backbone"])
        (below / "config.json").write_text(text, encoding="utf-8")
    if words:
        write_words(below)
    statistics = {
        f"{key}.{part}": torch.from_numpy(drawn(f"{key} {what}", (count,)))
        for key, count in (("observation.state", 3), ("action", 2))
        for part, what in (("mean", "low"), ("std", "std"))
    }
    for name, kind in (("pre", "normalizer"), ("post", "unnormalizer")):
        file = f"policy_{name}processor_step_0_{kind}_processor.safetensors"
        steps = [
            {"registry_name": "smolvla_new_line_processor", "config": {}},
            {"registry_name": "tokenizer_processor", "config": {"max_length": 48}},
            {"registry_name": f"{kind}_processor", "config": {"eps": 1e-8}, "state_file": file},
        ]
        text = json.dumps({"name": name, "steps": steps})
        (path / f"policy_{name}processor.json").write_text(text, encoding="utf-8")
        write_safetensors(path / file, statistics, {"format": "pt"})
    return path


def write_words(folder):
    from tokenizers import Tokenizer, models, pre_tokenizers

    known = {word: i for i, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(known, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(folder / "tokenizer.json"))


def loaded(path, **options):
    calls = options.pop("calls", "last")
    values = {"backbone": str(path / "backbone")} | options
    return load(Checkpoint(path), name="policy", options=Options(calls, values=values))


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("smolvla")
    return {n: write(folder / str(i), case["config"]) for i, (n, case) in enumerate(CASES.items())}


@dataclass
class Seen:
    id: str
    instruction: str
    streams: dict

    @property
    def length(self):
        return len(self.steps)

    @property
    def steps(self):
        return np.arange(len(next(iter(self.streams.values()))), dtype=np.int64)

    @property
    def timestamps(self):
        return self.steps / 10

    def stream(self, name):
        return self.streams[name]


def stream(key, shape, rows):
    if len(shape) == 3:
        g = np.random.default_rng(len(key))
        return g.integers(0, 256, (rows, *shape[1:], 3), dtype=np.uint8)
    return 3 * drawn(f"stream {key}", (rows, *shape))


def episodes(model):
    found = []
    for i, asked in enumerate(REFERENCE["asked"]):
        part = slice(i * TIME, (i + 1) * TIME)
        streams = {
            name: stream(key, model.folder.inputs[key].shape, EPISODES * TIME)[part]
            for key, name in model.folder.streams.items()
        }
        streams["instruction"] = np.full(TIME, asked)
        found.append(Seen(f"e{i}", asked, streams))
    return found


def run(model, some, *names):
    """What is planned with the original's noise, and some layers."""
    noise = torch.from_numpy(drawn("noise", (EPISODES * TIME, 4, 5))) * 4
    left = iter(noise)
    model.network.chance = lambda seed: next(left)
    layers = {}
    handles = [
        model.taps()[name].register_forward_hook(
            lambda m, i, o, name=name: layers.setdefault(name, []).append(o)
        )
        for name in names
    ]
    with torch.inference_mode():
        planned = model.forward_batch(some).numpy()
    for handle in handles:
        handle.remove()
    del model.network.chance
    return planned, layers


def off(found, expected):
    expected = np.array(expected).reshape(found.shape)
    return np.abs(np.asarray(found) - expected).max() / max(1, np.abs(expected).max())


@pytest.mark.parametrize("name", CASES)
def test_plans_are_those_of_the_original(folders, name):
    model = loaded(folders[name])
    place = "vision" if name == ONE else "vision.left"
    planned, layers = run(model, episodes(model), f"{place}.block1", "velocity")
    expected = CASES[name]["expected"]
    assert planned.shape == (EPISODES, TIME, 4, 2)
    assert off(planned, expected["plan"]) < 1e-5
    assert off(layers[f"{place}.block1"][0], expected["vision"]) < 1e-5
    assert len(layers["velocity"]) == 3
    assert off(layers["velocity"][-1], expected["velocity"]) < 1e-5


def test_frames_that_go_in_parts_give_the_same(folders, monkeypatch):
    model = loaded(folders[ONE])
    names = ("language.block1", "expert.block1")
    whole, layers = run(model, episodes(model), *names)
    monkeypatch.setattr("mirror_analysis.models.lerobot.flow._AT_ONCE", 40)
    parts, again = run(model, episodes(model), *names)
    assert np.allclose(whole, parts, atol=1e-5)
    for name, count in zip(names, (1, 3), strict=True):
        assert len(layers[name]) == len(again[name]) == count
        for one, other in zip(layers[name], again[name], strict=True):
            assert torch.allclose(one, other, atol=1e-5)


def test_what_others_are_told_does_not_matter(folders):
    model = loaded(folders[ONE])
    first, second = episodes(model)
    with torch.inference_mode():
        both = model.forward_batch([first, second])
        alone = model.forward_batch([first])  # its instruction is shorter
        second.streams["instruction"] = np.full(TIME, "open the red drawer")
        other = model.forward_batch([first, second])
    assert torch.allclose(both[:1], alone, atol=1e-5)
    assert torch.allclose(both[:1], other[:1], atol=1e-5)
    assert (both[1] - other[1]).abs().max() > 1e-3


def test_it_keeps_the_contract(folders):
    for name, count in ((ONE, 2 + 1 + 1), (TWO, 2 * (2 + 1 + 1))):
        model = loaded(folders[name])
        check_model(model, pixels=(20, 28))
        assert len(model.layers()) == count + 1 + 3 + 3 + 3
    assert [info.calls for info in model.layers()][-4:] == ["last"] * 3 + ["only"]
    assert loaded(folders[ONE], calls="mean").layers()[-2].calls == "mean"


def test_it_acts_and_says_what_it_is(folders):
    model = loaded(folders[ONE])
    assert recognise(Checkpoint(folders[ONE])).startswith("LeRobot policy 'smolvla' from")
    assert model.inputs == ("camera", "states", "instruction")
    assert "heads of 64" not in model.facts["heads"]
    some = episodes(model)
    now = {name: np.stack([e.streams[name][0] for e in some]) for name in model.inputs}
    assert model.act(now).shape == (2, 2)
    twin = model.untrained(1)
    assert twin.network.plan == model.network.plan and twin.words is model.words


def test_empty_cameras_are_nobodys_need(tmp_path):
    config = json.loads(json.dumps(CASES[ONE]["config"]))
    empty = {"type": "VISUAL", "shape": [3, 480, 640]}
    config["input_features"]["observation.images.empty_camera_0"] = empty
    model = loaded(write(tmp_path, config | {"empty_cameras": 1}))
    assert "observation.images.empty_camera_0" not in model.folder.streams
    planned, _ = run(model, episodes(model))
    assert off(planned, CASES[ONE]["expected"]["plan"]) < 1e-5


def test_faults_are_said_in_words(tmp_path):
    config = CASES[ONE]["config"]
    name = "model.vlm_with_expert.vlm.model.text_model.layers.0.self_attn.q_proj.weight"
    embedding = "model.vlm_with_expert.vlm.model.text_model.embed_tokens.weight"
    count = iter(range(99))

    def fault(kind=FormatError, config=config, options=None, **changes):
        path = write(tmp_path / str(next(count)), config, **changes)
        with pytest.raises(kind) as caught:
            loaded(path, **(options or {}))
        return str(caught.value)

    missing = fault(MissingFileError, words=False)
    assert "fetch that of some/model and say backbone=FOLDER" in missing
    assert "lacks" in fault(less=[name])
    assert "lacks 'language.layers.1.mlp" in fault(
        less=[name.replace("layers.0.self_attn.q_proj", "layers.1.mlp.up_proj")]
    )
    assert "besides what its configuration" in fault(more={"model.more": torch.ones(2)})
    assert "do not go together with heads" in fault(more={embedding: torch.ones(9, 24),
        "model.vlm_with_expert.vlm.model.connector.modality_projection.proj.weight":
        torch.ones(23, 64)})  # fmt: skip
    assert "does not describe a policy 'smolvla'" in fault(
        config=config | {"adapt_to_pi_aloha": True}
    )
    assert "takes 9 of 4 planned actions" in fault(config=config | {"n_action_steps": 9})
    assert "lacks language of 32 and 16 numbers" in fault(backbone=False)
    assert "has 3 blocks of the language model and 4 of the expert" in fault(
        more={"model.vlm_with_expert.lm_expert.layers.3.a": torch.ones(1)}
    )


def test_a_tokenizer_of_something_else_is_refused(tmp_path):
    config = CASES[TWO]["config"]
    path = write(tmp_path / "a", config)
    text = (path / "backbone" / "tokenizer.json").read_text(encoding="utf-8")
    (path / "backbone" / "tokenizer.json").write_text(text.replace("<global", "<local"))
    with pytest.raises(FormatError, match="has no token <global-img>"):
        loaded(path)
    path = write(tmp_path / "b", CASES[ONE]["config"])
    entry = json.loads(text)
    entry["model"]["vocab"]["door"] = 30
    (path / "backbone" / "tokenizer.json").write_text(json.dumps(entry), encoding="utf-8")
    model = loaded(path)
    with pytest.raises(FormatError, match="gives the token 30 where the language model knows 9"):
        model.forward_batch(episodes(model))
    (path / "backbone" / "config.json").write_text(
        json.dumps({"text_config": {"head_dim": 7}, "vision_config": {}})
    )
    with pytest.raises(FormatError, match="says head_dim, rms_norm_eps and num_attention_heads"):
        loaded(path)

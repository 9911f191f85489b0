"""Sizes of the published checkpoints, from the shapes of their tensors alone."""

from pathlib import Path

import pytest

from mirror_analysis.errors import FormatError
from mirror_analysis.models.lerobot import pi0, smolvla
from mirror_analysis.models.lerobot.flow_sizes import measured


def decoder(name, layers, width, queries, shared, hidden):
    found = {}
    for i in range(layers):
        place = f"{name}.layers.{i}"
        found |= {
            f"{place}.self_attn.q_proj.weight": (queries, width),
            f"{place}.self_attn.k_proj.weight": (shared, width),
            f"{place}.mlp.gate_proj.weight": (hidden, width),
        }
    return found


def vision(layers, width, patch, places, hidden):
    found = {f"vision.encoder.layers.{i}.mlp.fc1.weight": (hidden, width) for i in range(layers)}
    return found | {
        "vision.embeddings.patch_embedding.weight": (width, 3, patch, patch),
        "vision.embeddings.position_embedding.weight": (places, width),
    }


SMOLVLA = (
    vision(12, 768, 16, 1024, 3072)
    | decoder("language", 16, 960, 960, 320, 2560)
    | decoder("expert", 16, 720, 960, 320, 2048)
    | {
        "projector.weight": (960, 12288),
        "language.embed_tokens.weight": (49280, 960),
        "state_proj.weight": (960, 32),
        "action_in_proj.weight": (720, 32),
    }
)
PI0 = (
    vision(27, 1152, 14, 256, 4304)
    | decoder("language", 18, 2048, 2048, 256, 16384)
    | decoder("expert", 18, 1024, 2048, 256, 4096)
    | {
        "projector.weight": (2048, 1152),
        "projector.bias": (2048,),
        "language.embed_tokens.weight": (257152, 2048),
        "state_proj.weight": (1024, 32),
        "action_in_proj.weight": (1024, 32),
    }
)
PATH = Path("model.safetensors")


def sizes(there, module, kind, crossed=lambda i: False):
    return measured(there, module._USUAL, kind=kind, crossed=crossed, path=PATH)


def test_smolvla_as_published():
    found = sizes(SMOLVLA, smolvla, "llama", crossed=lambda i: i % 2 == 1)
    assert (found.language.heads, found.language.groups, found.language.head) == (15, 5, 64)
    assert (found.expert.heads, found.expert.groups, found.expert.width) == (15, 5, 720)
    assert (found.vision.heads, found.vision.side, found.merged) == (12, 32, 4)
    assert found.crossed == tuple(range(1, 16, 2)) and not found.biased


def test_pi0_as_published():
    found = sizes(PI0, pi0, "gemma")
    assert (found.language.heads, found.language.groups, found.language.head) == (8, 1, 256)
    assert (found.vision.heads, found.vision.side, found.merged) == (16, 16, 1)
    assert found.crossed == () and found.biased


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"vision.embeddings.position_embedding.weight": (1025, 768)}, "do not go together"),
        ({"projector.weight": (961, 12288)}, "do not go together"),
        ({"expert.layers.0.self_attn.q_proj.weight": (1024, 720)}, "do not go together"),
        ({"expert.layers.0.self_attn.q_proj.weight": (990, 720)}, "lacks expert of 990"),
        ({"vision.embeddings.patch_embedding.weight": (768, 3)}, "in a shape that cannot be"),
    ],
)
def test_shapes_that_do_not_go_together_are_refused(change, words):
    with pytest.raises(FormatError, match=words):
        sizes(SMOLVLA | change, smolvla, "llama")

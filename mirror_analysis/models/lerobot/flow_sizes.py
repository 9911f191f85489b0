"""Sizes and names of policies whose expert reads a language model, from the tensors they have."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, final

from mirror_analysis.errors import FormatError
from mirror_analysis.models.checkpoint import Checkpoint
from mirror_analysis.models.lerobot.decoder import DecoderSizes
from mirror_analysis.models.lerobot.flow import FlowSizes
from mirror_analysis.models.lerobot.siglip import SiglipSizes

UNUSED = re.compile(r"(language|expert)\.lm_head\.weight|language\.norm\.weight")
"""Tensors that are no part of the policy: what would say words, and the norm before that."""

V = TypeVar("V")
_EMBEDDINGS, _TIED = "language.embed_tokens.weight", "language.lm_head.weight"


@final
@dataclass(frozen=True)
class Names:
    """From the names in a file to those of `Flow`.

    Attributes:
        rules: what names begin with -> what they begin with here; the first that fits counts.
    """

    rules: Sequence[tuple[str, str]]

    def __call__(self, entries: Mapping[str, V]) -> dict[str, V]:
        """The same entries under the names here."""
        found = {self._one(name): entry for name, entry in entries.items()}
        # Where both are one tensor, files keep it under one of the two names.
        if _EMBEDDINGS not in found and _TIED in found:
            found[_EMBEDDINGS] = found[_TIED]
        return found

    def _one(self, name: str) -> str:
        name = name.replace("._orig_mod", "").removeprefix("model.")
        for start, here in self.rules:
            if name.startswith(start):
                return here + name.removeprefix(start)
        return name


@final
@dataclass(frozen=True)
class Heads:
    """What shapes do not say.

    Attributes:
        head: numbers in a head of the language model and the expert.
        epsilon: of their norms.
        vision: heads of the picture encoder; None for as many as are usual.
        source: what says it, for people.
    """

    head: int
    epsilon: float
    vision: int | None
    source: str


def heads(backbone: Checkpoint, usual: Heads) -> Heads:
    """What the config of the language model says of its heads, else what is usual.

    Args:
        backbone: a folder, with or without the `config.json` of the language model.
        usual: where there is none.

    Raises:
        FormatError: if its config says something that cannot be.
    """
    config = backbone.config if backbone.has("config.json") else {}
    text, vision = config.get("text_config"), config.get("vision_config")
    if not isinstance(text, dict) or not isinstance(vision, dict):
        return usual
    found = (
        text.get("head_dim", usual.head),
        text.get("rms_norm_eps", usual.epsilon),
        vision.get("num_attention_heads", usual.vision),
    )
    head, epsilon, many = found
    if (
        type(head) is not int or not 2 <= head <= 1024 or head % 2
        or not isinstance(epsilon, float) or not 0 <= epsilon < 1
        or not (many is None or (type(many) is int and 1 <= many <= 1024))
    ):  # fmt: skip
        raise FormatError(
            f"{backbone.path}/config.json says head_dim, rms_norm_eps and num_attention_heads"
            f" {found}; needed what the language model was published with, so fetch it anew"
        )
    return Heads(head, epsilon, many, f"{backbone.path}/config.json")


def measured(
    there: Mapping[str, tuple[int, ...]],
    how: Heads,
    *,
    kind: Literal["llama", "gemma"],
    crossed: Any,
    path: Path,
) -> FlowSizes:
    """The sizes of a policy's parts.

    Args:
        there: names of `Flow` -> shapes.
        how: what they do not say.
        kind: of the language model and the expert.
        crossed: whether a block of the expert, by its number, only attends to the language model.
        path: of the file, for the words of an error.

    Raises:
        FormatError: if tensors are missing or have shapes that do not go together.
    """
    try:
        width, _, patch, _ = there["vision.embeddings.patch_embedding.weight"]
        known = there["vision.embeddings.position_embedding.weight"][0]
        into, merged = there["projector.weight"]
        vision = SiglipSizes(
            width=width,
            layers=_count(there, "vision.encoder"),
            heads=how.vision or (16 if width == 1152 else max(1, width // 64)),
            hidden=there["vision.encoder.layers.0.mlp.fc1.weight"][0],
            patch=patch,
            side=math.isqrt(known),
        )
        language, expert = (_decoder(there, name, how, kind) for name in ("language", "expert"))
        sizes = FlowSizes(
            vision=vision,
            merged=math.isqrt(merged // width),
            biased="projector.bias" in there,
            language=language,
            vocabulary=there[_EMBEDDINGS][0],
            expert=expert,
            crossed=tuple(i for i in range(expert.layers) if crossed(i)),
            states=there["state_proj.weight"][1],
            actions=there["action_in_proj.weight"][1],
        )
        fits = (
            vision.side**2 == known
            and sizes.merged**2 * width == merged
            and vision.side % sizes.merged == 0
            and width % vision.heads == 0
            and (expert.heads, expert.groups) == (language.heads, language.groups)
            and language.heads % language.groups == 0
            and into == language.width
            and expert.width % 2 == 0
        )
    except (KeyError, ValueError, IndexError, ZeroDivisionError) as error:
        raise FormatError(
            f"{path} lacks {error} or has it in a shape that cannot be; needed the weights of the"
            " whole policy, so fetch it anew"
        ) from None
    if not fits:
        raise FormatError(
            f"{path} has shapes that do not go together with heads of {how.head} numbers"
            f" ({how.source}); say backbone=FOLDER, the folder of the language model it is built"
            " on with its config.json"
        )
    return sizes


def _decoder(
    there: Mapping[str, tuple[int, ...]], name: str, how: Heads, kind: Literal["llama", "gemma"]
) -> DecoderSizes:
    queries, width = there[f"{name}.layers.0.self_attn.q_proj.weight"]
    shared = there[f"{name}.layers.0.self_attn.k_proj.weight"][0]
    if queries % how.head or shared % how.head:
        raise ValueError(f"{name} of {queries} and {shared} numbers")
    return DecoderSizes(
        width=width,
        layers=_count(there, name),
        heads=queries // how.head,
        groups=shared // how.head,
        head=how.head,
        hidden=there[f"{name}.layers.0.mlp.gate_proj.weight"][0],
        epsilon=how.epsilon,
        kind=kind,
    )


def _count(there: Mapping[str, tuple[int, ...]], name: str) -> int:
    found = {
        int(match[1])
        for key in there
        if (match := re.fullmatch(rf"{name}\.layers\.([0-9]{{1,3}})\..*", key))
    }
    return len(found)

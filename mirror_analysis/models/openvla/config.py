"""What the files of an OpenVLA folder say: sizes, units of actions, words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import torch
from torch import Tensor

from mirror_analysis.errors import DefinitionError, FormatError, UnknownNameError
from mirror_analysis.models.checkpoint import Checkpoint
from mirror_analysis.models.lerobot.decoder import DecoderSizes
from mirror_analysis.models.openvla.network import OpenVLASizes
from mirror_analysis.models.openvla.vision import TransformerSizes
from mirror_analysis.models.transformers.sentences import read_words

Words = Callable[[Sequence[str]], tuple[Tensor, Tensor]]
"""Instructions -> tokens [text, token], and which of them are there."""

Count = Annotated[int, msgspec.Meta(ge=1, le=2**20)]

_PROMPT = "In: What action should the robot take to {}?\nOut:"
_CHAT = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives"
    " helpful, detailed, and polite answers to the user's questions. USER: What action should the"
    " robot take to {}? ASSISTANT:"
)
_EMPTY = "▁"  # the token before every action


class Text(msgspec.Struct, frozen=True):
    """`text_config`, with Llama's defaults."""

    model_type: Literal["llama"] = "llama"
    vocab_size: Count = 32000
    num_attention_heads: Count = 32
    num_key_value_heads: Count | None = None
    rms_norm_eps: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 1e-6
    rope_theta: float = 10000.0
    bos_token_id: int = 1


class Config(msgspec.Struct, frozen=True):
    """What `config.json` says."""

    norm_stats: dict[str, dict[str, Any]]
    vision_backbone_id: str
    text_config: Text = Text()
    llm_backbone_id: str = ""
    image_resize_strategy: Literal["resize-naive"] = "resize-naive"
    n_action_bins: Annotated[int, msgspec.Meta(ge=2, le=2**16)] = 256
    pad_to_multiple_of: Annotated[int, msgspec.Meta(ge=0)] = 64


class Processor(msgspec.Struct, frozen=True):
    """What `preprocessor_config.json` says, an entry for each picture encoder."""

    input_sizes: list[tuple[int, int, int]]
    means: list[tuple[float, float, float]]
    stds: list[tuple[float, float, float]]
    interpolations: list[Literal["bicubic", "bilinear"]]


class Range(msgspec.Struct, frozen=True):
    """How a number of an action is scaled."""

    q01: list[float]
    q99: list[float]
    mask: list[bool] | None = None


def action_range(config: Config, chosen: str, checkpoint: Checkpoint) -> tuple[str, Range]:
    """The data set that counts, and the range of its actions.

    Args:
        config: of the folder.
        chosen: name of a data set, "" for the only one.
        checkpoint: the folder, for the words of an error.

    Raises:
        DefinitionError: if there are several and none is chosen.
        UnknownNameError: if there is none of that name.
        FormatError: if it is damaged.
    """
    known = list(config.norm_stats)
    if not chosen and len(known) != 1:
        raise DefinitionError(
            f"{checkpoint.path} has units of actions of several data sets"
            f" ({', '.join(sorted(known)[:40])}); say whose count with dataset=NAME"
        )
    chosen = chosen or known[0]
    if chosen not in config.norm_stats:
        raise UnknownNameError(f"data set with units in {checkpoint.path}", chosen, known)
    try:
        found = msgspec.convert(config.norm_stats[chosen].get("action"), Range)
    except msgspec.ValidationError as error:
        raise FormatError(
            f"{checkpoint.path}/config.json has no range of actions of {chosen}: {error}"
        ) from None
    sizes = {len(found.q01), len(found.q99), len(found.mask or found.q01)}
    if len(sizes) != 1 or not 1 <= len(found.q01) <= 1024:
        raise FormatError(
            f"{checkpoint.path}/config.json has ranges of {sorted(sizes)} numbers of actions of"
            f" {chosen}; needed as many of each, so fetch it anew"
        )
    return chosen, found


def measured(
    there: Mapping[str, tuple[int, ...]], config: Config, actions: int, path: Path
) -> OpenVLASizes:
    """The sizes of its parts, most of them from the shapes of its tensors.

    Args:
        there: name -> shape.
        config: of the folder.
        actions: numbers of an action.
        path: of the folder, for the words of an error.

    Raises:
        FormatError: if tensors are missing or do not go together.
    """
    text = config.text_config
    start = "language_model.model.layers"
    try:
        names = [n for n in ("featurizer", "fused_featurizer")
                 if f"vision_backbone.{n}.pos_embed" in there]  # fmt: skip
        vision = tuple(TransformerSizes.measured(there, f"vision_backbone.{n}") for n in names)
        steps = [n for n in ("fc1", "fc2", "fc3") if f"projector.{n}.weight" in there]
        vocabulary, width = there["language_model.model.embed_tokens.weight"]
        language = DecoderSizes(
            width=width,
            layers=len({n.split(".")[3] for n in there if n.startswith(start)}),
            heads=text.num_attention_heads,
            groups=text.num_key_value_heads or text.num_attention_heads,
            head=width // text.num_attention_heads,
            hidden=there[f"{start}.0.mlp.gate_proj.weight"][0],
            epsilon=text.rms_norm_eps,
            kind="llama",
        )
        sizes = OpenVLASizes(
            vision=vision,
            projector=tuple(there[f"projector.{n}.weight"][0] for n in steps),
            language=language,
            vocabulary=vocabulary,
            words=text.vocab_size - config.pad_to_multiple_of,
            bins=config.n_action_bins,
            actions=actions,
        )
    except (KeyError, ValueError, IndexError) as error:
        raise FormatError(
            f"{path} lacks {error} or has it in a shape that cannot be; needed the weights of the"
            " whole policy, so fetch it anew"
        ) from None
    fits = (
        len(vision) in (1, 2)
        and all(one.layers > 1 and one.width % one.heads == 0 for one in vision)
        and len(sizes.projector) == len(vision) + 1
        and sizes.projector[-1] == width
        and language.head * language.heads == width
        and language.head % 2 == 0
        and language.heads % language.groups == 0
        and text.rope_theta == 10000.0
        and vocabulary == text.vocab_size
        and 1 < sizes.words <= vocabulary
    )
    if not fits:
        raise FormatError(
            f"{path} has weights whose shapes do not go with its config.json; needed both of one"
            " checkpoint, so fetch them anew"
        )
    return sizes


def instructions(checkpoint: Checkpoint, config: Config, vocabulary: int) -> Words:
    """From an instruction to the tokens it is asked by.

    Args:
        checkpoint: the folder with `tokenizer.json`.
        config: of the folder.
        vocabulary: tokens the language model knows.

    Raises:
        FormatError: if there is no tokenizer, or one of something else.
    """
    prompt = _CHAT if config.llm_backbone_id.startswith("vicuna") else _PROMPT
    begin = config.text_config.bos_token_id
    tokenizer = read_words(checkpoint, padding=0, longest=2048, lower=False).tokenizer
    empty = tokenizer.token_to_id(_EMPTY)
    if not isinstance(empty, int):
        raise FormatError(
            f"{checkpoint.path}/tokenizer.json has no token '{_EMPTY}', which stands before every"
            " action; needed Llama's, so fetch it anew"
        )

    def tokens(text: str) -> list[int]:
        row: list[int] = tokenizer.encode(prompt.format(text.lower())).ids
        row = row if row[:1] == [begin] else [begin, *row]
        row = row if row[-1] == empty else [*row, empty]
        if max(row) >= vocabulary:
            raise FormatError(
                f"{checkpoint.path}/tokenizer.json gives the token {max(row)} where the language"
                f" model knows {vocabulary}; needed its own, so fetch it anew"
            )
        return row

    def read(texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        different = list(dict.fromkeys(texts))
        ids = [tokens(text) for text in different]
        longest = max(map(len, ids))
        padded = torch.tensor([row + [0] * (longest - len(row)) for row in ids])
        there = torch.tensor([[i < len(row) for i in range(longest)] for row in ids])
        rows = torch.tensor([different.index(text) for text in texts])
        return padded[rows], there[rows]

    return read

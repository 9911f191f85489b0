"""From sentences to vectors: tokens, an encoder, and what is made of its tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mirror_analysis.errors import FormatError
from mirror_analysis.files.jsons import read_json
from mirror_analysis.models.checkpoint import Checkpoint

PoolMode = Literal["cls", "max", "mean", "mean_sqrt_len", "weightedmean", "lasttoken"]
_MOST = 64 * 2**20  # bytes of a tokenizer's file


@dataclass(frozen=True, eq=False)
class Words:
    """A tokenizer.

    Attributes:
        tokenizer: of the tokenizers package, cutting off what is too long.
        padding: the token that stands for none.
        lower: whether sentences are put in small letters first.
    """

    tokenizer: Any
    padding: int
    lower: bool = False

    def __call__(self, sentences: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Tokens and which of them are there.

        Args:
            sentences: any words.

        Returns:
            [sentence, token] numbers of tokens; [sentence, token] 1 where there is one, 0 behind
            the end of a sentence.
        """
        texts = [text.strip().lower() if self.lower else text.strip() for text in sentences]
        ids = [encoding.ids for encoding in self.tokenizer.encode_batch(texts)]
        longest = max(map(len, ids))
        rows = [row + [self.padding] * (longest - len(row)) for row in ids]
        mask = [[1] * len(row) + [0] * (longest - len(row)) for row in ids]
        return torch.tensor(rows, dtype=torch.long), torch.tensor(mask, dtype=torch.long)


def read_words(checkpoint: Checkpoint, *, padding: int, longest: int, lower: bool) -> Words:
    """The tokenizer of a folder: `tokenizer.json`, else the `vocab.txt` of BERT.

    Args:
        checkpoint: the folder.
        padding: the token that stands for none.
        longest: tokens a sentence is cut to.
        lower: whether sentences are put in small letters before.

    Raises:
        FormatError: if there is neither, or it is damaged.
    """
    from tokenizers import BertWordPieceTokenizer, Tokenizer

    try:
        if checkpoint.has("tokenizer.json"):
            path = checkpoint.file("tokenizer.json")
            read_json(path, most=_MOST)
            tokenizer: Any = Tokenizer.from_str(path.read_text(encoding="utf-8"))
        elif checkpoint.has("vocab.txt"):
            path = checkpoint.file("vocab.txt")
            if path.stat().st_size > _MOST:
                raise FormatError(f"{path} is no vocabulary: larger than {_MOST} bytes")
            said = _optional(checkpoint, "tokenizer_config.json")
            words = path.read_text(encoding="utf-8").splitlines()
            tokenizer = BertWordPieceTokenizer(
                vocab={word: i for i, word in enumerate(words)},
                lowercase=bool(said.get("do_lower_case", True)),
                strip_accents=said.get("strip_accents"),
            )
        else:
            raise FormatError(
                f"{checkpoint.path} has no tokenizer; needed tokenizer.json, or BERT's vocab.txt"
            )
        tokenizer.no_padding()
        tokenizer.enable_truncation(longest)
    except FormatError:
        raise
    except BaseException as error:  # a panic of the tokenizers package is no Exception
        if isinstance(error, KeyboardInterrupt | SystemExit | MemoryError):
            raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise FormatError(
            f"{checkpoint.path} has a tokenizer that cannot be read ({reason}); copy it anew"
        ) from None
    return Words(tokenizer, padding, lower)


def _optional(checkpoint: Checkpoint, name: str) -> Mapping[str, Any]:
    return checkpoint.json(name) if checkpoint.has(name) else {}


class SentenceNetwork(nn.Module):
    """An encoder of tokens, and one vector of a sentence at every layer.

    Args:
        encoder: a network of transformers that gives its hidden states.
        modes: how tokens become one vector; the vectors of several are put side by side.
        dense: maps after that.
        unit: whether the result is scaled to length 1.
        blocks: of the encoder.

    Attributes:
        layers: name -> an identity that each layer's vector passes through: "embeddings", "block0"
            and so on (the mean over the sentence's own tokens), then "sentence", the result.
    """

    def __init__(
        self,
        encoder: nn.Module,
        *,
        modes: Sequence[PoolMode],
        dense: Sequence[nn.Module],
        unit: bool,
        blocks: int,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.modes, self.unit = tuple(modes), unit
        self.dense = nn.ModuleList(dense)
        names = ["embeddings", *(f"block{i}" for i in range(blocks)), "sentence"]
        self.layers = nn.ModuleDict({name: nn.Identity() for name in names})

    def forward(self, ids: Tensor, mask: Tensor, rows: Tensor) -> Tensor:
        """Vectors of sentences.

        Args:
            ids: [sentence, token].
            mask: [sentence, token], 1 where there is a token.
            rows: [episode] which sentence each episode has.

        Returns:
            [episode, feature].
        """
        given = self.encoder(input_ids=ids, attention_mask=mask, output_hidden_states=True)
        *steps, _ = self.layers.items()
        for (_, layer), states in zip(steps, given.hidden_states, strict=True):
            layer(pooled(states, mask, "mean")[rows])
        x = torch.cat([pooled(given.last_hidden_state, mask, mode) for mode in self.modes], dim=1)
        for dense in self.dense:
            x = dense(x)
        if self.unit:
            x = nn.functional.normalize(x, dim=1)
        result: Tensor = self.layers["sentence"](x[rows])
        return result


def pooled(states: Tensor, mask: Tensor, mode: PoolMode) -> Tensor:
    """One vector of a sentence's own tokens.

    Args:
        states: [sentence, token, feature].
        mask: [sentence, token], 1 where there is a token.
        mode: "cls" the first, "lasttoken" the last, "max" the largest of each feature, "mean";
            "mean_sqrt_len" divides the sum by the root of the number of tokens, and
            "weightedmean" weights tokens by their place, counted from 1.

    Returns:
        [sentence, feature].
    """
    there = mask.unsqueeze(-1).to(states.dtype)
    if mode == "cls":
        return states[:, 0]
    if mode == "lasttoken":
        return states[torch.arange(len(states)), mask.sum(1) - 1]
    if mode == "max":
        return states.masked_fill(there == 0, -torch.inf).amax(1)
    if mode == "weightedmean":
        there = there * torch.arange(1, mask.shape[1] + 1, device=mask.device).view(1, -1, 1)
    count = there.sum(1)
    return (states * there).sum(1) / (count.sqrt() if mode == "mean_sqrt_len" else count)

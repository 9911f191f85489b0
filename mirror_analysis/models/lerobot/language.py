"""LeRobot policies that are told what to do in words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mirror_analysis.errors import FormatError, MissingFileError
from mirror_analysis.files.digests import content_digest
from mirror_analysis.files.safetensors import read_header, read_safetensors
from mirror_analysis.models.checkpoint import Checkpoint, Options
from mirror_analysis.models.lerobot.flow import THERE, TOKENS_OF_WORDS, Flow
from mirror_analysis.models.lerobot.flow_sizes import UNUSED, Names
from mirror_analysis.models.lerobot.folder import ACTION, WEIGHTS, PolicyFolder
from mirror_analysis.models.lerobot.policy import LeRobotPolicy
from mirror_analysis.models.lerobot.statistics import is_statistic, read_statistics, split
from mirror_analysis.models.model import Input
from mirror_analysis.models.transformers.sentences import read_words
from mirror_analysis.models.weights.fitting import fitted, require_shapes

_EMPTY = "empty_camera"  # in the names of views there are no pictures of, which nobody looks at
_TOKENIZER = "tokenizer.json"


@final
@dataclass(frozen=True)
class Instructions:
    """From words to tokens.

    Attributes:
        tokenizer: of the tokenizers package, cutting off what is too long.
        vocabulary: tokens that the language model knows.
        source: where it is from.
    """

    tokenizer: Any
    vocabulary: int
    source: Path

    def __call__(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """[text, token] tokens, and which of them are there; each text ends with its line.

        Raises:
            FormatError: if the language model does not know a token.
        """
        different = list(dict.fromkeys(texts))
        lines = [text if text.endswith("\n") else f"{text}\n" for text in different]
        ids = [encoding.ids for encoding in self.tokenizer.encode_batch(lines)]
        most = max((token for row in ids for token in row), default=0)
        if most >= self.vocabulary:
            raise FormatError(
                f"{self.source} gives the token {most} where the language model knows"
                f" {self.vocabulary}; needed the tokenizer it was trained with"
            )
        longest = max(1, *map(len, ids))
        padded = torch.tensor([row + [0] * (longest - len(row)) for row in ids])
        there = torch.tensor([[i < len(row) for i in range(longest)] for row in ids])
        rows = torch.tensor([different.index(text) for text in texts])
        return padded[rows], there[rows]

    def token(self, word: str) -> int:
        """The number of a special token.

        Raises:
            FormatError: if there is none.
        """
        found = self.tokenizer.token_to_id(word)
        if not isinstance(found, int):
            raise FormatError(
                f"{self.source} has no token {word}; needed the tokenizer the policy was trained"
                " with"
            )
        return found


class LanguagePolicy(LeRobotPolicy):
    """A policy that reads the instruction, too, and takes pictures of any size.

    Args:
        words: from the instruction to tokens.
        **given: see `LeRobotPolicy`.
    """

    def __init__(self, *, words: Instructions, **given: Any) -> None:
        self.words, self._given = words, given
        super().__init__(**given)

    def untrained(self, seed: int) -> LanguagePolicy:
        """The same architecture with weights drawn anew; it knows the same words."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = self._given["rebuild"]().eval().requires_grad_(False)
        changed = {"network": network.to(self.device), "name": f"{self.name}-untrained{seed}"}
        return LanguagePolicy(words=self.words, **{**self._given, **changed})

    def _planned(
        self, streams: Mapping[str, NDArray[Any]], past: Tensor, seeds: Sequence[int]
    ) -> Tensor:
        tokens, there = self.words([str(text) for text in streams["instruction"]])
        seen = {
            key: self.scaling[key](self._numbers(key, name, streams[name]))
            for key, name in self.folder.streams.items()
        }
        seen |= {TOKENS_OF_WORDS: tokens.to(self.device), THERE: there.to(self.device)}
        chances = [chance for s in seeds if (chance := self.network.chance(s)) is not None]
        planned = self.network(seen, past.to(self.device), torch.stack(chances).to(self.device))
        found: Tensor = self.scaling[ACTION].inverse(planned)
        return found

    def _numbers(self, key: str, name: str, stream: NDArray[Any]) -> Tensor:
        if self.folder.inputs[key].kind != "VISUAL":
            return super()._numbers(key, name, stream)
        pictures = torch.from_numpy(np.ascontiguousarray(stream)).to(self.device)
        return pictures.permute(0, 3, 1, 2).to(torch.float32) / 255


def watched(folder: PolicyFolder) -> PolicyFolder:
    """A folder without the views there are no pictures of."""
    inputs = {key: feature for key, feature in folder.inputs.items() if _EMPTY not in key}
    return replace(folder, inputs=inputs)


def labels(folder: PolicyFolder) -> dict[str, str]:
    """LeRobot's name of each view -> its name in layers, "" for an only one."""
    keys = [view.key for view in folder.views]
    if len(keys) == 1:
        return {keys[0]: ""}
    return {key: folder.streams[key].partition(":")[2] for key in keys}


def backbone(folder: PolicyFolder, options: Options, published: str) -> Checkpoint:
    """The folder with the tokenizer: the option's, else the policy's own.

    Args:
        folder: of the policy.
        options: of which "backbone" counts.
        published: hub id of the language model the policy is built on.

    Raises:
        MissingFileError: if there is no tokenizer.
    """
    chosen = options.text("backbone")
    found = Checkpoint(Path(chosen)) if chosen else folder.checkpoint
    if not found.has(_TOKENIZER):
        raise MissingFileError(
            f"{found.path} has no {_TOKENIZER}, without which instructions cannot be read; fetch"
            f" that of {published} and say backbone=FOLDER, its folder"
        )
    return found


def instructions(words: Checkpoint, *, longest: int, vocabulary: int) -> Instructions:
    """The tokenizer of a folder.

    Args:
        words: the folder.
        longest: tokens of an instruction.
        vocabulary: tokens the language model knows.

    Raises:
        FormatError: if it is damaged.
    """
    found = read_words(words, padding=0, longest=longest, lower=False)
    return Instructions(found.tokenizer, vocabulary, words.file(_TOKENIZER))


def shapes(folder: PolicyFolder, names: Names) -> dict[str, tuple[int, ...]]:
    """Names here -> shapes of the weights, without reading them.

    Raises:
        FormatError: if the file is damaged.
    """
    header, _ = read_header(folder.checkpoint.file(WEIGHTS))
    return names({name: entry[1] for name, entry in header.items() if not is_statistic(name)})


def load_language_policy(
    folder: PolicyFolder,
    build: Callable[[], Flow],
    *,
    name: str,
    options: Options,
    names: Names,
    words: Instructions,
    facts: Mapping[str, str],
) -> LanguagePolicy:
    """Loads the weights and statistics of a policy whose network is known.

    Args:
        folder: where they lie.
        build: its network, with weights drawn anew.
        name: what to call it.
        options: see the OPTIONS of the family.
        names: from the names of the file to those here.
        words: from the instruction to tokens.
        facts: what is known of it.

    Raises:
        FormatError: if weights or statistics are missing, damaged or of something else.
        UnknownNameError: if an option has no such value.
    """
    rule = options.choice("normalise", "required", ("required", "partly", "off"))
    strange = options.choice("processors", "refuse", ("refuse", "ignore"))
    seed = options.count("seed", 1)
    path = folder.checkpoint.file(WEIGHTS)
    require_shapes(build, shapes(folder, names), path=path, unused=UNUSED)
    weights, buffers = split(read_safetensors(path)[0])
    network = fitted(build, names(weights), path=path, unused=UNUSED)
    dataset = options.text("dataset")
    statistics = read_statistics(folder, buffers, dataset=dataset, strange=strange)
    features = {key: folder.inputs[key] for key in folder.streams} | {ACTION: folder.action}
    scaling = {
        key: statistics.scaling(feature, folder, rule=rule) for key, feature in features.items()
    }
    modes = ", ".join(f"{key} {part.mode}" for key, part in scaling.items())
    return LanguagePolicy(
        words=words,
        network=network,
        folder=folder,
        scaling=scaling,
        name=name,
        rebuild=build,
        calls=options.calls,
        seed=seed,
        resize=False,
        prefix="model",
        needs=(*folder.needs, Input("instruction", note="what to do, in words")),
        facts={
            "family": "LeRobot",
            **facts,
            "normalisation": f"{modes}; statistics of {statistics.source}",
        },
        settings={
            "normalisation": modes + (f", data set {dataset}" if dataset else ""),
            "words": content_digest(words.source)[:16],
            "steps": str(network.plan.steps),
            "seed": str(seed),
            "calls": options.calls,
        },
    )

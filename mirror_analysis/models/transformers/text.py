"""Sentence encoders: models that watch what was asked for, in words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from mirror_analysis.errors import FormatError, MirrorError
from mirror_analysis.files.jsons import read_json
from mirror_analysis.files.places import inside
from mirror_analysis.models.checkpoint import Checkpoint, Options
from mirror_analysis.models.model import EpisodeLike, Input, LayerInfo, ObservationModel
from mirror_analysis.models.transformers.files import (
    built,
    licence,
    made_config,
    quiet,
    read_config,
    read_weights,
    require_transformers,
)
from mirror_analysis.models.transformers.sentences import (
    PoolMode,
    SentenceNetwork,
    Words,
    read_words,
)

SUMMARY = "sentence encoders like BERT, with what sentence-transformers makes of their tokens"
OPTIONS: Mapping[str, str] = {
    "pooling": "cls, max, mean, mean_sqrt_len, weightedmean or lasttoken (what the folder says)",
}
_TYPES = ("albert", "bert", "camembert", "deberta", "deberta-v2", "distilbert", "electra",
          "modernbert", "mpnet", "roberta", "xlm-roberta")  # fmt: skip
# Their places are counted from behind the padding token.
_SHIFTED = ("camembert", "mpnet", "roberta", "xlm-roberta")
_MODES = ("cls", "max", "mean", "mean_sqrt_len", "weightedmean", "lasttoken")
_ACTIVATIONS = {"Identity": nn.Identity, "Tanh": nn.Tanh, "GELU": nn.GELU, "ReLU": nn.ReLU}
_BERT_CONFIGS = tuple(
    f"sentence_{kind}_config.json"
    for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
_WIDTH = 1 << 16  # numbers in a vector of a sentence


class SentenceEncoder(ObservationModel):
    """Reads the instruction of an episode.

    Args:
        network: the encoder with its pooling.
        words: the tokenizer.
        name: what to call it.
        widths: layer name -> channels.
        rebuild: a fresh network of this architecture, for untrained twins.
        facts: what its files say of it.
    """

    module: SentenceNetwork

    def __init__(
        self,
        network: SentenceNetwork,
        *,
        words: Words,
        name: str,
        widths: Mapping[str, int],
        rebuild: Callable[[], SentenceNetwork],
        facts: Mapping[str, str],
    ) -> None:
        self.name, self.module, self.words = name, network, words
        self.needs = (Input("instruction", note="a sentence"),)
        self._widths, self._rebuild = widths, rebuild
        self.facts = facts
        self.settings = {key: facts[key] for key in ("pooling", "longest sentence")}

    def layers(self) -> list[LayerInfo]:
        """Token embeddings, blocks, the vector of the sentence."""
        return [
            LayerInfo(
                name,
                width,
                "episode channel",
                "vector of the sentence" if name == "sentence" else "mean of its tokens",
            )
            for name, width in self._widths.items()
        ]

    def taps(self) -> Mapping[str, nn.Module]:
        """Layer name -> module."""
        return dict(self.module.layers.items())

    def forward_batch(self, episodes: Sequence[EpisodeLike]) -> Tensor:
        """Vectors of the instructions, [episode, feature]."""
        texts = [episode.instruction for episode in episodes]
        different = list(dict.fromkeys(texts))
        ids, mask = (x.to(self.device) for x in self.words(different))
        rows = torch.tensor([different.index(text) for text in texts], device=self.device)
        vectors: Tensor = self.module(ids, mask, rows)
        return vectors

    def untrained(self, seed: int) -> SentenceEncoder:
        """The same architecture with weights drawn anew; it knows the same words."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = self._rebuild()
        return SentenceEncoder(
            network.to(self.device).eval(),
            words=self.words,
            name=f"{self.name}-untrained{seed}",
            widths=self._widths,
            rebuild=self._rebuild,
            facts=self.facts,
        )


@dataclass(frozen=True)
class _Dense:
    width: int
    to: int
    bias: bool
    activation: str

    def made(self) -> nn.Sequential:
        return nn.Sequential(
            nn.Linear(self.width, self.to, bias=self.bias), _ACTIVATIONS[self.activation]()
        )


@dataclass(frozen=True, eq=False)
class _Recipe:
    """What a folder makes of the tokens of its encoder."""

    encoder: Checkpoint
    modes: tuple[PoolMode, ...]
    unit: bool
    dense: tuple[_Dense, ...] = ()
    weights: tuple[Mapping[str, Tensor], ...] = ()
    source: str = ""

    @property
    def words(self) -> str:
        """The recipe for people."""
        dense = "".join(f", then {d.width} to {d.to} with {d.activation}" for d in self.dense)
        unit = ", scaled to length 1" if self.unit else ""
        return f"{' and '.join(self.modes)} of tokens{dense}{unit} ({self.source})"


def recognise(checkpoint: Checkpoint) -> str | None:
    """What it is, if it is a folder of an encoder of words."""
    try:
        inner = _encoder(checkpoint)
        config = inner.config if inner is not None else {}
    except MirrorError:
        return None
    kind = config.get("model_type")
    if kind not in _TYPES:
        return None
    what = "sentence encoder" if checkpoint.has("modules.json") else "encoder of words"
    return f"{what} of transformers ({kind}, {config.get('num_hidden_layers', '?')} blocks)"


def load(checkpoint: Checkpoint, *, name: str, options: Options) -> SentenceEncoder:
    """Reads a sentence encoder.

    Args:
        checkpoint: the folder, with `config.json`, weights, a tokenizer, and `modules.json` where
            it is of sentence-transformers; without that its tokens are averaged.
        name: what to call it.
        options: "pooling".

    Raises:
        FormatError: if it is damaged, or does with its tokens what cannot be done here.
        MissingFileError: if a file is not there.
        MissingDependencyError: if transformers is not installed.
        UnknownNameError: if the pooling is none of those known.
    """
    require_transformers(f"reading {checkpoint.path}")
    from transformers import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_MAPPING

    recipe = _recipe(checkpoint, options)
    raw = read_config(recipe.encoder)
    kind = raw["model_type"]
    if kind not in _TYPES:
        raise FormatError(
            f"{checkpoint.path} is of the type {kind}, which is no encoder of words that is read;"
            f" known are {', '.join(_TYPES)}"
        )
    config: Any = made_config(CONFIG_MAPPING[kind], raw, checkpoint)
    tensors, source = read_weights(recipe.encoder)
    encoder, told = built(MODEL_MAPPING[type(config)], config, tensors, path=str(checkpoint.path))
    longest, lower = _limits(recipe.encoder, config, kind)
    words = read_words(
        recipe.encoder, padding=int(config.pad_token_id or 0), longest=longest, lower=lower
    )
    blocks = int(config.num_hidden_layers)

    def network(around: nn.Module) -> SentenceNetwork:
        return SentenceNetwork(
            around, modes=recipe.modes, dense=[d.made() for d in recipe.dense],
            unit=recipe.unit, blocks=blocks,
        )  # fmt: skip

    def rebuild() -> SentenceNetwork:
        pooler = {"add_pooling_layer": False} if getattr(encoder, "pooler", encoder) is None else {}
        with quiet():
            return network(type(encoder)._from_config(config, dtype=torch.float32, **pooler))

    module = network(encoder).eval()
    _fill(module, recipe, checkpoint)
    facts = {
        "family": "transformers-text",
        "architecture": type(encoder).__name__,
        "weights": source,
        "pooling": recipe.words,
        "longest sentence": f"{longest} tokens",
        "left out": told,
        "licence": licence(checkpoint),
    }
    return SentenceEncoder(
        module,
        words=words,
        name=name,
        widths=_widths(module, words, checkpoint),
        rebuild=rebuild,
        facts={key: value for key, value in facts.items() if value},
    )


def _modules(checkpoint: Checkpoint) -> list[tuple[str, str]]:
    """(class, folder) of the steps that `modules.json` names; none where it is not there."""
    if not checkpoint.has("modules.json"):
        return []
    listed: list[Any] = read_json(checkpoint.file("modules.json"), list)
    steps = [
        (str(step.get("type")).rpartition(".")[2], str(step.get("path") or ""))
        for step in listed
        if isinstance(step, dict)
    ]
    if len(steps) != len(listed) or not steps or steps[0][0] != "Transformer":
        raise FormatError(
            f"modules.json of {checkpoint.path} does not begin with a Transformer; give a sentence"
            " encoder that does"
        )
    return steps


def _encoder(checkpoint: Checkpoint) -> Checkpoint | None:
    """The folder of the encoder itself; None where it is not there."""
    steps = _modules(checkpoint)
    if not checkpoint.path.is_dir():
        return None
    folder = inside(checkpoint.folder, steps[0][1]) if steps and steps[0][1] else checkpoint.path
    return Checkpoint(folder) if folder.is_dir() else None


def _recipe(checkpoint: Checkpoint, options: Options) -> _Recipe:
    encoder = _encoder(checkpoint)
    if encoder is None:
        raise FormatError(f"{checkpoint.path} has no folder of its encoder; copy it anew")
    modes: tuple[PoolMode, ...] = ("mean",)
    unit = False
    dense: list[_Dense] = []
    weights: list[Mapping[str, Tensor]] = []
    steps = _modules(checkpoint)
    source = "modules.json" if steps else "no modules.json says it"
    for kind, folder in steps[1:]:
        if kind == "Pooling" and not dense and not unit:
            modes = _modes(checkpoint.json(f"{folder}/config.json"), checkpoint)
        elif kind == "Normalize":
            unit = True
        elif kind == "Dense" and not unit:
            dense.append(_dense(checkpoint.json(f"{folder}/config.json"), checkpoint))
            weights.append(read_weights(Checkpoint(inside(checkpoint.folder, folder)))[0])
        else:
            raise FormatError(
                f"modules.json of {checkpoint.path} asks for {kind} after {len(dense)} dense"
                " layers, which cannot be done here; needed Pooling, then Dense, then Normalize"
            )
    if "pooling" in options.values:
        modes, source = (cast(PoolMode, options.choice("pooling", "", _MODES)),), "as asked for"
    return _Recipe(encoder, modes, unit, tuple(dense), tuple(weights), source)


def _modes(said: Mapping[str, Any], checkpoint: Checkpoint) -> tuple[PoolMode, ...]:
    keys = {"cls": "cls_token", "max": "max_tokens", "mean": "mean_tokens",
            "mean_sqrt_len": "mean_sqrt_len_tokens", "weightedmean": "weightedmean_tokens",
            "lasttoken": "lasttoken"}  # fmt: skip
    found = [mode for mode in _MODES if said.get(f"pooling_mode_{keys[mode]}")]
    named = said.get("pooling_mode")
    found = found or ([named] if isinstance(named, str) else list(named or []))
    if not found or not set(found) <= set(_MODES):
        raise FormatError(
            f"{checkpoint.path} pools its tokens in no way that is known ({found or 'none named'});"
            " ask for one with the option pooling"
        )
    return tuple(cast(PoolMode, mode) for mode in found)


def _dense(said: Mapping[str, Any], checkpoint: Checkpoint) -> _Dense:
    activation = str(said.get("activation_function", "")).rpartition(".")[2]
    width, to = said.get("in_features"), said.get("out_features")
    sizes = [n for n in (width, to) if isinstance(n, int) and 1 <= n <= _WIDTH]
    if activation not in _ACTIVATIONS or len(sizes) < 2:
        raise FormatError(
            f"{checkpoint.path} has a Dense layer from {width} to {to} with '{activation}'; needed"
            f" two sizes and one of {', '.join(_ACTIVATIONS)}"
        )
    return _Dense(sizes[0], sizes[1], bool(said.get("bias", True)), activation)


def _fill(module: SentenceNetwork, recipe: _Recipe, checkpoint: Checkpoint) -> None:
    for dense, tensors in zip(module.dense, recipe.weights, strict=True):
        try:
            dense.load_state_dict({k.replace("linear.", "0."): v for k, v in tensors.items()})
        except RuntimeError as error:
            reason = str(error).splitlines()[-1].strip()
            raise FormatError(
                f"{checkpoint.path} has a Dense layer of other weights ({reason}); copy it anew"
            ) from None


def _limits(checkpoint: Checkpoint, config: Any, kind: str) -> tuple[int, bool]:
    """Tokens that a sentence is cut to, and whether it is put in small letters first."""
    said = next((checkpoint.json(name) for name in _BERT_CONFIGS if checkpoint.has(name)), {})
    places = int(getattr(config, "max_position_embeddings", 512))
    places -= int(config.pad_token_id or 0) + 1 if kind in _SHIFTED else 0
    longest = said.get("max_seq_length")
    if not isinstance(longest, int) and checkpoint.has("tokenizer_config.json"):
        longest = checkpoint.json("tokenizer_config.json").get("model_max_length")
    longest = longest if isinstance(longest, int) and longest > 2 else places
    return max(3, min(longest, places)), bool(said.get("do_lower_case", False))


def _widths(module: SentenceNetwork, words: Words, checkpoint: Checkpoint) -> dict[str, int]:
    """Channels of every layer, from one sentence."""
    found: dict[str, int] = {}
    handles = [
        layer.register_forward_hook(
            lambda _layer, _given, output, name=name: found.__setitem__(name, output.shape[-1])
        )
        for name, layer in module.layers.items()
    ]
    try:
        with torch.no_grad():
            module(*words(["open the door"]), torch.zeros(1, dtype=torch.long))
    except MirrorError:
        raise
    except Exception as error:  # a network raises whatever the numbers of its config lead to
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise FormatError(
            f"{checkpoint.path} does not run on its own tokens ({reason}); copy its files anew, all"
            " of one version"
        ) from None
    finally:
        for handle in handles:
            handle.remove()
    return found

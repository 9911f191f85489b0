"""OpenVLA folders, without the code they bring."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mirror_analysis.errors import FormatError, MirrorError
from mirror_analysis.files.digests import content_digest
from mirror_analysis.models.checkpoint import Checkpoint, Options
from mirror_analysis.models.model import EpisodeLike, ExecutionModel, Input, LayerInfo
from mirror_analysis.models.openvla.config import (
    Config,
    Processor,
    Range,
    Words,
    action_range,
    instructions,
    measured,
)
from mirror_analysis.models.openvla.network import OpenVLANetwork
from mirror_analysis.models.preparation import Preparation
from mirror_analysis.models.transformers.files import read_weights
from mirror_analysis.models.weights.fitting import fitted

SUMMARY = "OpenVLA folders: DINOv2 and SigLIP, a projector, Llama and actions as tokens"
OPTIONS: Mapping[str, str] = {
    "dataset": "whose statistics give actions their unit (the only one there is)",
}

_EYES = {"dinov2", "dinosiglip", "in1k", "siglip"}
# Of the picture encoders what comes after the last block but one.
_UNUSED = re.compile(
    r"vision_backbone\.(fused_)?featurizer\.(norm|attn_pool|fc_norm|blocks\.\d+)\..*"
    r"|.*\.rotary_emb\.inv_freq"
)


def recognise(checkpoint: Checkpoint) -> str | None:
    """What it is, if it is a folder of OpenVLA."""
    try:
        config = checkpoint.config if checkpoint.kind == "folder" else {}
    except (MirrorError, OSError):
        return None
    if config.get("model_type") != "openvla" or not isinstance(config.get("norm_stats"), dict):
        return None
    return f"OpenVLA with actions of {len(config['norm_stats'])} data sets"


@final
class Unit(nn.Module):
    """From actions between -1 and 1 to the robot's; its tensors are buffers."""

    low: Tensor
    high: Tensor
    scaled: Tensor

    def __init__(self, given: Range) -> None:
        super().__init__()
        mask = [True] * len(given.q01) if given.mask is None else given.mask
        self.register_buffer("low", torch.tensor(given.q01))
        self.register_buffer("high", torch.tensor(given.q99))
        self.register_buffer("scaled", torch.tensor(mask))

    def forward(self, x: Tensor) -> Tensor:
        """[..., action]."""
        return torch.where(self.scaled, (x + 1) / 2 * (self.high - self.low) + self.low, x)


class OpenVLA(ExecutionModel):
    """A policy that acts from one picture and the instruction.

    Args:
        network: in evaluation mode.
        unit: of actions.
        prepare: of each picture encoder.
        words: instructions to tokens, and which of them are there.
        name: what to call it.
        calls: rule for the layers of the language model.
        rebuild: a network of this architecture with weights drawn anew.
        facts: what its files say of it.
        settings: what decides its features.
    """

    framewise = True
    needs = (Input("camera", note="third person"), Input("instruction", note="what to do"))

    def __init__(
        self,
        network: OpenVLANetwork,
        *,
        unit: Unit,
        prepare: Sequence[Preparation],
        words: Words,
        name: str,
        calls: str,
        rebuild: Callable[[], OpenVLANetwork],
        facts: Mapping[str, str],
        settings: Mapping[str, str],
    ) -> None:
        self.name, self.facts, self.settings = name, facts, settings
        self.network, self.unit, self.prepare, self.words = network, unit, prepare, words
        self.module = nn.ModuleDict({"network": network, "unit": unit})
        self._calls, self._rebuild = calls, rebuild
        self._structure = network.structure(calls=calls)

    def layers(self) -> list[LayerInfo]:
        """Blocks of the picture encoders, the projector, blocks of Llama, the action."""
        return list(self._structure.layers)

    def taps(self) -> Mapping[str, nn.Module]:
        """Layer name -> module."""
        return self._structure.taps

    def forward_batch(self, episodes: Sequence[EpisodeLike]) -> Tensor:
        """Actions [episode, time, action] in the robot's units."""
        pictures = np.concatenate([episode.stream("camera") for episode in episodes])
        asked = np.concatenate([episode.stream("instruction") for episode in episodes])
        return self._acted(pictures, asked).reshape(len(episodes), -1, self.network.sizes.actions)

    @torch.inference_mode()
    def act(self, now: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """The action of this moment, [environment, action] in the robot's units."""
        found: NDArray[np.float32] = self._acted(now["camera"], now["instruction"]).cpu().numpy()
        return found

    def untrained(self, seed: int) -> OpenVLA:
        """The same architecture with weights drawn anew; it knows the same words and units."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = self._rebuild().eval().requires_grad_(False)
        return OpenVLA(
            network.to(self.device),
            unit=self.unit,
            prepare=self.prepare,
            words=self.words,
            name=f"{self.name}-untrained{seed}",
            calls=self._calls,
            rebuild=self._rebuild,
            facts=self.facts,
            settings=self.settings,
        )

    def _acted(self, pictures: NDArray[Any], asked: Sequence[Any] | NDArray[Any]) -> Tensor:
        tokens, there = self.words([str(text) for text in asked])
        seen = [prepare(pictures).to(self.device) for prepare in self.prepare]
        action = self.network(seen, tokens.to(self.device), there.to(self.device))
        found: Tensor = self.unit(action)
        return found


def load(checkpoint: Checkpoint, *, name: str, options: Options) -> OpenVLA:
    """Reads a policy; its weights are kept in float32.

    Args:
        checkpoint: the folder.
        name: what to call it.
        options: see OPTIONS.

    Raises:
        FormatError: if it is damaged, or of an architecture that is not read.
        MissingFileError: if a file is not there.
        DefinitionError: if it has units of several data sets and none is chosen.
        UnknownNameError: if it has no unit of that data set.
    """
    path = checkpoint.path
    try:
        config = msgspec.convert(checkpoint.json("config.json"), Config)
        processor = msgspec.convert(checkpoint.json("preprocessor_config.json"), Processor)
    except msgspec.ValidationError as error:
        raise FormatError(
            f"{path} does not describe an OpenVLA that is read: {error}; fetch it anew"
        ) from None
    if config.vision_backbone_id.partition("-")[0] not in _EYES:
        raise FormatError(
            f"{path} looks with {config.vision_backbone_id[:80]}; needed one of"
            f" {', '.join(sorted(_EYES))}, which are read"
        )
    dataset, given = action_range(config, options.text("dataset"), checkpoint)
    weights, stored = read_weights(checkpoint)
    shapes = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    sizes = measured(shapes, config, len(given.q01), path)
    if len(processor.input_sizes) != len(sizes.vision) or any(
        len(part) != len(sizes.vision)
        for part in (processor.means, processor.stds, processor.interpolations)
    ):
        raise FormatError(
            f"{path}/preprocessor_config.json prepares {len(processor.input_sizes)} pictures for"
            f" {len(sizes.vision)} picture encoders; fetch it anew"
        )

    def build() -> OpenVLANetwork:
        return OpenVLANetwork(sizes)

    network = fitted(build, weights, path=path, unused=_UNUSED)
    return OpenVLA(
        network,
        unit=Unit(given),
        prepare=[
            Preparation(size=size[1:], filter=filter_, mean=mean, std=std)
            for size, filter_, mean, std in zip(
                processor.input_sizes,
                processor.interpolations,
                processor.means,
                processor.stds,
                strict=True,
            )
        ],
        words=instructions(checkpoint, config, sizes.vocabulary),
        name=name,
        calls=options.calls,
        rebuild=build,
        facts={
            "family": "OpenVLA",
            "architecture": f"{config.vision_backbone_id}, Llama of {sizes.language.layers} blocks",
            "normalisation": f"actions by the quantiles of {dataset}",
            "weights": stored,
        },
        settings={
            "dataset": dataset,
            "calls": options.calls,
            "words": content_digest(checkpoint.file("tokenizer.json"))[:16],
        },
    )

"""pi0: PaliGemma, and an expert of Gemma's blocks that reads it.

Black et al., "pi0: A Vision-Language-Action Flow Model for General Robot Control", 2024.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, final

import msgspec
import torch
from torch import Tensor
from torch.nn import functional as F

from mirror_analysis.errors import FormatError
from mirror_analysis.models.checkpoint import Options
from mirror_analysis.models.lerobot.flow import Flow, FlowPlan, FlowSizes
from mirror_analysis.models.lerobot.flow_sizes import Heads, Names, heads, measured
from mirror_analysis.models.lerobot.folder import STATE, WEIGHTS, PolicyFolder
from mirror_analysis.models.lerobot.language import (
    LanguagePolicy,
    backbone,
    instructions,
    labels,
    load_language_policy,
    shapes,
    watched,
)

Count = Annotated[int, msgspec.Meta(ge=1, le=4096)]
Pixels = Annotated[int, msgspec.Meta(ge=1, le=4096)]
Steps = Annotated[int, msgspec.Meta(ge=1, le=1000)]

_PALIGEMMA = "google/paligemma-3b-pt-224"
_VLM = "paligemma_with_expert.paligemma."
_NAMES = Names(
    (
        (f"{_VLM}model.vision_tower.vision_model.", "vision."),
        (f"{_VLM}model.vision_tower.", "vision."),
        (f"{_VLM}model.multi_modal_projector.linear.", "projector."),
        (f"{_VLM}model.language_model.", "language."),
        (f"{_VLM}lm_head.", "language.lm_head."),
        # As versions before 0.4 wrote them.
        (f"{_VLM}vision_tower.vision_model.", "vision."),
        (f"{_VLM}multi_modal_projector.linear.", "projector."),
        (f"{_VLM}language_model.model.", "language."),
        (f"{_VLM}language_model.lm_head.", "language.lm_head."),
        ("paligemma_with_expert.gemma_expert.model.", "expert."),
        ("paligemma_with_expert.gemma_expert.lm_head.", "expert.lm_head."),
        ("time_mlp_", "action_time_mlp_"),
    )
)
_USUAL = Heads(256, 1e-6, None, "heads of 256 numbers, as in PaliGemma")


class Config(msgspec.Struct, frozen=True):
    """The hyperparameters that decide what it computes, with LeRobot's defaults.

    `resize_imgs_with_padding` and `num_steps` are of versions before 0.4, whose pictures are
    padded otherwise.
    """

    chunk_size: Count = 50
    n_action_steps: Count = 50
    n_obs_steps: Literal[1] = 1
    image_resolution: tuple[Pixels, Pixels] = (224, 224)
    resize_imgs_with_padding: tuple[Pixels, Pixels] | None = None
    adapt_to_pi_aloha: Literal[False] = False
    use_delta_joint_actions_aloha: Literal[False] = False
    tokenizer_max_length: Count = 48
    num_inference_steps: Steps = 10
    num_steps: Steps | None = None
    min_period: Annotated[float, msgspec.Meta(gt=0)] = 4e-3
    max_period: Annotated[float, msgspec.Meta(gt=0)] = 4.0


def load(folder: PolicyFolder, *, name: str, options: Options) -> LanguagePolicy:
    """Loads a pi0 policy.

    Args:
        folder: where it lies.
        name: what to call it.
        options: see the OPTIONS of the family.

    Raises:
        FormatError: if the folder is damaged, or lacks normalisation statistics.
        MissingFileError: if there is no tokenizer.
    """
    config, folder = folder.hyperparameters(Config), watched(folder)
    path = folder.checkpoint.file(WEIGHTS)
    source = backbone(folder, options, _PALIGEMMA)
    how = heads(source, _USUAL)
    there = shapes(folder, _NAMES)
    sizes = measured(there, how, kind="gemma", crossed=lambda i: False, path=path)
    pixels = config.resize_imgs_with_padding or config.image_resolution
    if sizes.language.layers != sizes.expert.layers or sizes.merged != 1:
        raise FormatError(
            f"{path} has {sizes.language.layers} blocks of the language model and"
            f" {sizes.expert.layers} of the expert; needed as many, so fetch it anew"
        )
    if pixels != (sizes.vision.side * sizes.vision.patch,) * 2:
        raise FormatError(
            f"{folder.checkpoint.path}/config.json has pictures of {pixels[0]} x {pixels[1]} pixels"
            f" where the weights take {sizes.vision.side * sizes.vision.patch} a side; fetch it"
            " anew"
        )
    words = instructions(source, longest=config.tokenizer_max_length, vocabulary=sizes.vocabulary)
    return load_language_policy(
        folder,
        lambda: PI0(config, folder, sizes),
        name=name,
        options=options,
        names=_NAMES,
        words=words,
        facts={
            "architecture": f"pi0 on PaliGemma, {sizes.language.layers} blocks, chunks of"
            f" {config.chunk_size} actions",
            "heads": how.source,
        },
    )


@final
class PI0(Flow):
    """In every block the expert attends to itself and the language model.

    Args:
        config: its hyperparameters.
        folder: what it reads and gives.
        sizes: of its parts.
    """

    def __init__(self, config: Config, folder: PolicyFolder, sizes: FlowSizes) -> None:
        plan = FlowPlan(
            config.chunk_size,
            config.n_action_steps,
            config.num_steps or config.num_inference_steps,
            (config.min_period, config.max_period),
            folder.action.shape[0],
        )
        state = folder.inputs[STATE].shape[0] if STATE in folder.inputs else 0
        super().__init__(sizes, plan, views=labels(folder), state=state, into="expert")
        self.config = config

    def prepared(self, pictures: Tensor) -> Tensor:
        """Resized with margins, from -1 to 1.

        The margins are -1 before that and -3 after it, as in LeRobot; before its version 0.4 they
        were black, and at the left and top alone.
        """
        old = self.config.resize_imgs_with_padding
        pixels = old or self.config.image_resolution
        if tuple(pictures.shape[2:]) == pixels:
            return pictures * 2.0 - 1.0
        height, width = pixels
        before = pictures.shape[2:]
        ratio = max(before[1] / width, before[0] / height)
        size = int(before[0] / ratio), int(before[1] / ratio)
        small = F.interpolate(pictures, size, mode="bilinear", align_corners=False)
        down, across = height - size[0], width - size[1]
        if old is not None:
            padded = F.pad(small, (across, 0, down, 0))
        else:
            margins = (across // 2, across - across // 2, down // 2, down - down // 2)
            padded = F.pad(small, margins, value=-1.0)
        return padded * 2.0 - 1.0

    def prefix(
        self, images: Sequence[Tensor], words: Tensor, there: Tensor, state: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Pictures and words, all of which see each other."""
        x = torch.cat([*images, words], 1)
        there = F.pad(there, (x.shape[1] - words.shape[1], 0), value=True)
        return x, there, torch.zeros(x.shape[1], dtype=torch.long, device=x.device)

    def suffix(self, actions: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """The state, then actions, all of which see each other and the state."""
        x = torch.cat([state[:, None], actions], 1)
        blocks = torch.ones(x.shape[1], dtype=torch.long, device=x.device)
        blocks[0] = 0
        return x, blocks

    def attends(self, block: int) -> Literal["past", "all"] | None:
        """To everything."""
        return "all"

"""SmolVLA: SmolVLM2's first blocks, and an expert that reads them.

Shukor et al., "SmolVLA: A Vision-Language-Action Model for Affordable and Efficient Robotics",
2025.
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

_NAMES = Names(
    (
        ("vlm_with_expert.vlm.model.vision_model.", "vision."),
        ("vlm_with_expert.vlm.model.connector.modality_projection.proj.", "projector."),
        ("vlm_with_expert.vlm.model.text_model.", "language."),
        ("vlm_with_expert.vlm.lm_head.", "language.lm_head."),
        ("vlm_with_expert.lm_expert.", "expert."),
    )
)
_USUAL = Heads(64, 1e-5, None, "heads of 64 numbers, as in SmolVLM2")
_MARKS = ("<fake_token_around_image>", "<global-img>")


class Config(msgspec.Struct, frozen=True):
    """The hyperparameters that decide what it computes, with LeRobot's defaults."""

    chunk_size: Count = 50
    n_action_steps: Count = 50
    n_obs_steps: Literal[1] = 1
    resize_imgs_with_padding: tuple[Pixels, Pixels] | None = (512, 512)
    adapt_to_pi_aloha: Literal[False] = False
    use_delta_joint_actions_aloha: Literal[False] = False
    tokenizer_max_length: Count = 48
    num_steps: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 10
    vlm_model_name: str = "HuggingFaceTB/SmolVLM2-500M-Video-Instruct"
    add_image_special_tokens: bool = False
    attention_mode: str = "cross_attn"
    self_attn_every_n_layers: int = 2
    min_period: Annotated[float, msgspec.Meta(gt=0)] = 4e-3
    max_period: Annotated[float, msgspec.Meta(gt=0)] = 4.0


def load(folder: PolicyFolder, *, name: str, options: Options) -> LanguagePolicy:
    """Loads a SmolVLA policy.

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
    source = backbone(folder, options, config.vlm_model_name)
    every, cross = config.self_attn_every_n_layers, "cross" in config.attention_mode

    def crossed(i: int) -> bool:
        return cross and not (every > 0 and i % every == 0)

    how = heads(source, _USUAL)
    sizes = measured(shapes(folder, _NAMES), how, kind="llama", crossed=crossed, path=path)
    if sizes.language.layers % sizes.expert.layers:
        raise FormatError(
            f"{path} has {sizes.language.layers} blocks of the language model and"
            f" {sizes.expert.layers} of the expert; needed a multiple, so fetch it anew"
        )
    if config.n_action_steps > config.chunk_size or not folder.views:
        raise FormatError(
            f"{folder.checkpoint.path}/config.json has no camera, or takes"
            f" {config.n_action_steps} of {config.chunk_size} planned actions; fetch it anew"
        )
    words = instructions(source, longest=config.tokenizer_max_length, vocabulary=sizes.vocabulary)
    marks = None
    if config.add_image_special_tokens:
        first, second = (words.token(mark) for mark in _MARKS)
        marks = (first, second)
    return load_language_policy(
        folder,
        lambda: SmolVLA(config, folder, sizes, marks),
        name=name,
        options=options,
        names=_NAMES,
        words=words,
        facts={
            "architecture": f"SmolVLA on {config.vlm_model_name}, {sizes.language.layers} blocks,"
            f" chunks of {config.chunk_size} actions",
            "heads": how.source,
        },
    )


@final
class SmolVLA(Flow):
    """The expert attends by turns to itself and the language model, and to the latter alone.

    Args:
        config: its hyperparameters.
        folder: what it reads and gives.
        sizes: of its parts.
        marks: tokens around pictures, and at the start of one; None for none.
    """

    def __init__(
        self,
        config: Config,
        folder: PolicyFolder,
        sizes: FlowSizes,
        marks: tuple[int, int] | None,
    ) -> None:
        plan = FlowPlan(
            config.chunk_size,
            config.n_action_steps,
            config.num_steps,
            (config.min_period, config.max_period),
            folder.action.shape[0],
        )
        state = folder.inputs[STATE].shape[0] if STATE in folder.inputs else 0
        super().__init__(sizes, plan, views=labels(folder), state=state, into="language")
        self.config, self.marks = config, marks

    def prepared(self, pictures: Tensor) -> Tensor:
        """Resized, black at their left and top, from -1 to 1."""
        if self.config.resize_imgs_with_padding is not None:
            width, height = self.config.resize_imgs_with_padding
            pictures = _padded(pictures, height, width)
        return pictures * 2.0 - 1.0

    def prefix(
        self, images: Sequence[Tensor], words: Tensor, there: Tensor, state: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Pictures, words, then the state, which those before do not see."""
        rows, parts = len(words), []
        for image in images:
            image = image * image.shape[-1] ** 0.5
            if self.marks is not None:
                around, start = self.marks
                tokens = torch.tensor([around, start], device=image.device)
                marks = self.language.words(tokens).expand(rows, -1, -1)
                image = torch.cat([marks, image, marks[:, :1]], 1)
            parts.append(image)
        seen = sum(part.shape[1] for part in parts)
        x = torch.cat([*parts, words, state[:, None]], 1)
        there = F.pad(F.pad(there, (seen, 0), value=True), (0, 1), value=True)
        blocks = torch.zeros(x.shape[1], dtype=torch.long, device=x.device)
        blocks[-1] = 1
        return x, there, blocks

    def suffix(self, actions: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Actions, each of which sees those before it."""
        return actions, torch.arange(actions.shape[1], device=actions.device)

    def attends(self, block: int) -> Literal["past", "all"] | None:
        """To the language model, every so many blocks to the other actions, too."""
        if block % (self.sizes.language.layers // self.sizes.expert.layers):
            return None
        every = self.config.self_attn_every_n_layers
        both = "cross" not in self.config.attention_mode or (every > 0 and block % every == 0)
        return "all" if both else "past"


def _padded(pictures: Tensor, height: int, width: int) -> Tensor:
    before = pictures.shape[2:]
    ratio = max(before[1] / width, before[0] / height)
    size = int(before[0] / ratio), int(before[1] / ratio)
    small = F.interpolate(pictures, size, mode="bilinear", align_corners=False)
    return F.pad(small, (max(0, width - size[1]), 0, max(0, height - size[0]), 0))

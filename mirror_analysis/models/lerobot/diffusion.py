"""Diffusion Policy under LeRobot's parameter names.

Chi et al., "Diffusion Policy: Visuomotor Policy Learning via Action Diffusion", 2023.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, cast, final

import msgspec
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mirror_analysis.errors import DefinitionError, FormatError
from mirror_analysis.models.checkpoint import Options
from mirror_analysis.models.lerobot.folder import ENVIRONMENT, STATE, PolicyFolder
from mirror_analysis.models.lerobot.network import TOKENS, VECTOR, Network, generator, listed
from mirror_analysis.models.lerobot.noise import Betas, Kind, Predicted, Schedule
from mirror_analysis.models.lerobot.policy import LeRobotPolicy, load_policy
from mirror_analysis.models.lerobot.unet import UNet
from mirror_analysis.models.lerobot.vision import (
    PictureEncoder,
    Watched,
    encoder_axes,
    watched_encoder,
)
from mirror_analysis.models.model import LayerInfo
from mirror_analysis.models.structure.discovery import Structure

Count = Annotated[int, msgspec.Meta(ge=1, le=1024)]
Width = Annotated[int, msgspec.Meta(ge=1, le=65536)]
Side = Annotated[int, msgspec.Meta(ge=1, le=8192)]
Steps = Annotated[int, msgspec.Meta(ge=1, le=10000)]

# Every tensor of a Diffusion Policy is used when it acts.
_NONE = re.compile(r"(?!)")
_NOISE = 2**23  # numbers that one frame may take; published policies take some 20 thousand


class Config(msgspec.Struct, frozen=True):
    """The hyperparameters that decide what the policy computes, with LeRobot's defaults."""

    n_obs_steps: Annotated[int, msgspec.Meta(ge=1, le=64)] = 2
    horizon: Count = 16
    n_action_steps: Count = 8
    vision_backbone: str = "resnet18"
    resize_shape: tuple[Side, Side] | None = None
    crop_ratio: float = 1.0
    crop_shape: tuple[Side, Side] | None = None
    use_group_norm: bool = True
    spatial_softmax_num_keypoints: Count = 32
    use_separate_rgb_encoder_per_camera: bool = False
    down_dims: Annotated[tuple[Width, ...], msgspec.Meta(min_length=1, max_length=8)] = (
        512,
        1024,
        2048,
    )
    kernel_size: Annotated[int, msgspec.Meta(ge=1, le=63)] = 5
    n_groups: Count = 8
    diffusion_step_embed_dim: Annotated[int, msgspec.Meta(ge=4, le=8192)] = 128
    use_film_scale_modulation: bool = True
    noise_scheduler_type: Kind = "DDPM"
    num_train_timesteps: Steps = 100
    beta_schedule: Betas = "squaredcos_cap_v2"
    beta_start: float = 0.0001
    beta_end: float = 0.02
    prediction_type: Predicted = "epsilon"
    clip_sample: bool = True
    clip_sample_range: float = 1.0
    num_inference_steps: Steps | None = None

    @property
    def crop(self) -> tuple[int, int] | None:
        """(height, width) that is cut out; a share of the size that pictures are resized to."""
        if self.resize_shape is None:
            return self.crop_shape
        if self.crop_ratio >= 1:
            return None
        height, width = self.resize_shape
        return int(height * self.crop_ratio), int(width * self.crop_ratio)

    def schedule(self, steps: int) -> Schedule:
        """How noise is taken out in so many steps."""
        return Schedule(
            self.noise_scheduler_type,
            trained=self.num_train_timesteps,
            steps=steps,
            betas=self.beta_schedule,
            beta_start=self.beta_start,
            beta_end=self.beta_end,
            predicted=self.prediction_type,
            clip=self.clip_sample_range if self.clip_sample else None,
        )


def load(folder: PolicyFolder, *, name: str, options: Options) -> LeRobotPolicy:
    """Loads a Diffusion Policy.

    Args:
        folder: where it lies.
        name: what to call it.
        options: see the OPTIONS of the family.

    Raises:
        FormatError: if the folder is damaged, or lacks normalisation statistics.
        DefinitionError: if more steps are asked for than it was trained with.
    """
    config = folder.hyperparameters(Config)
    _check(config, folder)
    trained = config.num_train_timesteps
    steps = options.count("steps", config.num_inference_steps or trained)
    if steps > trained:
        raise DefinitionError(
            f"option steps is {steps}; {folder.checkpoint.path} was trained with {trained}, so"
            f" ask for {trained} or fewer"
        )
    schedule = config.schedule(steps)
    return load_policy(
        folder,
        lambda: Diffusion(config, folder, schedule),
        name=name,
        options=options,
        prefix="diffusion",
        unused=_NONE,
        facts={"architecture": f"Diffusion Policy, {schedule.kind} in {steps} of {trained} steps"},
        settings={"denoising": f"{schedule.kind}, {steps} steps"},
    )


def _check(config: Config, folder: PolicyFolder) -> None:
    where = f"{folder.checkpoint.path}/config.json"
    if STATE not in folder.inputs or not (folder.views or folder.environment):
        raise FormatError(
            f"{where} has not both {STATE} and a picture or {ENVIRONMENT} among its"
            " input_features; Diffusion Policy needs them"
        )
    if len({view.shape for view in folder.views}) > 1:
        raise FormatError(f"{where} has pictures of several shapes; Diffusion Policy needs one")
    if config.horizon % 2 ** len(config.down_dims) or (
        config.n_action_steps > config.horizon - config.n_obs_steps + 1
    ):
        raise FormatError(
            f"{where} has a horizon of {config.horizon}, {len(config.down_dims)} resolutions and"
            f" {config.n_action_steps} action steps; needed a multiple of 2 to the number of"
            " resolutions that holds these steps after what is observed"
        )
    if any(width % config.n_groups or width % 8 for width in config.down_dims):
        raise FormatError(
            f"{where} has down_dims {list(config.down_dims)}; needed multiples of 8 and of the"
            f" {config.n_groups} groups"
        )
    if config.num_inference_steps and config.num_inference_steps > config.num_train_timesteps:
        raise FormatError(
            f"{where} has {config.num_inference_steps} inference steps; needed at most the"
            f" {config.num_train_timesteps} of training"
        )
    noise = config.num_train_timesteps * config.horizon * folder.action.shape[0]
    if noise > _NOISE:
        raise FormatError(
            f"{where} has {config.num_train_timesteps} steps of noise for {config.horizon} actions"
            f" of {folder.action.shape[0]} numbers; needed at most {_NOISE} numbers in all"
        )
    if config.diffusion_step_embed_dim % 2:
        raise FormatError(f"{where} has an odd diffusion_step_embed_dim; needed an even one")


@final
class Diffusion(Network):
    """From what was seen in the last frames to a sequence of actions, out of noise.

    Args:
        config: its hyperparameters.
        folder: what it reads and gives.
        schedule: how noise is taken out.
    """

    def __init__(self, config: Config, folder: PolicyFolder, schedule: Schedule) -> None:
        super().__init__()
        self.config, self.schedule = config, schedule
        self.history, self.executed = config.n_obs_steps, config.n_action_steps
        self.views = {view.key: folder.streams[view.key] for view in folder.views}
        self.environment = ENVIRONMENT if folder.environment else ""
        width = folder.inputs[STATE].shape[0]
        width += folder.environment.shape[0] if folder.environment else 0
        self.widths: dict[str, int] = {}
        if self.views:
            _, height, breadth = folder.views[0].shape
            count = len(self.views) if config.use_separate_rgb_encoder_per_camera else 1
            encoders = [
                PictureEncoder(
                    (height, breadth),
                    backbone=config.vision_backbone,
                    grouped=config.use_group_norm,
                    points=config.spatial_softmax_num_keypoints,
                    resize=config.resize_shape,
                    crop=config.crop,
                )
                for _ in range(count)
            ]
            separate = config.use_separate_rgb_encoder_per_camera
            self.rgb_encoder = nn.ModuleList(encoders) if separate else encoders[0]
            self.widths = encoders[0].widths
            width += encoders[0].width * len(self.views)
        self.actions = folder.action.shape[0]
        self.condition_width = width * config.n_obs_steps
        self.unet = UNet(
            self.actions,
            condition=self.condition_width,
            widths=config.down_dims,
            kernel=config.kernel_size,
            groups=config.n_groups,
            waves=config.diffusion_step_embed_dim,
            scaled=config.use_film_scale_modulation,
        )
        self.watched = nn.ModuleList([watched_encoder() for _ in self.views])
        self.condition, self.action = nn.Identity(), nn.Identity()

    def forward(
        self,
        seen: Mapping[str, Tensor],
        past: Int[Tensor, "row history"],
        chance: Tensor | None,
    ) -> Float[Tensor, "row step action"]:
        """The actions of the horizon from this moment on; those before it are left out."""
        condition = self.condition(self._observed(seen)[past].flatten(1))
        shape = (len(past), self.schedule.draws, self.config.horizon, self.actions)
        noise = torch.zeros(shape) if chance is None else chance
        noise = noise.to(condition)
        x = noise[:, 0]
        for i, time in enumerate(self.schedule.times, start=1):
            at = torch.full((len(past),), time, dtype=torch.long, device=condition.device)
            output = self.unet(x, at, condition)
            new = noise[:, i] if i < noise.shape[1] else None
            x = self.schedule.step(output, x, time, new)
        x = self.action(x)
        return x[:, self.history - 1 :]

    def chance(self, seed: int) -> Tensor:
        """[draw, step, action] normal noise: where it starts, and what each step adds."""
        shape = (self.schedule.draws, self.config.horizon, self.actions)
        return torch.randn(shape, generator=generator(seed))

    def structure(self, *, calls: str) -> Structure:
        """What is seen, the condition, blocks of the U-Net by the rule, the actions."""
        return listed(self._entries(calls))

    def _entries(self, calls: str) -> Iterator[tuple[LayerInfo, nn.Module]]:
        for camera, watched in zip(self.views.values(), self.watched, strict=True):
            label = camera.partition(":")[2] if len(self.views) > 1 else ""
            yield from cast(Watched, watched).layers(label, self.widths, encoder_axes())
        kind = f"all that was seen in {self.history} frames"
        yield LayerInfo("condition", self.condition_width, VECTOR, kind), self.condition
        yield from self.unet.layers(calls)
        yield LayerInfo("action", self.actions, TOKENS, "sequence of actions"), self.action

    def _observed(self, seen: Mapping[str, Tensor]) -> Float[Tensor, "frame feature"]:
        """State, pictures and environment of each frame."""
        parts = [seen[STATE]]
        for i, (key, watched) in enumerate(zip(self.views, self.watched, strict=True)):
            encoder = self._encoder(i)
            parts.append(watched(seen[key], encoder.stages, resize=encoder.resize))
        parts += [seen[self.environment]] if self.environment else []
        return torch.cat(parts, dim=-1)

    def _encoder(self, view: int) -> PictureEncoder:
        """The encoder of a view: its own, or the one for all."""
        path = (
            f"rgb_encoder.{view}"
            if self.config.use_separate_rgb_encoder_per_camera
            else ("rgb_encoder")
        )
        return cast(PictureEncoder, self.get_submodule(path))

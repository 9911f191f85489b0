"""ACT, the action chunking transformer, under LeRobot's parameter names.

Zhao et al., "Learning Fine-Grained Bimanual Manipulation with Low-Cost Hardware", 2023. The
encoder of its variational training is left out: when it acts, the latent is 0.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Literal, cast, final

import msgspec
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from mirror_analysis.errors import FormatError
from mirror_analysis.models.checkpoint import Options
from mirror_analysis.models.lerobot.folder import ENVIRONMENT, STATE, PolicyFolder
from mirror_analysis.models.lerobot.network import MAP, TOKENS, VECTOR, Network, listed
from mirror_analysis.models.lerobot.policy import LeRobotPolicy, load_policy
from mirror_analysis.models.lerobot.resnet import FrozenNorm, resnet
from mirror_analysis.models.lerobot.vision import STAGES, Watched
from mirror_analysis.models.model import LayerInfo
from mirror_analysis.models.structure.discovery import Structure

Count = Annotated[int, msgspec.Meta(ge=1, le=256)]
Width = Annotated[int, msgspec.Meta(ge=1, le=65536)]

# Tensors that only training takes.
_TRAINING = re.compile(r"vae_encoder.*")


class Config(msgspec.Struct, frozen=True):
    """The hyperparameters of ACT that decide what it computes, with LeRobot's defaults."""

    chunk_size: Annotated[int, msgspec.Meta(ge=1, le=4096)] = 100
    n_action_steps: Annotated[int, msgspec.Meta(ge=1, le=4096)] = 100
    n_obs_steps: Literal[1] = 1
    vision_backbone: str = "resnet18"
    replace_final_stride_with_dilation: bool | Literal[0, 1] = False
    pre_norm: bool = False
    dim_model: Width = 512
    n_heads: Count = 8
    dim_feedforward: Width = 3200
    feedforward_activation: Literal["relu", "gelu"] = "relu"
    n_encoder_layers: Count = 4
    n_decoder_layers: Count = 1
    latent_dim: Width = 32
    temporal_ensemble_coeff: float | None = None


def load(folder: PolicyFolder, *, name: str, options: Options) -> LeRobotPolicy:
    """Loads an ACT policy.

    Args:
        folder: where it lies.
        name: what to call it.
        options: see the OPTIONS of the family.

    Raises:
        FormatError: if the folder is damaged, or lacks normalisation statistics.
    """
    config = folder.hyperparameters(Config)
    if config.dim_model % (2 * config.n_heads) or config.dim_model % 4:
        raise FormatError(
            f"{folder.checkpoint.path}/config.json has dim_model {config.dim_model} and"
            f" {config.n_heads} heads; needed a width of even heads, so fetch it anew"
        )
    if not folder.views and folder.environment is None:
        raise FormatError(
            f"{folder.checkpoint.path}/config.json has neither a picture nor {ENVIRONMENT} among"
            " its input_features; ACT needs one of them"
        )
    return load_policy(
        folder,
        lambda: ACT(config, folder),
        name=name,
        options=options,
        prefix="model",
        unused=_TRAINING,
        facts={"architecture": f"ACT with chunks of {config.chunk_size} actions"},
    )


@final
class Attending(nn.Module):
    """A layer of the encoder: attention to itself, then two linear layers."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        width = config.dim_model
        self.self_attn = nn.MultiheadAttention(width, config.n_heads, batch_first=True)
        self.linear1 = nn.Linear(width, config.dim_feedforward)
        self.linear2 = nn.Linear(config.dim_feedforward, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.config = config

    def forward(self, x: Tensor, places: Tensor) -> Tensor:
        """[row, token, channel]; `places` is added to queries and keys."""
        before = self.config.pre_norm
        y = self.norm1(x) if before else x
        asked = y + places
        x = x + self.self_attn(asked, asked, y, need_weights=False)[0]
        x = x if before else self.norm1(x)
        y = self.norm2(x) if before else x
        x = x + self.linear2(_activated(self.config, self.linear1(y)))
        return x if before else self.norm2(x)


@final
class Deciding(nn.Module):
    """A layer of the decoder: attention to itself, to what the encoder gave, two linear layers."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        width = config.dim_model
        self.self_attn = nn.MultiheadAttention(width, config.n_heads, batch_first=True)
        self.multihead_attn = nn.MultiheadAttention(width, config.n_heads, batch_first=True)
        self.linear1 = nn.Linear(width, config.dim_feedforward)
        self.linear2 = nn.Linear(config.dim_feedforward, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.norm3 = nn.LayerNorm(width)
        self.config = config

    def forward(self, x: Tensor, given: Tensor, *, steps: Tensor, places: Tensor) -> Tensor:
        """[row, step, channel] from [row, token, channel] of the encoder."""
        before = self.config.pre_norm
        y = self.norm1(x) if before else x
        asked = y + steps
        x = x + self.self_attn(asked, asked, y, need_weights=False)[0]
        x = x if before else self.norm1(x)
        y = self.norm2(x) if before else x
        found = self.multihead_attn(y + steps, given + places, given, need_weights=False)[0]
        x = x + found
        x = x if before else self.norm2(x)
        y = self.norm3(x) if before else x
        x = x + self.linear2(_activated(self.config, self.linear1(y)))
        return x if before else self.norm3(x)


@final
class Stack(nn.Module):
    """Layers one after the other, with a norm at their end."""

    def __init__(self, layers: list[nn.Module], norm: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.norm = norm

    def forward(self, x: Tensor, *given: Tensor, **places: Tensor) -> Tensor:
        """[row, token, channel]."""
        for layer in self.layers:
            x = layer(x, *given, **places)
        return self.norm(x)


@final
class ACT(Network):
    """From what is seen now to a chunk of actions.

    Args:
        config: its hyperparameters.
        folder: what it reads and gives.
    """

    def __init__(self, config: Config, folder: PolicyFolder) -> None:
        super().__init__()
        width = config.dim_model
        self.config = config
        self.executed, self.ensemble = config.n_action_steps, config.temporal_ensemble_coeff
        self.views = {view.key: folder.streams[view.key] for view in folder.views}
        if self.views:
            dilated = bool(config.replace_final_stride_with_dilation)
            parts, channels = resnet(config.vision_backbone, norm=FrozenNorm, dilated=dilated)
            self.backbone = nn.ModuleDict(parts)
            self.encoder_img_feat_input_proj = nn.Conv2d(channels, width, 1)
            self.widths = {name: channels >> (3 - i) for i, name in enumerate(STAGES)}
        self.encoder = Stack(
            [Attending(config) for _ in range(config.n_encoder_layers)],
            nn.LayerNorm(width) if config.pre_norm else nn.Identity(),
        )
        self.decoder = Stack(
            [Deciding(config) for _ in range(config.n_decoder_layers)], nn.LayerNorm(width)
        )
        self.vectors: dict[str, str] = {}
        if STATE in folder.inputs:
            size = folder.inputs[STATE].shape[0]
            self.encoder_robot_state_input_proj = nn.Linear(size, width)
            self.vectors[STATE] = "encoder_robot_state_input_proj"
        if folder.environment is not None:
            self.encoder_env_state_input_proj = nn.Linear(folder.environment.shape[0], width)
            self.vectors[ENVIRONMENT] = "encoder_env_state_input_proj"
        self.encoder_latent_input_proj = nn.Linear(config.latent_dim, width)
        self.encoder_1d_feature_pos_embed = nn.Embedding(1 + len(self.vectors), width)
        self.decoder_pos_embed = nn.Embedding(config.chunk_size, width)
        self.action_head = nn.Linear(width, folder.action.shape[0])
        self.watched = nn.ModuleList([Watched([*STAGES, "image"]) for _ in self.views])
        for parameter in (*self.encoder.parameters(), *self.decoder.parameters()):
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(
        self,
        seen: Mapping[str, Tensor],
        past: Int[Tensor, "row history"],
        chance: Tensor | None,
    ) -> Float[Tensor, "row step action"]:
        """A chunk of actions; every row looks at the frame of the same number."""
        device = self.action_head.weight.device
        latent = torch.zeros(len(past), self.config.latent_dim, device=device)
        tokens = [self.encoder_latent_input_proj(latent)]
        tokens += [self.get_submodule(path)(seen[key]) for key, path in self.vectors.items()]
        x, places = torch.stack(tokens, 1), self.encoder_1d_feature_pos_embed.weight
        for key, watched in zip(self.views, self.watched, strict=True):
            image = watched(seen[key], self._stages)
            x = torch.cat([x, image.flatten(2).transpose(1, 2)], 1)
            places = torch.cat([places, _places(image)])
        given = self.encoder(x, places)
        start = torch.zeros(len(past), self.config.chunk_size, self.config.dim_model, device=device)
        steps = self.decoder_pos_embed.weight
        actions: Tensor = self.action_head(self.decoder(start, given, steps=steps, places=places))
        return actions

    def structure(self, *, calls: str) -> Structure:
        """Stages of the backbone, projections, blocks of the transformer, actions."""
        return listed(self._entries())

    def _entries(self) -> Iterator[tuple[LayerInfo, nn.Module]]:
        width = self.config.dim_model
        for camera, watched in zip(self.views.values(), self.watched, strict=True):
            label = camera.partition(":")[2] if len(self.views) > 1 else ""
            axes = dict.fromkeys([*STAGES, "image"], MAP)
            widths = {**self.widths, "image": width}
            yield from cast(Watched, watched).layers(label, widths, axes)
        names = {STATE: "state", ENVIRONMENT: "environment"}
        for key, path in self.vectors.items():
            info = LayerInfo(names[key], width, VECTOR, "projection of a vector")
            yield info, self.get_submodule(path)
        # Latent and vectors stand for no place in the picture.
        prefix = 1 + len(self.vectors) if self.views else 0
        for i, layer in enumerate(self.encoder.layers):
            yield LayerInfo(f"encoder{i}", width, TOKENS, "transformer", prefix=prefix), layer
        if self.config.pre_norm:
            info = LayerInfo("encoder.norm", width, TOKENS, "norm", prefix=prefix)
            yield info, self.encoder.norm
        for i, layer in enumerate(self.decoder.layers):
            yield LayerInfo(f"decoder{i}", width, TOKENS, "transformer, a token per step"), layer
        yield LayerInfo("decoder.norm", width, TOKENS, "norm"), self.decoder.norm
        head = self.action_head
        yield LayerInfo("action", head.out_features, TOKENS, "chunk of actions"), head

    def _stages(self, x: Tensor) -> Iterator[tuple[str, Tensor]]:
        for name, part in self.backbone.items():
            x = part(x)
            if name in STAGES:
                yield name, x
        yield "image", self.encoder_img_feat_input_proj(x)


def _places(image: Tensor) -> Tensor:
    """Sines and cosines of where each token of [row, channel, height, width] is, [token, channel].

    Rows and columns count from 1 and are scaled to 2 pi at the last one; half of the channels
    are for the row, half for the column, sine and cosine by turns.
    """
    channels, height, width = image.shape[1:]
    half = channels // 2
    powers = 2 * (torch.arange(half, device=image.device) // 2) / half
    scale = 10000**powers
    angles = []
    for size in (height, width):
        at = torch.arange(1, size + 1, device=image.device, dtype=torch.float32)
        at = at / (size + 1e-6) * 2 * math.pi
        wave = at[:, None] / scale
        angles.append(torch.stack([wave[:, 0::2].sin(), wave[:, 1::2].cos()], -1).flatten(1))
    rows = angles[0][:, None].expand(height, width, half)
    columns = angles[1][None].expand(height, width, half)
    return torch.cat([rows, columns], -1).flatten(0, 1)


def _activated(config: Config, x: Tensor) -> Tensor:
    return F.relu(x) if config.feedforward_activation == "relu" else F.gelu(x)

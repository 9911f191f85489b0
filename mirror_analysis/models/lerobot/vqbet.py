"""VQ-BeT, a behaviour transformer over quantised actions, under LeRobot's parameter names.

Lee et al., "Behavior Generation with Latent Actions", 2024. What only training takes (the encoder
of the action chunks and the running means of the code books) is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, final

import msgspec
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mirror_analysis.errors import FormatError
from mirror_analysis.models.checkpoint import Options
from mirror_analysis.models.lerobot.folder import STATE, PolicyFolder
from mirror_analysis.models.lerobot.gpt import GPT
from mirror_analysis.models.lerobot.network import TOKENS, VECTOR, Network, generator, listed
from mirror_analysis.models.lerobot.policy import LeRobotPolicy, load_policy
from mirror_analysis.models.lerobot.vision import PictureEncoder, encoder_axes, watched_encoder
from mirror_analysis.models.model import LayerInfo
from mirror_analysis.models.structure.discovery import Structure

Count = Annotated[int, msgspec.Meta(ge=1, le=1024)]
Width = Annotated[int, msgspec.Meta(ge=1, le=65536)]
Side = Annotated[int, msgspec.Meta(ge=1, le=8192)]

_BOOKS = 2  # code books of the residual quantiser, in every published policy
_TRAINING = re.compile(
    r"select_target_actions_indices|policy\.transformer\.h\.\d+\.attn\.bias"
    r"|action_head\.vqvae_model\.(discretized|encoder\..*|vq_layer\.freeze_codebook"
    r"|vq_layer\.layers\.\d+\._codebook\.(initted|cluster_size|embed_avg))"
)


class Config(msgspec.Struct, frozen=True):
    """The hyperparameters that decide what the policy computes, with LeRobot's defaults."""

    n_obs_steps: Annotated[int, msgspec.Meta(ge=1, le=64)] = 5
    n_action_pred_token: Count = 3
    action_chunk_size: Count = 5
    vision_backbone: str = "resnet18"
    crop_shape: tuple[Side, Side] | None = (84, 84)
    use_group_norm: bool = True
    spatial_softmax_num_keypoints: Count = 32
    vqvae_n_embed: Width = 16
    vqvae_embedding_dim: Width = 256
    vqvae_enc_hidden_dim: Width = 128
    gpt_block_size: Width = 500
    gpt_input_dim: Width = 512
    gpt_output_dim: Width = 512
    gpt_n_layer: Count = 8
    gpt_n_head: Count = 8
    gpt_hidden_dim: Width = 512
    bet_softmax_temperature: Annotated[float, msgspec.Meta(gt=0)] = 0.1
    sequentially_select: bool = False

    @property
    def tokens(self) -> int:
        """Picture, state and question of each frame, and questions about later moments."""
        return 3 * self.n_obs_steps + self.n_action_pred_token - 1


def load(folder: PolicyFolder, *, name: str, options: Options) -> LeRobotPolicy:
    """Loads a VQ-BeT policy.

    Args:
        folder: where it lies.
        name: what to call it.
        options: see the OPTIONS of the family.

    Raises:
        FormatError: if the folder is damaged, or lacks normalisation statistics.
        UnknownNameError: if codes are to be picked in a way there is none of.
    """
    config = folder.hyperparameters(Config)
    where = f"{folder.checkpoint.path}/config.json"
    if len(folder.views) != 1 or set(folder.inputs) != {STATE, folder.views[0].key}:
        raise FormatError(
            f"{where} has the input_features {', '.join(folder.inputs) or 'none'}; VQ-BeT needs"
            f" {STATE} and one picture, nothing else"
        )
    if config.gpt_hidden_dim % config.gpt_n_head or config.tokens > config.gpt_block_size:
        raise FormatError(
            f"{where} has {config.gpt_n_head} heads for a width of {config.gpt_hidden_dim}, and"
            f" {config.tokens} tokens for {config.gpt_block_size} places; needed whole heads and a"
            " place for every token"
        )
    codes = options.choice("codes", "sampled", ("sampled", "likeliest"))
    return load_policy(
        folder,
        lambda: VQBeT(config, folder, likeliest=codes == "likeliest"),
        name=name,
        options=options,
        prefix="vqbet",
        unused=_TRAINING,
        facts={"architecture": f"VQ-BeT with chunks of {config.action_chunk_size} actions"},
        settings={"codes": codes},
    )


@final
class Book(nn.Module):
    """A code book: the vectors that stand for kinds of action."""

    def __init__(self, codes: int, width: int) -> None:
        super().__init__()
        self._codebook = nn.Module()
        self._codebook.register_buffer(
            "embed", nn.init.kaiming_uniform_(torch.empty(1, codes, width))
        )

    def forward(self, picked: Int[Tensor, " row"]) -> Float[Tensor, "row channel"]:
        """The vectors of the codes."""
        return self._codebook.get_buffer("embed")[0][picked]


@final
class Quantised(nn.Module):
    """What is left of the quantiser when it acts: the code books and the decoder."""

    def __init__(self, config: Config, actions: int) -> None:
        super().__init__()
        hidden, width = config.vqvae_enc_hidden_dim, config.vqvae_embedding_dim
        self.vq_layer = nn.Module()
        self.vq_layer.layers = nn.ModuleList(
            [Book(config.vqvae_n_embed, width) for _ in range(_BOOKS)]
        )
        self.decoder = nn.Sequential(
            nn.Linear(width, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, actions * config.action_chunk_size),
        )

    def forward(self, picked: Int[Tensor, "row book"]) -> Float[Tensor, "row number"]:
        """The chunk of actions that the codes stand for."""
        books = self.vq_layer.get_submodule("layers").children()
        found: Tensor = self.decoder(sum(book(picked[:, i]) for i, book in enumerate(books)))
        return found


@final
class Head(nn.Module):
    """From a token to a chunk of actions: codes are picked, decoded and corrected."""

    def __init__(self, config: Config, actions: int, *, likeliest: bool) -> None:
        super().__init__()
        width, codes = config.gpt_output_dim, config.vqvae_n_embed
        self.config, self.likeliest = config, likeliest
        self.vqvae_model = Quantised(config, actions)
        if config.sequentially_select:
            self.map_to_cbet_preds_primary_bin = nn.Sequential(nn.Linear(width, codes))
            self.map_to_cbet_preds_secondary_bin = nn.Sequential(nn.Linear(width + codes, codes))
        else:
            self.map_to_cbet_preds_bin = nn.Sequential(nn.Linear(width, _BOOKS * codes))
        size = config.action_chunk_size * actions
        self.map_to_cbet_preds_offset = nn.Sequential(nn.Linear(width, _BOOKS * codes * size))
        self.codes, self.decoded = nn.Identity(), nn.Identity()

    def forward(
        self, x: Float[Tensor, "row channel"], chance: Tensor | None
    ) -> Float[Tensor, "row number"]:
        """A chunk of actions, one after the other."""
        codes = self.config.vqvae_n_embed
        if self.config.sequentially_select:
            first = self.map_to_cbet_preds_primary_bin(x)
            primary = self._pick(first, chance, 0)
            known = torch.nn.functional.one_hot(primary, codes).to(x.dtype)
            second = self.map_to_cbet_preds_secondary_bin(torch.cat([x, known], dim=1))
        else:
            first, second = self.map_to_cbet_preds_bin(x).chunk(_BOOKS, dim=1)
            primary = self._pick(first, chance, 0)
        self.codes(torch.cat([first, second], dim=1))
        picked = torch.stack([primary, self._pick(second, chance, 1)], dim=1)
        offsets = self.map_to_cbet_preds_offset(x).unflatten(1, (_BOOKS, codes, -1))
        index = picked[:, :, None, None].expand(-1, -1, 1, offsets.shape[-1])
        chosen = offsets.gather(2, index)[:, :, 0]
        found: Tensor = self.decoded(self.vqvae_model(picked)) + chosen.sum(1)
        return found

    def _pick(self, logits: Tensor, chance: Tensor | None, book: int) -> Tensor:
        """The code of each row: the likeliest, or the one a number in [0, 1) falls on."""
        if self.likeliest or chance is None:
            return logits.argmax(-1)
        share = (logits / self.config.bet_softmax_temperature).softmax(-1).cumsum(-1)
        at = chance[:, book, None].to(share) * share[:, -1:]
        return (share <= at).sum(-1).clamp(max=logits.shape[-1] - 1)


@final
class VQBeT(Network):
    """From what was seen in the last frames to a chunk of actions.

    Args:
        config: its hyperparameters.
        folder: what it reads and gives.
        likeliest: whether the likeliest codes are picked, not sampled ones.
    """

    def __init__(self, config: Config, folder: PolicyFolder, *, likeliest: bool) -> None:
        super().__init__()
        self.config = config
        self.history, self.executed = config.n_obs_steps, config.action_chunk_size
        self.view = folder.views[0].key
        self.actions = folder.action.shape[0]
        self.rgb_encoder = PictureEncoder(
            (folder.views[0].shape[1], folder.views[0].shape[2]),
            backbone=config.vision_backbone,
            grouped=config.use_group_norm,
            points=config.spatial_softmax_num_keypoints,
            resize=None,
            crop=config.crop_shape,
        )
        width = config.gpt_input_dim
        self.action_token = nn.Parameter(torch.randn(1, 1, width))
        self.state_projector = nn.Sequential(nn.Linear(folder.inputs[STATE].shape[0], width))
        self.rgb_feature_projector = nn.Sequential(nn.Linear(self.rgb_encoder.width, width))
        self.policy = GPT(
            width,
            config.gpt_output_dim,
            width=config.gpt_hidden_dim,
            heads=config.gpt_n_head,
            blocks=config.gpt_n_layer,
            longest=config.gpt_block_size,
        )
        self.action_head = Head(config, self.actions, likeliest=likeliest)
        self.watched = watched_encoder()
        self.action = nn.Identity()

    def forward(
        self,
        seen: Mapping[str, Tensor],
        past: Int[Tensor, "row history"],
        chance: Tensor | None,
    ) -> Float[Tensor, "row step action"]:
        """A chunk of actions from this moment on."""
        image = self.rgb_feature_projector(self.watched(seen[self.view], self.rgb_encoder.stages))
        state = self.state_projector(seen[STATE])
        question = self.action_token.expand(*past.shape, -1)
        tokens = torch.stack([image[past], state[past], question], dim=2).flatten(1, 2)
        later = self.action_token.expand(len(past), self.config.n_action_pred_token - 1, -1)
        found = self.policy(torch.cat([tokens, later], dim=1))
        # The answer to the question about the present frame is the only one that is acted on.
        chunk = self.action_head(found[:, 3 * self.history - 1], chance)
        planned: Tensor = self.action(chunk.unflatten(1, (-1, self.actions)))
        return planned

    def chance(self, seed: int) -> Tensor:
        """[book] numbers in [0, 1) that pick the codes."""
        return torch.rand(_BOOKS, generator=generator(seed))

    def structure(self, *, calls: str) -> Structure:
        """What is seen, blocks of the transformer, codes, decoded and corrected actions."""
        return listed(self._entries())

    def _entries(self) -> Iterator[tuple[LayerInfo, nn.Module]]:
        yield from self.watched.layers("", self.rgb_encoder.widths, encoder_axes())
        width, size = self.config.gpt_input_dim, self.config.action_chunk_size * self.actions
        yield LayerInfo("state", width, VECTOR, "projection of a vector"), self.state_projector
        width = self.config.gpt_hidden_dim
        for i, block in enumerate(self.policy.transformer.get_submodule("h").children()):
            yield LayerInfo(f"gpt{i}", width, TOKENS, "transformer"), block
        norm = self.policy.transformer["ln_f"]
        yield LayerInfo("gpt.norm", width, TOKENS, "norm"), norm
        outer, head = self.config.gpt_output_dim, self.action_head
        yield LayerInfo("gpt.output", outer, TOKENS, "projection"), self.policy.lm_head
        codes = _BOOKS * self.config.vqvae_n_embed
        yield LayerInfo("codes", codes, VECTOR, "logits of the action codes"), head.codes
        yield LayerInfo("decoded", size, VECTOR, "actions the codes stand for"), head.decoded
        yield LayerInfo("action", self.actions, TOKENS, "chunk of actions"), self.action

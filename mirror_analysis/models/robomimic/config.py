"""What the configuration inside a robomimic checkpoint says of its network."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, final

import msgspec

from mirror_analysis.errors import FormatError
from mirror_analysis.files.places import shown

Count = Annotated[int, msgspec.Meta(ge=1, le=4096)]
Width = Annotated[int, msgspec.Meta(ge=1, le=65536)]
Pixels = Annotated[int, msgspec.Meta(ge=1, le=8192)]
Spread = Literal["softplus", "exp"] | None

_KEY = re.compile(r"[A-Za-z]\w{0,99}")
# Random changes of pictures that do nothing outside of training.
_TRAINING = ("ColorRandomizer", "GaussianNoiseRandomizer")


class Recurrence(msgspec.Struct, frozen=True):
    """`algo.rnn`, with robomimic's defaults, as all of these."""

    enabled: bool = False
    horizon: Count = 10
    hidden_dim: Width = 400
    rnn_type: Literal["LSTM", "GRU"] = "LSTM"
    num_layers: Annotated[int, msgspec.Meta(ge=1, le=64)] = 2
    open_loop: bool = False
    kwargs: dict[str, Any] = msgspec.field(default_factory=dict)


class Gaussian(msgspec.Struct, frozen=True):
    """`algo.gaussian`."""

    enabled: bool = False
    fixed_std: bool = False
    init_std: float = 0.1
    min_std: float = 0.01
    std_activation: Spread = "softplus"
    low_noise_eval: bool = True


class Mixture(msgspec.Struct, frozen=True):
    """`algo.gmm`."""

    enabled: bool = False
    num_modes: Count = 5
    min_std: float = 0.0001
    std_activation: Spread = "softplus"
    low_noise_eval: bool = True


class Switch(msgspec.Struct, frozen=True):
    """A part of `algo` of which only matters whether it is on."""

    enabled: bool = False


class Algorithm(msgspec.Struct, frozen=True):
    """`algo` of behavioural cloning."""

    actor_layer_dims: Annotated[list[Width], msgspec.Meta(max_length=64)] = msgspec.field(
        default_factory=lambda: [1024, 1024]
    )
    gaussian: Gaussian = Gaussian()
    gmm: Mixture = Mixture()
    rnn: Recurrence = Recurrence()
    vae: Switch = Switch()
    transformer: Switch = Switch()


class _Backbone(msgspec.Struct, frozen=True):
    input_coord_conv: bool = False


class _Pool(msgspec.Struct, frozen=True):
    num_kp: Width | None = 32
    output_variance: bool = False


class _Core(msgspec.Struct, frozen=True):
    backbone_class: Literal["ResNet18Conv", "ShallowConv"] = "ResNet18Conv"
    pool_class: Literal["SpatialSoftmax", "SpatialMeanPool"] | None = "SpatialSoftmax"
    feature_dimension: Width | None = 64
    flatten: Literal[True] = True
    backbone_kwargs: _Backbone | None = None
    pool_kwargs: _Pool | None = None


class _Crop(msgspec.Struct, frozen=True):
    crop_height: Pixels = 76
    crop_width: Pixels = 76
    pos_enc: Literal[False] = False


class _Encoder(msgspec.Struct, frozen=True):
    core_class: str | None = None
    core_kwargs: dict[str, Any] | None = None
    obs_randomizer_class: str | list[str] | None = None
    obs_randomizer_kwargs: dict[str, Any] | list[dict[str, Any]] | None = None


class _Observation(msgspec.Struct, frozen=True):
    modalities: dict[str, dict[str, list[str]]]
    encoder: dict[str, Any] = msgspec.field(default_factory=dict)


class _Train(msgspec.Struct, frozen=True):
    action_keys: list[str] = msgspec.field(default_factory=lambda: ["actions"])


class _Config(msgspec.Struct, frozen=True):
    algo: Algorithm
    observation: _Observation
    train: _Train = _Train()


class _Shapes(msgspec.Struct, frozen=True):
    ac_dim: Width
    all_shapes: dict[str, tuple[Pixels, ...]]


@final
@dataclass(frozen=True)
class View:
    """How pictures of one camera are encoded.

    Attributes:
        shape: 3, height, width.
        crop: (height, width) cut from the centre; None for not.
        backbone: its class in robomimic.
        coordinates: whether its first convolution is told where each pixel is.
        pool: its class in robomimic; None for none.
        points: keypoints of a spatial softmax; None for one per channel.
        width: of the linear layer at the end; None for no such layer.
    """

    shape: tuple[int, ...]
    crop: tuple[int, int] | None
    backbone: Literal["ResNet18Conv", "ShallowConv"]
    coordinates: bool
    pool: Literal["SpatialSoftmax", "SpatialMeanPool"] | None
    points: int | None
    width: int | None


@final
@dataclass(frozen=True)
class Settings:
    """All that decides what a policy computes, besides its weights.

    Attributes:
        algorithm: what kind of policy it is, and its sizes.
        observed: key -> shape, in the order in which they are joined; pictures channels first.
        views: key -> how its pictures are encoded.
        actions: numbers in an action.
        action_keys: what an action is made of, in order.
    """

    algorithm: Algorithm
    observed: Mapping[str, tuple[int, ...]]
    views: Mapping[str, View]
    actions: int
    action_keys: tuple[str, ...]

    @property
    def architecture(self) -> str:
        """What it is, in words."""
        algo = self.algorithm
        head = "mixture" if algo.gmm.enabled else "Gaussian" if algo.gaussian.enabled else "plain"
        kind = f"{algo.rnn.rnn_type} of {algo.rnn.num_layers} x {algo.rnn.hidden_dim}"
        hidden = "-".join(map(str, algo.actor_layer_dims)) or "none"
        seen = f", {len(self.views)} cameras" if self.views else ""
        memory = f"{kind}, " if algo.rnn.enabled else ""
        return f"behavioural cloning, {memory}hidden layers {hidden}, {head} output{seen}"


def read_settings(checkpoint: Mapping[str, Any], path: Path) -> Settings:
    """Reads `config` and `shape_metadata` of a checkpoint.

    Args:
        checkpoint: what its file holds.
        path: where it is, for the words of an error.

    Raises:
        FormatError: if they are damaged, or describe a policy that is not read.
    """
    name = checkpoint.get("algo_name")
    if name != "bc":
        raise FormatError(
            f"{path} is a policy of robomimic's algorithm {shown(name)}; needed bc (behavioural"
            " cloning), the one that is read"
        )
    try:
        text = checkpoint["config"]
        raw = msgspec.json.decode(text if isinstance(text, str | bytes) else b"")
        _modernise(raw)
        config = msgspec.convert(raw, _Config)
        shapes = msgspec.convert(checkpoint["shape_metadata"], _Shapes)
    except (msgspec.MsgspecError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _damaged(path, error) from None
    _require_known(config.algo, path)
    groups = config.observation.modalities
    if any(keys for group in ("goal", "subgoal") for keys in groups.get(group, {}).values()):
        raise FormatError(
            f"{path} is a policy that is given a goal to reach; episodes have none, so give a"
            " policy without goals"
        )
    kinds = {key: kind for kind, keys in groups.get("obs", {}).items() for key in keys}
    observed = {key: shape for key, shape in shapes.all_shapes.items() if key in kinds}
    strange = [k for k in kinds if k not in observed or not _KEY.fullmatch(k)]
    if strange or not observed:
        raise _damaged(path, f"observations {', '.join(map(shown, strange))} of no shape or name")
    encoders = config.observation.encoder
    views = {}
    for key, shape in observed.items():
        kind = kinds[key]
        if kind not in ("low_dim", "rgb"):
            raise FormatError(
                f"{path} reads {key}, observations of the kind {shown(kind)}; needed vectors"
                " (low_dim) and pictures (rgb), which episodes have"
            )
        try:
            encoder = msgspec.convert(encoders.get(kind, {}), _Encoder)
            if kind == "rgb":
                views[key] = _view(shape, encoder)
            elif encoder.core_class is not None or len(shape) != 1:
                raise ValueError(f"{key} of shape {shape} through {encoder.core_class}")
        except (msgspec.MsgspecError, ValueError) as error:
            raise _damaged(path, error) from None
    actions = tuple(config.train.action_keys)
    return Settings(config.algo, observed, views, shapes.ac_dim, actions)


def _require_known(algo: Algorithm, path: Path) -> None:
    if algo.vae.enabled or algo.transformer.enabled:
        kind = "variational autoencoder" if algo.vae.enabled else "transformer"
        raise FormatError(
            f"{path} is a {kind} of robomimic; read are perceptrons and recurrent networks, plain"
            " or with a Gaussian or mixture output"
        )
    if algo.rnn.enabled and (algo.rnn.kwargs.get("bidirectional") or algo.gaussian.enabled):
        raise _damaged(path, "a recurrent network that is bidirectional or has a Gaussian output")
    if not algo.actor_layer_dims and not algo.rnn.enabled:
        raise _damaged(path, "neither hidden nor recurrent layers")


def _view(shape: tuple[int, ...], encoder: _Encoder) -> View:
    if len(shape) != 3 or shape[0] != 3:
        raise ValueError(f"pictures of shape {shape}")
    if encoder.core_class not in ("VisualCore", None):
        raise ValueError(f"pictures through {encoder.core_class}; needed VisualCore")
    core = msgspec.convert(encoder.core_kwargs or {}, _Core)
    backbone, pool = core.backbone_kwargs or _Backbone(), core.pool_kwargs or _Pool()
    if pool.output_variance:
        raise ValueError("a spatial softmax that gives variances, too")
    crop = _crop(encoder)
    if crop and (crop[0] > shape[1] or crop[1] > shape[2]):
        raise ValueError(f"a crop of {crop} from pictures of {shape[1:]}")
    return View(
        shape=shape,
        crop=crop,
        backbone=core.backbone_class,
        coordinates=backbone.input_coord_conv and core.backbone_class == "ResNet18Conv",
        pool=core.pool_class,
        points=pool.num_kp,
        width=core.feature_dimension,
    )


def _crop(encoder: _Encoder) -> tuple[int, int] | None:
    names, given = encoder.obs_randomizer_class, encoder.obs_randomizer_kwargs
    names = [names] if isinstance(names, str) else names or []
    given = [given or {}] * len(names) if not isinstance(given, list) else given
    crop = None
    for name, settings in zip(names, given, strict=True):
        if name == "CropRandomizer":
            found = msgspec.convert(settings, _Crop)
            crop = (found.crop_height, found.crop_width)
        elif name not in _TRAINING:
            raise ValueError(f"pictures changed by {shown(name)}")
    return crop


def _modernise(config: dict[str, Any]) -> None:
    """Says what robomimic 0.1 wrote as later versions write it."""
    observation = config["observation"]
    groups = [group for group in observation["modalities"].values() if "image" in group]
    for group in groups:
        group["rgb"] = group.pop("image")
    if not groups:
        return
    old = observation.get("encoder", {})
    softmax = old.get("spatial_softmax_kwargs", {})
    core: dict[str, Any] = {
        "backbone_kwargs": old.get("visual_core_kwargs", {}),
        # Without the word of a pool there was the default one, whatever was said.
        "pool_kwargs": {"num_kp": softmax["num_kp"]} if "num_kp" in softmax else {},
    }
    if "visual_feature_dimension" in old:
        core["feature_dimension"] = old["visual_feature_dimension"]
    if "visual_core" in old:
        core["backbone_class"] = old["visual_core"]
    names = ("obs_randomizer_class", "obs_randomizer_kwargs")
    encoder = {"core_class": "VisualCore", "core_kwargs": core}
    observation["encoder"] = {"rgb": encoder | {name: old.get(name) for name in names}}


def _damaged(path: Path, reason: object) -> FormatError:
    words = " ".join(str(reason).split())[:160]
    return FormatError(
        f"{path} does not describe a policy of robomimic that is read: {words}; fetch it anew, or"
        " give another one"
    )

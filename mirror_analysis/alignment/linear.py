"""A fitted pair of linear maps into one space, and nothing half made."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from mirror_analysis.errors import DefinitionError, FormatError, ShapeError, UnknownNameError
from mirror_analysis.features import Features
from mirror_analysis.files.safetensors import read_safetensors, write_safetensors


class AlignmentConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Settings of the contrastive fit.

    Attributes:
        width: dimensions of the shared space.
        temperature: tau of the loss, or where it starts when it is learned.
        learning_rate: of AdamW, at its peak.
        weight_decay: of AdamW; a learned temperature has none.
        batch: pairs per update; all of them when there are fewer.
        steps: updates at most.
        check_every: updates between two looks at the validation loss.
        patience: looks without improvement before stopping.
        learn_temperature: whether tau is fitted too, as its logarithm and never below 0.01
            (Radford et al. 2021).
        schedule: whether the learning rate stays, or falls to 0 over all steps as a half cosine.
        warmup: updates over which the learning rate first rises linearly.
        held_out: share of whole episodes to validate on, where no validation rows are given.
    """

    width: int = 1024
    temperature: float = 0.1
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    batch: int = 128
    steps: int = 300
    check_every: int = 20
    patience: int = 5
    learn_temperature: bool = False
    schedule: Literal["constant", "cosine"] = "constant"
    warmup: int = 0
    held_out: float = 0.2

    def __post_init__(self) -> None:
        if self.schedule not in ("constant", "cosine"):
            raise UnknownNameError("schedule", self.schedule, ("constant", "cosine"))
        if not 0 < self.held_out < 1:
            raise DefinitionError(
                f"alignment held_out is {self.held_out}; needed a share between 0 and 1"
            )
        for name in ("temperature", "learning_rate"):
            if not getattr(self, name) > 0:
                raise DefinitionError(
                    f"alignment {name} is {getattr(self, name)}; needed a number above 0"
                )
        # A pair alone in its batch has nothing to be told from.
        least = {"width": 1, "batch": 2, "steps": 1, "check_every": 1, "patience": 1}
        for name, low in (*least.items(), ("weight_decay", 0), ("warmup", 0)):
            if not getattr(self, name) >= low:
                raise DefinitionError(
                    f"alignment {name} is {getattr(self, name)}; needed {low} or more"
                )


class Curve(msgspec.Struct, frozen=True):
    """How a fit went: losses in nats at the updates where validation was looked at.

    Attributes:
        step: updates done.
        fit: loss on the last batch.
        validation: loss on all validation pairs; empty where the maps were trained along with
            the models.
        chosen: the update whose weights were kept.
        temperature: tau at those updates where it was learned; empty where it was not.
    """

    step: list[int]
    fit: list[float]
    validation: list[float]
    chosen: int
    temperature: list[float] = []


class Solved(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How maps that have a closed form were chosen.

    Attributes:
        method: such as "cca".
        temperature: tau with which the validation loss is least; the maps do not depend on it.
        strength: of the regularisation, as a share of the mean variance of a feature.
        dimensions: of the shared space.
        tried: strength, dimensions and validation loss in nats of everything that was tried.
    """

    method: str
    temperature: float
    strength: float
    dimensions: int
    tried: list[tuple[float, int, float]]


@dataclass(frozen=True, eq=False)
class LinearAlignment:
    """Two affine maps after which paired rows meet on the unit sphere.

    It exists only fitted: `align` and `align_closed_form` return it, `load` reads it.

    Attributes:
        x_weight: [x_feature, width]; x_bias: [width]. They take raw features: standardisation
            by the fit data is folded in.
        y_weight: [y_feature, width]; y_bias: [width].
        config: settings of the fit, or what was chosen where there is a closed form.
        curve: how the fit went; None for a closed form.
    """

    x_weight: Float[Tensor, "x_feature width"]
    x_bias: Float[Tensor, " width"]
    y_weight: Float[Tensor, "y_feature width"]
    y_bias: Float[Tensor, " width"]
    config: AlignmentConfig | Solved
    curve: Curve | None

    @property
    def method(self) -> str:
        """How the maps were found: "contrastive", or the closed form's name."""
        return self.config.method if isinstance(self.config, Solved) else "contrastive"

    @property
    def temperature(self) -> float:
        """The loss's tau, as learned where it was learned."""
        if self.curve is None or not self.curve.temperature:
            return self.config.temperature
        return self.curve.temperature[self.curve.step.index(self.curve.chosen)]

    def embed_x(self, x: NDArray[np.floating]) -> Float[Tensor, "sample width"]:
        """Unit vectors of [sample, x_feature]."""
        return _embed(x, self.x_weight, self.x_bias, "x")

    def embed_y(self, y: NDArray[np.floating]) -> Float[Tensor, "sample width"]:
        """Unit vectors of [sample, y_feature]."""
        return _embed(y, self.y_weight, self.y_bias, "y")

    def apply(self, features: Features, *, side: str) -> Features:
        """The features of one side in the shared space, with the rows they had.

        Args:
            features: of the layer the alignment was fitted on.
            side: "x" or "y": it is not guessed, since both maps may take equal widths.

        Raises:
            ShapeError: if they have another number of features.
            UnknownNameError: if the side is neither "x" nor "y".

        Example:
            >>> shared = aligned.apply(features["penultimate"], side="x")
        """
        if side not in ("x", "y"):
            raise UnknownNameError("side", side, ("x", "y"))
        embed = self.embed_x if side == "x" else self.embed_y
        settings = {**features.key.settings, "aligned": f"{self.method} {side} {self.digest[:16]}"}
        key = msgspec.structs.replace(features.key, settings=settings)
        return replace(features, key=key, values=embed(features.values).numpy())

    @property
    def digest(self) -> str:
        """sha256 of the maps, which tells two alignments apart."""
        found = hashlib.sha256()
        for name in _TENSORS:
            found.update(getattr(self, name).numpy().tobytes())
        return found.hexdigest()

    def similarity(self, x: NDArray[np.floating], y: NDArray[np.floating]) -> NDArray[np.float64]:
        """Cosines of every row of x with every row of y, [x_sample, y_sample] in [-1, 1]."""
        return (self.embed_x(x).double() @ self.embed_y(y).double().T).numpy()

    def save(self, path: Path) -> None:
        """Writes one safetensors file, whole or not at all."""
        tensors = {name: getattr(self, name) for name in _TENSORS}
        kind = "solved" if isinstance(self.config, Solved) else "config"
        settings = {"version": str(_VERSION), kind: msgspec.json.encode(self.config).decode()}
        if self.curve is not None:
            settings["curve"] = msgspec.json.encode(self.curve).decode()
        write_safetensors(path, tensors, settings)

    @staticmethod
    def load(path: Path) -> LinearAlignment:
        """Reads what `save` wrote, of this version or an earlier one.

        Raises:
            FormatError: if the file holds something else.
        """
        tensors, settings = read_safetensors(path)
        if set(tensors) != set(_TENSORS):
            raise FormatError(
                f"{path} is not an alignment: it holds {', '.join(sorted(tensors)) or 'nothing'};"
                f" needed {', '.join(_TENSORS)}"
            )
        version = settings.get("version", "1")  # the first files did not say
        if version not in {str(known) for known in range(1, _VERSION + 1)}:
            raise FormatError(
                f"{path} is an alignment of version {version}; this package reads up to"
                f" {_VERSION}, so install a newer one or fit it again"
            )
        widths = {tensor.shape[-1:] for tensor in tensors.values()}
        axes = [tensors[name].ndim for name in _TENSORS]
        config: AlignmentConfig | Solved
        curve = None
        try:
            if len(widths) != 1 or axes != [2, 1, 2, 1]:
                raise ValueError("its maps and biases do not fit each other")
            if "solved" in settings:
                config = msgspec.json.decode(settings["solved"], type=Solved)
            else:
                config = msgspec.json.decode(settings["config"], type=AlignmentConfig)
                curve = msgspec.json.decode(settings["curve"], type=Curve)
                if curve.temperature and curve.chosen not in curve.step:
                    raise ValueError("its curve lacks the chosen step")
        except (KeyError, ValueError) as error:
            raise FormatError(f"{path} is a damaged alignment ({error}); fit it again") from None
        return LinearAlignment(**tensors, config=config, curve=curve)


_VERSION = 2  # 1: without learned temperatures and closed forms
_TENSORS = ("x_weight", "x_bias", "y_weight", "y_bias")


def _embed(values: NDArray[np.floating], weight: Tensor, bias: Tensor, side: str) -> Tensor:
    if values.ndim != 2 or values.shape[1] != len(weight):
        raise ShapeError(
            f"{side} has shape {values.shape}; this alignment was fitted on"
            f" [sample, {len(weight)}], so give it the layer it was fitted on"
        )
    raw = torch.as_tensor(np.asarray(values, dtype=np.float32)) @ weight + bias
    return torch.nn.functional.normalize(raw, dim=-1)

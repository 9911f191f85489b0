"""A fitted pair of linear maps into one space, and nothing half made."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from mirror_analysis.errors import DefinitionError, FormatError, ShapeError
from mirror_analysis.files.safetensors import read_safetensors, write_safetensors


class AlignmentConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Settings of the contrastive fit.

    Attributes:
        width: dimensions of the shared space.
        temperature: tau of the loss.
        learning_rate: of AdamW.
        weight_decay: of AdamW.
        batch: pairs per update; all of them when there are fewer.
        steps: updates at most.
        check_every: updates between two looks at the validation loss.
        patience: looks without improvement before stopping.
    """

    width: int = 1024
    temperature: float = 0.1
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    batch: int = 128
    steps: int = 300
    check_every: int = 20
    patience: int = 5

    def __post_init__(self) -> None:
        for name in ("temperature", "learning_rate"):
            if not getattr(self, name) > 0:
                raise DefinitionError(
                    f"alignment {name} is {getattr(self, name)}; needed a number above 0"
                )
        # A pair alone in its batch has nothing to be told from.
        least = {"width": 1, "batch": 2, "steps": 1, "check_every": 1, "patience": 1}
        for name, low in (*least.items(), ("weight_decay", 0)):
            if not getattr(self, name) >= low:
                raise DefinitionError(
                    f"alignment {name} is {getattr(self, name)}; needed {low} or more"
                )


class Curve(msgspec.Struct, frozen=True):
    """How a fit went: losses in nats at the updates where validation was looked at.

    Attributes:
        step: updates done.
        fit: loss on the last batch.
        validation: loss on all validation pairs.
        chosen: the update whose weights were kept.
    """

    step: list[int]
    fit: list[float]
    validation: list[float]
    chosen: int


@dataclass(frozen=True, eq=False)
class LinearAlignment:
    """Two affine maps fitted so that paired rows meet on the unit sphere.

    It exists only fitted: `align` returns it, `load` reads it.

    Attributes:
        x_weight: [x_feature, width]; x_bias: [width]. They take raw features: standardisation
            by the fit data is folded in.
        y_weight: [y_feature, width]; y_bias: [width].
        config: settings of the fit.
        curve: how the fit went.
    """

    x_weight: Float[Tensor, "x_feature width"]
    x_bias: Float[Tensor, " width"]
    y_weight: Float[Tensor, "y_feature width"]
    y_bias: Float[Tensor, " width"]
    config: AlignmentConfig
    curve: Curve

    def embed_x(self, x: NDArray[np.floating]) -> Float[Tensor, "sample width"]:
        """Unit vectors of [sample, x_feature]."""
        return _embed(x, self.x_weight, self.x_bias, "x")

    def embed_y(self, y: NDArray[np.floating]) -> Float[Tensor, "sample width"]:
        """Unit vectors of [sample, y_feature]."""
        return _embed(y, self.y_weight, self.y_bias, "y")

    def similarity(self, x: NDArray[np.floating], y: NDArray[np.floating]) -> NDArray[np.float64]:
        """Cosines of every row of x with every row of y, [x_sample, y_sample] in [-1, 1]."""
        return (self.embed_x(x).double() @ self.embed_y(y).double().T).numpy()

    def save(self, path: Path) -> None:
        """Writes one safetensors file."""
        tensors = {name: getattr(self, name) for name in _TENSORS}
        settings = {
            "config": msgspec.json.encode(self.config).decode(),
            "curve": msgspec.json.encode(self.curve).decode(),
        }
        write_safetensors(path, tensors, settings)

    @staticmethod
    def load(path: Path) -> LinearAlignment:
        """Reads what `save` wrote.

        Raises:
            FormatError: if the file holds something else.
        """
        tensors, settings = read_safetensors(path)
        if set(tensors) != set(_TENSORS):
            raise FormatError(
                f"{path} is not an alignment: it holds {', '.join(sorted(tensors)) or 'nothing'};"
                f" needed {', '.join(_TENSORS)}"
            )
        widths = {tensor.shape[-1:] for tensor in tensors.values()}
        axes = [tensors[name].ndim for name in _TENSORS]
        try:
            if len(widths) != 1 or axes != [2, 1, 2, 1]:
                raise ValueError("its maps and biases do not fit each other")
            config = msgspec.json.decode(settings["config"], type=AlignmentConfig)
            curve = msgspec.json.decode(settings["curve"], type=Curve)
        except (KeyError, ValueError) as error:
            raise FormatError(f"{path} is a damaged alignment ({error}); fit it again") from None
        return LinearAlignment(**tensors, config=config, curve=curve)


_TENSORS = ("x_weight", "x_bias", "y_weight", "y_bias")


def _embed(values: NDArray[np.floating], weight: Tensor, bias: Tensor, side: str) -> Tensor:
    if values.ndim != 2 or values.shape[1] != len(weight):
        raise ShapeError(
            f"{side} has shape {values.shape}; this alignment was fitted on"
            f" [sample, {len(weight)}], so give it the layer it was fitted on"
        )
    raw = torch.as_tensor(np.asarray(values, dtype=np.float32)) @ weight + bias
    return torch.nn.functional.normalize(raw, dim=-1)

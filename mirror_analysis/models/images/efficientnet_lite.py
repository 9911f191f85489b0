"""EfficientNet-Lite as converted from TensorFlow (Liu, 2020), given to timm under its names."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from mirror_analysis.errors import FormatError
from mirror_analysis.models.images.transforms import Transforms
from mirror_analysis.models.weights.state_dicts import StateDict, mentions

# Of the whole network, and of one block by what stands in it: its own name -> timm's.
_WHOLE = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2",
          "_fc": "classifier"}  # fmt: skip
_WIDENING = {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw",
             "_bn1": "bn2", "_project_conv": "conv_pwl", "_bn2": "bn3"}  # fmt: skip
_PLAIN = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw",
          "_bn2": "bn2"}  # fmt: skip


@dataclass(frozen=True)
class _Size:
    """One of the five.

    Attributes:
        number: of its name.
        stages: blocks in each of the seven stages.
        last: channels before the head; with the blocks they tell the sizes apart.
        pixels: side of its pictures.
    """

    number: int
    stages: tuple[int, ...]
    last: int
    pixels: int


_SIZES = (
    _Size(0, (1, 2, 2, 3, 3, 4, 1), 320, 224),
    _Size(1, (1, 3, 3, 4, 4, 5, 1), 320, 240),
    _Size(2, (1, 3, 3, 4, 4, 5, 1), 352, 260),
    _Size(3, (1, 3, 3, 5, 5, 6, 1), 384, 280),
    _Size(4, (1, 4, 4, 6, 6, 8, 1), 448, 300),
)
_MARGIN = 32  # pixels of the resized picture that the crop leaves out
_BLOCK = re.compile(r"_blocks\.(\d{1,3})\.(\w+)\.(\w+)")


def is_lite(path: Path) -> bool:
    """Whether a file holds weights of EfficientNet-Lite under their names in TensorFlow's way."""
    telling = ("_conv_stem.weight", "_blocks.0._depthwise_conv.weight", "_fc.weight")
    return mentions(path, telling) and not mentions(path, ["_se_reduce"])


def as_timm(state: StateDict) -> tuple[str, StateDict, Transforms]:
    """The network of timm that computes the same, and its weights under timm's names.

    Args:
        state: with names such as "_blocks.0._depthwise_conv.weight".

    Returns:
        Name of the architecture, the weights, and how pictures are prepared for them.

    Raises:
        FormatError: if the blocks or a name are none of EfficientNet-Lite's.
    """
    found = [match for name in state.tensors if (match := _BLOCK.fullmatch(name))]
    blocks = {int(match[1]) for match in found}
    head = state.tensors.get("_conv_head.weight")
    last = head.shape[1] if head is not None and head.ndim == 4 else 0
    size = next((s for s in _SIZES if sum(s.stages) == len(blocks) and s.last == last), None)
    if size is None or blocks != set(range(len(blocks))):
        raise FormatError(
            f"{state.source} has {len(blocks)} blocks and {last} channels before the head; needed"
            f" those of EfficientNet-Lite0 to Lite{len(_SIZES) - 1}"
        )
    places = [f"blocks.{i}.{j}" for i, count in enumerate(size.stages) for j in range(count)]
    widening = {int(match[1]) for match in found if match[2] == "_expand_conv"}
    tensors = {_renamed(name, places, widening, state.source): tensor
               for name, tensor in state.tensors.items()}  # fmt: skip
    architecture = f"tf_efficientnet_lite{size.number}"
    told = f"{state.told}, under the names of {architecture} of timm"
    prepare = Transforms(
        shortest=size.pixels + _MARGIN,
        crop=(size.pixels,) * 2,
        filter="bicubic",
        scale=1.0,
        mean=(127.0,) * 3,
        std=(128.0,) * 3,
    )
    return architecture, replace(state, tensors=tensors, told=told), prepare


def _renamed(name: str, places: list[str], widening: set[int], source: str) -> str:
    if match := _BLOCK.fullmatch(name):
        number = int(match[1])
        inner = (_WIDENING if number in widening else _PLAIN).get(match[2])
        if inner:
            return f"{places[number]}.{inner}.{match[3]}"
    part, _, rest = name.partition(".")
    if part not in _WHOLE:
        raise FormatError(
            f"{source} has {name}, which EfficientNet-Lite does not have; give its own weights"
        )
    return f"{_WHOLE[part]}.{rest}"

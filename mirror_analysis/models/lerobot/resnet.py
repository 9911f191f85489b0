"""ResNet backbones under the parameter names of torchvision, without torchvision.

He et al., "Deep Residual Learning for Image Recognition", 2016; as in torchvision, the stride of a
bottleneck is in its 3 x 3 convolution.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import torch
from torch import Tensor, nn

from mirror_analysis.errors import FormatError, UnknownNameError

Norm = Callable[[int], nn.Module]

# Name -> blocks of each stage, and whether they are bottlenecks.
RESNETS = {
    "resnet18": ((2, 2, 2, 2), False),
    "resnet34": ((3, 4, 6, 3), False),
    "resnet50": ((3, 4, 6, 3), True),
    "resnet101": ((3, 4, 23, 3), True),
    "resnet152": ((3, 8, 36, 3), True),
}
_WIDTHS = (64, 128, 256, 512)


@final
class FrozenNorm(nn.Module):
    """Batch normalisation with fixed statistics; all four of its tensors are buffers."""

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        for name in ("weight", "running_var"):
            self.register_buffer(name, torch.ones(width))
        for name in ("bias", "running_mean"):
            self.register_buffer(name, torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """[row, channel, height, width], scaled and shifted."""
        scale = self.weight * (self.running_var + 1e-5).rsqrt()
        shift = self.bias - self.running_mean * scale
        return x * scale[:, None, None] + shift[:, None, None]


def group_norm(width: int) -> nn.Module:
    """Groups of 16 channels, which Diffusion Policy puts in the place of batch normalisation."""
    return nn.GroupNorm(width // 16, width)


@final
class Block(nn.Module):
    """A residual block: two 3 x 3 convolutions, or a bottleneck of three."""

    def __init__(
        self, inner: int, outer: int, *, width: int, stride: int, dilation: int, norm: Norm,
        bottleneck: bool,
    ) -> None:  # fmt: skip
        super().__init__()
        first = 1 if bottleneck else 3
        self.conv1 = _convolution(inner, width, first, stride=1 if bottleneck else stride)
        self.bn1 = norm(width)
        self.conv2 = _convolution(
            width, width, 3, stride=stride if bottleneck else 1, dilation=dilation
        )
        self.bn2 = norm(width)
        if bottleneck:
            self.conv3 = _convolution(width, outer, 1)
            self.bn3 = norm(outer)
        self.downsample: nn.Module | None = None
        if stride != 1 or inner != outer:
            self.downsample = nn.Sequential(
                _convolution(inner, outer, 1, stride=stride), norm(outer)
            )
        self.bottleneck = bottleneck

    def forward(self, x: Tensor) -> Tensor:
        """[row, channel, height, width]."""
        y = self.bn1(self.conv1(x)).relu()
        y = self.bn2(self.conv2(y))
        if self.bottleneck:
            y = self.bn3(self.conv3(y.relu()))
        return (y + (x if self.downsample is None else self.downsample(x))).relu()


def resnet(name: str, *, norm: Norm, dilated: bool = False) -> tuple[dict[str, nn.Module], int]:
    """The parts of a backbone, in forward order, drawn as torchvision draws them.

    Args:
        name: such as "resnet18".
        norm: channels -> normalisation.
        dilated: whether the last stage has a dilation in the place of its stride.

    Returns:
        conv1, bn1, relu, maxpool, layer1 to layer4; channels of the last.

    Raises:
        UnknownNameError: if there is no such backbone.
        FormatError: if a dilation is asked of one without bottlenecks.
    """
    if name not in RESNETS:
        raise UnknownNameError("backbone", name, RESNETS)
    counts, bottleneck = RESNETS[name]
    if dilated and not bottleneck:
        raise FormatError(
            f"{name} cannot have a dilation in the place of a stride; needed a ResNet with"
            " bottlenecks, such as resnet50"
        )
    parts: dict[str, nn.Module] = {
        "conv1": nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False),
        "bn1": norm(64),
        "relu": nn.ReLU(),
        "maxpool": nn.MaxPool2d(3, stride=2, padding=1),
    }
    inner = 64
    for stage, (count, width) in enumerate(zip(counts, _WIDTHS, strict=True)):
        outer = width * 4 if bottleneck else width
        hole = dilated and stage == 3
        blocks = []
        for i in range(count):
            stride = 2 if stage and not i and not hole else 1
            blocks.append(
                Block(
                    inner,
                    outer,
                    width=width,
                    stride=stride,
                    dilation=2 if hole and i else 1,
                    norm=norm,
                    bottleneck=bottleneck,
                )
            )
            inner = outer
        parts[f"layer{stage + 1}"] = nn.Sequential(*blocks)
    for part in parts.values():
        for module in part.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return parts, inner


def _convolution(
    inner: int, outer: int, kernel: int, *, stride: int = 1, dilation: int = 1
) -> nn.Conv2d:
    padding = dilation if kernel == 3 else 0
    return nn.Conv2d(
        inner, outer, kernel, stride=stride, padding=padding, dilation=dilation, bias=False
    )

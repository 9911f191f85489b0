import pytest
import torch
from torch import nn

from mirror_analysis.errors import FormatError, UnknownNameError
from mirror_analysis.models.lerobot.resnet import FrozenNorm, group_norm, resnet
from mirror_analysis.torchvision_shim import ensure_torchvision


@pytest.fixture(scope="module")
def torchvision():
    ensure_torchvision()
    return pytest.importorskip("torchvision", reason="the backbones to compare with")


def frozen(torchvision):
    from torchvision.ops.misc import FrozenBatchNorm2d

    return FrozenBatchNorm2d


@pytest.mark.parametrize(
    ("name", "norm", "dilated"),
    [("resnet18", "frozen", False), ("resnet34", "batch", False), ("resnet50", "frozen", True)],
)
def test_names_and_values_are_those_of_torchvision(name, norm, dilated, torchvision):
    other = getattr(torchvision.models, name)(
        weights=None,
        norm_layer=frozen(torchvision) if norm == "frozen" else None,
        replace_stride_with_dilation=[False, False, dilated],
    ).eval()
    parts, width = resnet(
        name, norm=FrozenNorm if norm == "frozen" else nn.BatchNorm2d, dilated=dilated
    )
    own = nn.ModuleDict(parts).eval()
    assert width == other.fc.in_features
    state = {n: t for n, t in other.state_dict().items() if not n.startswith("fc.")}
    g = torch.Generator().manual_seed(0)
    state = {n: t + 0.2 * torch.rand(t.shape, generator=g) if t.ndim == 1 else t
             for n, t in state.items()}  # fmt: skip
    other.load_state_dict(state, strict=False)
    own.load_state_dict(state)
    x = torch.rand(2, 3, 40, 50, generator=g)
    y = x
    with torch.inference_mode():
        for key, part in own.items():
            x, y = part(x), other.get_submodule(key)(y)
            assert torch.allclose(x, y, rtol=1e-5, atol=1e-5 * float(y.abs().max())), key


def test_weights_are_drawn_for_rectifiers():
    torch.manual_seed(0)
    parts, _ = resnet("resnet18", norm=group_norm)
    weight = parts["layer4"][1].conv2.weight
    assert float(weight.detach().std()) == pytest.approx((2 / (512 * 9)) ** 0.5, rel=0.02)
    assert parts["layer2"][0].bn1.num_groups == 8


def test_what_is_not_there_is_refused():
    with pytest.raises(UnknownNameError, match=r"unknown backbone 'resnet19'; did you mean"):
        resnet("resnet19", norm=FrozenNorm)
    with pytest.raises(FormatError, match="resnet18 cannot have a dilation"):
        resnet("resnet18", norm=FrozenNorm, dilated=True)

import re
from pathlib import Path

import pytest
import torch
from torch import nn

from mirror_analysis.errors import FormatError
from mirror_analysis.models.weights.fitting import fitted, require_shapes

PATH = Path("a.pth")
GOOD = {"weight": torch.ones(2, 3, dtype=torch.float16), "bias": torch.zeros(2)}


def build():
    return nn.Linear(3, 2)


def test_weights_are_put_in_as_float32_and_left_alone():
    network = fitted(
        build, GOOD | {"old.one": torch.ones(1)}, path=PATH, unused=re.compile("old.*")
    )
    assert network.weight.dtype == torch.float32 and (network.weight == 1).all()
    assert not network.training and not network.weight.requires_grad


def test_nothing_large_is_made_before_shapes_are_known():
    with pytest.raises(FormatError, match=r"lacks 'weight'"):
        fitted(lambda: nn.Linear(2**24, 2**24, bias=False), {}, path=PATH)


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({"weight": GOOD["weight"]}, "a.pth lacks 'bias'; needed the weights"),
        (GOOD | {"more": torch.ones(1)}, "has 'more' besides what its configuration"),
        (GOOD | {n: torch.ones(1) for n in "abcde"}, "'a', 'b', 'c' and 2 more tensors besides"),
        (GOOD | {"bias": torch.ones(3)}, r"has bias of shape \(3,\) where its configuration says"),
    ],
)
def test_other_weights_are_refused_in_words(tensors, words):
    with pytest.raises(FormatError, match=words):
        fitted(build, tensors, path=PATH)
    with pytest.raises(FormatError, match=words):
        require_shapes(build, {n: tuple(t.shape) for n, t in tensors.items()}, path=PATH)
